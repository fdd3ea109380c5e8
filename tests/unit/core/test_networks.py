"""Networks: the paper's sizes, drawn from one seed, normalising their input, with the weights that were asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from classroom.core.networks import build as module
from classroom.core.networks.build import FEATURE_TAP, Network, check_encoder, feature_channels
from classroom.core.networks.weights import normalisation
from classroom.errors import ParamsError, TrainingError
from classroom.params import Network as NetworkSettings
from support.studies import THIN, THIN_CLASSIFIER, THIN_TEACHER

FULL = {"encoder_options": {}, "decoder_channels": [256, 128, 64, 32, 16], "weights": "random"}
PAPERS_ENCODERS = {"resnet50": 32.5, "resnet18": 14.3, "tu-mobilenetv1_100": 8.3}
"""Encoder and millions of parameters of its U-Net (the paper: 33, 14 and 8)."""


CLASSES = 7
"""More than the segmentations' one logit and not the two of the histopathologic study."""
TAP = FEATURE_TAP["segmentation"]


def build(settings: NetworkSettings, seed: int) -> Network:
    """A U-Net where there is a decoder, else a classifier."""
    return module.build(settings, "segmentation" if settings.decoder_channels else "classification", CLASSES, seed)


def thin(**changes: Any) -> NetworkSettings:
    return NetworkSettings(**(THIN | changes))


def thin_classifier(**changes: Any) -> NetworkSettings:
    return NetworkSettings(**(THIN_CLASSIFIER | changes))


def thin_teacher(**changes: Any) -> NetworkSettings:
    return NetworkSettings(**(THIN_TEACHER | changes))


BOTH = pytest.mark.parametrize("settings", [thin, thin_classifier, thin_teacher], ids=lambda kind: kind.__name__)


def no_hub(*arguments: Any, **options: Any) -> None:
    raise ConnectionError("Name or service not known")


def on_meta(settings: NetworkSettings) -> Network:
    """Built without its tensors, where a real network would take seconds and memory."""
    with torch.device("meta"):
        return build(settings, 0)


@pytest.mark.parametrize(("encoder", "millions"), PAPERS_ENCODERS.items())
def test_the_papers_networks_have_the_papers_sizes(
    encoder: str, millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And hand out 256×16×16 at 256×256 pixels each (Sec. 4.2), so that no adapter is needed; no hub is asked."""
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", no_hub)
    network = on_meta(NetworkSettings(encoder=encoder, **FULL))
    assert network.parameter_count / 1e6 == pytest.approx(millions, abs=0.05)
    assert network.facts["parameters"] == sum(tensor.numel() for tensor in network.body.parameters())
    assert network.shapes(256) == {"decoder.blocks.0": (256, 16, 16)}
    assert network(torch.rand(1, 3, 256, 256, device="meta")).logits.shape == (1, 1, 256, 256)


# Classifiers (Table 6)


def conv(before: int, after: int, side: int, groups: int = 1) -> int:
    """Parameters of a convolution without bias and the batch normalisation behind it."""
    return before // groups * after * side**2 + 2 * after


def resnet18() -> int:
    total, before = conv(3, 64, 7), 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            total += conv(before, width, 3) + conv(width, width, 3)
            total += conv(before, width, 1) if block == 0 and before != width else 0
            before = width
    return total


def resnet50() -> int:
    total, before = conv(3, 64, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            total += conv(before, width, 1) + conv(width, width, 3) + conv(width, 4 * width, 1)
            total += conv(before, 4 * width, 1) if block == 0 else 0
            before = 4 * width
    return total


def mobilenet() -> int:
    total, before = conv(3, 32, 3), 32
    for width in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024):
        total += conv(before, before, 3, groups=before) + conv(before, width, 1)
        before = width
    return total


CLASSIFIERS = {
    # encoder, width of Conv6, parameters of the encoder by hand, in millions, width of the last map
    "teacher of ResNet18": ("resnet50", 512, resnet50, 23.5, 512),
    "teacher of MobileNet": ("resnet50", 1024, resnet50, 23.5, 1024),
    "ResNet18": ("resnet18", None, resnet18, 11.2, 512),
    "MobileNet": ("mobilenetv1_100", None, mobilenet, 3.2, 1024),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_papers_classifiers_have_the_papers_sizes(name: str) -> None:
    """The encoder, Conv6 in the teachers, and one linear layer: nothing else, such as a second head of the encoder.

    Teacher and students hand out 512×7×7 or 1024×7×7 at 224×224 pixels (Table 6), and `classroom check` knows that
    width in a moment, before any job starts.
    """
    encoder, conv6, parameters, millions, width = CLASSIFIERS[name]
    assert parameters() / 1e6 == pytest.approx(millions, abs=0.05)
    extra = conv(2048, conv6, 1) if conv6 else 0
    settings = NetworkSettings(encoder=encoder, encoder_options={}, conv6_channels=conv6, weights="random")
    network = on_meta(settings)
    assert network.parameter_count == network.facts["parameters"] == parameters() + extra + (width + 1) * CLASSES
    assert network.body.classifier.in_features == width
    assert network.shapes(224) == {"conv6": (width, 7, 7)}
    assert feature_channels(settings.model_copy(update={"weights": "hub"}), "classification", 64) == width


def test_a_classifiers_shared_map_comes_after_the_relu() -> None:
    for settings in (thin_classifier, thin_teacher):
        output = unlike_any_fresh(build(settings(), 0)).eval()(torch.rand(2, 3, 64, 64))
        assert output.shared is output.features["conv6"]
        assert list(output.features) == ["conv6"]
        assert 0 <= output.shared.min() < output.shared.max()


@pytest.mark.parametrize(
    ("task", "encoder"),
    [
        *(("segmentation", encoder) for encoder in PAPERS_ENCODERS),
        *(("classification", encoder) for encoder in ("resnet50", "resnet18", "mobilenetv1_100")),
        ("classification", "resnet18.tv_in1k"),  # as the untagged default: what scale paper names
    ],
)
def test_each_network_normalises_as_its_weights_expect(task: str, encoder: str) -> None:
    """Mean and standard deviation are those of who trained the encoder's ImageNet weights."""
    published = statistics_of(encoder.removesuffix(".tv_in1k"))
    assert normalisation(NetworkSettings(encoder=encoder, encoder_options={}, weights="random"), task) == published


@pytest.mark.parametrize("settings", [thin_classifier, thin_teacher], ids=lambda kind: kind.__name__)
def test_logits_come_from_the_shared_map_alone(settings: Any) -> None:
    """Mean over the map and one linear layer: derived again by hand, in float64."""
    network = build(settings(), 0).eval()
    with torch.no_grad():
        output = network(torch.rand(3, 3, 64, 64))
    pooled = output.shared.double().flatten(2).sum(dim=2) / (2 * 2)
    head = network.body.classifier
    expected = pooled @ head.weight.double().T + head.bias.double()
    torch.testing.assert_close(output.logits.double(), expected, rtol=1e-5, atol=1e-6)


def test_conv6_stands_in_the_teachers_path_and_learns_from_its_task() -> None:
    """As a parallel branch, it would make a pre-trained teacher return features of an untrained layer."""
    network = build(thin_teacher(), 0).train()
    conv6 = network.body.conv6
    assert [type(layer).__name__ for layer in conv6] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert conv6[0].weight.shape == (8, 12, 1, 1)
    before = conv6[1].running_mean.clone()
    logits = network(torch.rand(4, 3, 64, 64)).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    for parameter in conv6.parameters():
        assert parameter.grad.abs().sum() > 0
    assert not torch.equal(conv6[1].running_mean, before)


def test_a_student_has_no_conv6() -> None:
    """It belongs to the teacher; a student with one would be another network than the table's."""
    assert not list(build(thin_classifier(), 0).body.conv6.parameters())


@BOTH
def test_the_shared_width_is_that_of_the_built_network(settings: Any) -> None:
    task = "segmentation" if settings is thin else "classification"
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    width = feature_channels(settings(weights="/nowhere"), task, 64)
    assert torch.equal(torch.rand(3), expected), "asking for a width changed what is drawn next"
    with torch.no_grad():
        assert build(settings(), 0).eval()(torch.rand(1, 3, 32, 32)).shared.shape[1] == width


def test_probabilities_are_of_every_class_or_of_the_lesion() -> None:
    """In float32 whatever the precision of the training, and as a softmax in float64 gives them."""
    images = torch.rand(2, 3, 32, 32)
    for settings in (thin, thin_classifier):
        network = build(settings(), 0).eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = network(images)
        exponentials = output.logits.double().exp()
        if settings is thin:
            expected = exponentials / (1 + exponentials)
        else:
            expected = exponentials / exponentials.sum(dim=1, keepdim=True)
        assert output.probabilities.dtype == torch.float32
        torch.testing.assert_close(output.probabilities.double(), expected, rtol=1e-5, atol=1e-7)


def statistics_of(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the encoder's ImageNet weights were trained with, from who trained them."""
    torchvisions = {"resnet18": ResNet18_Weights.IMAGENET1K_V1, "resnet50": ResNet50_Weights.IMAGENET1K_V1}
    if encoder in torchvisions:
        preset = torchvisions[encoder].transforms()
        return tuple(preset.mean), tuple(preset.std)
    configuration = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
    return configuration.mean, configuration.std


def test_normalisation_is_per_channel() -> None:
    """Red, green and blue in the wrong order would go unnoticed in every shape."""

    class Body(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = torch.nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.decoder(images)

    network = Network(Body(), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125), shared="decoder")
    output = network(torch.tensor([0.6, 0.7, 0.8]).view(1, 3, 1, 1))
    assert output.logits.flatten().tolist() == pytest.approx([1.0, 2.0, 4.0])
    assert torch.equal(output.features["decoder"], output.logits)
    assert output.shared is output.features["decoder"]


def test_the_tapped_features_are_those_the_logits_come_from() -> None:
    network = build(thin(), 0).eval()
    images = torch.rand(2, 3, 32, 32)
    output = network(images)
    output.logits.sum().backward(inputs=[output.features[TAP]])
    assert output.features[TAP].shape == (2, 8, 2, 2)
    assert output.features[TAP].grad.abs().sum() > 0


def test_features_of_one_batch_do_not_outlive_it() -> None:
    """A network that kept them would hold the whole graph of the last batch in memory."""
    network = build(thin(), 0).eval()
    first = network(torch.rand(1, 3, 32, 32)).features[TAP]
    second = network(torch.rand(3, 3, 32, 32)).features[TAP]
    assert (len(first), len(second)) == (1, 3)
    assert not network._features


@BOTH
def test_thin_networks_have_the_gradients_of_double_precision(settings: Any) -> None:
    """oneDNN, used in single precision alone, overruns a buffer in strided 1×1 convolutions of few channels: wrong
    numbers, or the end of this process."""
    network = build(settings(), 0)
    images = torch.rand(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    gradients = []
    for kind in (torch.float32, torch.float64):
        network = network.to(kind).eval()  # batch statistics of 2×2 maps would magnify rounding
        network.zero_grad()
        network(images.to(kind)).logits.square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", [64, 50])
def test_picking_pixels_first_changes_no_result(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of timm's own thin network: outputs, and gradients in double precision, which oneDNN leaves alone."""
    settings = thin_classifier()
    ours = build(settings, 0).double()
    monkeypatch.setattr(module, "_subsample_first", lambda body: None)
    timms = build(settings, 0).double()
    strides = [
        [m.stride for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (1, 1)]
        for network in (ours, timms)
    ]
    assert (2, 2) in strides[1]
    assert (2, 2) not in strides[0]
    images = torch.rand(2, 3, side, side, dtype=torch.float64)
    for network in (ours, timms):
        network(images).logits.square().sum().backward()
    torch.testing.assert_close(ours(images).logits, timms(images).logits)
    for own, other in zip(ours.parameters(), timms.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@BOTH
def test_a_pass_may_end_at_a_tap(settings: Any) -> None:
    """It gives what the whole pass gives there, and leaves nothing behind for the next."""
    task = "segmentation" if settings is thin else "classification"
    network = module.build(settings(), task, CLASSES, 0, taps=("layer1", "layer2", "layer3")).eval()
    images = torch.rand(2, 3, 64, 64)
    whole = network(images)
    part = network.features_until("layer2", images)
    assert {"layer1", "layer2"} <= part.keys()
    assert not {network.shared, "layer4"} & part.keys()
    assert all(torch.equal(part[tap], whole.features[tap]) for tap in part)
    assert not network._features
    again = network(images)
    assert torch.equal(again.logits, whole.logits)
    assert again.features.keys() == whole.features.keys()
    with pytest.raises(RuntimeError):
        network.features_until("layer2", torch.rand(2, 5, 64, 64))
    assert torch.equal(network(images).logits, whole.logits), "an error on the way leaves nothing behind either"


def same(first: Network, second: Network) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@BOTH
def test_the_seed_and_nothing_else_decides_random_weights(settings: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build(settings(), 7)
    assert torch.equal(torch.rand(3), expected), "what is drawn next depends on what was built"
    assert same(first, build(settings(), 7))
    other = build(settings(), 8)
    assert all(key.startswith("body.") for key in first.state_dict()), "normalisation belongs to the settings"
    head = "segmentation_head.0" if settings is thin else "classifier"
    for part in (head, *(["conv6.0"] if settings is thin_teacher else [])):
        assert not torch.equal(first.state_dict()[f"body.{part}.weight"], other.state_dict()[f"body.{part}.weight"]), (
            part
        )


def test_facts_name_what_the_tables_print() -> None:
    network = build(thin(), 0)
    normalised = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}  # ImageNet's
    about = {"task": "segmentation", "parameters": network.parameter_count, "normalisation": normalised}
    assert network.facts == THIN | about
    teacher = build(thin_teacher(), 0)
    about |= {"task": "classification", "parameters": teacher.parameter_count}
    assert teacher.facts == THIN_TEACHER | about


def test_a_tap_that_does_not_exist_is_named_with_the_nearest() -> None:
    body = build(thin(), 0).body
    with pytest.raises(ParamsError, match=r"tap 'decoder\.block\.0' does not exist.*'decoder\.blocks\.0'"):
        Network(body, (0.5,) * 3, (0.5,) * 3, shared="decoder.block.0")
    with pytest.raises(ParamsError, match=r"tap 'encoder\.model\.layer9' does not exist.*'encoder\.model\.layer\d'"):
        Network(body, (0.5,) * 3, (0.5,) * 3, shared=TAP, taps=("encoder.model.layer9",))


@pytest.mark.parametrize(
    ("kind", "wrong", "near"),
    [
        (thin, "resnet81", "'resnet18'"),  # of segmentation-models-pytorch
        (thin, "tu-mobilenet_v1_100", "'tu-mobilenetv1_100'"),
        (thin_classifier, "resnet-50", "'resnet50'.*Any convolutional network of timm works"),
    ],
)
def test_an_unknown_encoder_is_named_with_the_nearest(kind: Any, wrong: str, near: str) -> None:
    with pytest.raises(ParamsError, match=f"unknown encoder '{wrong}'. Did you mean {near}"):
        build(kind(encoder=wrong, encoder_options={}), 0)


def test_an_encoder_like_no_other_gets_advice_and_no_list_of_hundreds() -> None:
    with pytest.raises(ParamsError, match="Any encoder of segmentation-models-pytorch works") as caught:
        check_encoder("qqqqq", "segmentation")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("encoder", ["tu-resnet18", "resnet18"])
def test_an_option_that_the_encoder_does_not_take_is_named(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignored in silence, a misspelt option trains another network than the table then says."""
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", no_hub)
    what = r"takes no 'chanels'\. Did you mean 'channels'\?" if encoder != "resnet18" else r"takes none \(chanels\)"
    with pytest.raises(ParamsError, match=rf"^encoder_options: encoder '{encoder}' {what}"):
        build(thin(encoder=encoder, encoder_options={"chanels": [4, 4, 8, 8]}), 0)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            {"chanels": [4, 4, 8, 8]},
            r"^encoder_options: encoder 'resnet18' takes no 'chanels'\. Did you mean 'channels'\?$",
        ),
        ({"wings": 2}, r"takes no 'wings'\. Known: block, layers, .*drop_rate"),
        ({"num_classes": 3}, r"takes no 'num_classes'\."),  # the study decides it
        ({"channels": "wide"}, r"encoder 'resnet18' with encoder_options {'channels': 'wide'} cannot be built for cl"),
    ],
)
def test_an_option_that_a_classifier_does_not_take_is_named(option: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        build(thin_classifier(encoder_options=option), 0)


def test_an_option_of_the_u_net_is_none_of_its_encoder() -> None:
    """An activation, say, would be applied twice, and no table would say so."""
    with pytest.raises(
        ParamsError, match=r"^encoder_options: activation, encoder_depth: of the U-Net, not of encoder 'tu-"
    ):
        build(thin(encoder_options={"encoder_depth": 5, "activation": "sigmoid"}), 0)


def test_an_encoder_without_published_weights_can_be_trained_from_scratch() -> None:
    """The advice 'any of timm' includes architectures that nobody has published weights of."""
    name = "resnetblur18"
    assert timm.is_model(name)
    assert not timm.models.is_model_pretrained(name)
    options = {"channels": [4, 4, 8, 8]}
    network = build(thin(encoder=f"tu-{name}", encoder_options=options), 0).eval()
    assert network(torch.rand(1, 3, 32, 32)).logits.shape == (1, 1, 32, 32)


# Weights from a local file


def unlike_any_fresh(network: Network) -> Network:
    """Batch statistics included."""
    with torch.no_grad():
        for index, tensor in enumerate(network.state_dict().values()):
            if tensor.is_floating_point():
                tensor.add_(0.01 * (index + 1))
    return network


@pytest.fixture(scope="module")
def donor() -> Network:
    """A U-Net with weights of its own; read only."""
    return unlike_any_fresh(build(thin(), 99))


@pytest.fixture(scope="module")
def classifying_donor() -> Network:
    """A teacher with Conv6, and weights of its own; read only."""
    return unlike_any_fresh(build(thin_teacher(), 99))


def saved(state: dict[str, torch.Tensor], path: Path, prefix: str = "") -> Path:
    save_file({prefix + key: value.contiguous() for key, value in state.items()}, path)
    return path


def assert_same_encoder(network: Network, donor: Network) -> None:
    for key, value in network.body.encoder.state_dict().items():
        assert torch.equal(value, donor.body.encoder.state_dict()[key]), key


def assert_same_parts(network: Network, fresh: Network, *parts: str) -> None:
    for part in parts:
        theirs = getattr(fresh.body, part).state_dict()
        for key, value in getattr(network.body, part).state_dict().items():
            assert torch.equal(value, theirs[key]), f"{part}.{key}"


def test_a_local_file_gives_the_encoder_its_weights(classifying_donor: Network, tmp_path: Path) -> None:
    """Of a bare encoder, of a network, of a run's teacher or of its student."""
    state = classifying_donor.body.encoder.state_dict()
    for prefix in ("", "encoder.", "body.encoder.", "T.body.encoder.", "S1.body.encoder."):
        path = saved(state, tmp_path / "encoder.safetensors", prefix)
        assert_same_encoder(build(thin_teacher(weights=str(path)), 0), classifying_donor)


def test_a_whole_networks_file_gives_its_encoder_alone(
    donor: Network, classifying_donor: Network, tmp_path: Path
) -> None:
    """The rest must stay random, or two students would be one, and of another study's classes."""
    path = saved(donor.state_dict(), tmp_path / "network.safetensors")
    network = build(thin(weights=str(path)), 0)
    assert_same_encoder(network, donor)
    assert_same_parts(network, build(thin(), 0), "decoder", "segmentation_head")

    path = saved(classifying_donor.state_dict(), tmp_path / "classifier.safetensors", "T.")
    network = build(thin_teacher(weights=str(path)), 0)
    assert_same_encoder(network, classifying_donor)
    assert_same_parts(network, build(thin_teacher(), 0), "conv6", "classifier")


@pytest.mark.parametrize(("settings", "inside"), [(thin_teacher, ""), (thin, "model.")])
def test_timms_own_files_fit(settings: Any, inside: str, tmp_path: Path) -> None:
    """What `timm.create_model(..., pretrained=True)` saves: its own classifier is left out, nothing else is."""
    channels = settings().encoder_options["channels"]
    theirs = timm.create_model("resnet18", channels=channels, num_classes=1000).state_dict()
    path = saved(theirs, tmp_path / "timm.safetensors")
    encoder = build(settings(weights=str(path)), 0).body.encoder.state_dict()
    assert encoder.keys() == {inside + key for key in theirs if not key.startswith("fc.")}
    for key, value in encoder.items():
        assert torch.equal(value, theirs[key.removeprefix(inside)]), key


@pytest.mark.parametrize(("settings", "inside"), [(thin_teacher, ""), (thin, "model.")])
def test_a_file_of_another_network_is_named_with_the_tensor_that_does_not_fit(
    settings: Any, inside: str, donor: Network, classifying_donor: Network, tmp_path: Path
) -> None:
    state = (donor if settings is thin else classifying_donor).body.encoder.state_dict()
    path = saved(state | {f"{inside}conv1.weight": torch.zeros(5, 3, 7, 7)}, tmp_path / "other.safetensors", "encoder.")
    message = r"other\.safetensors: '.*conv1\.weight' has shape \(5, 3, 7, 7\).*resnet18' needs \(64, 3, 7, 7\)"
    with pytest.raises(TrainingError, match=message):
        build(settings(weights=str(path)), 0)
    del state[f"{inside}layer2.0.conv1.weight"]
    path = saved(state, tmp_path / "incomplete.safetensors")
    message = rf"incomplete\.safetensors: .*lacks 1 of .*tensors, '{inside}layer2\.0\.conv1\.weight'"
    with pytest.raises(TrainingError, match=message):
        build(settings(weights=str(path)), 0)


def test_a_file_of_a_network_that_diverged_is_named(donor: Network, tmp_path: Path) -> None:
    """Batch statistics too: the training's first loss would be NaN, and its learning rate be blamed."""
    state = donor.body.encoder.state_dict()
    for value in (math.nan, math.inf):
        spoilt = {"model.layer1.0.bn1.running_var": torch.full((4,), value)}
        path = saved(state | spoilt, tmp_path / "nan.safetensors")
        with pytest.raises(TrainingError, match=r"nan\.safetensors: 1 of .*'model\.layer1\.0\.bn1\.running_var' first"):
            build(thin(weights=str(path)), 0)


def test_a_truncated_file_is_named(donor: Network, tmp_path: Path) -> None:
    """What an interrupted download leaves behind."""
    path = saved(donor.body.encoder.state_dict(), tmp_path / "half.safetensors")
    for kept in (1000, 0):
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(TrainingError, match=r"half\.safetensors: cannot be read.*'tu-resnet18'"):
            build(thin(weights=str(path)), 0)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"absent\.safetensors: cannot be read.*'hub' or to 'random'"):
        build(thin(weights=str(tmp_path / "absent.safetensors")), 0)


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be read as safetensors"):
        build(thin(weights=str(tmp_path)), 0)


# Weights from the hub


def test_without_a_network_hub_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_encoder", no_hub)
    with pytest.raises(
        TrainingError, match=r"'hub' of encoder 'tu-resnet18'.*Name or service not known.*local \.safetensors.*'random'"
    ):
        build(thin(weights="hub"), 0)


def test_hub_weights_end_up_in_the_encoder(monkeypatch: pytest.MonkeyPatch, donor: Network) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def hub(name: str, weights: str, **options: Any) -> torch.nn.Module:
        asked.append((name, options))
        return donor.body.encoder

    monkeypatch.setattr("segmentation_models_pytorch.encoders.get_encoder", hub)
    network = build(thin(weights="hub"), 0)
    assert asked == [("tu-resnet18", THIN["encoder_options"])]
    assert_same_encoder(network, donor)


def test_without_a_network_a_classifiers_hub_weights_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, **options: no_hub() if pretrained else healthy(name, **options)
    )
    with pytest.raises(
        TrainingError, match=r"'hub' of encoder 'resnet18'.*Name or service not known.*local \.safetensors.*'random'"
    ):
        build(thin_classifier(weights="hub"), 0)


def test_hub_weights_end_up_in_a_classifiers_encoder(
    monkeypatch: pytest.MonkeyPatch, classifying_donor: Network
) -> None:
    healthy, asked = timm.create_model, []

    def hub(name: str, pretrained: bool, **options: Any) -> torch.nn.Module:
        if not pretrained:
            return healthy(name, pretrained=False, **options)
        asked.append((name, options["channels"]))
        return classifying_donor.body.encoder

    monkeypatch.setattr(timm, "create_model", hub)
    network = build(thin_teacher(weights="hub"), 0)
    assert asked == [("resnet18", THIN_TEACHER["encoder_options"]["channels"])]
    assert_same_encoder(network, classifying_donor)
    assert not torch.equal(network.body.conv6[0].weight, classifying_donor.body.conv6[0].weight)


@pytest.mark.parametrize(
    ("encoder", "options", "size", "message"),
    [
        ("vit_tiny_patch16_224", {"depth": 1}, 64, "cannot take 64×64 images"),
        ("vit_tiny_patch16_224", {"depth": 1}, 224, "Expected a map of channels × height × width"),
        ("swin_tiny_patch4_window7_224", {"depths": [1] * 4}, 224, "Expected a map of channels × height × width"),
    ],
)
def test_an_encoder_without_a_map_of_channels_is_refused_before_training(
    encoder: str, options: dict[str, Any], size: int, message: str
) -> None:
    """A transformer's tokens cannot be shared as a feature map; without this it fails in the first step."""
    with pytest.raises(ParamsError, match=message):
        feature_channels(thin_classifier(encoder=encoder, encoder_options=options), "classification", size)
