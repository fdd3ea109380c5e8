"""Export: the ONNX file does what the run's networks do, says what it is, and is not written if it does not."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from classroom import params
from classroom.core import predictions
from classroom.core.batches import open_splits
from classroom.core.metrics import LABELS, METRICS, per_image_counts, predict_labels, score
from classroom.core.networks.build import Network, seeded
from classroom.core.predictions import quantise
from classroom.errors import ClassroomError, DataError, ExportError, TrainingError
from classroom.export import card, graph
from classroom.export import export as module
from classroom.export.compare import Difference
from classroom.export.export import export
from classroom.export.model import FACTS, Model
from classroom.export.predict import find, predict
from classroom.restore import restore
from classroom.settings.plan import plan
from support import fabricated
from support.exported import brightness, command, finished_run
from support.rendered import markdown_tables
from support.studies import ROOT, STUDY, copy_settings, shrink

ALL = ("T", "S1", "S2", "ensemble")


@pytest.fixture(scope="module")
def exported_masks(tiny_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ensemble of a segmentation; read only."""
    return exported(tiny_study, "ensemble", tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def exported_classes(tiny_classes_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network of a classification, with Conv6; read only."""
    return exported(tiny_classes_study, "T", tmp_path_factory.mktemp("classes"))


def exported(data: Path, network: str, folder: Path) -> Path:
    """A folder with the data of a tiny study, `run` (KD + ML V3), and what was exported of it in `out`."""
    for name in ("prepared", "splits.parquet"):
        (folder / name).symlink_to(data / name)
    raw = shrink(params.load(ROOT / "params.yaml"))
    for study in raw["study"].values():
        for role in ("teacher", "student"):
            study[role]["encoder_options"]["layers"] = [1, 1, 1, 1]  # every layer takes its time to translate
    finished_run(raw, data, "kd_ml-v3", folder / "run")
    export(folder / "run", network, folder / "prepared", folder / "splits.parquet", folder / "out", "v1", {})
    return folder


def parts_of(study: Path) -> tuple[str, tuple[str, ...]]:
    """What was exported of it, and the networks in that."""
    network = Model(study / "out").about["network"]
    return network, ("S1", "S2") if network == "ensemble" else (network,)


@pytest.fixture
def study(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


both = pytest.mark.parametrize("study", ["exported_masks", "exported_classes"], indirect=True)
masks = pytest.mark.parametrize("study", ["exported_masks"], indirect=True)


@pytest.fixture
def copy(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The study with a run to spoil; translating to ONNX, which takes seconds, hands out the finished model."""
    for name in ("prepared", "splits.parquet"):
        (tmp_path / name).symlink_to(study / name)
    shutil.copytree(study / "run", tmp_path / "run")
    monkeypatch.setattr(
        graph, "write", lambda module, size, facts, path: shutil.copyfile(study / "out/model.onnx", path)
    )
    return tmp_path


def again(folder: Path, network: str = "ensemble") -> Difference:
    return export(folder / "run", network, folder / "prepared", folder / "splits.parquet", folder / "new", "v2", {})


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


# What it computes


@both
def test_the_model_is_the_largest_of_its_networks_for_any_number_of_images(study: Path) -> None:
    """Against the networks by themselves, in PyTorch, on images that neither export nor training has seen."""
    model = Model(study / "out")
    networks = [restore(study / "run", name) for name in parts_of(study)[1]]
    for count in (1, 2, 5, 16):
        images, alone = unseen(count, networks)
        found = model.probabilities(images)
        assert found.dtype == np.float32
        assert np.abs(found - np.max(alone, axis=0)).max() <= 1e-4


def unseen(count: int, networks: list[Network]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Images, and of each network its probabilities."""
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = [network(tensor).logits for network in networks]
    if logits[0].ndim == 4:
        alone = [torch.sigmoid(one)[:, 0].numpy() for one in logits]
    else:
        alone = [torch.softmax(one, dim=1).numpy() for one in logits]
    assert all(np.abs(one - alone[0]).max() > 1e-3 for one in alone[1:]), "two that are one would prove nothing"
    return images, alone


def test_the_ensemble_of_classes_is_the_larger_probability_of_each_class(exported_classes: Path) -> None:
    """What is translated, in PyTorch, and what the card says of it; the translation of an ensemble is that of masks."""
    students = [restore(exported_classes / "run", name) for name in ("S1", "S2")]
    images, alone = unseen(4, students)
    with torch.no_grad():
        found = graph.Exported(students)(torch.from_numpy(images)).numpy()
    assert np.abs(found - np.maximum(*alone)).max() <= 1e-6
    run = json.loads((exported_classes / "run/metrics.json").read_text())
    facts = Model(exported_classes / "out").about | {"network": "ensemble"}
    assert "so they may sum to more than 1" in card.text(run, facts, Difference(1e-6, 0.0, 100), None, None)


@both
def test_the_model_has_the_metrics_of_its_run(study: Path) -> None:
    """A user who deploys the file gets the numbers of the table."""
    model = Model(study / "out")
    test = open_splits(study / "prepared", study / "splits.parquet")["test"]
    found = model.probabilities(test.images[test.rows])
    kept = quantise(found) if found.ndim == 3 else found
    run = json.loads((study / "run/metrics.json").read_text())
    network = model.about["network"]
    assert score(per_image_counts(predict_labels(kept), test.ground_truth)) == pytest.approx(
        run["best"]["test"][network], abs=1e-3
    )
    assert model.about["metrics"] == {split: run["best"][split][network] for split in ("val", "test")}


@both
def test_the_model_says_what_it_is_and_not_where_it_was_made(study: Path) -> None:
    about, run = Model(study / "out").about, json.loads((study / "run/metrics.json").read_text())
    assert about.keys() == FACTS
    for key in ("study", "method", "seed", "data"):
        assert about[key] == run[key]
    assert about["parameters"] == sum(run["networks"][name]["parameters"] for name in parts_of(study)[1])
    assert "No medical device" in about["use"]
    content = (study / "out/model.onnx").read_bytes()
    for trace in (str(ROOT), str(study), "site-packages", ".py"):
        assert trace.encode() not in content, trace


def small() -> Network:
    """An ordinary, a strided and a depthwise convolution, and a linear layer, for images of 16×16 pixels."""
    with seeded(0):
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1, stride=2),
            nn.Conv2d(4, 4, 5, padding=2, groups=4), nn.Flatten(), nn.Linear(8 * 8 * 4, 7),
        )  # fmt: skip
    network = Network(body, (0.5,) * 3, (0.5,) * 3, shared="3")
    network.facts = {"encoder": "small"}
    return network


def test_multiply_accumulates_are_those_worked_out_by_hand() -> None:
    by_hand = 16 * 16 * 8 * (3 * 3 * 3) + 8 * 8 * 4 * 8 + 8 * 8 * 4 * (5 * 5) + 8 * 8 * 4 * 7
    assert graph.Exported([small()]).macs(16) == by_hand
    assert graph.Exported([small(), small()]).macs(16) == 2 * by_hand


def test_the_same_run_gives_the_same_files(exported_classes: Path, tmp_path: Path) -> None:
    """So that an export that is made again is no new result for DVC."""
    study = exported_classes
    export(study / "run", "T", study / "prepared", study / "splits.parquet", tmp_path, "v1", {})
    for name in ("model.onnx", "README.md"):
        assert (tmp_path / name).read_bytes() == (study / "out" / name).read_bytes()


def test_a_network_that_onnx_cannot_express_is_named(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Conv2d(3, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            maps = self.encoder(images)
            return maps if maps.sum().item() > 0 else -maps  # a way that depends on the image

    network = Network(Odd(), (0.5,) * 3, (0.5,) * 3, shared="encoder")
    network.facts = {"encoder": "oddnet18"}
    with pytest.raises(ExportError, match="encoder oddnet18: torch cannot translate the network to ONNX") as caught:
        graph.write(graph.Exported([network]), 32, {}, tmp_path / "odd.onnx")
    assert len(str(caught.value).splitlines()) == 1
    assert left(tmp_path) == []


# The card


@both
def test_the_card_has_the_run_s_metrics_data_and_limits(study: Path) -> None:
    card = (study / "out/README.md").read_text()
    run = json.loads((study / "run/metrics.json").read_text())
    header, *rows = next(table for table in markdown_tables(study / "out/README.md") if table[0][0] == "network")
    metrics = METRICS[run["data"]["task"]]
    assert header[1:] == [f"{split} {LABELS[m]}" for split in ("validation", "test") for m in metrics]
    assert len(rows) == len(ALL)
    for network, row in zip(ALL, rows, strict=True):
        expected = [f"{100 * run['best'][split][network][m]:.2f}" for split in ("val", "test") for m in metrics]
        assert [cell.strip("*") for cell in row[1:]] == expected
        assert row[0].startswith("**") == (network == parts_of(study)[0])
    data = run["data"]
    for said in (
        "Trained on synthetic images", "No medical device",
        "trained with Classroom v0, exported with v1", "license: mit",
        f"{data['train']} training, {data['val']} validation", f"{data['test']} test images", f"by {data['group']}",
        "Adam at 0.001", "S1: α",
    ):  # fmt: skip
        assert said in card, said


def test_the_card_of_real_images_names_origin_licence_and_what_part_it_was(raw: dict[str, Any]) -> None:
    weights = {"S1": {"alpha": 0.1, "beta": 0.9, "gamma": 0.0}, "S2": {"alpha": 0.2, "beta": 0.0, "gamma": 0.8}}
    training = {"epochs": 12, "batch_size": 8, "learning_rate": 0.0001, "precision": "fp32", "threads": 2}
    scores = {name: {"iou": 0.5, "f_score": 0.6} for name in ALL}
    run = {
        "study": "lgg-resnet18", "method": "kd_ml-v3", "seed": 0, "notes": [],
        "data": fabricated.LGG | {"images": 444},
        "settings": {"weights": weights, "training": training, "balance": "none"},
        "networks": {"S1": fabricated.network()}, "test_images": {"group": ["a", "b"]},
        "best": {"epochs": {"S1": 3, "S2": 4}, "val": scores, "test": scores},
    }  # fmt: skip
    facts = {
        **{key: run[key] for key in ("study", "method", "seed")}, "network": "ensemble", "task": "segmentation",
        "labels": ["foreground"], "image_size": 128, "threshold": 0.5, "networks": [fabricated.network()] * 2,
        "parameters": 28_000_000, "macs": 10**10, "use": module.USE, "code_version": "abc",
    }  # fmt: skip

    def written(dataset: params.Dataset | None) -> str:
        licence = card.licence(run["data"], dataset)
        return card.text(run, facts | {"licence": licence}, Difference(1e-6, 0.0, 100), dataset, "0123456789ab")

    lgg = params.Dataset(**raw["dataset"]["lgg"])
    text = written(lgg)
    for said in (
        "license: cc-by-nc-sa-4.0", "Images: CC BY-NC-SA 4.0", "Buda, Saha, Mazurowski 2019", "444 of its 3929 images",
        "original: LGG MRI Segmentation", "S1: α 0.1, β 0.9; S2: α 0.2, γ 0.8", "differ by at most 1e-06",
        "28.00 M parameters, 10 G", "trained with Classroom 0123456789ab, exported with abc",
    ):  # fmt: skip
        assert said in text, said
    assert "ynthetic" not in text
    own = lgg.model_copy(update={"origin": "", "licence": "", "citation": "", "full_size": 444})
    for text in (written(own), written(None)):
        for said in ("license: unknown", "- original: not stated\n", "- cite: not stated\n", "Images: not stated."):
            assert said in text, said
        assert "Kaggle" not in text
        assert "CC BY" not in text
    assert "license: other\n" in written(lgg.model_copy(update={"licence": "Ask us."}))


def test_the_paper_s_datasets_state_origin_licence_and_citation(raw: dict[str, Any]) -> None:
    for name, dataset in raw["dataset"].items():
        assert "https://" in dataset["origin"], name
        assert dataset["licence"].startswith("CC"), name
        assert "20" in dataset["citation"], name


@both
def test_the_card_s_program_runs_and_agrees_with_classroom_predict(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what people copy. On an image of another size and form than the network's."""
    program = (study / "out/README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(program.splitlines()) <= 10
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (45, 70, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    shutil.copyfile(study / "out/model.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    model = Model(Path("model.onnx"))
    predict(model, find([Path("image.png")])[0], Path("ours"), 8)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {})
    if model.about["task"] == "segmentation":
        theirs, ours = (np.asarray(Image.open(path)) for path in ("mask.png", "ours/image_mask.png"))
        assert theirs.shape == (45, 70)
        assert np.array_equal(theirs, ours)
    else:
        (row,) = csv.DictReader(Path("ours/predictions.csv").read_text().splitlines())
        assert printed.getvalue().split()[0] == row["label"]


# What is refused, and leaves nothing


@masks
def test_a_model_that_differs_from_pytorch_is_not_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "write", lambda module, size, facts, path: brightness(path))
    with pytest.raises(ExportError, match=r"differs from PyTorch by up to 0\.\d.*nothing was written"):
        again(copy)
    assert left(copy / "new") == []


@both
def test_a_network_that_diverged_is_not_exported(study: Path, copy: Path) -> None:
    """Weights that are not finite, and finite ones that overflow."""
    network, parts = parts_of(study)
    path = copy / "run/weights.safetensors"
    healthy = load_file(path)
    first = next(key for key in healthy if key.startswith(f"{parts[0]}.") and key.endswith("conv1.weight"))
    for value, message in (
        (math.nan, "weights.safetensors: .* diverged: 1 of"),
        (1e38, "run: .* diverged: it gives NaN"),
    ):
        save_file(healthy | {first: torch.full_like(healthy[first], value)}, path)
        with pytest.raises((TrainingError, ExportError), match=message):
            again(copy, network)
    assert left(copy / "new") == []


@both
def test_predictions_of_another_run_are_noticed(study: Path, copy: Path) -> None:
    """Weights of one run with the predictions of another: the table would be of the one, the model of the other."""
    ids, saved = predictions.read(copy / "run/predictions.parquet")
    network, parts = parts_of(study)
    for name in parts:
        other = saved[name][::-1].copy()
        assert not np.array_equal(other, saved[name])
        saved[name] = other
    predictions.write(copy / "run/predictions.parquet", ids, [saved])
    with pytest.raises(ExportError, match="do not give the predictions that the run saved"):
        again(copy, network)
    assert left(copy / "new") == []


@masks
def test_an_accelerator_s_rounding_is_allowed_for_and_a_cpu_s_is_not(copy: Path) -> None:
    ids, saved = predictions.read(copy / "run/predictions.parquet")
    for name in ("S1", "S2"):
        saved[name] = np.minimum(saved[name], 251) + 4  # 4/256 more
    predictions.write(copy / "run/predictions.parquet", ids, [saved])
    with pytest.raises(ExportError, match=r"0\.0\d apart, at most 0\.0001 is accepted"):
        again(copy)
    (copy / "run/manifest.json").write_text('{"device": "cuda"}')
    assert 3 / 256 < again(copy).saved < 5 / 256
    assert sorted(left(copy / "new")) == ["README.md", "model.onnx"]


@masks
def test_images_that_were_prepared_again_are_noticed(copy: Path) -> None:
    def doubled(array: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(array, 2, 1), 2, 2) if array.ndim > 1 else array

    for name, of_images, of_targets in (
        ("other pixels", lambda images: 255 - images, lambda targets: targets),
        ("another size", doubled, doubled),
    ):
        prepared = copy / name
        shutil.copytree(copy / "prepared", prepared)
        for file, change in (("images.npy", of_images), ("targets.npy", of_targets)):
            np.save(prepared / file, change(np.load(prepared / file)))
        with pytest.raises(ExportError, match=r"do not give the predictions|not the images that .*run was trained"):
            export(copy / "run", "ensemble", prepared, copy / "splits.parquet", copy / "new", "v1", {})
    assert left(copy / "new") == []


@masks
@pytest.mark.parametrize(
    ("network", "learnt", "message"),
    [
        ("S3", ALL[:3], "S3 was not trained in it. Expected one of T, S1, S2, ensemble.$"),
        (
            "T",
            ("S1", "S2"),
            "T was not trained in it. Expected one of S1, S2, ensemble. Its teacher: `classroom export ",
        ),
        ("ensemble", ("S1",), "S2 was not trained in it. Expected one of S1.$"),
        ("ensemble", ("T",), "S1 was not trained in it. Expected one of T.$"),
    ],
)
def test_a_network_that_did_not_learn_in_the_run_is_named(
    copy: Path, network: str, learnt: tuple[str, ...], message: str
) -> None:
    path = copy / "run/metrics.json"
    run = json.loads(path.read_text())
    run["best"]["epochs"] = dict.fromkeys(learnt, 1)
    path.write_text(json.dumps(run))
    with pytest.raises(ExportError, match=message):
        again(copy, network)


@masks
def test_a_missing_or_damaged_file_of_the_run_is_named(copy: Path) -> None:
    for name in ("weights.safetensors", "predictions.parquet", "metrics.json", "manifest.json"):
        path = copy / "run" / name
        content = path.read_bytes()
        for damaged in (None, content[: len(content) // 2]):
            path.unlink()
            if damaged:
                path.write_bytes(damaged)
            with pytest.raises((ExportError, DataError, TrainingError), match=rf"run/{name}: .*Train this run again"):
                again(copy)
            path.write_bytes(content)
    assert left(copy / "new") == []


@masks
def test_a_student_with_its_teacher_s_head_is_refused(copy: Path) -> None:
    """SimKD: its student is no network that `build` could make."""
    path = copy / "run/weights.safetensors"
    save_file(load_file(path) | {"S1.body.last.0.weight": torch.zeros(1)}, path)
    with pytest.raises(TrainingError, match="S1 ends in its teacher's classifier"):
        again(copy, "S1")


@masks
def test_a_full_disk_or_a_file_in_the_way_leaves_nothing_half_written(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(module: Any, size: int, facts: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(graph, "write", full)
    (copy / "new").mkdir()
    (copy / "new/model.onnx").write_bytes(b"before")
    with pytest.raises(ClassroomError, match=r"new: cannot be written \(No space left"):
        again(copy)
    assert left(copy / "new") == ["model.onnx"]
    assert (copy / "new/model.onnx").read_bytes() == b"before"
    shutil.rmtree(copy / "new")
    (copy / "new").write_text("a file")
    with pytest.raises(ClassroomError, match="new: cannot be written"):
        again(copy)


# The command


@masks
def test_the_command_takes_the_first_seed_and_the_ensemble_by_default(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    copy_settings(copy)
    for place, target in {
        "data/prepared/lgg-resnet18": "prepared",
        "data/splits/lgg-resnet18.parquet": "splits.parquet",
        "runs/lgg-resnet18/kd_ml-v3/seed-0": "run",
    }.items():
        (copy / place).parent.mkdir(parents=True, exist_ok=True)
        (copy / place).symlink_to(copy / target)
    monkeypatch.chdir(copy)
    code, out, err = command(monkeypatch, capsys, "export", "lgg-resnet18", "kd_ml-v3")
    assert (code, err) == (0, "")
    assert out.startswith(
        "exports/lgg-resnet18/kd_ml-v3/seed-0/ensemble/model.onnx, README.md: probabilities of 9 test images"
    )
    assert Model(copy / "exports/lgg-resnet18/kd_ml-v3/seed-0/ensemble").about["network"] == "ensemble"


def test_what_cannot_be_exported_is_named_in_one_paragraph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    copy_settings(tmp_path)
    before = left(tmp_path)
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ("cka lgg-resnet18 kd_ml-v3 --seed 7", "seed-7: this run has not been trained. Run `classroom train lgg"),
        (
            "export lgg-resnet18 kd_ml-v3",
            "seed-0: this run has not been trained. Run `classroom train lgg-resnet18 kd_ml-v3 --seed 0` first",
        ),
        ("export lgg-resnet18 fitnet --seed 2", "compared/lgg-resnet18/fitnet/seed-2: this run has not been trained"),
        ("export lgg-resnt18 kd_ml-v3", "Did you mean 'lgg-resnet18'"),
        ("export lgg-resnet18 kd_ml-v4", "unknown method 'kd_ml-v4'. Did you mean 'kd_ml-v"),
    ):
        code, out, err = command(monkeypatch, capsys, *arguments.split())
        assert (code, out) == (1, "")
        assert err.startswith("Error: ")
        assert message in err
        assert len(err.splitlines()) == 1
    assert left(tmp_path) == before


# What deploying may ask for


def test_a_report_called_like_that_of_deploying_is_refused(raw: dict[str, Any]) -> None:
    raw["study"][STUDY]["reports"]["variants"] = "deploy"
    with pytest.raises(params.ParamsError, match=r"lgg-resnet18\.yaml: reports\.variants: 'deploy' is taken"):
        params.check(raw)


def test_deploying_needs_the_variant_that_it_exports(raw: dict[str, Any]) -> None:
    raw["ours"] = "kd_ml-v4"
    for of in raw["study"].values():
        of["reports"] = {kind: of["reports"][kind] for kind in ("variants", "baselines", "fidelity", "architecture")}
    params.check(raw)
    raw["study"][STUDY]["reports"]["deploy"] = True
    with pytest.raises(params.ParamsError, match=r"ours: 'kd_ml-v4' is not in variants\. Did you mean 'kd_ml.*deploy"):
        params.check(raw)


def test_deploying_can_be_left_out(raw: dict[str, Any]) -> None:
    for of in raw["study"].values():
        of["reports"].pop("deploy", None)
    asked = plan(params.check(raw))
    assert (asked["deploy"], asked["exported"], asked["reports"]["deploy"]) == ({}, {}, {})
