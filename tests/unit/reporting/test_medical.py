"""Metrics per patient and by class, by hand, and what is said of empty masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import balanced_accuracy_score

from classroom.reporting import medical
from classroom.reporting.medical import medical_report
from support.fabricated import HAM10000, LGG, alone, result, students
from support.rendered import check_sources, check_tex, markdown_rows, one, page_of, save

# Two images of patient a, two of b, one of c, which has no lesion and in seed 1 a false alarm.
PATIENTS = ["a", "a", "b", "b", "c"]
COUNTS = {
    "0": {"tp": [30, 0, 10, 0, 0], "fp": [10, 0, 0, 0, 0], "fn": [0, 0, 20, 10, 0], "tn": [60, 100, 70, 90, 100]},
    "1": {"tp": [30, 0, 10, 0, 0], "fp": [10, 0, 0, 0, 5], "fn": [0, 0, 20, 10, 0], "tn": [60, 100, 70, 90, 95]},
}
HD95 = {"0": [2.0, None, 4.0, 14.0, None], "1": [2.0, None, 4.0, 14.0, 14.0]}


def of_masks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With these counts for every network."""
    for one_result in results:
        for seed, of in one_result["seeds"].items():
            of["test_images"] = {"id": list("12345"), "group": PATIENTS} | dict.fromkeys(of["test"], COUNTS[seed])
            of["hd95"] = dict.fromkeys(of["test"], HD95[seed])
    return results


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Those that are drawn."""
    drawn: list[Figure] = []
    monkeypatch.setattr(medical, "saved", lambda figure: drawn.append(figure) or b"a picture")
    return drawn


@pytest.fixture
def per_patient(tmp_path: Path, figures: list[Figure]) -> Path:
    qualities = students([0.7, 0.7], [0.7, 0.7], [0.8, 0.8]) | {"T": [0.8, 0.8]}
    results = of_masks([alone("teacher", [0.8, 0.8]), alone("student", [0.6, 0.6]), result("kd_ml-v3", qualities)])
    page = medical_report("table4-per-patient", "small", [0, 1], results)
    return save("medical", page, tmp_path / "table4-per-patient.md")


def test_each_patient_counts_once_whatever_its_images(per_patient: Path) -> None:
    table = pd.read_csv(per_patient.with_suffix(".csv"))
    dice = one(table, technique="kd_ml", network="S1", metric="dice")
    # a: 60 of 70; b: 20 of 50; c: 1, the masks are empty, and 0 with the false alarm, over both seeds a half
    patients = np.array([60 / 70, 20 / 50, 0.5]) * 100
    assert dice[["mean", "sd", "median", "count"]].tolist() == pytest.approx(
        [patients.mean(), patients.std(ddof=1), 50, 3], abs=1e-5
    )
    sensitivity = one(table, technique="kd_ml", network="S1", metric="sensitivity")
    assert sensitivity[["mean", "count"]].tolist() == [pytest.approx((100 + 25) / 2), 2], "c has no lesion to find"
    distance = one(table, technique="kd_ml", network="S1", metric="hd95")
    # a: its empty image does not count; c: 0 where nothing is marked, and the diagonal with the false alarm
    assert distance[["mean", "median"]].tolist() == pytest.approx([(2 + 9 + 7) / 3, 7], abs=1e-5)


def test_every_patient_of_every_seed_is_in_a_file_of_its_own(per_patient: Path) -> None:
    table = pd.read_csv(per_patient.with_suffix(".values.csv"))
    assert len(table) == (1 + 1 + 4) * 2 * 3, "networks, seeds, patients"
    c = one(table, technique="kd_ml", network="S1", group="c", seed=1)
    assert c[["dice", "hd95"]].tolist() == [0, 14]
    assert np.isnan(c.sensitivity)
    assert (c.strategy, c.scale, c.synthetic) == ("v3", "small", False)


def test_the_page_has_all_networks_and_says_what_empty_masks_are(per_patient: Path) -> None:
    rows = markdown_rows(per_patient)
    assert rows[0] == ["technique", "strategy", "network", "Dice, %", "sensitivity, %", "HD95, pixels"]
    assert [row[:3] for row in rows[1:]] == [
        ["**teacher alone**", "", "T"], ["**student alone**", "", "S1"],
        ["**KD + ML**", "V3", "T"], ["", "V3", "S1"], ["", "V3", "S2"], ["", "V3", "**Ensemble**"],
    ]  # fmt: skip
    assert rows[1][3] == "58.57 ± 24.03, median 50.00"
    text = per_patient.read_text()
    assert "# table4-per-patient: lgg-resnet18 per patient" in text
    assert "empty masks are scored as Metrics Reloaded (doi:10.1038/s41592-023-02151-z) recommends" in text
    check_tex(per_patient.with_suffix(".tex"))
    assert len(check_sources(per_patient)) == 6 * 3


def test_the_picture_has_a_box_for_each_method_and_a_dot_for_each_patient(
    per_patient: Path, figures: list[Figure]
) -> None:
    (axis,) = figures[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["teacher alone", "student alone", "KD + ML V3"]
    assert figures[0].get_suptitle().endswith("\nvariants: the ensemble of both students")
    dots = [line for line in axis.get_lines() if line.get_marker() == "o"]
    assert [sorted(line.get_ydata()) for line in dots] == [pytest.approx([40, 50, 600 / 7])] * 3
    assert page_of(per_patient)["drawing"]["alt"].startswith("Boxes of the Dice of every test patient, one for each")


def test_images_without_groups_are_called_images(figures: list[Figure]) -> None:
    data = LGG | {"group": "image", "split": {"percent": [75, 10, 15], "by": "image", "seed": 0}}
    results = of_masks([alone("teacher", [0.8], data=data), alone("student", [0.6], data=data)])
    page = medical_report("mine-per-patient", "small", [0], results)
    assert "over the test images, after averaging each of them over seeds" in "".join(page.facts)


def test_classes_have_balanced_accuracy_auroc_and_a_confusion_matrix(tmp_path: Path, figures: list[Figure]) -> None:
    qualities = students([0.7, 0.8], [0.7, 0.6], [0.8, 0.9])
    results = [
        alone("teacher", [0.8, 0.7], data=HAM10000), alone("student", [0.6, 0.5], data=HAM10000),
        result("ml-v3", qualities, HAM10000),
    ]  # fmt: skip
    for one_result in results:
        for of in one_result["seeds"].values():
            of["auroc"] = dict.fromkeys(of["test"], 0.9)
    path = save("medical", medical_report("table14-classes", "small", [0, 1], results), tmp_path / "table14-classes.md")
    table = pd.read_csv(path.with_suffix(".csv"))
    counts = [results[2]["seeds"][seed]["test_images"]["S1"] for seed in "01"]
    expected = [100 * balanced_accuracy_score(of["true"], of["predicted"]) for of in counts]
    found = one(table, technique="ml", network="S1", metric="balanced_accuracy")
    assert found[["mean", "sd"]].tolist() == pytest.approx([np.mean(expected), np.std(expected, ddof=1)], abs=1e-5)
    assert one(table, technique="ml", network="ensemble", metric="auroc")["mean"] == 90
    values = pd.read_csv(path.with_suffix(".values.csv"))
    of_seed = one(values, technique="ml", network="S1", seed=1)
    assert of_seed.balanced_accuracy == pytest.approx(expected[1], abs=1e-5)
    assert [axis.get_title() for axis in figures[0].axes if axis.axison] == ["teacher alone", "student alone", "ML V3"]
    panel = figures[0].axes[2]
    shares = np.array([int(text.get_text()) for text in panel.texts]).reshape(7, 7)
    assert shares.sum(axis=1) == pytest.approx([100] * 7, abs=3)
    ensemble = [results[2]["seeds"][seed]["test_images"]["ensemble"] for seed in "01"]
    first = [np.mean(np.array(of["predicted"])[np.array(of["true"]) == 0] == 0) for of in ensemble]
    assert shares[0, 0] == round(100 * np.mean(first))
    check_sources(path)


def test_a_class_without_a_test_image_is_left_out(figures: list[Figure]) -> None:
    results = [alone("teacher", [1.0], data=HAM10000), alone("student", [1.0], data=HAM10000)]
    for one_result in results:
        for of in one_result["seeds"].values():
            of["auroc"] = dict.fromkeys(of["test"])
            for network in of["test"]:
                of["test_images"][network] = {"true": [0, 0, 1, 1] * 25, "predicted": [0, 1, 1, 1] * 25}
    page = medical_report("table14-classes", "small", [0], results)
    assert [cell.text for cell in page.parts[0].rows[0][3:]] == ["75.00 ± –", "–"]
    texts = [text.get_text() for text in figures[0].axes[0].texts]
    assert (texts[:2], set(texts[14:])) == (["50", "50"], {"–"})
