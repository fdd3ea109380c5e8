"""CKA: the definition, what it is blind to, batches, hooks; trained networks read back; figures and their table."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from safetensors.torch import load_file, save_file
from torch import nn

from classroom import params
from classroom.analysis import similarities as files
from classroom.analysis.cka import centred_gram, layers_of, shuffled, similarities
from classroom.analysis.similarities import last_stages
from classroom.core.batches import SplitData, open_splits
from classroom.core.networks.build import Network, build
from classroom.core.networks.taps import STRIDES
from classroom.errors import DataError, TrainingError
from classroom.params import Network as NetworkSettings
from classroom.reporting import cka_figure as cka_figure_module
from classroom.reporting.cka_figure import cka_figure
from classroom.reporting.cka_table import cka_table
from classroom.reporting.common.tables import TECHNIQUE_LABELS
from classroom.restore import restore
from classroom.training.make import make
from support.fabricated import HISTOPATHOLOGIC, LGG, metrics_of
from support.rendered import check_sources, markdown_rows, one, page_of, save
from support.studies import CLASSES_STUDY, ROOT, STUDY, shrink

CLASSES, SIDE = 7, 32


# The definition, literally


def hsic(first: np.ndarray, second: np.ndarray) -> float:
    """HSIC_1 of two Gram matrices (Song et al. 2012, Eq. 5), element by element."""
    n = len(first)
    k = [[0.0 if i == j else float(first[i, j]) for j in range(n)] for i in range(n)]
    other = [[0.0 if i == j else float(second[i, j]) for j in range(n)] for i in range(n)]
    trace = sum(k[i][j] * other[j][i] for i in range(n) for j in range(n))
    totals = sum(map(sum, k)) * sum(map(sum, other))
    through = sum(k[i][j] * other[j][m] for i in range(n) for j in range(n) for m in range(n))
    return (trace + totals / ((n - 1) * (n - 2)) - 2 * through / (n - 2)) / (n * (n - 3))


def literal_cka(batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Of two layers' features by batch: numerators and denominators summed, each batch by its images."""
    sums = dict.fromkeys(("ab", "aa", "bb"), 0.0)
    for a, b in batches:
        grams = {"a": a @ a.T, "b": b @ b.T}
        for pair in sums:
            sums[pair] += len(a) * hsic(grams[pair[0]], grams[pair[1]])
    return sums["ab"] / math.sqrt(sums["aa"] * sums["bb"])


# Networks of one linear layer, in float64, so that what a layer says is known


class Linear(nn.Module):
    def __init__(self, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__()
        out, into = weight.shape
        self.encoder = nn.Linear(into, out)
        self.encoder.weight.data = torch.from_numpy(weight.copy())
        self.encoder.bias.data = torch.from_numpy(np.zeros(out) if bias is None else bias.copy())
        self.classifier = nn.Linear(out, 2).double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(images.flatten(1)))


def network(body: nn.Module) -> Network:
    return Network(body, [0.0] * 3, [1.0] * 3, shared="classifier").to(next(body.parameters()).dtype)


def linear(weight: np.ndarray, bias: np.ndarray | None = None) -> Network:
    return network(Linear(weight, bias))


ENCODERS = {"A": ["encoder"], "B": ["encoder"]}


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, 2, 2)))


def compared(first: np.ndarray, second: np.ndarray, *batches: torch.Tensor, bias: np.ndarray | None = None) -> float:
    """CKA of what two matrices make of the images (12 numbers each)."""
    table = similarities({"A": linear(first), "B": linear(second, bias)}, batches, ENCODERS)
    return float(table.cka.item())


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_a_centred_gram_matrix_holds_the_unbiased_hsic() -> None:
    for count in (4, 5, 9):
        a, b = drawn(0, count, 3, 2, 2), drawn(1, count, 5) + 3
        grams = [features.reshape(count, -1) @ features.reshape(count, -1).T for features in (a, b)]
        centred = [centred_gram(torch.from_numpy(features)) for features in (a, b)]
        for i, j in itertools.product(range(2), repeat=2):
            found = (centred[i] * centred[j]).sum().item() / (count * (count - 3))
            assert found == pytest.approx(hsic(grams[i], grams[j]), rel=1e-9)


def test_features_that_do_not_fit_at_once_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.from_numpy(drawn(2, 6, 50))
    whole = centred_gram(features)
    monkeypatch.setattr("classroom.analysis.cka.CHUNK_FEATURES", 7)
    torch.testing.assert_close(centred_gram(features), whole, rtol=1e-10, atol=1e-10)


def test_one_batch_gives_the_definition_of_the_whole() -> None:
    x, first, second = images(20), drawn(1, 5, 12), drawn(2, 8, 12)
    flat = x.flatten(1).numpy()
    assert compared(first, second, x) == pytest.approx(literal_cka([(flat @ first.T, flat @ second.T)]), abs=1e-10)


def test_numerators_and_denominators_are_summed_over_batches_of_any_size() -> None:
    """A mean of each batch's own CKA is something else, and clearly so."""
    sizes, first, second = (4, 9, 6), drawn(1, 5, 12), drawn(2, 3, 12)
    batches = [images(size, seed) for seed, size in enumerate(sizes)]
    parts = [(x.flatten(1).numpy() @ first.T, x.flatten(1).numpy() @ second.T) for x in batches]
    found = compared(first, second, *batches)
    assert found == pytest.approx(literal_cka(parts), abs=1e-10)
    assert abs(found - np.mean([literal_cka([part]) for part in parts])) > 0.01


# What it is blind to, and what not


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_rotations_reflections_scales_and_shifts_change_nothing(seed: int, scale: float) -> None:
    first, second, x = drawn(seed, 4, 12), drawn(seed + 1, 6, 12), images(10, seed)
    rotation, _ = np.linalg.qr(drawn(seed + 2, 6, 6))
    turned = compared(first, scale * rotation @ second, x, bias=drawn(seed + 3, 6))
    assert turned == pytest.approx(compared(first, second, x), abs=1e-7)


@given(st.integers(0, 10**6))
def test_a_layer_is_exactly_like_itself(seed: int) -> None:
    weight = drawn(seed, 5, 12)
    assert compared(weight, weight, images(6, seed), images(7, seed + 1)) == pytest.approx(1, abs=1e-12)


def test_a_general_linear_map_changes_it() -> None:
    """CCA would not notice: the map is invertible."""
    weight = drawn(0, 5, 12)
    stretched = np.diag([10.0, 1, 1, 1, 1]) @ weight
    assert np.linalg.matrix_rank(stretched) == np.linalg.matrix_rank(weight)
    assert compared(weight, stretched, images(200)) < 0.9


def test_the_size_of_batches_changes_the_noise_alone() -> None:
    """Each batch's HSIC is unbiased, so sums over many images differ from the whole's by chance alone.

    A batch of n says n (n − 3) / 2 independent things of every layer: of 1024 images, chance is about 0.044 and 0.012,
    of which four times are allowed. In layers that have nothing in common, the biased HSIC would find 0.60 and 0.26.
    """
    x, first, second = images(1024), drawn(1, 6, 12), drawn(2, 6, 12)
    whole = compared(first, second, x)
    for size in (4, 16):
        allowed = 4 / math.sqrt(1024 * (size - 3) / 2)
        assert compared(first, second, *x.split(size)) == pytest.approx(whole, abs=allowed)
        assert compared(np.eye(12)[:6], np.eye(12)[6:], *x.split(size)) == pytest.approx(0, abs=allowed)


def test_order_and_direction_do_not_matter() -> None:
    first, second, x = linear(drawn(0, 4, 12)), linear(drawn(1, 5, 12)), images(12)
    there = similarities({"A": first, "B": second}, [x], ENCODERS)
    back = similarities({"B": second, "A": first}, [x.flip(0)], ENCODERS)
    assert there.cka.item() == pytest.approx(back.cka.item(), abs=1e-12)
    assert (there["first"].item(), back["first"].item()) == ("A", "B")


# Features that say nothing


def test_constant_features_have_no_similarity() -> None:
    for value in (0.0, -7.3e4):
        dead = linear(np.zeros((3, 12)), np.full(3, value))
        table = similarities({"A": linear(drawn(0, 3, 12)), "B": dead}, [images(8)], ENCODERS)
        assert table.cka.isna().all(), value


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_no_result(value: float) -> None:
    """Not a layer that says nothing, but a network that diverged."""
    broken = linear(drawn(1, 3, 12), np.full(3, value))
    with pytest.raises(TrainingError, match=r"of B gives NaN or infinite features.*training\.learning_rate"):
        similarities({"A": linear(drawn(0, 3, 12)), "B": broken}, [images(8)], ENCODERS)


def test_rounding_errors_of_float32_count_as_constant() -> None:
    constant = torch.full((8, 100), 3.3, dtype=torch.float32)
    noisy = constant * (1 + torch.from_numpy(drawn(0, 8, 100)).float() * 1e-7)
    assert (noisy != constant).any()
    assert not centred_gram(noisy).any()
    slight = constant * (1 + torch.from_numpy(drawn(0, 8, 100)).float() * 1e-4)
    assert centred_gram(slight).any()


def test_images_that_are_all_equally_far_apart_are_alike_to_nothing() -> None:
    assert not centred_gram(torch.eye(6, dtype=torch.float64)).any()


def test_a_layer_that_is_dead_in_one_batch_is_measured_on_the_others() -> None:
    alive, still, weight = images(8), torch.ones(8, 3, 2, 2).double(), drawn(0, 4, 12)
    assert compared(weight, 2 * weight, still, alive) == pytest.approx(1)


# Layers


def built(task: str, encoder: str, seed: int = 0, **options: Any) -> Network:
    chosen = {"encoder_options": {"channels": [4, 4, 8, 8]}, "weights": "random"} | options
    if task == "segmentation":
        chosen["decoder_channels"] = [8, 4, 4, 4, 4]
    return build(NetworkSettings(encoder=encoder, **chosen), task, CLASSES, seed)


def teacher_and_student() -> dict[str, Network]:
    return {
        "T": built("classification", "resnet50", conv6_channels=8),
        "S1": built("classification", "resnet18", seed=1),
    }


@pytest.fixture(scope="module")
def nets() -> dict[str, Network]:
    """A teacher and a student, read only."""
    return {name: net.eval() for name, net in teacher_and_student().items()}


X = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def table(nets: dict[str, Network]) -> pd.DataFrame:
    """Every layer of one with every layer of the other."""
    return similarities(nets, [X])


RESNET50 = [f"layer{stage}.{block}" for stage, blocks in enumerate((3, 4, 6, 3), start=1) for block in range(blocks)]
RESNET18 = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
MOBILENET = [f"blocks.{stage}.{block}" for stage, blocks in enumerate((1, 2, 2, 6, 2)) for block in range(blocks)]
DECODER = [f"decoder.blocks.{block}" for block in range(5)]


@pytest.mark.parametrize(
    ("task", "encoder", "options", "expected"),
    [
        ("classification", "resnet50", {"conv6_channels": 8}, ["stem", *RESNET50, "conv6", "logits"]),
        ("classification", "resnet18", {}, ["stem", *RESNET18, "logits"]),
        ("classification", "mobilenetv1_100", {"encoder_options": {}}, ["stem", *MOBILENET, "logits"]),
        ("segmentation", "tu-resnet18", {}, ["stem", *RESNET18, *DECODER, "logits"]),
        ("segmentation", "resnet18", {"encoder_options": {}}, ["stem", *RESNET18, *DECODER, "logits"]),
        ("segmentation", "tu-mobilenetv1_100", {"encoder_options": {}}, ["stem", *MOBILENET, *DECODER, "logits"]),
        # squeeze-and-excitation is a part of its block
        ("classification", "mobilenetv3_small_050", {"encoder_options": {}}, None),
        # no blocks in a container: the stages
        ("classification", "regnety_002", {"encoder_options": {}}, [*STRIDES, "logits"]),
    ],
)  # fmt: skip
def test_the_layers_are_stem_blocks_and_heads(
    task: str, encoder: str, options: dict[str, Any], expected: list[str] | None
) -> None:
    with torch.device("meta"):
        layers = layers_of(built(task, encoder, **options).body)
    if expected is None:
        assert not any(path.endswith("se") for path in layers)
        assert sum(name.startswith("blocks.") for name in layers) == 11
    else:
        assert list(layers) == expected


def test_the_table_names_layers_paths_and_stages(table: pd.DataFrame) -> None:
    assert len(table) == 19 * 10
    assert list(dict.fromkeys(table.first_layer)) == ["stem", *RESNET50, "conv6", "logits"]
    assert list(dict.fromkeys(table.second_layer)) == ["stem", *RESNET18, "logits"]
    about = table.attrs["layers"]["T"]
    assert about["stem"] == {"path": "encoder.act1", "stage": "stem"}
    assert about["layer3.5"] == {"path": "encoder.layer3.5", "stage": "layer3"}
    assert [about[name]["stage"] for name in ("layer4.2", "conv6", "logits")] == ["layer4", "conv6", "logits"]
    assert table.attrs["last"] == {"T": "layer4.2", "S1": "layer4.1"}
    assert last_stages(table)[["first_layer", "second_layer"]].to_numpy().tolist() == [["layer4.2", "layer4.1"]]
    expected = table[(table.first_layer == "layer4.2") & (table.second_layer == "layer4.1")].cka.item()
    assert last_stages(table).cka.item() == expected


def test_the_last_stage_of_a_u_net_is_its_encoders_whatever_comes_after() -> None:
    nets = {
        "T": built("segmentation", "tu-resnet18"),
        "S1": built("segmentation", "tu-mobilenetv3_small_050", encoder_options={}),
        "S2": built("segmentation", "tu-regnety_002", encoder_options={}),  # without blocks
    }
    table = similarities(nets, [torch.rand(4, 3, SIDE, SIDE)])
    assert table.attrs["last"] == {"T": "layer4.1", "S1": "blocks.4.2", "S2": "s4"}
    pairs = [("T", "S1"), ("T", "S2"), ("S1", "S2")]
    assert list(dict.fromkeys(zip(table["first"], table.second, strict=True))) == pairs
    assert {about["stage"] for about in table.attrs["layers"]["T"].values()} == {
        "stem", "layer1", "layer2", "layer3", "layer4", "decoder", "logits"
    }  # fmt: skip


def test_the_features_are_those_that_the_layers_put_out(nets: dict[str, Network], table: pd.DataFrame) -> None:
    """Against features taken by another way, of a real network."""
    with torch.no_grad():
        stem = nets["T"].body.encoder
        first = stem.maxpool(stem.act1(stem.bn1(stem.conv1((X - nets["T"].mean) / nets["T"].std))))
        block = stem.layer1[0](first).flatten(1).double().numpy()
        logits = nets["S1"](X).logits.double().numpy()
    found = one(table, first_layer="layer1.0", second_layer="logits").cka
    assert found == pytest.approx(literal_cka([(block, logits)]), abs=1e-5)


def test_layers_may_be_chosen_by_name_or_path(nets: dict[str, Network], table: pd.DataFrame) -> None:
    chosen = similarities(nets, [X], {"T": ["layer4.2", "encoder.layer4.1"], "S1": ["logits"]})
    assert chosen.first_layer.tolist() == ["layer4.2", "encoder.layer4.1"]
    for layer, name in (("layer4.2", "layer4.2"), ("encoder.layer4.1", "layer4.1")):
        own = one(chosen, first_layer=layer).cka
        assert own == pytest.approx(one(table, first_layer=name, second_layer="logits").cka, abs=1e-9)


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ({"S1": ["layer9"]}, r"layer 'layer9' does not exist in S1\. Layers: stem, .*layer4\.1, logits"),
        ({"T": ["stem"], "S1": ["encoder.global_pool"]}, r"encoder\.global_pool of S1 did not run"),
    ],
    ids=["unknown", "never run"],
)
def test_a_layer_that_gives_no_features_is_named(
    layers: dict[str, list[str]], complaint: str, nets: dict[str, Network]
) -> None:
    with pytest.raises(TrainingError, match=complaint):
        similarities(nets, [X], layers)


def test_a_module_that_returns_no_tensor_is_named() -> None:
    two = {name: built("segmentation", "tu-resnet18") for name in ("T", "S1")}
    with pytest.raises(TrainingError, match="encoder of T returns no features"):
        similarities(two, [X], {"T": ["encoder"], "S1": ["stem"]})


# Hooks, modes, gradients


class Chain(nn.Module):
    """Two convolutions, each followed by something that may write over it."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=inplace),
            nn.Conv2d(4, 4, 3),
            nn.ReLU(inplace=inplace),
        )
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(images).mean(dim=(2, 3)))


def test_layers_that_overwrite_their_input_hide_nothing() -> None:
    paths = [f"encoder.{number}" for number in range(5)]
    tables = [
        similarities(
            {"A": network(Chain(inplace)), "B": network(Chain(inplace))},
            [images(9).float().repeat(1, 1, 4, 4)],
            {"A": paths, "B": paths},
        )
        for inplace in (True, False)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert one(tables[0], first_layer="encoder.1", second_layer="encoder.1").cka == pytest.approx(1)
    assert one(tables[0], first_layer="encoder.1", second_layer="encoder.2").cka < 0.99  # the ReLU did change something


def state_of(net: Network) -> list[tuple[bool, int, int]]:
    return [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]


def broken(x: torch.Tensor) -> Iterator[torch.Tensor]:
    yield x
    raise RuntimeError("the disk is gone")


def test_networks_come_back_as_they_were_even_after_an_error() -> None:
    nets = {name: net.train() for name, net in teacher_and_student().items()}
    nets["S1"].body.encoder.layer2.eval()  # a part that is frozen
    before = {name: state_of(net) for name, net in nets.items()}
    statistics = {key: value.clone() for key, value in nets["T"].state_dict().items()}
    for batches, layers, error in (
        ([X], None, None),
        (broken(X), None, RuntimeError),
        ([torch.rand(6, 5, SIDE, SIDE)], None, RuntimeError),  # of no colours
        ([X], {"S1": ["nothing"]}, TrainingError),
    ):
        with pytest.raises(error) if error else contextlib.nullcontext():
            similarities(nets, batches, layers)
        assert {name: state_of(net) for name, net in nets.items()} == before
        for key, value in nets["T"].state_dict().items():
            assert torch.equal(value, statistics[key]), key


def test_the_batch_s_own_statistics_play_no_part(table: pd.DataFrame) -> None:
    """Networks are evaluated in eval mode even if they come in train mode."""
    training = {name: net.train() for name, net in teacher_and_student().items()}
    pd.testing.assert_frame_equal(similarities(training, [X]), table)


def test_no_graph_is_built(nets: dict[str, Network]) -> None:
    seen = []
    handle = nets["T"].body.encoder.layer4.register_forward_hook(lambda *call: seen.append(call[-1].requires_grad))
    similarities(nets, [X])
    handle.remove()
    assert seen == [False]
    assert nets["T"](X).logits.requires_grad  # as before


# Batches


def test_a_small_last_batch_is_left_out_and_counted() -> None:
    first, second, x = linear(drawn(0, 4, 12)), linear(drawn(1, 5, 12)), images(11)
    table = similarities({"A": first, "B": second}, x.split(4), ENCODERS)
    assert {key: table.attrs[key] for key in ("images", "batches", "dropped")} == {
        "images": 8, "batches": 2, "dropped": 3
    }  # fmt: skip
    without = similarities({"A": first, "B": second}, x[:8].split(4), ENCODERS)
    assert table.cka.item() == without.cka.item()
    assert without.attrs["dropped"] == 0


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [((3, 8), "3 images came before the last"), ((3,), "3 images are too few"), ((), "no images are too few")],
)
def test_too_few_images_are_refused(sizes: tuple[int, ...], complaint: str) -> None:
    nets = {"A": linear(drawn(0, 4, 12)), "B": linear(drawn(1, 5, 12))}
    with pytest.raises(TrainingError, match=f"{complaint}.*4 or more"):
        similarities(nets, [images(size) for size in sizes], ENCODERS)


def test_shuffled_batches_are_equal_and_hold_every_image_once() -> None:
    for count, expected in ((64, [64]), (65, [33, 32]), (130, [44, 43, 43]), (5, [5])):
        stack = np.arange(count, dtype=np.uint8).repeat(12).reshape(count, 2, 2, 3)
        split = SplitData(stack, np.zeros(count, np.uint8), np.arange(count), [], [])
        batches = list(shuffled(split, 64))
        assert [len(batch) for batch in batches] == expected
        seen = (torch.cat(batches)[:, 0, 0, 0] * 255).round().long().tolist()
        assert sorted(seen) == list(range(count))
        assert seen != sorted(seen)
        assert torch.equal(torch.cat(list(shuffled(split, 64))), torch.cat(batches)), "the same order again"


# Networks read back


def run_of(
    method_name: str, raw: dict[str, Any], data: Path, folder: Path, teacher_weights: Path
) -> dict[str, Network]:
    """A folder as a finished run leaves it, of untrained networks; returns them."""
    about = json.loads((data / "prepared" / "dataset.json").read_text())
    study = {"segmentation": STUDY, "classification": CLASSES_STUDY}[about["task"]]
    method = make(
        method_name, study, raw, 0, teacher_weights, about["task"],
        classes=len(about["labels"]), image_size=about["image_size"],
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in method.trained:
            for tensor in method.networks[name].state_dict().values():
                if tensor.is_floating_point():  # batch statistics too are something to restore
                    tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))
    state = {key: value.contiguous() for name in method.trained for key, value in method.state_of(name).items()}
    folder.mkdir(parents=True)
    save_file(state, folder / "weights.safetensors")
    facts = {name: net.facts for name, net in method.networks.items()}
    metrics = metrics_of(study=study, method=method_name, seed=0, data=about, networks=facts)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return {name: net.eval() for name, net in method.networks.items()}


def edit(run: Path, **changes: Any) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def check_same(restored: Network, original: Network) -> None:
    assert not restored.training
    assert not any(p.requires_grad for p in restored.parameters())
    assert restored.facts == original.facts
    with torch.no_grad():
        assert torch.equal(restored(X).logits, original(X).logits)


class Left(NamedTuple):
    """Runs of a study in folders named by their methods, and their networks; read only."""

    folder: Path
    networks: dict[str, dict[str, Network]]


def left_of(data: Path, folder: Path, *methods: str) -> Left:
    """The runs of `methods`; the first is `teacher` where others need its weights."""
    raw = shrink(params.load(ROOT / "params.yaml"))
    raw["study"][CLASSES_STUDY]["methods"] = raw["study"]["histopathologic-resnet18"]["methods"]  # simkd among them
    weights = folder / "teacher" / "weights.safetensors"
    return Left(folder, {name: run_of(name, raw, data, folder / name, weights) for name in methods})


@pytest.fixture(scope="module")
def masks(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    return left_of(tiny_study, tmp_path_factory.mktemp("masks"), "teacher", "student", "kd_ml-v3", "kd_off-v1", "ml-v2")


@pytest.fixture(scope="module")
def classes(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Left:
    return left_of(tiny_classes_study, tmp_path_factory.mktemp("classes"), "teacher", "kd_ml-v3", "simkd")


def copy_of(run: Path, folder: Path) -> Path:
    """A run to spoil."""
    return Path(shutil.copytree(run, folder, dirs_exist_ok=True))


def test_networks_of_a_run_are_read_back(masks: Left, classes: Left) -> None:
    for left in (masks, classes):
        run, original = left.folder / "kd_ml-v3", left.networks["kd_ml-v3"]
        for name in ("T", "S1", "S2"):
            check_same(restore(run, name), original[name])
        assert not torch.equal(restore(run, "S1")(X).logits, original["S2"](X).logits)


def test_a_teacher_that_did_not_learn_comes_from_its_own_run(masks: Left) -> None:
    for method in ("kd_off-v1", "ml-v2"):
        check_same(restore(masks.folder / method, "T", masks.folder / "teacher"), masks.networks["teacher"]["T"])
        with pytest.raises(TrainingError, match="T was not trained in it"):
            restore(masks.folder / method, "T")


def test_the_hub_is_not_asked_whatever_the_run_began_from(
    masks: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(masks.folder / "student", tmp_path)
    original = masks.networks["student"]["S1"]
    facts = original.facts | {"weights": "hub"}
    edit(run, networks={"S1": facts})

    def hub(*arguments: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("classroom.core.networks.weights._from_hub", hub)
    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", hub)
    monkeypatch.setattr(original, "facts", facts)
    check_same(restore(run, "S1"), original)


def test_a_restored_network_is_compared_with_its_own_images(masks: Left, tiny_study: Path, tmp_path: Path) -> None:
    """All pieces together, as the command will use them."""
    run = masks.folder / "kd_ml-v3"
    nets = {name: restore(run, name) for name in ("T", "S1", "S2")}
    test = open_splits(tiny_study / "prepared", tiny_study / "splits.parquet")["test"]
    table = similarities(nets, shuffled(test, 8))
    assert table.attrs["images"] == len(test)
    numbers = table.cka.dropna()  # a layer of so thin a network can be constant on a few images
    assert len(numbers) > len(table) / 2
    assert numbers.between(-1, 1).all()
    files.write(tmp_path / "seed-0.parquet", table, json.loads((run / "metrics.json").read_text()))
    kept = files.read(tmp_path / "seed-0.parquet")
    pd.testing.assert_frame_equal(kept, table)
    assert kept.attrs["method"] == "kd_ml-v3"
    assert kept.attrs["layers"] == table.attrs["layers"]


def of_another_width(run: Path) -> None:
    facts = json.loads((run / "metrics.json").read_text())["networks"]
    edit(run, networks={"S1": facts["S1"] | {"encoder_options": {"channels": [4, 4, 8, 16]}}})


def without_a_tensor(run: Path) -> None:
    state = load_file(run / "weights.safetensors")
    del state["S1.body.encoder.model.conv1.weight"]
    save_file(state, run / "weights.safetensors")


def with_nan(run: Path) -> None:
    state = load_file(run / "weights.safetensors")
    state["S1.body.encoder.model.conv1.weight"][0, 0, 0, 0] = math.nan
    save_file(state, run / "weights.safetensors")


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("S1", lambda run: (run / "metrics.json").write_text('{"study":'), r"metrics.json: cannot be read"),
        ("S1", lambda run: (run / "metrics.json").write_text('{"study": ""}'), r"metrics.json: lacks .*networks"),
        ("S1", lambda run: edit(run, networks={}), r"does not describe S1"),
        ("S1", lambda run: edit(run, networks={"S1": {"task": "segmentation"}}), r"does not describe S1"),
        ("S1", lambda run: (run / "weights.safetensors").unlink(), r"weights.safetensors: cannot be read"),
        ("S1", lambda run: (run / "weights.safetensors").write_bytes(b"\x08"), r"weights.safetensors: cannot be read"),
        ("S1", of_another_width, r"another network than metrics.json says"),
        ("S1", without_a_tensor, r"another network than metrics.json says .*conv1\.weight"),
        ("S1", with_nan, r"weights.safetensors: S1 diverged: 1 of its tensors.*conv1\.weight"),
        ("S2", lambda run: None, r"holds no weights of 'S2'. Its networks: S1"),
    ],
)
def test_a_damaged_run_is_named(name: str, damage: Any, complaint: str, masks: Left, tmp_path: Path) -> None:
    run = copy_of(masks.folder / "student", tmp_path)
    damage(run)
    with pytest.raises((DataError, TrainingError), match=complaint):
        restore(run, name)


def test_a_teacher_of_something_else_is_refused(masks: Left, tmp_path: Path) -> None:
    for changes, complaint in (
        ({"seed": 1}, "differs in seed"),
        ({"study": "another"}, "differs in study"),
        ({"method": "student"}, "differs in method"),
        ({"networks": {"T": {}}}, "differs in network"),
    ):
        edit(copy_of(masks.folder / "teacher", tmp_path), **changes)
        with pytest.raises(TrainingError, match=f"not the teacher of .*{complaint}"):
            restore(masks.folder / "kd_off-v1", "T", tmp_path)


def test_a_student_with_a_borrowed_head_is_refused(classes: Left) -> None:
    run = classes.folder / "simkd"
    with pytest.raises(TrainingError, match=r"teacher's classifier \(simkd\)"):
        restore(run, "S1")
    check_same(restore(run, "T", classes.folder / "teacher"), classes.networks["teacher"]["T"])


# Files


LAYERS = {
    "T": ["stem", "layer1.0", "layer4.2", "conv6", "logits"],
    "S1": ["stem", "layer4.1", "logits"],
    "S2": ["stem", "layer4.1", "logits"],
}
LAST = {"T": "layer4.2", "S1": "layer4.1", "S2": "layer4.1"}


def fabricated(variant: str, seed: int, about: dict[str, Any] = HISTOPATHOLOGIC, **changes: Any) -> pd.DataFrame:
    """What `files.read` returns, of drawn numbers."""
    rows = [
        (first, second, a, b)
        for first, second in itertools.combinations(LAYERS, 2)
        for a, b in itertools.product(LAYERS[first], LAYERS[second])
    ]
    table = pd.DataFrame(rows, columns=files.COLUMNS[:-1])
    random = np.random.default_rng([seed, *variant.encode()])
    table["cka"] = random.uniform(0, 1, len(table))
    table.attrs = {
        "study": "histopathologic-resnet18", "method": variant, "seed": seed, "data": about, "images": 100,
        "batches": 2, "dropped": 0, "last": LAST,
        "layers": {name: {layer: {"path": layer, "stage": layer} for layer in of} for name, of in LAYERS.items()},
    } | changes  # fmt: skip
    return table


ALL = [f"{technique}-{strategy}" for technique in ("ml", "kd_off", "kd_on", "kd_ml") for strategy in ("v1", "v2", "v3")]


def everything(seeds: tuple[int, ...] = (0, 1), **changes: Any) -> dict[str, list[pd.DataFrame]]:
    return {variant: [fabricated(variant, seed, **changes) for seed in seeds] for variant in ALL}


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
        (lambda path: pd.DataFrame({"first": [1]}).to_parquet(path), "lacks cka, data, first_layer"),
    ],
)
def test_a_damaged_file_is_named(damage: Any, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "seed-0.parquet"
    table = fabricated("kd_ml-v1", 0)
    files.write(path, table, {**table.attrs, "of no use": 1})
    assert "of no use" not in files.read(path).attrs
    damage(path)
    with pytest.raises(DataError, match=f"{complaint}.*classroom cka"):
        files.read(path)


# Figures


@pytest.fixture
def drawn_figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, which are not made into pixels: that takes seconds, and two tests do it."""
    figures = []

    def saved(figure: Figure, form: str) -> bytes:
        if form == "png":
            figures.append(figure)
        return b""

    monkeypatch.setattr(cka_figure_module, "saved", saved)
    return figures


def words(figure: Figure) -> list[str]:
    """Every text of a figure, ticks included."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_a_figure_names_its_panels_and_every_layer(drawn_figures: list[Figure], tmp_path: Path) -> None:
    with_teacher = [f"T–{student}, {v}" for student in ("S1", "S2") for v in ("V1", "V2", "V3")]
    for name, panels, techniques in (
        ("figure6", with_teacher, ["KD + ML"]),
        ("figure10", 3 * with_teacher, ["KD (on)", "KD (off)", "ML"]),
        ("figure11", 4 * [f"S1–S2, {v}" for v in ("V1", "V2", "V3")], ["KD + ML", "KD (on)", "KD (off)", "ML"]),
    ):
        save("cka_figure", cka_figure(name, "demo", everything((0,))), tmp_path / name)
        figure = drawn_figures[-1]
        assert [axis.get_title() for axis in figure.axes if axis.get_title()] == panels
        rows = [axis.get_ylabel().split("\n") for axis in figure.axes if axis.get_ylabel() != "linear CKA"]
        down = "S1" if name == "figure11" else "T"
        assert [row for row in rows if row != [""]] == [[technique, down] for technique in techniques]
        assert {*LAYERS[down], *LAYERS["S2"]} <= set(words(figure))
        title = f"Figure {name.removeprefix('figure')}: similarity of layers on histopathologic-resnet18"
        assert figure.get_suptitle().startswith(title)
        told = page_of(tmp_path / name)["drawing"]["alt"]
        assert ("S1 with S2" if name == "figure11" else "T with S1 and T with S2") in told
        runs = [run.split("/")[2] for run in page_of(tmp_path / name)["made_from"]]
        assert {TECHNIQUE_LABELS[run.split("-")[0]] for run in runs if run != "teacher"} == {*techniques}
        assert ("teacher" in runs) == (name == "figure10"), "of ML and KD (off), and T is shown"


def test_a_panel_is_the_mean_over_seeds_in_the_layers_order(drawn_figures: list[Figure], tmp_path: Path) -> None:
    tables = everything()
    for by_seed in tables.values():  # rows in another order mean the same
        by_seed[1] = by_seed[1].sample(frac=1, random_state=0)
    save("cka_figure", cka_figure("figure6", "demo", tables), tmp_path / "figure6")
    axis = drawn_figures[0].axes[4]
    assert axis.get_title() == "T–S2, V2"
    (image,) = axis.images
    assert image.get_clim() == (0, 1)
    values = image.get_array()
    assert values.shape == (5, 3)
    for (row, first), (column, second) in itertools.product(enumerate(LAYERS["T"]), enumerate(LAYERS["S2"])):
        keys = {"first": "T", "second": "S2", "first_layer": first, "second_layer": second}
        expected = [one(table, **keys).cka for table in tables["kd_ml-v2"]]
        assert values[row, column] == pytest.approx(np.mean(expected))
    (outline,) = axis.patches
    assert outline.get_xy() == (LAYERS["S2"].index(LAST["S2"]) - 0.5, LAYERS["T"].index(LAST["T"]) - 0.5)


def test_what_is_no_number_in_one_seed_is_none_in_the_mean(drawn_figures: list[Figure], tmp_path: Path) -> None:
    tables = everything()
    broken = tables["kd_ml-v1"][0]
    broken.loc[(broken.first_layer == "layer4.2") & (broken.second_layer == "layer4.1"), "cka"] = np.nan
    save("cka_figure", cka_figure("figure6", "demo", tables), tmp_path / "figure6")
    values = np.ma.filled(drawn_figures[0].axes[0].images[0].get_array(), np.nan)
    assert np.argwhere(np.isnan(values)).tolist() == [[2, 1]]
    save("cka_table", cka_table("cka", "demo", tables), tmp_path / "cka.md")
    techniques = [row[0] for row in markdown_rows(tmp_path / "cka.md")[1:]]
    assert list(dict.fromkeys(techniques)) == ["ML", "KD (off)", "KD (on)", "KD + ML"], "the order of all tables"
    row = next(row for row in markdown_rows(tmp_path / "cka.md") if row[:2] == ["KD + ML", "V1"])
    assert row[2] == "–"
    assert row[3] == "–"
    assert "±" in next(row for row in markdown_rows(tmp_path / "cka.md") if row[:2] == ["KD + ML", "V2"])[2]


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    trained = {name: of for name, of in everything((0,), about=LGG | {"synthetic": True}).items() if name == "kd_ml-v3"}
    for folder in ("a", "b"):
        save("cka_figure", cka_figure("figure6", "paper", trained), tmp_path / folder / "figure6")
        save("cka_table", cka_table("cka", "paper", trained), tmp_path / folder / "cka.md")
    for name in ("figure6.png", "figure6.svg", "cka.md", "cka.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "figure6.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "a" / "figure6.svg").read_text()
    assert "<dc:date>" not in svg
    assert re.search("<text.*?T–S2, V3.*?</text>", svg, re.DOTALL), "text that can be searched"
    assert "Synthetic images, not patients" in svg
    assert "**" not in svg


def test_synthetic_images_are_named_in_the_picture_and_the_table(drawn_figures: list[Figure], tmp_path: Path) -> None:
    for synthetic in (True, False):
        tables = everything((0,), about=LGG | {"synthetic": synthetic})
        save("cka_figure", cka_figure("figure6", "paper", tables), tmp_path / "figure6")
        save("cka_table", cka_table("cka", "paper", tables), tmp_path / "cka.md")
        for text in (drawn_figures[-1].get_suptitle(), (tmp_path / "cka.md").read_text()):
            assert ("Synthetic images, not patients" in text) == synthetic


def test_variants_that_are_not_trained_leave_blanks(tmp_path: Path, drawn_figures: list[Figure]) -> None:
    trained = {name: of for name, of in everything((0,)).items() if name in ("kd_on-v1", "ml-v3", "kd_ml-v1")}
    save("cka_figure", cka_figure("figure10", "demo", trained), tmp_path / "figure10")
    (figure,) = drawn_figures
    assert len([axis for axis in figure.axes if axis.get_title()]) == 2 * 4
    texts = words(figure)
    assert texts.count("not trained") == 4
    assert not [text for text in texts if "KD (off)" in text or "V2" in text]
    with pytest.raises(DataError, match="figure6: there is no CKA"):
        save("cka_figure", cka_figure("figure6", "demo", {"ml-v1": trained["ml-v3"]}), tmp_path / "figure6")


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    for other, complaint in (
        ([fabricated("kd_ml-v2", 0), fabricated("kd_ml-v2", 2)], "seeds"),
        ([fabricated("kd_ml-v2", 0)], "seeds"),
        ([fabricated("kd_ml-v2", seed, study="another") for seed in (0, 1)], "study"),
        ([fabricated("kd_ml-v2", 0), fabricated("kd_ml-v2", 1, images=99)], "images"),
        ([fabricated("kd_ml-v2", seed, LGG) for seed in (0, 1)], "data"),
    ):
        tables = everything() | {"kd_ml-v2": other}
        for report, name in ((cka_figure, "figure6"), (cka_table, "cka")):
            with pytest.raises(
                DataError,
                match=rf"kd_ml-v2 differs from .* in .*{complaint}.*classroom cka .* kd_ml-v2",
            ):
                report(name, "demo", tables)


def test_a_missing_pair_is_named(tmp_path: Path) -> None:
    tables = {"kd_ml-v1": [fabricated("kd_ml-v1", 0)]}
    tables["kd_ml-v1"][0] = tables["kd_ml-v1"][0].query("second != 'S2'")
    with pytest.raises(DataError, match=r"kd_ml-v1: lacks T–S2"):
        save("cka_figure", cka_figure("figure6", "demo", tables), tmp_path / "figure6")


def test_the_table_has_mean_and_sd_of_the_last_stages(tmp_path: Path) -> None:
    tables = everything((0, 1, 2))
    save("cka_table", cka_table("cka-own", "small", tables), tmp_path / "cka.md")
    found = [
        one(table, first="T", second="S2", first_layer="layer4.2", second_layer="layer4.1").cka
        for table in tables["kd_on-v2"]
    ]
    row = one(pd.read_csv(tmp_path / "cka.csv"), technique="kd_on", strategy="v2", first="T", second="S2")
    assert row["mean"] == pytest.approx(np.mean(found), abs=1e-6)
    assert row["sd"] == pytest.approx(np.std(found, ddof=1), abs=1e-6)
    assert (row.first_layer, row.second_layer, row.scale) == ("layer4.2", "layer4.1", "small")
    header, *rows = markdown_rows(tmp_path / "cka.md")
    assert header == ["technique", "strategy", "T–S1", "T–S2", "S1–S2"]
    assert len(rows) == 12
    sources = [source for cell in check_sources(tmp_path / "cka.md") for source in cell["sources"]]
    runs = [f"runs/histopathologic-resnet18/kd_on-v2/seed-{seed}" for seed in (0, 1, 2)]
    assert {"what": "CKA of T and S2", "values": dict(zip(runs, found, strict=True))}.items() <= next(
        source.items() for source in sources if source["what"].endswith("S2") and set(source["values"]) == set(runs)
    )
    cell = next(cells[3] for cells in rows if cells[:2] == ["KD (on)", "V2"])
    assert cell == f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}"
    text = (tmp_path / "cka.md").read_text()
    assert "layer4.2 of T, layer4.1 of S1, layer4.1 of S2" in text
    assert "T is the baseline teacher" in text


def test_one_seed_has_no_sd_and_dropped_images_are_said(tmp_path: Path) -> None:
    save(
        "cka_table", cka_table("cka", "demo", {"kd_ml-v1": [fabricated("kd_ml-v1", 0, dropped=3)]}), tmp_path / "cka.md"
    )
    text = (tmp_path / "cka.md").read_text()
    assert "± –" in text
    assert "3 more were left out, as their batch was too small" in text
    assert "teacher alone" not in text
