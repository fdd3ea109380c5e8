"""Fidelity, exchange, architecture, resplit studies, cost and grids: what the other reports say."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from ruamel.yaml import YAML

from classroom.core.networks.build import build
from classroom.errors import DataError, ParamsError
from classroom.methods.grid.points import weights_at
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import Network, VariantWeights
from classroom.reporting.architecture import architecture_table
from classroom.reporting.common import paper
from classroom.reporting.common.tables import TEX, Part, latex, markdown
from classroom.reporting.cost import cost_table
from classroom.reporting.exchange import TABLES
from classroom.reporting.fidelity import fidelity_table
from classroom.reporting.grid_search import grid_report
from classroom.reporting.layers import layers
from classroom.reporting.resplit import resplit_table
from classroom.settings.overlays import apply_overlay
from support.fabricated import HAM10000, HISTOPATHOLOGIC, LGG, all_twelve, result, students
from support.rendered import check_sources, check_tex, markdown_rows, markdown_tables, one, page_of, save
from support.studies import ROOT, copy_settings

# Fidelity


@pytest.fixture(scope="module")
def table12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("fidelity") / "table12.md"
    save("fidelity", fidelity_table("table12", "small", [0, 1, 2], all_twelve()), target)
    return target


def test_fidelity_has_students_and_ensemble_of_techniques_with_a_teacher(table12: Path) -> None:
    assert all("teacher's predictions" in cell["sources"][0]["what"] for cell in check_sources(table12))
    header, *rows = markdown_rows(table12)
    assert header[2:] == [f"{v} {metric}" for v in ("V1", "V2", "V3") for metric in ("IoU", "F-score")]
    assert [row[0] for row in rows if row[0]] == ["**KD (off)**", "**KD (on)**", "**KD + ML**"]
    assert [row[1] for row in rows[:3]] == ["S1", "S2", "**Ensemble**"]
    text = table12.read_text()
    assert "Table 12: fidelity" in text
    assert "their own teacher of the same seed" in text
    check_tex(table12.with_suffix(".tex"))


def test_fidelity_is_next_to_the_papers_with_the_uncertain_marked(table12: Path) -> None:
    rows = markdown_rows(table12)[1:]
    kd_on, kd_ml = rows[3:6], rows[6:9]
    assert kd_on[0][2] == "**90.00 ± 0.000**<br>paper 80.89, +9.11"
    assert kd_ml[0][2] == "**90.00 ± 0.000**<br>paper 80.22†, +9.78"
    assert rows[0][2] == "**90.00 ± 0.000**"  # of KD (off) our source has no order
    text = table12.read_text()
    assert "\n† The order of V2 and V3 is garbled" in text
    assert "\nThe source has the paper's values of KD (off), but not their order, so they are not shown." in text
    table = pd.read_csv(table12.with_suffix(".csv"))
    assert set(table[table.uncertain].technique) == {"kd_ml"}
    assert one(table, technique="kd_on", strategy="v3", network="ensemble", metric="f_score").paper == 89.26


def test_the_papers_students_stand_in_the_column_of_their_ensemble() -> None:
    """By their spreads: networks that vary by about 1 belong together, and so do those that vary by about 0.1."""
    printed = paper.variants("table12")
    found = printed[(printed.technique == "kd_ml") & (printed.metric == "iou")].set_index(["strategy", "network"])
    spreads = {strategy: found.loc[strategy].sd.loc[["S1", "S2", "ensemble"]].tolist() for strategy in ("v2", "v3")}
    assert spreads == {"v2": [1.280, 0.905, 1.060], "v3": [0.134, 0.183, 0.077]}
    assert found.loc["v2"]["mean"].loc[["S1", "S2", "ensemble"]].tolist() == [82.87, 82.62, 82.57]
    assert found.loc["v3"]["mean"].loc[["S1", "S2", "ensemble"]].tolist() == [82.14, 81.82, 81.60]


def test_the_papers_f_scores_of_table_12_follow_from_the_iou_next_to_them() -> None:
    """What was moved to another column was moved in pairs."""
    printed = paper.variants("table12").pivot(index=["technique", "strategy", "network"], columns="metric")["mean"]
    assert len(printed) == 18
    expected = 200 * printed.iou / (100 + printed.iou)
    assert (printed.f_score - expected).abs().max() < 0.7


def test_a_teacher_that_marks_nothing_is_named_below_the_fidelity(tmp_path: Path) -> None:
    """IoU with its predictions is 0 or 100 by a single pixel."""
    found = result("kd_on-v1", {"T": [0.5, 0.5], **students([0.6] * 2, [0.6] * 2, [0.6] * 2)})
    save("fidelity", fidelity_table("own", "small", [0, 1], [found]), tmp_path / "own.md")
    assert "predicts no foreground" not in (tmp_path / "own.md").read_text()
    of = found["seeds"]["1"]["test_images"]["T"]
    found["seeds"]["1"]["test_images"]["T"] = of | {"tp": [0] * len(of["tp"]), "fp": [0] * len(of["fp"])}
    save("fidelity", fidelity_table("own", "small", [0, 1], [found]), tmp_path / "own.md")
    assert (
        "\n**The teacher predicts no foreground in any test image: KD (on) V1 (seed 1).** In that case, IoU and "
        "F-score are 0 for a network that predicts any foreground and 100 for one that predicts "
        "none." in (tmp_path / "own.md").read_text()
    )


def test_fidelity_of_classes_shows_accuracy_and_needs_no_marks(tmp_path: Path) -> None:
    save("fidelity", fidelity_table("table11", "demo", [0], all_twelve(1, HISTOPATHOLOGIC)), tmp_path / "table11.md")
    header, *rows = markdown_rows(tmp_path / "table11.md")
    assert header[2:] == ["V1 Accuracy", "V2 Accuracy", "V3 Accuracy"]
    assert rows[0][2] == "**90.00 ± –**<br>paper 95.82, −5.82"
    text = (tmp_path / "table11.md").read_text()
    assert "†" not in text
    assert "A dash" not in text
    assert "uncertain" not in pd.read_csv(tmp_path / "table11.csv").columns


def test_fidelity_is_read_from_fidelity_and_not_from_the_test(tmp_path: Path) -> None:
    found = result("kd_on-v1", {"T": [0.5, 0.5], **students([0.6] * 2, [0.6] * 2, [0.6] * 2)}, fidelity=0.75)
    save("fidelity", fidelity_table("own", "small", [0, 1], [found]), tmp_path / "own.md")
    table = pd.read_csv(tmp_path / "own.csv")
    assert set(table["mean"]) == {75.0}
    assert set(table.network) == {"S1", "S2", "ensemble"}
    assert "(not in the paper)" in (tmp_path / "own.md").read_text()
    assert "paper 7" not in (tmp_path / "own.md").read_text()


def test_fidelity_of_nothing_but_mutual_learning_says_so(tmp_path: Path) -> None:
    """The rule exists for every study, whatever its variants."""
    results = [found for found in all_twelve(1) if found["method"].startswith("ml-")]
    save("fidelity", fidelity_table("table12", "small", [0], results), tmp_path / "table12.md")
    assert "None of the trained variants has a teacher." in (tmp_path / "table12.md").read_text()
    assert len(pd.read_csv(tmp_path / "table12.csv")) == 0
    assert (tmp_path / "table12.tex").exists()


# Tables 1 and 5


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exchange")
    for name, render in TABLES.items():
        save("exchange", render(), folder / f"{name}.md")
    return folder


def test_table_5_is_the_papers_cell_by_cell(exchange: Path) -> None:
    """Typed from the page: L_KD_p, L_KD_f, L'_KD_p, L'_KD_f, L_ML_p, L_ML_f, L'_ML_p, L'_ML_f."""
    printed = {
        "KD V1": "x.x.....", "KD V2": ".x.x....", "KD V3": "x..x....",
        "ML V1": "....x.x.", "ML V2": ".....x.x", "ML V3": "....x..x",
        "KD + ML V1": "x.x.x.x.", "KD + ML V2": ".x.x.x.x", "KD + ML V3": ".xx.x..x",
    }  # fmt: skip
    columns = [
        f"{student}: L_{loss}_{kind}" for loss in ("KD", "ML") for student in ("S1", "S2") for kind in ("p", "f")
    ]
    header, *rows = markdown_rows(exchange / "table5.md")
    technique, seen = "", set()
    for row in rows:
        technique = row[0].strip("*") or technique
        cells = dict(zip(header, row, strict=True))
        name = technique.replace(" (off)", "").replace(" (on)", "")
        found = "".join("x" if cells[column] == "✓" else "." for column in columns)
        assert found == printed[f"{name} {row[1]}"], (technique, row[1])
        assert cells["S1: L_task"] == cells["S2: L_task"] == "✓"
        seen.add((technique, row[1]))
    assert len(seen) == 12
    table = pd.read_csv(exchange / "table5.csv")
    assert len(table) == 12 * 2 * 5
    assert one(table, technique="kd_ml", strategy="v3", student="S1", term="L_KD_f").on
    assert r"$\checkmark$" in check_tex(exchange / "table5.tex")


def test_table_1_has_the_papers_three_parts(exchange: Path) -> None:
    text = (exchange / "table1.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## (a) KD (off), KD (on)", "## (b) ML", "## (c) KD + ML",
    ]  # fmt: skip
    a, b, c = ({row[0]: row[1:] for row in table[1:]} for table in markdown_tables(exchange / "table1.md"))
    assert a == {
        "T → S1": ["predictions", "features", "predictions"],
        "T → S2": ["predictions", "features", "features"],
    }
    assert set(b) == {"S2 → S1", "S1 → S2"}
    assert c == {
        "T → S1": ["predictions", "features", "features"],
        "T → S2": ["predictions", "features", "predictions"],
        "S2 → S1": ["predictions", "features", "predictions"],
        "S1 → S2": ["predictions", "features", "features"],
    }
    table = pd.read_csv(exchange / "table1.csv")
    assert one(table, technique="kd_on", strategy="v3", to="S2")["what"] == "features"
    check_tex(exchange / "table1.tex")


# Tables 6 and 7


def settings(encoder: str, **changes: Any) -> Network:
    return Network(encoder=encoder, encoder_options={}, weights="hub", **changes)


UNET = {"decoder_channels": (256, 128, 64, 32, 16)}


def architecture(name: str, folder: Path, **changes: Any) -> Path:
    arguments = {
        "study": "of-classes", "dataset": "histopathologic",
        "teacher": settings("resnet50.tv_in1k", conv6_channels=512), "student": settings("resnet18.tv_in1k"),
        "task": "classification", "image_size": 224, "classes": 2, "scale": "paper",
    } | changes  # fmt: skip
    networks = {role: arguments.pop(role) for role in ("teacher", "student")}
    return save("architecture", architecture_table(name, networks=networks, **arguments), folder / f"{name}.md")


@pytest.fixture(scope="module")
def table6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return architecture("table6", tmp_path_factory.mktemp("classifiers"))


@pytest.fixture(scope="module")
def table7(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unets("table7", tmp_path_factory.mktemp("unets"))


def unets(name: str, folder: Path, **changes: Any) -> Path:
    arguments = {
        "teacher": settings("resnet50", **UNET), "student": settings("resnet18", **UNET), "task": "segmentation",
        "image_size": 256,
    }  # fmt: skip
    return architecture(name, folder, **(arguments | changes))


def test_the_built_networks_have_the_layers_of_table_6(table6: Path) -> None:
    """Of all cells one differs: a ResNet50 has four blocks in Conv3.x, where the paper prints three."""
    header, *rows = markdown_tables(table6)[0]
    table = pd.DataFrame(rows, columns=header)
    assert table.layer.tolist() == ["Conv1", "Conv2.x", "Conv3.x", "Conv4.x", "Conv5.x", "Conv6"]
    assert (table.student == table["paper: student"]).all()
    differing = table[table.teacher != table["paper: teacher"]]
    assert dict(zip(differing.layer, differing.teacher, strict=True)) == {
        "Conv3.x": "[1×1, 128; 3×3, 128; 1×1, 512] × 4",
        "Conv6": "1×1, 512",  # the paper writes × 1 behind it
    }
    spatial = table["teacher output"].str.rsplit("×", n=1).str[0]
    assert spatial.tolist() == table["paper: output"].tolist()
    assert table["teacher output"].iloc[-1] == "7×7×512"
    assert table["student output"].tolist()[-2:] == ["7×7×512", "–"]
    check_tex(table6.with_suffix(".tex"))


def test_the_built_u_nets_are_next_to_table_7(table7: Path) -> None:
    header, *rows = markdown_tables(table7)[0]
    table = pd.DataFrame(rows, columns=header).set_index("layer")
    assert list(table.index[-5:]) == [f"DeConv {number}" for number in range(1, 6)]
    spatial = table["teacher output"].str.rsplit("×", n=1).str[0]
    assert (spatial == table["paper: output"]).all()
    assert table["teacher output"]["DeConv 1"] == table["student output"]["DeConv 1"] == "16×16×256"
    assert table.student["DeConv 5"] == "[3×3, 16; 3×3, 16] × 1"
    assert table["paper: student"]["DeConv 5"] == "[3×3, 16; 3×3, 16] × 2"
    assert table.teacher["Conv1"] == "7×7, 64, stride 2"
    assert table["paper: teacher"]["Conv1"] == "3×3, 64, stride 2"
    check_tex(table7.with_suffix(".tex"))


def test_native_and_timm_encoders_of_a_u_net_are_read_alike() -> None:
    with torch.device("meta"):
        native, timm_s = (
            layers(build(settings(name, **UNET).model_copy(update={"weights": "random"}), "segmentation", 2, 0), 256)
            for name in ("resnet18", "tu-resnet18")
        )
    assert native == timm_s


def test_a_mobilenet_is_described_by_depthwise_and_pointwise_pairs() -> None:
    network = build(settings("mobilenetv1_100").model_copy(update={"weights": "random"}), "classification", 2, 0)
    network.train()
    found = {layer.stage: layer for layer in layers(network, 224)}
    assert found["Conv1"].blocks == "3×3, 32, stride 2 → [3×3 depthwise, 32; 1×1, 64] × 1"
    assert found["Conv4.x"].blocks == "[3×3 depthwise, 256; 1×1, 512] × 1 → [3×3 depthwise, 512; 1×1, 512] × 5"
    assert found["Conv5.x"].shape == (7, 7, 1024)
    assert network.training
    assert not any(module._forward_hooks for name, module in network.body.named_modules() if name != "conv6")
    assert network(torch.zeros(2, 3, 64, 64)).logits.shape == (2, 2)


def test_squeeze_and_excitation_is_part_of_its_block() -> None:
    network = build(settings("seresnet18").model_copy(update={"weights": "random"}), "classification", 2, 0)
    found = {layer.stage: layer for layer in layers(network, 224)}
    assert found["Conv3.x"].blocks == "[3×3, 128; 3×3, 128; 1×1, 8; 1×1, 128] × 2"


def test_parameters_and_compression_are_counted_as_the_paper_counts(table6: Path, table7: Path, tmp_path: Path) -> None:
    """torchvision's published counts: 25,557,032 and 11,689,512; the paper rounds to 26 and 11 million."""
    _, (header, *rows) = markdown_tables(table6)
    assert header == ["", "as trained", "for ImageNet", "paper"]
    assert [row[2:] for row in rows] == [["25.56", "26"], ["11.69", "11"], ["8.5 %", "15 %"]]
    assert rows[0][1] == "24.56"  # without the 1000 classes, with Conv6
    mobilenet = architecture("own", tmp_path, student=settings("mobilenetv1_100"))
    _, (_, *rows) = markdown_tables(mobilenet)
    assert [row[3] for row in rows] == ["26", "4.8", "63 %"]
    assert rows[2][2] == "66.9 %"
    _, (header, *rows) = markdown_tables(table7)
    assert header == ["", "as trained", "paper"]
    assert [row[1:] for row in rows] == [["32.52", "33"], ["14.33", "14"], ["11.9 %", "15 %"]]


def test_the_papers_compression_follows_from_its_millions() -> None:
    for student in ("resnet18", "mobilenet"):
        teacher, small = (paper.parameters("classification", name) for name in ("resnet50", student))
        assert round(100 * (1 - 2 * small / teacher)) == paper.compression("resnet50", student)
    assert np.isnan(paper.parameters("segmentation", "unknown"))
    assert np.isnan(paper.compression("resnet18", "resnet50"))


def test_an_architecture_that_the_paper_does_not_have_gets_no_columns_of_it(tmp_path: Path) -> None:
    """Nor is a hub asked, or a file opened, whatever the weights are."""
    absent = settings("resnet18").model_copy(update={"weights": str(tmp_path / "absent.safetensors")})
    target = architecture("own", tmp_path, teacher=absent, student=absent, image_size=32, scale="demo")
    text = target.read_text()
    assert "(not in the paper)" in text
    assert "**Networks and image size are those of scale 'demo', not the paper's.**" in text
    assert not [name for name in pd.read_csv(target.with_suffix(".csv")).columns if name.startswith("paper")]


@pytest.mark.parametrize("made", [architecture, unets])
def test_the_networks_of_one_s_own_images_have_nothing_of_the_paper(made: Any, tmp_path: Path) -> None:
    """Its parameters were next to those of any study with a ResNet50, under a title that said `not in the paper`."""
    target = made("own", tmp_path, dataset="skin", scale="demo")
    assert markdown_tables(target)[1][0] == ["", "as trained"]
    assert "paper" not in target.read_text().replace("(not in the paper)", "")


def test_an_encoder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="resnet81"):
        architecture("own", tmp_path, student=settings("resnet81"))
    assert not list(tmp_path.iterdir())


# Resplit studies


def resplit_pair(by: tuple[str, str] = ("image", "group"), drop: float = 0.05) -> list[list[dict[str, Any]]]:
    """Two studies of the same variants; the second's ensembles are `drop` worse."""
    found = []
    for place, how in enumerate(by):
        data = LGG | {"split": {"percent": [75, 10, 15], "by": how, "seed": 0}}
        shift = drop * place
        found.append(
            [
                result(
                    name,
                    students([0.8, 0.8], [0.7, 0.7], [0.85 - shift, 0.87 - shift]),
                    data,
                    study=f"lgg-{how}-{place}",
                )
                for name in ("ml-v1", "kd_ml-v3")
            ]
        )
    return found


def test_a_resplit_study_is_next_to_its_original_with_their_difference_and_the_paper(tmp_path: Path) -> None:
    save("resplit", resplit_table("table4-splits", "paper", [0, 1], resplit_pair(), "table4"), tmp_path / "t.md")
    assert {len(cell["sources"]) for cell in check_sources(tmp_path / "t.md")} == {1, 2}
    header, *rows = markdown_rows(tmp_path / "t.md")
    assert header == [
        "technique",
        "strategy",
        "network",
        "lgg-image-0",
        "lgg-group-1",
        "second − first",
        "paper (Table 4)",
    ]
    assert rows[2] == ["", "V1", "**Ensemble**", "86.00 ± 1.414", "81.00 ± 1.414", "−5.00", "77.26"]
    assert rows[5][:3] == ["", "V3", "**Ensemble**"]
    assert rows[5][6] == "80.12"
    assert len(rows) == 6
    text = (tmp_path / "t.md").read_text()
    assert "by image, as in the paper (images of one patient may be in different splits)" in text
    assert "by patient (no patient is in two splits)" in text
    assert "**Mean difference over the ensembles of 2 variants: −5.00 percentage points**" in text
    assert "over all networks −1.67" in text
    assert "gives results 5.00 points higher than splitting by patient" in text
    check_tex(tmp_path / "t.tex")
    table = pd.read_csv(tmp_path / "t.csv")
    cell = one(table, technique="ml", network="ensemble")
    assert (cell.first_mean, cell.second_mean, cell.difference) == (86, 81, -5)
    assert (cell.first_seed_0, cell.second_seed_0) == (85, 80)
    assert set(table.metric) == {"iou"}


def test_the_optimism_has_the_same_sign_whichever_study_comes_first(tmp_path: Path) -> None:
    first, second = resplit_pair()
    save("resplit", resplit_table("t", "paper", [0, 1], (second, first)), tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert "ensembles of 2 variants: +5.00 percentage points" in text
    assert "gives results 5.00 points higher than splitting by patient" in text
    assert "paper (Table" not in text


def test_two_studies_of_one_kind_of_split_claim_no_optimism(tmp_path: Path) -> None:
    save("resplit", resplit_table("t", "paper", [0, 1], resplit_pair(("group", "group")), "own"), tmp_path / "t.md")
    text = (tmp_path / "t.md").read_text()
    assert "Mean difference" in text
    assert "Splitting by image" not in text
    assert "paper (Table" not in text


def test_a_variant_of_one_study_only_gets_a_dash(tmp_path: Path) -> None:
    first, second = resplit_pair()
    save("resplit", resplit_table("t", "paper", [0, 1], (first, second[:1])), tmp_path / "t.md")
    rows = markdown_rows(tmp_path / "t.md")[1:]
    assert rows[5][3:] == ["86.00 ± 1.414", "–", "–"]
    assert "the ensemble of 1 variant: −5.00" in (tmp_path / "t.md").read_text()


def test_two_tasks_or_trainings_are_refused_side_by_side(tmp_path: Path) -> None:
    first, second = resplit_pair()
    classes = [result("ml-v1", students([0.8] * 2, [0.8] * 2, [0.8] * 2), HAM10000, study="of-classes")]
    with pytest.raises(DataError, match=r"lgg-image-0 is segmentation, of-classes classif.*studies/of-classes\.yaml"):
        save("resplit", resplit_table("mine", "paper", [0, 1], (first, classes)), tmp_path / "t.md")
    for found in second:
        found["settings"] = found["settings"] | {"training": found["settings"]["training"] | {"epochs": 1}}
    with pytest.raises(DataError, match="other data or training"):
        save("resplit", resplit_table("mine", "paper", [0, 1], (first, second)), tmp_path / "t.md")
    assert not list(tmp_path.iterdir())


def test_synthetic_studies_side_by_side_carry_a_disclaimer(tmp_path: Path) -> None:
    first, second = resplit_pair()
    for found in second:
        found["data"] = found["data"] | {"synthetic": True, "source": "synthetic"}
    save("resplit", resplit_table("t", "paper", [0, 1], (first, second)), tmp_path / "t.md")
    assert "**Synthetic images, not patients" in (tmp_path / "t.md").read_text()
    assert pd.read_csv(tmp_path / "t.csv").synthetic.all()


# Cost


def cost_of(study: str, table: str, method: str, seconds: list[float], gpu: bool = False) -> dict[str, Any]:
    memory = {"process": 1024} | ({"device": 4096} if gpu else {})
    runs = {
        str(seed): {
            "seconds": taken, "peak_memory_mb": memory, "device": "cuda" if gpu else "cpu", "threads": 2,
            "bytes": 2**30, "run": f"runs/{study}/{method}/seed-{seed}",
        }
        for seed, taken in enumerate(seconds)
    }  # fmt: skip
    return {"study": study, "method": method, "table": table, "seeds": runs}


def test_costs_add_up_by_table_and_technique(tmp_path: Path) -> None:
    costs = [
        cost_of("classes", "table14", "ml-v1", [3600, 7200], gpu=True),
        cost_of("lgg", "table4", "kd_ml-v1", [60]),
        cost_of("lgg", "table4", "ml-v1", [1800, 1800]),
        cost_of("lgg", "table4", "ml-v2", [3600, 5400]),
        cost_of("lgg", "table4", "student", [36]),
        cost_of("mine", "my-table", "teacher", [36]),
    ]
    save("cost", cost_table("small", costs), tmp_path / "cost.md")
    header, *rows = markdown_rows(tmp_path / "cost.md")
    assert [row[:3] for row in rows] == [
        ["Table 4", "lgg", "alone"], ["Table 4", "lgg", "ML"], ["Table 4", "lgg", "KD + ML"],
        ["Table 14", "classes", "ML"], ["my-table", "mine", "alone"], ["**all**", "", "**all**"],
    ]  # fmt: skip
    ml = dict(zip(header, rows[1], strict=True))
    assert (ml["runs"], ml["hours"], ml["core hours"], ml["GPU hours"]) == ("4", "3.50", "7.00", "0.00")
    assert (ml["minutes per run (median)"], ml["minutes per run (max)"]) == ("45.00", "90.00")
    assert (ml["memory, GB (max)"], ml["GPU memory, GB (max)"], ml["disk, GB"]) == ("1.00", "–", "4.000")
    on_gpu = dict(zip(header, rows[3], strict=True))
    assert (on_gpu["GPU hours"], on_gpu["GPU memory, GB (max)"]) == ("3.00", "4.00")
    table = pd.read_csv(tmp_path / "cost.csv", keep_default_na=False)
    total = table.iloc[-1]
    assert total.runs == 9
    assert float(total.hours) == pytest.approx(sum([3, 1 / 60, 1, 2.5, 0.01, 0.01]), abs=1e-6)


def test_costs_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results/costs: no run.*Train and evaluate"):
        save("cost", cost_table("small", []), tmp_path / "cost.md")


def test_costs_without_an_accelerator_have_no_columns_of_it(tmp_path: Path) -> None:
    save("cost", cost_table("small", [cost_of("lgg", "table4", "ml-v1", [60])]), tmp_path / "cost.md")
    assert "GPU" not in (tmp_path / "cost.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cost.csv", "cost.md", "pages"]


# Grids

STUDY = "histopathologic-resnet18"


def point(
    variant: str,
    at: tuple[float, float, float],
    ensemble: list[float],
    synthetic: bool = True,
    dataset: str = "histopathologic",
) -> dict[str, Any]:
    return {
        "variant": variant,
        **dict(zip(("alpha_1", "alpha_2", "teacher_share"), at, strict=True)),
        "weights": weights_at(EXCHANGE[variant], *at).model_dump(mode="json"),
        "data": HISTOPATHOLOGIC | {"synthetic": synthetic, "dataset": dataset},
        "seeds": {
            str(seed): {"T": 0.99, "S1": value - 0.1, "S2": value - 0.2, "ensemble": value}
            for seed, value in enumerate(ensemble)
        },
        "costs": {str(seed): {"run": f"grid/{variant}/{at}/seed-{seed}"} for seed in range(len(ensemble))},
    }


def grid_of(*variants: str) -> list[dict[str, Any]]:
    """Best at 0.4, 0.1, 0.3, and as good at 0.4, 0.4, 0.3, which comes later."""
    points = []
    for variant, *at in itertools.product(variants, (0.1, 0.4), (0.1, 0.4), (0.3, 0.5)):
        quality = 0.5 + (0.25 if at[0] == 0.4 and at[2] == 0.3 else 0.0) + at[2] / 100
        points.append(point(variant, tuple(at), [quality, quality + 0.02]))
    return points


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("grid") / "grid.md"
    save("grid_search", grid_report(STUDY, grid_of("kd_ml-v3", "ml-v1", "kd_on-v2"), "demo", [0, 1]), target)
    return target


def test_the_best_point_is_chosen_by_the_ensemble_on_validation_and_the_first_of_equal_ones(grid: Path) -> None:
    table = pd.read_csv(grid.with_suffix(".csv"))
    assert len(table) == 3 * 8
    best = table[table.best]
    assert best.variant.tolist() == ["kd_ml-v3", "ml-v1", "kd_on-v2"]
    assert set(map(tuple, best[["alpha_1", "alpha_2", "teacher_share"]].to_numpy())) == {(0.4, 0.1, 0.3)}
    header, *rows = markdown_rows(grid)
    bold = [row for row in rows if row[5].startswith("**")]
    assert bold == [
        ["0.4", "0.1", "0.3", "α 0.4, β 0.18, γ 0.42", "α 0.1, β 0.27, γ 0.63", "**76.30 ± 1.414**", "66.30", "56.30"]
    ]
    assert header[5:] == ["ensemble", "S1", "S2"]
    assert len(check_sources(grid)) == 3 * 8 * 3
    assert set(page_of(grid)["runs"]) == {run for of in check_sources(grid) for run in of["sources"][0]["values"]}
    text = grid.read_text()
    assert "The test split was not used." in text
    assert "**Synthetic images, not patients" in text
    assert "`classroom overlay" in text


def test_a_mean_over_seeds_chooses_not_the_luckiest_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classroom.reporting.grid_search.saved", lambda figure: b"")
    points = [point("ml-v1", (0.1, 0.1, 0.5), [0.9, 0.5]), point("ml-v1", (0.4, 0.1, 0.5), [0.75, 0.75])]
    save("grid_search", grid_report(STUDY, points, "paper", [0, 1]), tmp_path / "grid.md")
    table = pd.read_csv(tmp_path / "grid.csv")
    assert table.best.tolist() == [False, True]
    assert "ynthetic" in (tmp_path / "grid.md").read_text()


def test_the_fragment_is_written_in_with_classroom_overlay(grid: Path, tmp_path: Path) -> None:
    params_file = copy_settings(tmp_path)
    study_file = tmp_path / f"studies/{STUDY}.yaml"
    text = grid.with_suffix(".yaml").read_text()
    assert text.startswith(f"# chosen by `classroom report grid-{STUDY}`")
    assert "      ml-v1: {S1: {alpha: 0.4, gamma: 0.6}, S2: {alpha: 0.1, gamma: 0.9}}\n" in text
    changed = apply_overlay(grid.with_suffix(".yaml"), params_file)
    assert changed
    assert all(key.startswith(f"studies/{STUDY}.yaml: weights.") for key in changed)
    written = YAML(typ="safe").load(study_file.read_text())["weights"]
    for variant in ("kd_ml-v3", "ml-v1", "kd_on-v2"):
        assert VariantWeights(**written[variant]) == weights_at(EXCHANGE[variant], 0.4, 0.1, 0.3), variant
    assert "# L = alpha" in study_file.read_text()  # comments stay


def test_the_map_is_a_png(grid: Path) -> None:
    with Image.open(grid.with_suffix(".png")) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 400


def test_a_grid_of_one_point_of_real_images_is_drawn_too_and_to_the_same_bytes_twice(tmp_path: Path) -> None:
    points = [point("ml-v1", (0.1, 0.1, 0.5), [0.5], synthetic=False)]
    for name in ("grid", "again"):
        save("grid_search", grid_report(STUDY, points, "small", [0]), tmp_path / f"{name}.md")
    assert sorted(path.suffix for path in tmp_path.glob("grid.*")) == [".csv", ".md", ".png", ".yaml"]
    assert "ynthetic" not in (tmp_path / "grid.md").read_text()
    assert (tmp_path / "grid.png").read_bytes() == (tmp_path / "again.png").read_bytes()


@pytest.mark.parametrize(
    ("dataset", "synthetic", "said"),
    [
        ("polyps", False, "**Your dataset polyps. Trained at scale 'small', which is for trying things out.**"),
        ("histopathologic", False, "**Real images at scale 'small', with smaller images, fewer epochs or fewer"),
        ("histopathologic", True, "reproduces the paper.** **These weights mean nothing for other images.**"),
    ],
)
def test_a_grid_says_what_its_images_are_as_every_other_report(
    dataset: str, synthetic: bool, said: str, tmp_path: Path
) -> None:
    points = [point("ml-v1", (0.1, 0.1, 0.5), [0.5], synthetic, dataset)]
    save("grid_search", grid_report(STUDY, points, "small", [0]), tmp_path / "grid.md")
    assert said in (tmp_path / "grid.md").read_text()


# What all share


def test_cells_survive_latex_whatever_they_hold(tmp_path: Path) -> None:
    signs = "".join(map(chr, TEX))
    odd = rf"a_b & 5 % of #1 {{x}} ^ ~ \ $ **bold_1**<br>second {signs}"
    (tmp_path / "odd.tex").write_text(latex("t", "", [], [Part(["a", "b"], [[odd, "**x**"]])]))
    text = check_tex(tmp_path / "odd.tex")
    assert r"\textbf{bold\_1}; second" in text


@given(st.text(st.sampled_from("ab1 _*<>[]()|&;#/!~\\\\"), min_size=1))
@example("TCGA_<site>_<patient>_<date>")
def test_markdown_shows_patterns_and_names_as_they_are(name: str) -> None:
    """`_<site>_` was emphasis; a class, a group or a file may be called anything. Code and bold are ours."""
    assume("**" not in name)
    page = markdown("t", "", [f"- groups: {name} of `^P_*` and **x**"], [Part(["a"], [[f"b {name} c"]])])
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(page)
    shown = unescape(re.sub(r"<(/?)(h1|ul|li|p|table|thead|tbody|tr|th|td)>", "", html))
    fact, cell = (" ".join(f"{text}".split()) for text in (f"groups: {name} of", f"b {name} c"))
    shown = " ".join(shown.split())
    assert f"{fact} <code>^P_*</code> and <strong>x</strong>" in shown
    assert cell in shown


def test_parts_without_rows_have_no_grid() -> None:
    part = Part(["a"], [], below=["nothing"])
    assert "|" not in markdown("t", "", [], [part])
    assert "tabular" not in latex("t", "", [], [part])


def test_reports_start_without_torch() -> None:
    """Only architecture tables build networks (in `layers`), and `classroom methods` counts their parameters."""
    names = sorted(path.stem for path in (ROOT / "src/classroom/reporting").glob("*.py"))
    code = (
        "import importlib, sys\n"
        f"for name in {[name for name in names if name not in ('__init__', 'methods', 'layers')]}:\n"
        "    importlib.import_module(f'classroom.reporting.{name}')\n"
        "    if 'torch' in sys.modules: sys.exit(f'{name} loads torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
