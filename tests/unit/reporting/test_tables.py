"""Tables and pictures: our numbers, the paper's and the difference, and never a word too much about what they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from classroom.core import predictions
from classroom.core.metrics import score
from classroom.errors import DataError
from classroom.params import VARIANTS
from classroom.reporting import samples as samples_module
from classroom.reporting.baselines import baselines_table
from classroom.reporting.common import heading, paper
from classroom.reporting.common.drawing import GROUND_TRUTH_COLOUR, PREDICTION_COLOUR
from classroom.reporting.common.results import read_results
from classroom.reporting.fidelity import fidelity_table
from classroom.reporting.variants import variants_table
from support.fabricated import (
    CLASSIFYING_TEACHER,
    HAM10000,
    HISTOPATHOLOGIC,
    LGG,
    MOBILENET,
    TEACHER,
    TRAINING,
    all_twelve,
    alone,
    classifier,
    metrics_of,
    network,
    result,
    students,
)
from support.rendered import check_sources, check_tex, markdown_rows, markdown_tables, one, save

SYNTHETIC = LGG | {"source": "synthetic", "synthetic": True}


def render(
    results: list[dict[str, Any]],
    target: Path,
    scale: str = "small",
    seeds: list[int] | None = None,
    name: str = "table4",
) -> Path:
    """A table of variants, with a student alone of the same data."""
    count = len(results[0]["seeds"])
    student = alone("student", [0.7] * count, data=results[0]["data"])
    save("variants", variants_table(name, scale, seeds or list(range(count)), results, student), target)
    return target


# Means of S1: 84, 79, 84.5; sample deviation of 80, 82, 90: the root of (16 + 4 + 36) / 2.
V1 = result("ml-v1", students([0.80, 0.82, 0.90], [0.70, 0.70, 0.70], [0.85, 0.85, 0.91]))
V2 = result("ml-v2", students([0.78, 0.79, 0.80], [0.75, 0.75, 0.81], [0.80, 0.80, 0.80]))
V3 = result("ml-v3", students([0.84, 0.84, 0.855], [0.60, 0.62, 0.64], [0.86, 0.86, 0.86]))
KD = result("kd_off-v1", {"T": [0.8, 0.8, 0.8], **students([0.7, 0.7, 0.7], [0.6, 0.6, 0.6], [0.7, 0.7, 0.7])})


@pytest.fixture(scope="module")
def table4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render([V1, V2, V3, KD], tmp_path_factory.mktemp("table4") / "table4.md")


def row_of(path: Path, technique: str, label: str) -> dict[str, str]:
    """One row of a table of variants by its column's header; `technique` heads the rows below it."""
    header, *rows = markdown_rows(path)
    current = ""
    for row in rows:
        current = row[0].strip("*") or current
        if current == technique and row[1].strip("*") == label:
            return dict(zip(header, row, strict=True))
    raise AssertionError(f"no row {technique}, {label}")


# The table of variants


def test_mean_and_sample_deviation_are_in_percent(table4: Path) -> None:
    cell = one(
        pd.read_csv(table4.with_suffix(".csv")), technique="ml", strategy="v1", network="S1", metric="iou", seeds=3
    )
    assert cell["mean"] == pytest.approx(84)
    assert cell["sd"] == pytest.approx(28**0.5, abs=1e-6)  # n - 1; with n it would be 4.32
    assert cell.last_epoch_mean == pytest.approx(42)
    assert cell.last_epoch_sd == pytest.approx(7**0.5, abs=1e-6)
    assert [cell.seed_0, cell.seed_1, cell.seed_2] == pytest.approx([80, 82, 90])


def test_the_papers_value_and_the_difference_are_next_to_ours(table4: Path) -> None:
    table = pd.read_csv(table4.with_suffix(".csv"))
    cell = one(table, technique="ml", strategy="v1", network="S1", metric="iou")
    assert (cell.paper, cell.paper_sd) == (76.69, 0.989)
    assert cell.difference == pytest.approx(84 - 76.69)
    cell = one(table, technique="kd_off", strategy="v1", network="ensemble", metric="f_score")
    assert cell.paper == 87.56
    assert cell.difference == pytest.approx(100 * 1.4 / 1.7 - 87.56, abs=1e-6)


def test_cells_read_as_the_paper_prints_them(table4: Path) -> None:
    """Two decimals for the mean, three for the deviation, the paper's mean and the signed difference below."""
    row = row_of(table4, "ML", "S1")
    assert row["V1 IoU"] == "84.00 ± 5.292<br>paper 76.69, +7.31"
    assert row["V2 IoU"] == "79.00 ± 1.000<br>paper 74.08, +4.92"
    assert row_of(table4, "KD (off)", "T")["V1 IoU"] == "80.00 ± 0.000<br>paper 76.86, +3.14"
    assert row_of(table4, "ML", "S2")["V1 IoU"] == "70.00 ± 0.000<br>paper 75.28, −5.28"
    text = check_tex(table4.with_suffix(".tex"))
    assert r"84.00 $\pm$ 5.292; paper 76.69, +7.31" in text
    assert r"\textbf{" in text


def test_the_best_strategy_of_each_row_and_metric_is_bold(table4: Path) -> None:
    best = {"S1": "V3", "S2": "V2", "Ensemble": "V1"}
    for label, strategy in best.items():
        row = row_of(table4, "ML", label)
        for metric in ("IoU", "F-score"):
            bold = [name for name in ("V1", "V2", "V3") if row[f"{name} {metric}"].startswith("**")]
            assert bold == [strategy], label
    table = pd.read_csv(table4.with_suffix(".csv"))
    marked = table[table.best & (table.technique == "ml") & (table.metric == "iou")]
    assert dict(zip(marked.network, marked.strategy, strict=True)) == {"S1": "v3", "S2": "v2", "ensemble": "v1"}


def test_equal_best_strategies_are_both_bold(tmp_path: Path) -> None:
    alike = [result(f"ml-{strategy}", students([0.8], [0.7], [0.8])) for strategy in ("v1", "v2")]
    render(alike, tmp_path / "table4.md")
    row = row_of(tmp_path / "table4.md", "ML", "S1")
    assert row["V1 IoU"].startswith("**80.00")
    assert row["V2 IoU"].startswith("**80.00")


def test_a_cell_that_was_not_trained_prints_a_dash(table4: Path) -> None:
    row = row_of(table4, "KD (off)", "S1")
    assert row["V2 IoU"] == row["V3 F-score"] == "–"
    assert "KD (on)" not in table4.read_text().split("| technique")[1]


def test_dashes_of_variants_that_are_not_trained_are_explained_where_there_are_some(
    table4: Path, tmp_path: Path
) -> None:
    said = "\n\n–: this variant is not among `variants` in params.yaml, so it is not trained.\n"
    assert said in table4.read_text()
    assert said not in render(all_twelve(1), tmp_path / "table4.md").read_text()
    some = [found for found in all_twelve(1) if found["method"] != "kd_on-v2"]
    save("fidelity", fidelity_table("table12", "small", [0], some), tmp_path / "table12.md")
    text = (tmp_path / "table12.md").read_text()
    assert said in text
    assert "their own teacher of the same seed" in text


def test_the_only_strategy_of_a_row_is_not_bold(table4: Path) -> None:
    """Best of one says nothing."""
    assert row_of(table4, "KD (off)", "S1")["V1 IoU"].startswith("70.00 ±")
    table = pd.read_csv(table4.with_suffix(".csv"))
    assert not table.best[table.technique == "kd_off"].any()


def test_weights_have_a_table_of_their_own(table4: Path) -> None:
    """Under IoU they would read as results."""
    assert "α" not in table4.read_text().split("## ")[0].split("| technique")[1]
    header, *rows = markdown_tables(table4)[-1]
    assert header == ["technique", "network", "V1", "V2", "V3"]
    assert rows == [
        ["**ML**", "S1", *["α 0.1, γ 0.9"] * 3],
        ["", "S2", *["α 0.2, γ 0.8"] * 3],
        ["**KD (off)**", "S1", "α 0.1, γ 0.9", "–", "–"],
        ["", "S2", "α 0.2, γ 0.8", "–", "–"],
    ]


def test_one_seed_prints_no_deviation(tmp_path: Path) -> None:
    """0.000 would claim that runs agree; nobody has compared any."""
    render([result("ml-v1", students([0.8], [0.7], [0.8]))], tmp_path / "table4.md")
    assert row_of(tmp_path / "table4.md", "ML", "S1")["V1 IoU"].startswith("80.00 ± –<br>")
    assert pd.read_csv(tmp_path / "table4.csv").sd.isna().all()
    assert "one run, so no standard deviation" in (tmp_path / "table4.md").read_text()
    assert not re.search(
        r"± \d|\\pm\$ \d", (tmp_path / "table4.md").read_text() + (tmp_path / "table4.tex").read_text()
    )


def test_seeds_are_averaged_whatever_their_order(tmp_path: Path, table4: Path) -> None:
    render([KD, V3, V2, V1], tmp_path / "again.md", seeds=[2, 0, 1])
    assert row_of(tmp_path / "again.md", "ML", "S1") == row_of(table4, "ML", "S1")


def test_results_of_other_seeds_are_refused_with_the_command_to_run(tmp_path: Path) -> None:
    for seeds in ([0, 1, 2, 3], [0, 1], [0, 1, 5]):
        with pytest.raises(
            DataError, match=r"results of ml-v1 have the seeds 0, 1, 2.*classroom evaluate lgg-resnet18 ml-v1"
        ):
            render([V1], tmp_path / "table4.md", seeds=seeds)
    assert not list(tmp_path.iterdir())


def test_the_summary_holds_every_variants_ensemble(table4: Path) -> None:
    """`dvc metrics show` compares experiments by it."""
    summary = json.loads(table4.with_suffix(".json").read_text())
    assert summary == {
        "iou": {"ml-v1": pytest.approx(87), "ml-v2": pytest.approx(80), "ml-v3": pytest.approx(86), "kd_off-v1": 70}
    }


def test_all_twelve_variants_find_the_papers_values(tmp_path: Path) -> None:
    """Table 4 is printed complete, so no cell may lack its paper value."""
    results = []
    for name in VARIANTS:
        ious = students([0.7], [0.7], [0.7])
        results.append(result(name, ious if name.startswith("ml-") else {"T": [0.8], **ious}))
    render(results, tmp_path / "table4.md")
    table = pd.read_csv(tmp_path / "table4.csv")
    assert len(table) == 2 * (3 * 3 + 9 * 4)
    assert table[["paper", "paper_sd", "difference"]].notna().all().all()
    assert one(table, technique="kd_ml", strategy="v3", network="ensemble", metric="f_score").paper == 89.52
    assert one(table, technique="kd_on", strategy="v3", network="S2", metric="iou").paper == 78.04
    assert list(dict.fromkeys(row[0] for row in markdown_rows(tmp_path / "table4.md")[1:])) == [
        "**ML**", "", "**KD (off)**", "**KD (on)**", "**KD + ML**",
    ]  # fmt: skip


# What a table says of its own origin


def test_training_settings_that_are_not_the_papers_are_in_the_heading() -> None:
    said = heading.training_line(TRAINING, ["IoU"])
    assert said.startswith("- training: 12 epochs, batch 8, Adam at 0.0001, fp32; each")
    more = {
        "optimiser": "sgd", "weight_decay": 0.01, "schedule": "cosine", "warmup_epochs": 2, "clip_gradients": 1.0,
        "early_stopping": 3,
    }  # fmt: skip
    assert heading.training_line(TRAINING | more, ["IoU"]).startswith(
        "- training: at most 12 epochs, batch 8, SGD with momentum 0.9 at 0.0001, fp32, weight decay 0.01, cosine "
        "schedule, 2-epoch warm-up, gradients of each network clipped to norm 1, early stopping after 3 epochs in "
        "which no network improved on validation; each"
    )


def test_the_heading_states_everything_a_reader_needs_to_judge(table4: Path) -> None:
    text = table4.read_text()
    for fact in (
        "Table 4", "lgg-resnet18", "scale: small", "images from a local folder", "lgg (segmentation)",
        "3929 images of 110 patients", "without foreground 2556, with foreground 1373",
        "128×128", "75:10:15", "by patient", "seed 4", "2946 training", "393 validation",
        "100 test images of 20 patients", "seeds: 0, 1, 2", "12 epochs", "batch 8", "0.0001", "fp32",
        "teacher resnet50 U-Net, 32.5 M parameters, ImageNet weights",
        "- IoU and F-score: computed from the pixels of all images of the split together, not averaged over images\n",
        "students resnet18 U-Net, 14.3 M parameters, ImageNet weights",
    ):  # fmt: skip
        assert fact in text, fact


def test_a_split_by_image_says_that_patients_are_on_both_sides(tmp_path: Path) -> None:
    data = LGG | {"split": {"percent": [75, 10, 15], "by": "image", "seed": 0}}
    render([result("ml-v1", students([0.8], [0.7], [0.8]), data)], tmp_path / "t.md")
    assert "images of one patient may be in different splits" in (tmp_path / "t.md").read_text()


def test_a_table_says_how_groups_are_told_and_what_was_converted(tmp_path: Path) -> None:
    """Whether a split may leak, and whether pixels are the original ones, decides what the numbers mean."""
    data = LGG | {"grouping": "patients by `_`", "converted": {"images": {"grey to three channels": 3929, "x": 1}}}
    render([result("ml-v1", students([0.8], [0.7], [0.8]), data)], tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert "- groups: patients by `_`\n" in text
    assert "- converted: images: 3929 × grey to three channels, 1 × x\n" in text


def test_networks_are_described_with_options_and_origin_of_weights() -> None:
    thin = network("tu-resnet18", 900_000, encoder_options={"channels": [4, 8]}, weights="random")
    assert heading.describe(thin) == "tu-resnet18 U-Net with channels [4, 8], 0.9 M parameters, random weights"
    assert "weights of a local file" in heading.describe(network(weights="data/weights/mine.safetensors"))


def headed(scale: str, data: dict[str, Any], folder: Path) -> tuple[str, str, pd.DataFrame]:
    results = [result("ml-v1", students([0.8], [0.7], [0.8]), data)]
    render(results, folder / "table4.md", scale)
    return (
        (folder / "table4.md").read_text(), (folder / "table4.tex").read_text(), pd.read_csv(folder / "table4.csv"),
    )  # fmt: skip


def test_a_split_that_the_dataset_gives_is_said_to_be_given(tmp_path: Path) -> None:
    """Its percentages and seed decide nothing, and no patient is in two of its splits."""
    split = {"percent": [75, 10, 15], "by": "given", "seed": 0}
    text, *_ = headed("small", LGG | {"split": split}, tmp_path)
    assert "\n- split: as given by the dataset (no patient is in two splits): 2946 training, 393 validation" in text
    text, *_ = headed("small", LGG | {"split": split, "group": "image"}, tmp_path)
    assert "\n- split: as given by the dataset: 2946 training, 393 validation" in text


def test_synthetic_images_get_a_disclaimer_at_every_scale(tmp_path: Path) -> None:
    """A demo must not pass for a reproduction, in whichever file it is found."""
    for scale in ("demo", "small", "paper"):
        markdown, tex, table = headed(scale, SYNTHETIC, tmp_path)
        assert "**Synthetic images, not patients: nothing here reproduces the paper.**" in markdown
        assert markdown.index("Synthetic images") < markdown.index("| technique")
        assert "% Synthetic images, not patients" in tex
        assert table.synthetic.tolist() == [True] * len(table)
        assert table.scale.tolist() == [scale] * len(table)


def test_real_images_at_a_smaller_scale_get_their_own_disclaimer(tmp_path: Path) -> None:
    for scale in ("demo", "small"):
        markdown, tex, table = headed(scale, LGG, tmp_path)
        assert f"**Real images at scale '{scale}'" in markdown
        assert "not a reproduction" in markdown
        assert "ynthetic" not in markdown
        assert "not a reproduction" in tex
        assert not table.synthetic.any()


def test_real_images_at_the_papers_scale_need_no_disclaimer(tmp_path: Path) -> None:
    markdown, tex, table = headed("paper", LGG, tmp_path)
    for text in (markdown, tex):
        assert "not a reproduction" not in text
        assert "ynthetic" not in text
    assert not table.synthetic.any()


def test_the_latex_of_baselines_is_well_formed(tmp_path: Path) -> None:
    """Names with underscores, such as tu-mobilenetv1_100, are the usual trap."""
    odd = network("tu-mobilenetv1_100", 8_312_465, encoder_options={"drop_rate": 0.1, "block_args": {"a_b": 1}})
    results = [alone("teacher", [0.8], TEACHER), alone("student", [0.7], odd, study="lgg-mobilenet")]
    save("baselines", baselines_table("table2", "demo", [0], results), tmp_path / "table2.md")
    check_tex(tmp_path / "table2.tex")
    assert r"tu-mobilenetv1\_100" in (tmp_path / "table2.tex").read_text()


# The table of baselines


@pytest.fixture
def baselines() -> list[dict[str, Any]]:
    """Two studies with one teacher, in the order in which the command reads them."""
    return [
        alone("teacher", [0.78, 0.80], TEACHER),
        alone("student", [0.75, 0.76], network()),
        alone("teacher", [0.78, 0.80], TEACHER, study="lgg-mobilenet"),
        alone("student", [0.67, 0.69], MOBILENET, study="lgg-mobilenet"),
    ]


HOSTILE = "<script>alert(1)</script>|a\nb\\input{/etc/passwd}<br>"


def test_what_results_from_elsewhere_say_is_text_in_every_file(tmp_path: Path) -> None:
    """Results can be pulled from anyone's remote: no tag, no row or column of its own, no TeX, no formula."""
    strange = network("=cmd|' /c calc'!A0", encoder_options={HOSTILE: HOSTILE})
    save(
        "baselines", baselines_table("table2", "demo", [0], [alone("student", [0.8], strange)]), tmp_path / "table2.md"
    )
    page = (tmp_path / "table2.md").read_text()
    assert "<script" not in page
    assert "&lt;script>alert(1)&lt;/script>" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(re.findall(r"\|", rows[1]))}
    tex = check_tex(tmp_path / "table2.tex")
    assert r"\input" not in tex
    assert r"\textbackslash{}input" in tex
    name = pd.read_csv(tmp_path / "table2.csv").network.iloc[0]
    assert name.startswith("'=cmd|")


def test_baselines_have_a_row_per_network_and_the_shared_teacher_once(
    baselines: list[dict[str, Any]], tmp_path: Path
) -> None:
    save("baselines", baselines_table("table2", "small", [0, 1], baselines), tmp_path / "table2.md")
    _, *rows = markdown_rows(tmp_path / "table2.md")
    assert [row[0] for row in rows] == ["resnet50", "resnet18", "mobilenet"]
    assert len(check_sources(tmp_path / "table2.md")) == 3 * 2
    assert rows[0][1].startswith("lgg-resnet18, lgg-mobilenet: resnet50 U-Net")


def test_baselines_are_next_to_the_papers_table_2(baselines: list[dict[str, Any]], tmp_path: Path) -> None:
    save("baselines", baselines_table("table2", "small", [0, 1], baselines), tmp_path / "table2.md")
    table = pd.read_csv(tmp_path / "table2.csv")
    student = one(table, network="resnet18", metric="iou")
    assert [student.seed_0, student.seed_1, student.last_epoch_mean] == pytest.approx([75, 76, 37.75])
    papers = {
        ("resnet50", "iou"): 76.86, ("resnet50", "f_score"): 86.93, ("resnet18", "iou"): 75.06,
        ("resnet18", "f_score"): 85.13, ("mobilenet", "iou"): 68.15, ("mobilenet", "f_score"): 80.24,
    }  # fmt: skip
    assert {(row.network, row.metric): row.paper for row in table.itertuples()} == papers
    assert len(table) == 6
    cell = one(table, network="resnet50", metric="iou")
    assert cell["mean"] == pytest.approx(79)
    assert cell.sd == pytest.approx(2**0.5, abs=1e-6)
    assert cell.difference == pytest.approx(79 - 76.86)
    _, *rows = markdown_rows(tmp_path / "table2.md")
    assert rows[0][3] == "79.00 ± 1.414<br>paper 76.86, +2.14"
    assert rows[1][1] == "lgg-resnet18: resnet18 U-Net, 14.3 M parameters, ImageNet weights"
    assert [row[2] for row in rows] == ["–", "–", "–"]  # nothing of the paper's other dataset was trained


def test_thin_stand_ins_are_named_after_what_they_stand_for(tmp_path: Path) -> None:
    thin = network("tu-resnet50", 2_054_917, encoder_options={"channels": [16, 32, 64, 128]}, weights="random")
    save(
        "baselines",
        baselines_table("table2", "demo", [0], [alone("teacher", [0.8], thin, data=SYNTHETIC)]),
        tmp_path / "table2.md",
    )
    _, row = markdown_rows(tmp_path / "table2.md")
    assert row[0] == "resnet50"
    assert "with channels [16, 32, 64, 128], 2.1 M parameters, random weights" in row[1]
    assert "**Synthetic images, not patients" in (tmp_path / "table2.md").read_text()
    assert pd.read_csv(tmp_path / "table2.csv").synthetic.all()


def test_a_network_that_the_paper_has_not_has_no_line_of_the_paper(tmp_path: Path) -> None:
    own = network("tu-efficientnet_b0", 6_000_000)
    save("baselines", baselines_table("table2", "small", [0], [alone("student", [0.8], own)]), tmp_path / "table2.md")
    _, row = markdown_rows(tmp_path / "table2.md")
    assert row[3] == "80.00 ± –"
    assert pd.read_csv(tmp_path / "table2.csv")[["paper", "difference"]].isna().all().all()


def test_baselines_of_other_seeds_are_refused_with_the_command_to_run(
    baselines: list[dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"seeds 0, 1.*classroom evaluate lgg-resnet18 teacher"):
        save("baselines", baselines_table("table2", "small", [0], baselines), tmp_path / "table2.md")
    assert not list(tmp_path.iterdir())


# Classification, and tables that the paper does not have


CLASSES = HAM10000 | {"lacking": {"test": ["df"]}}


def classes_result(quality: float, data: dict[str, Any] = CLASSES, method: str = "ml-v1") -> dict[str, Any]:
    found = result(method, students([quality], [quality], [quality]), data, study="of-classes")
    found["settings"]["balance"] = "mean"
    return found


def render_classes(name: str, folder: Path, data: dict[str, Any] = CLASSES) -> Path:
    found = classes_result(0.8, data)
    student = alone("student", [0.7], data=data, study="of-classes")
    student["settings"]["balance"] = "mean"
    save("variants", variants_table(name, "small", [0], [found], student), folder / f"{name}.md")
    return folder / f"{name}.md"


@pytest.mark.parametrize(
    ("name", "data", "shown"),
    [
        ("table14", CLASSES, ["Precision", "Recall", "Accuracy"]),  # the paper's order
        ("table3", HISTOPATHOLOGIC, ["Accuracy"]),
        ("table8", HISTOPATHOLOGIC, ["Accuracy"]),
        ("of-two-classes", HISTOPATHOLOGIC, ["Accuracy"]),
        ("of-seven-classes", CLASSES, ["Accuracy", "Precision", "Recall"]),
    ],
)
def test_the_page_shows_the_metrics_of_the_paper_and_the_csv_all(
    name: str, data: dict[str, Any], shown: list[str], tmp_path: Path
) -> None:
    target = render_classes(name, tmp_path, data)
    header = markdown_rows(target)[0]
    assert header == ["technique", "network", *(f"{v} {metric}" for v in ("V1", "V2", "V3") for metric in shown)]
    assert set(pd.read_csv(target.with_suffix(".csv")).metric) == {"accuracy", "precision", "recall"}
    assert list(json.loads(target.with_suffix(".json").read_text())) == ["accuracy"]
    check_tex(target.with_suffix(".tex"))


def without_lesions(found: dict[str, Any]) -> dict[str, Any]:
    """The result as it is where every test mask is empty and every network marks something."""
    for of in found["seeds"].values():
        for name in of["test"]:
            kept = of["test_images"][name]
            kept |= {"tp": [0] * len(kept["tp"]), "fn": [0] * len(kept["tp"])}
            of["test"][name] = score(kept)
    return found


def test_a_test_split_without_any_lesion_is_said_above_the_table(tmp_path: Path) -> None:
    """Every IoU is 0.00 then, as that of a network that has learnt nothing."""
    found = [without_lesions(one) for one in all_twelve(1)]
    text = render(found, tmp_path / "table4.md").read_text()
    said = (
        "- **nothing to segment: the mask of every test image is empty.** In that case, IoU and F-score are 0 for a "
        "network that predicts any foreground and 100 for one that predicts none. Use data with foreground in every "
        "split"
    )
    assert "| 0.00 ± –" in text.replace("**", "")
    assert said in text.splitlines()
    student = without_lesions(alone("student", [0.7]))
    save("baselines", baselines_table("table2", "small", [0], [student]), tmp_path / "table2.md")
    assert said in (tmp_path / "table2.md").read_text().splitlines()
    assert "nothing to segment" not in render(all_twelve(1), tmp_path / "table4.md").read_text()


def test_a_table_of_classes_says_nothing_of_masks(tmp_path: Path) -> None:
    assert "nothing to segment" not in render_classes("table14", tmp_path).read_text()


def test_a_classification_s_heading_names_classes_balancing_and_what_is_lacking(tmp_path: Path) -> None:
    text = render_classes("table14", tmp_path).read_text()
    for fact in (
        "ham10000 (classification)", "10015 images of 7470 lesions", "nv 6705, mel 1113, bkl 1099", "by lesion",
        "no test image of df, as the data has too few", "class balancing: for training, each class is under- or over",
        "its best epoch on validation (Accuracy)", "students resnet18, 11.2 M parameters",
        "- Precision and Recall: averaged over classes\n",
    ):  # fmt: skip
        assert fact in text, fact
    assert "U-Net" not in text
    text = render_classes("table3", tmp_path, HISTOPATHOLOGIC | {"image_size": 224}).read_text()
    assert "20000 images; negative" in text  # every image a group of its own: nothing to say of groups
    assert "by image, seed 0" in text
    assert "**100 test images**" in text


def test_the_papers_accuracy_is_next_to_ours(tmp_path: Path) -> None:
    table = pd.read_csv(render_classes("table14", tmp_path).with_suffix(".csv"))
    cell = one(table, network="ensemble", metric="precision")
    assert cell.paper == 67.78
    cell = one(table, network="ensemble", metric="accuracy")
    assert (cell["mean"], cell.paper) == (80, 83.15)
    table = pd.read_csv(render_classes("table3", tmp_path, HISTOPATHOLOGIC).with_suffix(".csv"))
    assert one(table, network="S1", metric="accuracy").paper == 94.25
    assert np.isnan(one(table, network="S1", metric="recall").paper)


def test_a_table_that_the_paper_does_not_have_gets_none_of_its_numbers(tmp_path: Path) -> None:
    for name in ("table4-by-group", "own", "table16", "table04", "table"):
        target = render([V1, V2, V3, KD], tmp_path / "own.md", name=name)
        text = target.read_text()
        assert text.startswith(f"# {paper.title(name)}: 4 of the twelve variants on lgg-resnet18 (not in the paper)")
        assert row_of(target, "ML", "S1")["V1 IoU"] == "84.00 ± 5.292"
        assert "paper 7" not in text
        assert "paper's mean" not in text
        assert not {"paper", "paper_sd", "difference"} & set(pd.read_csv(target.with_suffix(".csv")).columns)
        check_tex(target.with_suffix(".tex"))


def test_a_dataset_that_the_paper_does_not_have_is_called_yours(tmp_path: Path) -> None:
    for scale, said in (
        ("small", "Your dataset liver. Trained at scale 'small', which is for trying things out."),
        ("paper", "Your dataset liver."),
    ):
        markdown, tex, _ = headed(scale, LGG | {"dataset": "liver"}, tmp_path)
        assert f"\n**{said}**\n" in markdown
        assert f"\n% {said}\n" in tex


# Significance of the differences between KD + ML V3 and the others


def test_below_the_table_is_whether_v3_is_significant(tmp_path: Path) -> None:
    results = all_twelve()
    target = render(results, tmp_path / "table4.md")
    _, (header, *rows), (_, *against_student), _ = markdown_tables(target)
    assert [header[0], header[-1]] == ["first", "the first is"]
    assert [row[0] for row in rows] == ["KD + ML V3 (ensemble)", *[""] * 5]
    assert [row[1] for row in rows] == [
        "student alone", "ML V1 (ensemble)", "KD (off) V1 (ensemble)", "KD (on) V1 (ensemble)",
        "KD + ML V1 (ensemble)", "KD + ML V2 (ensemble)",
    ]  # fmt: skip
    by_method = {found["method"]: found for found in results}

    def mean(method: str) -> float:
        return np.mean([100 * run["test"]["ensemble"]["iou"] for run in by_method[method]["seeds"].values()])

    assert float(rows[1][2]) == pytest.approx(mean("kd_ml-v3") - mean("ml-v1"), abs=0.005)
    assert float(rows[0][2]) == pytest.approx(mean("kd_ml-v3") - 70, abs=0.005)
    assert [row[:2] for row in against_student][3] == ["KD (off) V1 (ensemble)", "student alone"]
    assert float(against_student[3][2]) == pytest.approx(mean("kd_off-v1") - 70, abs=0.005)
    assert against_student[-1][2:4] == rows[0][2:4], "the same pair has the same interval in both"
    assert float(against_student[-1][5]) >= float(rows[0][5]), "but is corrected for twelve comparisons, not for six"
    text = target.read_text()
    assert "patients of the test split, and seeds, were resampled with replacement 2000 times" in text
    assert "One seed only" not in text
    assert "too narrow" not in text
    assert {row[-1] for row in rows} == {"better"}
    assert check_tex(target.with_suffix(".tex")).count("tabular}{") == 4

    table = pd.read_csv(target.with_suffix(".csv"))
    cell = one(table, technique="kd_on", strategy="v1", network="ensemble", metric="iou")
    assert cell.vs_kd_ml_v3_difference == pytest.approx(mean("kd_ml-v3") - mean("kd_on-v1"))
    assert cell.vs_kd_ml_v3_low <= cell.vs_kd_ml_v3_difference <= cell.vs_kd_ml_v3_high
    assert 0 < cell.vs_kd_ml_v3_p <= cell.vs_kd_ml_v3_adjusted_p <= 1
    assert cell.vs_student_difference == pytest.approx(mean("kd_on-v1") - 70)
    assert table.vs_student_p.notna().sum() == 12
    compared = table[table.vs_kd_ml_v3_p.notna()]
    assert set(compared.vs_kd_ml_v3_verdict) == {"better"}
    assert set(compared.network + compared.metric) == {"ensembleiou"}
    assert set(compared.technique + "-" + compared.strategy) == {
        "ml-v1",
        "kd_off-v1",
        "kd_on-v1",
        "kd_ml-v1",
        "kd_ml-v2",
    }


def test_one_seed_and_few_groups_get_a_caveat(tmp_path: Path) -> None:
    results = all_twelve(1)
    student = alone("student", [0.7])
    for found in [*results, student]:
        tested = found["seeds"]["0"]["test_images"]
        tested["group"] = [f"patient {index % 9}" for index in range(len(tested["id"]))]
    save("variants", variants_table("table4", "small", [0], results, student), tmp_path / "table4.md")
    text = (tmp_path / "table4.md").read_text()
    assert "**Only 9 test patients: with so few, intervals are too narrow. A test needs at least 10." in text
    rows = markdown_tables(tmp_path / "table4.md")[1][1:]
    assert {tuple(row[-3:]) for row in rows} == {("–", "–", "too few patients for a test")}, (
        "p of a test that is refused"
    )
    table = pd.read_csv(tmp_path / "table4.csv")
    assert table[["vs_kd_ml_v3_p", "vs_kd_ml_v3_adjusted_p"]].isna().all(axis=None)
    verdicts = table.vs_kd_ml_v3_verdict[table.vs_kd_ml_v3_difference.notna()]
    assert verdicts.tolist() == ["too few patients for a test"] * 5, "whoever reads the .csv alone must see it too"


def test_without_v3_variants_are_compared_with_the_student_alone(table4: Path) -> None:
    assert "KD + ML V3 and the others" not in table4.read_text()
    columns = [name for name in pd.read_csv(table4.with_suffix(".csv")).columns if name.startswith("vs_")]
    assert len(columns) == 6
    assert all(name.startswith("vs_student_") for name in columns)


def test_a_student_that_was_tested_on_other_images_is_refused(tmp_path: Path) -> None:
    student = alone("student", [0.7])
    student["seeds"]["0"]["test_images"]["id"][0] = "another"
    with pytest.raises(
        DataError, match=r"results of student, seed 0, were obtained on other test images.*classroom evaluate"
    ):
        save("variants", variants_table("table4", "small", [0], all_twelve(1), student), tmp_path / "table4.md")
    assert not list(tmp_path.iterdir())


def test_results_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    fine = result("ml-v1", students([0.8], [0.7], [0.8]))
    for what in ("data", "training", "balance"):
        odd = result("ml-v2", students([0.8], [0.7], [0.8]))
        if what == "data":
            odd["data"] = LGG | {"image_size": 64}
        else:
            odd["settings"] = odd["settings"] | {what: "something else"}
        with pytest.raises(DataError, match=r"ml-v2 and ml-v1 come from other data or training.*lgg-resnet18 ml-v2"):
            render([fine, odd], tmp_path / "table4.md")


# Baselines of both tasks


def both_tasks() -> list[dict[str, Any]]:
    """Table 2 in full: two tasks, and a teacher that differs between two studies in Conv6 alone."""
    wide = CLASSIFYING_TEACHER | {"conv6_channels": 1024, "parameters": 25_609_282}
    classes = {"data": HISTOPATHOLOGIC, "study": "histopathologic-resnet18"}
    mobile = {"data": HISTOPATHOLOGIC, "study": "histopathologic-mobilenet"}
    return [
        alone("teacher", [0.78], TEACHER),
        alone("student", [0.75], network()),
        alone("teacher", [0.78], TEACHER, study="lgg-mobilenet"),
        alone("student", [0.67], MOBILENET, study="lgg-mobilenet"),
        alone("teacher", [0.95], **classes),
        alone("student", [0.93], **classes),
        alone("teacher", [0.96], wide, **mobile),
        alone("student", [0.91], classifier("mobilenetv1_100", 3_209_026), **mobile),
    ]


def test_table_2_has_both_tasks_in_one_row_and_a_row_more_for_another_conv6(tmp_path: Path) -> None:
    save("baselines", baselines_table("table2", "small", [0], both_tasks()), tmp_path / "table2.md")
    header, *rows = markdown_rows(tmp_path / "table2.md")
    assert header[2:] == ["histopathologic Accuracy", "lgg IoU", "lgg F-score"]
    assert [row[0] for row in rows] == ["resnet50", "resnet50", "resnet18", "mobilenet"]
    assert rows[0][2:4] == ["95.00 ± –<br>paper 94.35, +0.65", "78.00 ± –<br>paper 76.86, +1.14"]
    assert rows[1][2:] == ["96.00 ± –<br>paper 94.35, +1.65", "–", "–"]
    assert "Conv6 to 1024 channels" in rows[1][1]
    assert rows[3][2:4] == ["91.00 ± –<br>paper 91.38, −0.38", "67.00 ± –<br>paper 68.15, −1.15"]
    text = (tmp_path / "table2.md").read_text()
    assert text.count("- data: lgg (segmentation)") == text.count("- data: histopathologic (classification)") == 1
    assert "its best epoch on validation (IoU, Accuracy)" in text
    table = pd.read_csv(tmp_path / "table2.csv")
    assert set(table[table.task == "classification"].metric) == {"accuracy", "precision", "recall"}
    check_tex(tmp_path / "table2.tex")


def test_table_13_has_both_tasks_of_one_dataset(tmp_path: Path) -> None:
    masks = HAM10000 | {"task": "segmentation"}
    results = [
        found(name, [quality], data=data, study=study)
        for data, study in ((HAM10000, "ham-classes"), (masks, "ham-masks"))
        for found, name, quality in ((alone, "teacher", 0.8), (alone, "student", 0.7))
    ]
    save("baselines", baselines_table("table13", "paper", [0], results), tmp_path / "table13.md")
    header, *rows = markdown_rows(tmp_path / "table13.md")
    assert header[2:] == [f"ham10000 {m}" for m in ("Precision", "Recall", "Accuracy", "IoU", "F-score")]
    assert rows[0][4:6] == ["80.00 ± –<br>paper 83.63, −3.63", "80.00 ± –<br>paper 87.77, −7.77"]
    assert [row[0] for row in rows] == ["resnet50", "resnet18"]


def test_baselines_that_the_paper_does_not_have_show_what_was_trained(tmp_path: Path) -> None:
    save("baselines", baselines_table("table2-by-group", "paper", [0], both_tasks()), tmp_path / "own.md")
    header, *rows = markdown_rows(tmp_path / "own.md")
    assert header[2:] == ["lgg IoU", "lgg F-score", "histopathologic Accuracy"]
    assert rows[0][2] == "78.00 ± –"
    assert "(not in the paper)" in (tmp_path / "own.md").read_text().splitlines()[0]
    assert "paper" not in pd.read_csv(tmp_path / "own.csv").columns


def test_baselines_of_other_training_settings_are_refused(tmp_path: Path) -> None:
    results = both_tasks()
    results[-1]["settings"] = results[-1]["settings"] | {"training": {"epochs": 1}}
    with pytest.raises(
        DataError, match=r"other data or training.*classroom evaluate histopathologic-mobilenet student"
    ):
        save("baselines", baselines_table("table2", "small", [0], results), tmp_path / "table2.md")


def test_networks_have_the_papers_names() -> None:
    encoders = {
        "tu-mobilenetv1_100": "mobilenet", "mobilenetv1_100.ra4_e3600_r224_in1k": "mobilenet",
        "resnet50.tv_in1k": "resnet50", "resnet18": "resnet18", "mobilenetv3_small_100": "mobilenetv3_small_100",
    }  # fmt: skip
    assert {encoder: paper.network_name(encoder) for encoder in encoders} == encoders


# The paper's numbers, and results from disk


def test_the_papers_printed_numbers_are_there() -> None:
    """Spot checks against the printed page."""
    table = paper.variants("table4")
    assert one(table, technique="ml", strategy="v3", network="ensemble", metric="iou")["mean"] == 78.24
    assert one(table, technique="kd_off", strategy="v2", network="T", metric="f_score").sd == 0.537
    assert not table.duplicated(["technique", "strategy", "network", "metric"]).any()
    assert set(table.technique + "-" + table.strategy) == set(VARIANTS)
    second = paper.networks_and_methods("table2")
    assert one(second, dataset="lgg", name="mobilenet", metric="iou")["mean"] == 68.15


def leave_results(path: Path, method: str, hashes: dict[str, str]) -> Path:
    """As far as reading looks at them: of which predictions they were made."""
    seeds = {seed: {"predictions": digest} for seed, digest in hashes.items()}
    rest = dict.fromkeys(("data", "networks", "extra_parameters", "notes", "settings"))
    path.write_text(json.dumps({"study": "lgg-resnet18", "method": method, "seeds": seeds, **rest}))
    return path


def test_results_are_read_in_the_order_asked(tmp_path: Path) -> None:
    first, second = (leave_results(tmp_path / f"{name}.json", name, {}) for name in ("ml-v1", "ml-v2"))
    assert [result["method"] for result in read_results([second, first], tmp_path)] == ["ml-v2", "ml-v1"]


def test_results_of_runs_that_were_trained_again_are_refused(tmp_path: Path) -> None:
    """Otherwise a table would print what the runs next to it no longer say."""
    content = b"predictions of a run"
    predicted = tmp_path / "runs/lgg-resnet18/ml-v1/seed-7/predictions.parquet"
    predicted.parent.mkdir(parents=True)
    predicted.write_bytes(content)
    path = leave_results(tmp_path / "ml-v1.json", "ml-v1", {"7": hashlib.md5(content).hexdigest()})
    assert len(read_results([path], tmp_path / "runs")) == 1
    predicted.write_bytes(b"predictions of another run")
    with pytest.raises(
        DataError,
        match=r"ml-v1\.json: was made from another version of .*seed-7.*classroom evaluate lgg-resnet18 ml-v1",
    ):
        read_results([path], tmp_path / "runs")
    predicted.unlink()
    assert len(read_results([path], tmp_path / "runs")) == 1, "results that were pulled alone"


def test_missing_or_damaged_results_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ml-v1.json"
    for content in (None, "", '{"method": "ml-', "[]", '{"study": "lgg-resnet18", "seeds": {}}'):
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=r"ml-v1\.json: (cannot be read|lacks).*classroom evaluate"):
            read_results([path], tmp_path)


# Pictures

SIZE = 16
PATIENTS = ["a", "a", "b", "c", "d", "e", "f"]


def leave_pictured_run(folder: Path, synthetic: bool = True, networks: tuple[str, ...] = ("T", "S1", "S2")) -> None:
    """A run whose students find less of a lesion in every further image, its teacher more, and the prepared images.

    Of a lesion's 8 pixels in a row S1 finds 7 and S2 6 of these, so the ensemble finds 7.
    """
    random = np.random.default_rng(0)
    ids = [f"slice_{index}" for index in range(len(PATIENTS))]
    truth = np.zeros((len(ids), SIZE, SIZE), bool)
    truth[:, 4:12, 4:12] = True
    stacks = {}
    for shift, name in enumerate(networks):
        stacks[name] = np.zeros(truth.shape, np.uint8)
        for index in range(len(ids)):
            rows = 12 - index if name != "T" else 6 + index
            stacks[name][index, 4:rows, 4 : 12 - shift] = 200
    stacks[predictions.GROUND_TRUTH] = truth.astype(np.uint8) * 255
    for name in ("run", "prepared"):
        (folder / name).mkdir(parents=True)
    predictions.write(folder / "run/predictions.parquet", ids, [stacks])
    data = {"dataset": "lgg", "synthetic": synthetic, "group": "patient"}
    about = metrics_of(study="lgg-resnet18", method="kd_ml-v3", seed=0, data=data)
    (folder / "run/metrics.json").write_text(json.dumps(about))
    # The prepared images hold training images as well, and in another order.
    order = ["training_1", *reversed(ids)]
    index = pd.DataFrame({"id": order, "group": ["z", *reversed(PATIENTS)], "label": 1})
    index.to_parquet(folder / "prepared/index.parquet", index=False)
    np.save(folder / "prepared/images.npy", random.integers(0, 256, (len(order), SIZE, SIZE, 3), dtype=np.uint8))


def draw(folder: Path, name: str = "samples.png") -> Path:
    save("samples", samples_module.samples(folder / "run", folder / "prepared", "demo"), folder / name)
    return folder / name


def test_the_same_run_gives_the_same_png_to_the_byte(tmp_path: Path) -> None:
    """Or DVC would take an unchanged figure for a new one."""
    leave_pictured_run(tmp_path)
    first = draw(tmp_path, "first.png")
    assert draw(tmp_path, "second.png").read_bytes() == first.read_bytes()
    with Image.open(first) as picture:
        picture.verify()
        assert picture.format == "PNG"
        assert all(500 < side < 2000 for side in picture.size)


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Figure]:
    """The figure of the run in a folder, which is not made into pixels."""

    def drawn(folder: Path) -> Figure:
        kept: list[Figure] = []
        monkeypatch.setattr(samples_module, "saved", lambda figure: kept.append(figure) or b"")
        draw(folder)
        return kept[0]

    return drawn


def rows_of(figure: Figure) -> list[list[Axes]]:
    """Its panels, row by row."""
    rows = groupby(figure.axes, key=lambda axis: axis.get_subplotspec().rowspan.start)
    return [list(panels) for _, panels in rows]


def ious_of(figure: Figure) -> list[str]:
    """What stands below the ensembles."""
    return [row[-1].get_xlabel() for row in rows_of(figure)]


def expected_ious(*slices: int) -> list[str]:
    """Of a lesion's 64 pixels the ensemble finds 7 in each of its rows."""
    return [f"IoU {100 * 7 * (8 - index) / 64:.0f}" for index in slices]


def test_a_picture_says_what_it_shows_and_whether_it_is_synthetic(
    tmp_path: Path, figure: Callable[[Path], Figure]
) -> None:
    for synthetic in (True, False):
        leave_pictured_run(tmp_path / str(synthetic), synthetic)
        title = figure(tmp_path / str(synthetic)).get_suptitle()
        assert ("SYNTHETIC" in title) == synthetic
        for fact in ("kd_ml-v3", "lgg-resnet18", "scale demo", "seed 0"):
            assert fact in title


def test_the_picture_goes_from_the_worst_patient_to_the_best(tmp_path: Path, figure: Callable[[Path], Figure]) -> None:
    """By the ensemble, each patient once with its median image; the best results alone would flatter."""
    leave_pictured_run(tmp_path)
    drawn = figure(tmp_path)
    # Of patient a's slices 0 and 1 the lower is 1: of 6 5 4 3 2 1 the steps 0, 1.67, 3.33 and 5.
    assert ious_of(drawn) == expected_ious(6, 4, 3, 1)
    assert [panel.get_title() for panel in rows_of(drawn)[0]] == ["image, ground truth", "T", "S1", "S2", "ensemble"]


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("patient", "test patients from the worst to the best, for each patient the image with the median IoU"),
        ("image", "test images from the worst to the best"),
    ],
)
def test_a_picture_says_which_images_it_shows(
    tmp_path: Path, figure: Callable[[Path], Figure], group: str, said: str
) -> None:
    """It said `the median image of the worst to the best test image`."""
    leave_pictured_run(tmp_path)
    about = json.loads((tmp_path / "run/metrics.json").read_text())
    about["data"]["group"] = group
    (tmp_path / "run/metrics.json").write_text(json.dumps(about))
    assert figure(tmp_path).get_suptitle().endswith(f"; {said}")


def test_a_network_alone_has_one_column(tmp_path: Path, figure: Callable[[Path], Figure]) -> None:
    leave_pictured_run(tmp_path, networks=("T",))
    assert [panel.get_title() for panel in rows_of(figure(tmp_path))[0]] == ["image, ground truth", "T"]


def test_each_prediction_is_drawn_on_its_own_image(tmp_path: Path, figure: Callable[[Path], Figure]) -> None:
    """The prepared images are in another order than the test split."""
    leave_pictured_run(tmp_path)
    images = np.load(tmp_path / "prepared/images.npy")
    index = pd.read_parquet(tmp_path / "prepared/index.parquet")
    for row, slice_number in zip(rows_of(figure(tmp_path)), (6, 4, 3, 1), strict=True):
        position = index.index[index.id == f"slice_{slice_number}"][0]
        for panel in row:
            assert np.array_equal(panel.images[0].get_array(), images[position])
        outlines = [[to_hex(outline.get_edgecolor()[0]).upper() for outline in panel.collections] for panel in row]
        assert outlines == [[GROUND_TRUTH_COLOUR], *[[GROUND_TRUTH_COLOUR, PREDICTION_COLOUR]] * 4]


def test_few_patients_make_few_rows(tmp_path: Path, figure: Callable[[Path], Figure]) -> None:
    leave_pictured_run(tmp_path)
    index = pd.read_parquet(tmp_path / "prepared/index.parquet")
    index["group"] = np.where(index.id == "slice_2", "b", "a")
    index.to_parquet(tmp_path / "prepared/index.parquet", index=False)
    # Of patient a there are 6 5 4 3 1 0.
    assert ious_of(figure(tmp_path)) == expected_ious(4, 2)


def test_images_without_lesion_are_not_shown(tmp_path: Path, figure: Callable[[Path], Figure]) -> None:
    """There is no lesion to find in them, and they are most of the data."""
    leave_pictured_run(tmp_path)
    path = tmp_path / "run/predictions.parquet"
    ids, stacks = predictions.read(path)
    stacks[predictions.GROUND_TRUTH][[5, 6]] = 0
    predictions.write(path, ids, [stacks])
    assert ious_of(figure(tmp_path)) == expected_ious(4, 3, 2, 1)
    stacks[predictions.GROUND_TRUTH][:] = 0
    predictions.write(path, ids, [stacks])
    with pytest.raises(DataError, match="no test image has foreground, so there is nothing to show"):
        draw(tmp_path)


def test_a_run_on_other_images_is_refused(tmp_path: Path) -> None:
    leave_pictured_run(tmp_path)
    index = pd.read_parquet(tmp_path / "prepared/index.parquet")
    index[index.id != "slice_3"].reset_index(drop=True).to_parquet(tmp_path / "prepared/index.parquet", index=False)
    with pytest.raises(DataError, match=r"prepared: lacks the test image 'slice_3'\. Train this study again"):
        draw(tmp_path)
    assert not (tmp_path / "samples.png").exists()
