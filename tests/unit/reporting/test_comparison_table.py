"""Table 10 and the search of the published methods' weights: what is marked, shown and handed back."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from classroom import params
from classroom.errors import DataError
from classroom.evaluation.grid import read_factors
from classroom.methods import registry
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.common.results import read_comparison
from classroom.reporting.comparison import comparison_table
from classroom.reporting.method_search import tune_report
from classroom.reporting.methods import listing
from classroom.settings.overlays import apply_overlay
from support import fabricated
from support.rendered import check_sources, check_tex, markdown_tables, save
from support.studies import ROOT, copy_settings, put_settings, shrink

SEEDS = (0, 1)


def completed(result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """With what a comparison reads in addition: size, notes, terms of the last epoch, seconds."""
    terms = {"S1/task": 0.5, **{f"S1/{term}": 0.5 for term in result["settings"].get("weights", {}) if term != "S1"}}
    for of_seed in result["seeds"].values():
        of_seed["last_epoch_terms"] = dict(terms)
    costs = {seed: {"seconds_per_epoch": 2.0 + int(seed)} for seed in result["seeds"]}
    return result | {"extra_parameters": 0, "notes": [], "costs": costs} | changes


def published(method: str, qualities: list[float], data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    kind = registry.published(data["task"])[method]
    result = fabricated.result(method, {"T": [0.9, 0.9], "S1": qualities}, data)
    result["settings"] |= {
        "weights": dict(kind.weights),
        "options": kind().model_dump(mode="json"),
        "published": {"label": kind.label, "paper": kind.paper, "differences": [], "shown": []},
    }
    return completed(result, tuned=False) | changes


def half(data: dict[str, Any], **methods: dict[str, Any]) -> dict[str, Any]:
    student = completed(fabricated.alone("student", [0.70, 0.72], data=data))
    qualities = {"T": [0.9, 0.9], **fabricated.students([0.70, 0.70], [0.71, 0.71], [0.80, 0.82])}
    ours = completed(fabricated.result("kd_ml-v3", qualities, data))
    return {"beside": [student, ours], "published": list(methods.values())}


@pytest.fixture
def masks() -> dict[str, Any]:
    return half(
        fabricated.LGG,
        fitnet=published("fitnet", [0.60, 0.62], fabricated.LGG, extra_parameters=65_536),
        dsd=published("dsd", [0.90, 0.94], fabricated.LGG),
    )


@pytest.fixture
def classes() -> dict[str, Any]:
    data = fabricated.HISTOPATHOLOGIC
    return half(data, simkd=published("simkd", [0.80, 0.80], data, extra_parameters=12_100_000))


def rendered(tmp_path: Path, *halves: dict[str, Any], name: str = "table10") -> tuple[str, pd.DataFrame]:
    target = tmp_path / f"{name}.md"
    save("comparison", comparison_table(name, "paper", SEEDS, halves), target)
    check_tex(target.with_suffix(".tex"))
    return target.read_text(), pd.read_csv(target.with_suffix(".csv"))


def rows_of(folder: Path, name: str = "table10") -> dict[str, list[str]]:
    tables = [table for table in markdown_tables(folder / f"{name}.md") if table[0][0] == "method"]
    return {row[0]: row for table in tables for row in table[1:]}


def test_every_method_is_next_to_the_paper_s_value_and_ours(masks: dict[str, Any], tmp_path: Path) -> None:
    _, table = rendered(tmp_path, masks)
    rows = rows_of(tmp_path)
    assert rows["FitNet"][2] == "61.00 ± 1.414<br>paper 75.24, −14.24"
    assert rows["DSD"][2].startswith("**92.00 ± 2.828**<br>paper 77.47"), "the best of the column"
    assert rows["student alone"][2] == "71.00 ± 1.414<br>paper 75.06, −4.06", "Table 2's ResNet18"
    assert rows["ours, KD + ML V3, ensemble"][2] == "81.00 ± 1.414<br>paper 80.12, +0.88"
    assert "paper" not in rows["ours, KD + ML V3, S1"][2], "the paper's row is its ensemble"
    of = table[(table.method == "fitnet") & (table.metric == "iou")].iloc[0]
    assert (of["mean"], of.paper) == (pytest.approx(61.0), 75.24)
    runs = [next(iter(cell["sources"][0]["values"])) for cell in check_sources(tmp_path / "table10.md")]
    published = [f"compared/lgg-resnet18/{method}/seed-0" for method in ("fitnet", "dsd")]
    assert {*published, "runs/lgg-resnet18/student/seed-0", "runs/lgg-resnet18/kd_ml-v3/seed-0"} == set(runs)


def test_every_method_is_compared_with_the_student_alone(masks: dict[str, Any], tmp_path: Path) -> None:
    """Each with the same student, by the network of its row; ours by its ensemble."""
    _, table = rendered(tmp_path, masks)
    (header, *rows), *_ = (found for found in markdown_tables(tmp_path / "table10.md") if found[0][0] == "first")
    assert header[-1] == "the first is"
    assert [row[:2] for row in rows] == [
        ["FitNet", "student alone"], ["DSD", "student alone"], ["KD + ML V3 (ensemble)", "student alone"],
    ]  # fmt: skip
    assert [row[2] for row in rows] == ["−10.00", "+21.00", "+10.00"]
    assert {row[-1] for row in rows} <= {"better", "worse", "not significant"}
    assert "corrected for these 3 comparisons" in (tmp_path / "table10.md").read_text()
    of = table[table.vs_student_difference.notna()]
    assert [*zip(of.method, of.network, of.metric, strict=True)] == [
        ("fitnet", "S1", "iou"), ("dsd", "S1", "iou"), ("kd_ml-v3", "ensemble", "iou"),
    ]  # fmt: skip
    assert [*of.vs_student_difference] == pytest.approx([-10, 21, 10])
    assert [*of.vs_student_verdict] == [row[-1] for row in rows]


def test_both_tasks_are_in_one_table(classes: dict[str, Any], masks: dict[str, Any], tmp_path: Path) -> None:
    page, table = rendered(tmp_path, classes, masks)
    assert page.index("## histopathologic, classification") < page.index("## lgg, segmentation")
    assert set(table.method) == {"student", "simkd", "fitnet", "dsd", "kd_ml-v3"}
    assert rows_of(tmp_path)["SimKD"][2].endswith("paper 84.01, −4.01")


def test_sizes_and_times_are_of_what_each_method_needs(masks: dict[str, Any], tmp_path: Path) -> None:
    """An ensemble costs two students at inference, and ours a teacher in training."""
    _, table = rendered(tmp_path, masks)
    of = {(row.method, row.network): row for row in table[table.metric == "iou"].itertuples()}
    student = of["student", "S1"].inference_parameters
    assert of["kd_ml-v3", "ensemble"].inference_parameters == 2 * student
    assert of["fitnet", "S1"].inference_parameters == student
    assert of["fitnet", "S1"].training_parameters == 65_536
    teacher = fabricated.TEACHER["parameters"]
    assert of["kd_ml-v3", "ensemble"].training_parameters == teacher
    assert of["kd_ml-v3", "S1"].training_parameters == teacher + student, "its peer learns with it"
    assert of["student", "S1"].training_parameters == 0
    assert of["fitnet", "S1"].seconds_per_epoch == 2.5, "the median of the seeds' 2 and 3"


def test_a_frozen_teacher_is_no_extra_parameter(masks: dict[str, Any], tmp_path: Path) -> None:
    """`ours` may be a variant of KD (off), whose teacher has learnt before."""
    masks["beside"][1]["method"] = "kd_off-v3"
    _, table = rendered(tmp_path, masks)
    of = {(row.method, row.network): row for row in table[table.metric == "iou"].itertuples()}
    assert of["kd_off-v3", "ensemble"].training_parameters == 0
    assert of["kd_off-v3", "S2"].training_parameters == of["student", "S1"].inference_parameters


def test_a_row_says_where_its_settings_are_from(masks: dict[str, Any], tmp_path: Path) -> None:
    """The paper prints none, so a reader must know which numbers are of untouched defaults."""
    fitnet, dsd = masks["published"]
    rendered(tmp_path, masks)
    assert rows_of(tmp_path)["FitNet"][1] == "reference defaults"
    fitnet["settings"]["published"]["differences"] = ["weight feature 30"]
    fitnet["tuned"] = True
    dsd["settings"]["published"] |= {"differences": ["temperature 2"], "shown": ["convention B", "temperature 2"]}
    rendered(tmp_path, masks)
    rows = rows_of(tmp_path)
    assert rows["FitNet"][1] == "tuned; weight feature 30"
    assert rows["DSD"][1] == "own settings; temperature 2; convention B"


def test_the_weights_of_a_method_of_one_s_own_are_those_of_its_file(masks: dict[str, Any], tmp_path: Path) -> None:
    """They were called those of docs/explanation/methods.md, the authors' or CIRKD's."""
    fitnet, dsd = masks["published"]
    dsd["method"] = "mine"
    page, _ = rendered(tmp_path, masks)
    rows = rows_of(tmp_path)
    assert [rows[label][1] for label in ("FitNet", "DSD")] == ["reference defaults", "defaults of its file"]
    head = next(line for line in page.splitlines() if line.startswith("- settings: "))
    assert "`defaults of its file` are those of src/classroom/methods/mine.py; `tuned`" in head
    assert "`reference defaults` are those of public code" in head
    masks["published"].remove(fitnet)
    page, _ = rendered(tmp_path, masks)
    assert "docs/explanation/methods.md" not in page
    assert "reference" not in page


def test_the_list_says_whose_the_weights_of_a_method_of_one_s_own_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = registry.load("at")["segmentation"]
    monkeypatch.setattr(registry, "published", lambda task: {"mine": at} if task == "segmentation" else {})
    raw = params.load(ROOT / "params.yaml") | {
        "studies": ["ham10000-segmentation"],
        "comparison": {task: [] for task in params.TASKS},
    }
    raw["grid"]["studies"] = []
    text = listing(put_settings(tmp_path, raw))
    assert text.splitlines()[-1] == "    defaults of src/classroom/methods/mine.py; not active"


def test_the_list_marks_what_is_active(tmp_path: Path) -> None:
    raw = params.load(ROOT / "params.yaml") | {
        "studies": ["lgg-resnet18"],
        "variants": {"joint": ["ml-v1", "kd_ml-v3"], "offline": []},
        "comparison": {"classification": [], "segmentation": ["cwd"]},
    }
    raw["grid"]["studies"] = []
    lines = listing(put_settings(tmp_path, raw)).splitlines()
    assert lines[0].startswith("Active studies: lgg-resnet18. ")
    known = [*EXCHANGE, *registry.PUBLISHED]
    name, marked = "", []
    for line in lines:
        name = next((one for one in known if line.startswith(f"  {one}: ")), name)
        marked += [name] * ("; active" in line)
    assert marked == ["ml-v1", "kd_ml-v3", "cwd"]


def test_terms_that_do_nothing_and_lesions_that_vanish_are_told(masks: dict[str, Any], tmp_path: Path) -> None:
    fitnet, dsd = masks["published"]
    for of_seed in dsd["seeds"].values():
        of_seed["last_epoch_terms"] = {"S1/task": 0.5, "S1/pixel": 0.5, "S1/category": 1e-9}
    fitnet["notes"] = ["at 4×4 nothing is left"]
    page, _ = rendered(tmp_path, masks)
    assert "- DSD: the term category stayed negligible in the last epoch (1.0e-09 of a total loss of 1)" in page
    assert "- FitNet: at 4×4 nothing is left" in page
    assert "term pixel" not in page


def test_a_table_of_another_name_prints_no_paper_values(masks: dict[str, Any], tmp_path: Path) -> None:
    page, table = rendered(tmp_path, masks, name="mine")
    assert page.startswith("# mine: published methods next to ours (not in the paper)")
    assert "<br>paper" not in page
    assert "paper" not in table


def test_methods_of_other_data_are_not_compared(masks: dict[str, Any], tmp_path: Path) -> None:
    masks["published"][0]["data"] = fabricated.LGG | {"train": 1}
    with pytest.raises(DataError, match="other data or training settings"):
        rendered(tmp_path, masks)


def test_the_committed_settings_are_the_reference_s_but_for_one_tap() -> None:
    """`reference defaults` in the demo's table means those of the code; only IFVD's tap is changed for small images."""
    settings = params.check(params.load(ROOT / "params.yaml"))
    offenders = {}
    for task in params.TASKS:
        methods = registry.published(task)
        assert sorted(getattr(settings.comparison, task)) == list(methods)
        for study, method in itertools.product(settings.compared_studies(task), methods):
            of = settings.study[study].methods[method]
            differs = methods[method](**of.options).differences(of.weights.terms)
            if differs != (["tap decoder.blocks.2"] if method == "ifvd" else []):
                offenders[study, method] = differs
    assert offenders == {}


def test_results_that_are_not_of_today_s_runs_are_refused(masks: dict[str, Any], tmp_path: Path) -> None:
    costs = {group: [{"seeds": r["costs"]} for r in results] for group, results in masks.items()}
    for place, content in (("results", masks), ("results/costs", costs)):
        (tmp_path / place / "comparison/table10").mkdir(parents=True)
        (tmp_path / place / "comparison/table10/lgg-resnet18.json").write_text(json.dumps(content))
    path = tmp_path / "results/comparison/table10/lgg-resnet18.json"
    read = read_comparison(path, tmp_path)
    assert read["published"][0]["costs"]["1"]["seconds_per_epoch"] == 3.0
    run = tmp_path / "compared/lgg-resnet18/fitnet/seed-1"
    run.mkdir(parents=True)
    (run / "predictions.parquet").write_text("of another run")
    with pytest.raises(
        DataError, match=r"was made from another version of .*fitnet/seed-1/.*`classroom evaluate .* published` again"
    ):
        read_comparison(path, tmp_path)
    with pytest.raises(DataError, match=r"lgg-mobilenet\.json: cannot be read"):
        read_comparison(path.with_stem("lgg-mobilenet"), tmp_path)


# The list


def test_the_list_tells_every_method_with_the_current_settings(tmp_path: Path) -> None:
    """From whatever settings lie here, and without asking a hub or taking a network's memory."""
    raw = shrink(params.load(ROOT / "params.yaml"))
    for study in raw["study"].values():
        study["image_size"] = 64  # the least that a discriminator takes
    of_masks, of_classes = (raw["study"][name]["methods"] for name in ("lgg-resnet18", "histopathologic-resnet18"))
    of_masks["skd"]["options"]["adversary"]["form"] = "hinge"
    of_masks["at"]["weights"] = {"attention": 100.0, "prediction": 0.01, "tuned": True}
    of_classes["fitnet"]["options"]["tap"] = "layer1"
    for role in ("teacher", "student"):
        raw["study"]["lgg-resnet18"][role]["weights"] = "hub"
    text = listing(put_settings(tmp_path, raw))
    assert all(f"  {variant}: " in text for variant in EXCHANGE)
    _, classes, masks_ = text.split("Published methods of ")
    found = {}
    for task, part in (("classification", classes), ("segmentation", masks_)):
        assert part.startswith(task)
        for block in part.strip().split("\n\n")[1:]:
            name, _, about = block.strip().partition(": ")
            found[task, name] = about.splitlines()
    assert list(found) == [(task, name) for task in params.TASKS for name in raw["comparison"][task]]
    for (task, name), (cited, formula, weights, state) in found.items():
        assert re.search(r" et al\.| & ", cited), name
        assert re.search(r"(ICLR|ICCV|CVPR|AAAI|ECCV|IEEE T..) 20\d\d", cited), name
        assert re.search(r"f_|KL|R_S|G_T", formula), name
        assert re.search(r"; [\d,]+ extra parameters in training \(", state), name
        assert all(f"{term} " in weights for term in registry.published(task)[name].weights), name
        assert state.endswith(f"; active: {'lgg' if task == 'segmentation' else 'histopathologic'}-resnet18"), name
    assert "adversary (form hinge, gradient_penalty 10," in found["segmentation", "skd"][2]
    assert found["segmentation", "skd"][3].strip().startswith("own settings: adversary form hinge; ")
    assert found["classification", "fitnet"][3].strip().startswith("own settings: tap layer1; ")
    assert found["segmentation", "at"][2].strip().startswith("weights attention 100, prediction 0.01; ")
    assert found["segmentation", "at"][3].strip().startswith("tuned on validation; 0 extra")
    assert found["classification", "sp"][3].strip().startswith("reference defaults; 0 extra")


# The search


def points(**values: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """By method, (factor, validation IoU) pairs."""
    return [
        {
            "method": method,
            "factor": factor,
            "weights": {
                term: factor * weight for term, weight in registry.published("segmentation")[method].weights.items()
            },
            "data": fabricated.LGG,
            "seeds": {str(seed): {"T": 0.99, "S1": value + seed / 100} for seed in SEEDS},
            "costs": {str(seed): {"run": f"tune/{method}/{factor}/seed-{seed}"} for seed in SEEDS},
        }
        for method, pairs in values.items()
        for factor, value in pairs
    ]


def test_the_best_student_on_validation_wins_and_goes_back_into_the_settings(tmp_path: Path) -> None:
    target = tmp_path / "tune-lgg-resnet18.md"
    found = points(fitnet=[(0.1, 0.5), (1.0, 0.7), (10.0, 0.6)], at=[(0.1, 0.6), (1.0, 0.6)])
    save("method_search", tune_report("lgg-resnet18", found, "small", SEEDS), target)
    assert "**70.50 ± 0.707**" in target.read_text()
    assert len(check_sources(target)) == 5
    table = pd.read_csv(target.with_suffix(".csv"))
    assert table[table.best].factor.tolist() == [1.0, 0.1], "of equal ones the first"

    settings = copy_settings(tmp_path)
    apply_overlay(target.with_suffix(".yaml"), settings)
    methods = params.check(params.load(settings)).study["lgg-resnet18"].methods
    assert methods["at"].weights.tuned
    assert methods["at"].weights.terms == pytest.approx({"attention": 1000.0, "prediction": 0.1})
    assert methods["fitnet"].weights.tuned
    assert not methods["skd"].weights.tuned


def test_the_other_convention_is_one_overlay_away(tmp_path: Path) -> None:
    settings = copy_settings(tmp_path)
    apply_overlay(ROOT / "examples/plus-kl.yaml", settings)
    methods = params.check(params.load(settings)).study["histopathologic-resnet18"].methods
    assert {methods[name].options["convention"] for name in ("fitnet", "srrl", "at", "sp", "vid")} == {"B"}
    assert methods["at"].options["power"] == 2.0


def test_a_factor_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at/0\.1/seed-0/metrics\.json: cannot be read"):
        read_factors(tmp_path, ["at"], [0.1], [0])
