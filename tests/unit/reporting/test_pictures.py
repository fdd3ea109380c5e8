"""Pictures of hard test images, training curves and agreement: what is chosen, and that it can be drawn."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from classroom.core import predictions
from classroom.errors import DataError
from classroom.params import VARIANTS
from classroom.reporting import agreement, curves, pictures
from classroom.reporting.common.drawing import PREDICTION_COLOUR, outline, saved, without_ticks
from support import fabricated

SIZE = 32
# By image: patient, size of the square lesion, and how much of its height every variant finds.
IMAGES = {
    "easy": ("anna", 10, 1.0),
    "missed": ("anna", 10, 0.0),
    "half": ("bert", 10, 0.5),
    "worse than half": ("bert", 10, 0.3),
    "no lesion": ("cora", 0, 0.0),
    "a speck": ("dora", 1, 0.0),
    "most": ("emil", 10, 0.8),
}


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Runs of four variants; S1 finds nothing, so an ensemble is S2."""
    truth = np.zeros((len(IMAGES), SIZE, SIZE), np.uint8)
    found = np.zeros_like(truth)
    for number, (_, side, part) in enumerate(IMAGES.values()):
        truth[number, 4 : 4 + side, 4 : 4 + side] = 255
        found[number, 4 : 4 + round(side * part), 4 : 4 + side] = 200
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    np.save(prepared / "images.npy", np.zeros((len(IMAGES), SIZE, SIZE, 3), np.uint8))
    pd.DataFrame({"id": list(IMAGES), "group": [group for group, *_ in IMAGES.values()]}).to_parquet(
        prepared / "index.parquet"
    )
    folders = {}
    for variant in ("ml-v3", "kd_off-v3", "kd_ml-v1", "kd_ml-v3"):
        folder = tmp_path / variant
        folder.mkdir()
        stacks = {"S1": np.zeros_like(truth), "S2": found, predictions.GROUND_TRUTH: truth}
        predictions.write(folder / "predictions.parquet", list(IMAGES), [stacks])
        data = {"dataset": "lgg", "synthetic": True, "group": "patient"}
        about = fabricated.metrics_of(study="lgg-resnet18", method=variant, seed=0, data=data)
        (folder / "metrics.json").write_text(json.dumps(about))
        folders[variant] = folder
    return folders


def test_the_hardest_image_of_each_patient_is_shown_hardest_first(runs: dict[str, Path], tmp_path: Path) -> None:
    """Anna's easy image is not there, nor what has no lesion that a reader could see."""
    samples = pictures.hardest(runs, tmp_path / "prepared", 4)
    assert [sample.group for sample in samples] == ["anna", "bert", "emil"]
    assert [sample.mean_iou for sample in samples] == pytest.approx([0.0, 0.3, 0.8])
    assert len(pictures.hardest(runs, tmp_path / "prepared", 2)) == 2


def test_an_image_that_one_variant_finds_is_less_hard_than_one_that_none_finds(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """The mean over variants decides, not the first variant's opinion."""
    path = runs["kd_ml-v3"] / "predictions.parquet"
    ids, stacks = predictions.read(path)
    better = {name: stack.copy() for name, stack in stacks.items()}
    better["S2"][ids.index("worse than half")] = stacks[predictions.GROUND_TRUTH][ids.index("worse than half")]
    predictions.write(path, ids, [better])
    samples = pictures.hardest(runs, tmp_path / "prepared", 4)
    # of Bert's two images 0.5 is now the mean of one, (3 · 0.3 + 1) / 4 of the other
    assert [sample.mean_iou for sample in samples] == pytest.approx([0.0, 0.475, 0.8])


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, which are not made into pixels: that takes a second each."""
    kept: list[Figure] = []
    for module in (pictures, curves, agreement):
        monkeypatch.setattr(module, "saved", lambda figure: kept.append(figure) or b"")
    return kept


def test_every_kind_shows_its_variants_and_networks(
    figures: list[Figure], runs: dict[str, Path], tmp_path: Path
) -> None:
    v3, students = ["ML V3", "KD (off) V3", "KD + ML V3"], ("S1", "S2")
    for kind, columns, rows in (
        ("all_variants", ["ML V3", "KD (off) V3", "KD + ML V1", "KD + ML V3"], 3 * 2),
        ("diverse", [f"{label} {student}" for label in v3 for student in students], 3),
        ("ensembles", v3, 3),
        ("kd_ml", [f"KD + ML {v} {student}" for v in ("V1", "V3") for student in students], 3),
    ):
        page = pictures.picture("figure4", kind, runs, tmp_path / "prepared", "demo")
        axes = figures[-1].axes
        titles = [axis.get_title().replace("\n", " ") for axis in axes if axis.get_title()]
        assert titles == ["image", "ground truth", *columns], kind
        assert len(axes) == rows * len(titles)
        assert page.made_from == [run.as_posix() for run in runs.values()], "all of them choose the images"
        assert page.drawing.alt.endswith("Mean IoU of all ensembles on them: 0, 30, 80 %.")
        # S1 finds nothing, and an ensemble what S2 finds: of Anna's worst image nothing, then 30 and 80 %
        ious = [axis.get_xlabel() for axis in axes[len(titles) - 1 :: len(titles)]]
        assert ious == (["0", "0", "0", "30", "0", "80"] if kind == "all_variants" else ["0", "30", "80"])


def test_the_same_runs_give_the_same_bytes_whatever_patients_are_called(runs: dict[str, Path], tmp_path: Path) -> None:
    """A picture that differed at every run would never be fresh for DVC; a name in dollars is no formula."""
    index = pd.read_parquet(tmp_path / "prepared" / "index.parquet")
    names = {"anna": r"$\frac{$", "bert": "<b>|& Müller 'x' \"y\"", "emil": r"a\b"}
    index.assign(group=index.group.replace(names)).to_parquet(tmp_path / "prepared" / "index.parquet")
    first, second = (pictures.picture("figure5", "kd_ml", runs, tmp_path / "prepared", "demo") for _ in range(2))
    assert first == second
    width, height = Image.open(io.BytesIO(first.drawing.png)).size
    assert width > 600
    assert height > 300


def test_runs_of_other_test_images_are_not_shown_side_by_side(runs: dict[str, Path], tmp_path: Path) -> None:
    path = runs["ml-v3"] / "predictions.parquet"
    ids, stacks = predictions.read(path)
    predictions.write(path, ids[::-1], [stacks])
    with pytest.raises(DataError, match="tested on other images than the other variants"):
        pictures.hardest(runs, tmp_path / "prepared", 4)


def test_a_picture_of_variants_that_are_not_trained_says_so(runs: dict[str, Path], tmp_path: Path) -> None:
    del runs["kd_ml-v1"], runs["kd_ml-v3"]
    with pytest.raises(DataError, match=r"pictures\.figure9: none of the variants that 'kd_ml' shows"):
        pictures.picture("figure9", "kd_ml", runs, tmp_path / "prepared", "demo")


def test_nothing_to_see_is_said_instead_of_drawn(runs: dict[str, Path], tmp_path: Path) -> None:
    for folder in runs.values():
        ids, stacks = predictions.read(folder / "predictions.parquet")
        empty = {name: np.zeros_like(stack) for name, stack in stacks.items()}
        predictions.write(folder / "predictions.parquet", ids, [empty])
    with pytest.raises(DataError, match="no test image has visible foreground"):
        pictures.hardest(runs, tmp_path / "prepared", 4)


def test_the_outline_of_a_mask_of_the_whole_image_is_seen_on_all_four_sides() -> None:
    """It had none, and looked like a prediction of nothing."""
    for side in (16, 256):
        figure = Figure(figsize=(2, 2), dpi=100)
        axis = figure.subplots()
        axis.imshow(np.zeros((side, side, 3), np.uint8))
        without_ticks(axis)
        limits = axis.get_xlim(), axis.get_ylim()
        outline(axis, np.ones((side, side), bool), PREDICTION_COLOUR, 1.2)
        assert (axis.get_xlim(), axis.get_ylim()) == limits
        red, green, blue = np.asarray(Image.open(io.BytesIO(saved(figure))).convert("RGB"), int).transpose(2, 0, 1)
        orange = (red > 180) & (green > 110) & (blue < 60)
        assert (orange.sum(axis=0) > 100).sum() >= 2, "left and right"
        assert (orange.sum(axis=1) > 100).sum() >= 2, "above and below"
        assert orange.mean() < 0.1, "a line, no area"


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("patient", "\nThe hardest test images, at most one per patient: those with"),
        ("image", "\nThe hardest test images: those with"),
    ],
)
def test_a_picture_of_images_without_groups_does_not_speak_of_the_image_of_an_image(
    figures: list[Figure], runs: dict[str, Path], tmp_path: Path, group: str, said: str
) -> None:
    for folder in runs.values():
        about = json.loads((folder / "metrics.json").read_text())
        about["data"]["group"] = group
        (folder / "metrics.json").write_text(json.dumps(about))
    pictures.picture("mine", "ensembles", runs, tmp_path / "prepared", "demo")
    assert said in figures[-1].get_suptitle()


# Curves and agreement


@pytest.fixture
def histories(tmp_path: Path) -> dict[str, dict[int, Path]]:
    """Two seeds of two variants over three epochs."""
    folders: dict[str, dict[int, Path]] = {}
    for variant in ("ml-v1", "kd_ml-v3"):
        for seed in (0, 1):
            folder = tmp_path / variant / str(seed)
            folder.mkdir(parents=True)
            values = {name: [0.1, 0.2 + 0.2 * seed, 0.3] for name in ("S1", "S2", "ensemble")}
            history = pd.DataFrame(
                {"epoch": [1, 2, 3], "weighted/S1/task": [3.0, 2.0, 1.0], "weighted/S2/task": [1.0] * 3}
            )
            for name, column in values.items():
                history[f"val/{name}/iou"] = column
            history.to_csv(folder / "history.csv", index=False)
            folders.setdefault(variant, {})[seed] = folder
    return folders


def test_what_dvc_plots_is_the_ensemble_s_mean_over_seeds(histories: dict[str, dict[int, Path]]) -> None:
    table = curves.ensembles(curves.read_curves(histories, "iou"))
    of = table[table.variant == "kd_ml-v3"]
    assert of.epoch.tolist() == [1, 2, 3]
    assert of.ensemble.tolist() == pytest.approx([10.0, 30.0, 30.0])
    assert of.loss.tolist() == pytest.approx([4.0, 3.0, 2.0])


def test_a_mean_over_seeds_ends_where_the_first_one_stopped_early(histories: dict[str, dict[int, Path]]) -> None:
    path = histories["kd_ml-v3"][1] / "history.csv"
    pd.read_csv(path).head(2).to_csv(path, index=False)
    table = curves.ensembles(curves.read_curves(histories, "iou"))
    assert table[table.variant == "kd_ml-v3"].epoch.tolist() == [1, 2]
    assert table[table.variant == "ml-v1"].epoch.tolist() == [1, 2, 3]


def test_a_missing_or_foreign_history_is_named(histories: dict[str, dict[int, Path]]) -> None:
    path = histories["ml-v1"][1] / "history.csv"
    for damage in (lambda: path.write_text("nothing,of,ours\n1,2,3\n"), path.unlink):
        damage()
        with pytest.raises(DataError, match=r"ml-v1/1/history\.csv: cannot be read"):
            curves.read_curves(histories, "iou")


def test_curves_have_a_line_for_each_seed_and_a_dot_at_its_best_epoch(
    figures: list[Figure], histories: dict[str, dict[int, Path]]
) -> None:
    page = curves.curves("lgg-resnet18", curves.read_curves(histories, "iou"), fabricated.all_twelve(2), "demo")
    panels = {axis.get_title(): axis for axis in figures[0].axes}
    assert list(panels) == ["ML V1", "KD + ML V3"], "and no panel for what is not trained"
    lines = panels["KD + ML V3"].get_lines()
    assert len(lines) == 3 * 2 * 2, "networks, seeds, a line and a dot"
    line, dot = lines[2:4]  # of S1, seed 1
    assert line.get_ydata().tolist() == pytest.approx([10, 40, 30])
    assert (list(dot.get_xdata()), list(dot.get_ydata())) == ([2], pytest.approx([40]))
    assert "The ensembles reach 30.0 to 30.0 %" in page.drawing.alt


def test_agreement_has_bars_of_the_truth_and_of_the_teacher(figures: list[Figure]) -> None:
    results = fabricated.all_twelve(2)
    assert {result["method"] for result in results} == set(VARIANTS)
    agreement.agreement("lgg-resnet18", results, "demo")
    bars = [bar.get_height() for bar in figures[0].axes[-1].patches]
    last = results[-1]["seeds"].values()
    truth = [np.mean([100 * run["test"][name]["iou"] for run in last]) for name in ("S1", "S2", "ensemble")]
    assert bars == pytest.approx([*truth, 90, 90, 90])
    page = agreement.agreement("lgg-resnet18", results[:1], "demo")  # ML has no teacher to agree with
    assert page.drawing.alt.endswith("None of the trained variants has a teacher.")


def test_the_same_curves_give_the_same_bytes(histories: dict[str, dict[int, Path]]) -> None:
    table = curves.read_curves(histories, "iou")
    first, second = (curves.curves("lgg-resnet18", table, fabricated.all_twelve(1), "demo").drawing for _ in range(2))
    assert first == second
