"""Networks: the paper's sizes, drawn from one seed, normalising their input, with the weights that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import THIN
from safetensors.torch import save_file
from torchvision.models import ResNet18_Weights, ResNet50_Weights

from classroom.errors import ParamsError, TrainingError
from classroom.networks.build import FEATURE_TAP, Network, build, check_encoder
from classroom.params import Network as NetworkSettings

FULL = {"encoder_options": {}, "decoder_channels": [256, 128, 64, 32, 16], "weights": "random"}
PAPERS_ENCODERS = {"resnet50": 32.5, "resnet18": 14.3, "tu-mobilenetv1_100": 8.3}
"""Encoder and millions of parameters of its U-Net (the paper: 33, 14 and 8)."""


def thin(**changes: Any) -> NetworkSettings:
    return NetworkSettings(**(THIN | changes))


def no_hub(*arguments: Any, **options: Any) -> None:
    raise ConnectionError("Name or service not known")


@pytest.fixture(scope="module")
def full_networks() -> dict[str, Network]:
    """The paper's three networks with random weights, built on a machine that reaches no hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", no_hub)
        return {name: build(NetworkSettings(encoder=name, **FULL), 0).eval() for name in PAPERS_ENCODERS}


@pytest.mark.parametrize(("encoder", "millions"), PAPERS_ENCODERS.items())
def test_the_papers_networks_have_the_papers_sizes(
    encoder: str, millions: float, full_networks: dict[str, Network]
) -> None:
    network = full_networks[encoder]
    assert network.parameter_count / 1e6 == pytest.approx(millions, abs=0.05)
    assert network.facts["parameters"] == sum(tensor.numel() for tensor in network.body.parameters())


@pytest.mark.parametrize("encoder", PAPERS_ENCODERS)
def test_features_of_teacher_and_students_can_be_compared(encoder: str, full_networks: dict[str, Network]) -> None:
    """256 x 16 x 16 at 256 x 256 pixels in every network (Sec. 4.2), so that no adapter is needed."""
    with torch.no_grad():
        output = full_networks[encoder](torch.rand(1, 3, 256, 256))
    assert output.logits.shape == (1, 1, 256, 256)
    assert {path: tuple(feature.shape) for path, feature in output.features.items()} == {
        "decoder.blocks.0": (1, 256, 16, 16)
    }


def statistics_of(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the encoder's ImageNet weights were trained with, from who trained them."""
    torchvisions = {"resnet18": ResNet18_Weights.IMAGENET1K_V1, "resnet50": ResNet50_Weights.IMAGENET1K_V1}
    if encoder in torchvisions:
        preset = torchvisions[encoder].transforms()
        return tuple(preset.mean), tuple(preset.std)
    configuration = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
    return configuration.mean, configuration.std


@pytest.mark.parametrize("encoder", PAPERS_ENCODERS)
def test_each_network_normalises_as_its_weights_expect(encoder: str, full_networks: dict[str, Network]) -> None:
    network = full_networks[encoder]
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in statistics_of(encoder))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).logits, network.body((images - mean) / std))
        assert not torch.allclose(network(images).logits, network.body(images))


def test_normalisation_is_per_channel() -> None:
    """Red, green and blue in the wrong order would go unnoticed in every shape."""

    class Body(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = torch.nn.Identity()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.decoder(images)

    network = Network(Body(), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125), taps=("decoder",))
    output = network(torch.tensor([0.6, 0.7, 0.8]).view(1, 3, 1, 1))
    assert output.logits.flatten().tolist() == pytest.approx([1.0, 2.0, 4.0])
    assert torch.equal(output.features["decoder"], output.logits)


def test_the_tapped_features_are_those_the_logits_come_from() -> None:
    network = build(thin(), 0).eval()
    images = torch.rand(2, 3, 32, 32)
    output = network(images)
    output.logits.sum().backward(inputs=[output.features[FEATURE_TAP]])
    assert output.features[FEATURE_TAP].shape == (2, 8, 2, 2)
    assert output.features[FEATURE_TAP].grad.abs().sum() > 0


def test_features_of_one_batch_do_not_outlive_it() -> None:
    """A network that kept them would hold the whole graph of the last batch in memory."""
    network = build(thin(), 0).eval()
    first = network(torch.rand(1, 3, 32, 32)).features[FEATURE_TAP]
    second = network(torch.rand(3, 3, 32, 32)).features[FEATURE_TAP]
    assert (len(first), len(second)) == (1, 3)
    assert not network._features


def states(network: Network) -> dict[str, torch.Tensor]:
    return network.state_dict()


def same(first: Network, second: Network) -> bool:
    ours, theirs = states(first), states(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_seed_and_nothing_else_decides_random_weights() -> None:
    torch.manual_seed(1)
    first = build(thin(), 7)
    torch.manual_seed(2)
    assert same(first, build(thin(), 7))
    assert not same(first, build(thin(), 8))


def test_building_leaves_the_random_state_as_it_was() -> None:
    """Otherwise a teacher beside the students would change what everything after it draws."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build(thin(), 0)
    assert torch.equal(torch.rand(3), expected)


def test_normalisation_is_not_among_the_saved_weights() -> None:
    """It belongs to the settings; saved files hold what was learnt."""
    assert all(key.startswith("body.") for key in states(build(thin(), 0)))


def test_facts_name_what_the_tables_print() -> None:
    network = build(thin(), 0)
    assert network.facts == THIN | {"parameters": network.parameter_count}


def test_a_tap_that_does_not_exist_is_named_with_the_nearest() -> None:
    body = build(thin(), 0).body
    with pytest.raises(ParamsError, match=r"tap 'decoder\.block\.0' does not exist.*'decoder\.blocks\.0'"):
        Network(body, (0.5,) * 3, (0.5,) * 3, taps=("decoder.block.0",))


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("resnet81", "resnet18"), ("tu-mobilenet_v1_100", "tu-mobilenetv1_100"), ("tu-rsnet18", "tu-resnet18")],
)
def test_an_unknown_encoder_is_named_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ParamsError, match=f"unknown encoder '{wrong}'. Did you mean '{near}'"):
        build(thin(encoder=wrong, encoder_options={}), 0)


def test_an_encoder_like_no_other_gets_advice_and_no_list_of_hundreds() -> None:
    with pytest.raises(ParamsError, match="Any encoder of segmentation-models-pytorch works") as caught:
        check_encoder("qqqqq")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("encoder", ["tu-resnet18", "resnet18"])
def test_an_option_that_the_encoder_does_not_take_is_named(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignored in silence, a misspelt option trains another network than the table then says."""
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", no_hub)
    with pytest.raises(ParamsError, match=f"'{encoder}' does not take encoder_options.*chanels"):
        build(thin(encoder=encoder, encoder_options={"chanels": [4, 4, 8, 8]}), 0)


def test_an_encoder_without_published_weights_can_be_trained_from_scratch() -> None:
    """The advice 'any of timm' includes architectures that nobody has published weights of."""
    name = "resnetblur18"
    assert timm.is_model(name)
    assert not timm.models.is_model_pretrained(name)
    options = {"channels": [4, 4, 8, 8]}
    network = build(thin(encoder=f"tu-{name}", encoder_options=options), 0).eval()
    assert network(torch.rand(1, 3, 32, 32)).logits.shape == (1, 1, 32, 32)


# Weights from a local file


@pytest.fixture
def donor() -> Network:
    """A network whose encoder's weights, batch statistics included, are like no fresh one's."""
    network = build(thin(), 99)
    with torch.no_grad():
        for index, tensor in enumerate(network.body.encoder.state_dict().values()):
            if tensor.is_floating_point():
                tensor.add_(0.01 * (index + 1))
    return network


def encoder_state(network: Network, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + key: value.contiguous() for key, value in network.body.encoder.state_dict().items()}


def assert_same_encoder(network: Network, donor: Network) -> None:
    for key, value in network.body.encoder.state_dict().items():
        assert torch.equal(value, donor.body.encoder.state_dict()[key]), key


@pytest.mark.parametrize("prefix", ["", "encoder.", "body.encoder."])
def test_a_local_file_gives_the_encoder_its_weights(prefix: str, donor: Network, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_file(encoder_state(donor, prefix), path)
    assert_same_encoder(build(thin(weights=str(path)), 0), donor)


def test_a_whole_networks_file_gives_its_encoder_alone(donor: Network, tmp_path: Path) -> None:
    """Pre-trained is the encoder; decoder and head must stay random, or two students would be one."""
    path = tmp_path / "network.safetensors"
    save_file({key: value.contiguous() for key, value in states(donor).items()}, path)
    network, fresh = build(thin(weights=str(path)), 0), build(thin(), 0)
    assert_same_encoder(network, donor)
    for part in ("decoder", "segmentation_head"):
        theirs = getattr(fresh.body, part).state_dict()
        for key, value in getattr(network.body, part).state_dict().items():
            assert torch.equal(value, theirs[key]), f"{part}.{key}"


def test_timms_own_files_fit(tmp_path: Path) -> None:
    """They have no prefix, and a classifier that a U-Net has no use for."""
    model = timm.create_model("resnet18", channels=(4, 4, 8, 8))
    path = tmp_path / "timm.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    encoder = build(thin(weights=str(path)), 0).body.encoder.model.state_dict()
    assert len(encoder) > 50
    for key, value in encoder.items():
        assert torch.equal(value, model.state_dict()[key]), key


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_tensor_of_another_shape_is_named(prefix: str, donor: Network, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(encoder_state(donor, prefix) | {f"{prefix}model.conv1.weight": torch.zeros(5, 3, 7, 7)}, path)
    with pytest.raises(
        TrainingError, match=r"other\.safetensors: 'model\.conv1\.weight'.*\(5, 3, 7, 7\).*\(64, 3, 7, 7\)"
    ):
        build(thin(weights=str(path)), 0)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_missing_tensor_is_named(prefix: str, donor: Network, tmp_path: Path) -> None:
    state = encoder_state(donor, prefix)
    del state[f"{prefix}model.layer2.0.conv1.weight"]
    path = tmp_path / "incomplete.safetensors"
    save_file(state, path)
    with pytest.raises(
        TrainingError, match=r"incomplete\.safetensors: .*lacks 1 of .*tensors, 'model\.layer2\.0\.conv1\.weight'"
    ):
        build(thin(weights=str(path)), 0)


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_truncated_file_is_named(kept: int, donor: Network, tmp_path: Path) -> None:
    """What an interrupted download leaves behind."""
    path = tmp_path / "half.safetensors"
    save_file(encoder_state(donor), path)
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


def test_two_networks_of_other_seeds_share_pretrained_encoders_only(donor: Network, tmp_path: Path) -> None:
    """The students' case: with the same random decoder too, mutual learning would train one student twice."""
    path = tmp_path / "encoder.safetensors"
    save_file(encoder_state(donor), path)
    first, second = (build(thin(weights=str(path)), seed) for seed in (1, 2))
    assert_same_encoder(first, second)
    for part in ("decoder.blocks.0.conv1.0.weight", "segmentation_head.0.weight"):
        assert not np.array_equal(states(first)[f"body.{part}"], states(second)[f"body.{part}"])
