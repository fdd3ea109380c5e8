"""`classroom explain`: a number is traced to its runs, and the commands that it prints make it again."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML

from classroom.errors import ClassroomError
from classroom.files import content_hash
from classroom.params import check, load
from classroom.provenance.reproduction import leaves, reproduction
from classroom.reporting.common.numbers import find, numbers
from classroom.reporting.common.pages import read_page
from classroom.reporting.common.provenance import source
from classroom.reporting.explained import text
from classroom.settings.plan import write_plan
from support import finished
from support.fabricated_site import make_reports
from support.finished import classroom
from support.studies import STUDY

# From fabricated results: which numbers there are ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    make_reports(folder)
    return folder / "pages"


def known(pages: Path, report: str) -> dict[str, dict[str, Any]]:
    return numbers(read_page(pages / f"{report}.json"))


def test_a_table_of_variants_names_every_number_as_its_csv_has_it(pages: Path) -> None:
    table = pd.read_csv(pages.parent / "table4.csv").set_index(["technique", "strategy", "network", "metric"])
    named = {tuple(name.split("/")): cell for name, cell in known(pages, "table4").items() if name.count("/") == 3}
    shown = table[table.index.get_level_values("metric").isin(["iou", "f_score"])]  # the others are in the csv alone
    assert set(named) == set(shown.index)
    for place, cell in named.items():
        assert cell["value"] == pytest.approx(table.loc[place, "mean"], abs=1e-6), place
    assert named["kd_ml", "v3", "ensemble", "iou"]["paper"] == 80.12


@pytest.mark.parametrize(
    ("report", "names"),
    [
        ("table12", ["kd_ml/v3/ensemble/iou"]),
        ("table2", [f"{STUDY}/student/S1/iou", "lgg-mobilenet/student/S1/iou"]),
        (f"grid-{STUDY}", ["kd_ml/v3/0.1-0.4-0.5/ensemble"]),
        ("table4", [f"{name}/student-alone/difference" for name in ("kd-ml-v3-ensemble", "ml-v1-ensemble")]),
        ("cost", [f"table-4/{STUDY}/kd_ml/runs"]),
    ],
)
def test_numbers_of_every_kind_of_report_have_names(pages: Path, report: str, names: list[str]) -> None:
    assert set(names) <= set(known(pages, report))


def test_no_number_is_lost_for_its_name(pages: Path) -> None:
    """Two cells of one name must be one number, or `--cell` could not tell them apart."""
    for path in pages.glob("*.json"):
        page = read_page(path)
        named = numbers(page)
        for cell in (cell for part in page["parts"] for row in part["rows"] for cell in row):
            if isinstance(cell, dict) and cell["sources"]:
                assert any(cell["sources"] == of["sources"] for of in named.values()), (path, cell["text"])


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("kd_ml-v3/ensemble/iou", "kd_ml/v3/ensemble/iou"),
        ("/kd_ml/v3/ensemble/iou/", "kd_ml/v3/ensemble/iou"),
        ("kd_off/v1/T/iou", "kd_off/v1/T/iou"),
        ("kd_ml-v3/S1/f_score", "kd_ml/v3/S1/f_score"),
    ],
)
def test_a_number_has_more_names_than_one(pages: Path, name: str, means: str) -> None:
    assert find(known(pages, "table4"), name) == means


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "kd_ml/v3/ensemle/iou",
            r"--cell kd_ml/v3/ensemle/iou: matches none of .*\d+ numbers\. Similar: kd_ml/v3/ensemble/iou, .* listed\.",
        ),
        ("kd_ml/v3/iou", r"--cell kd_ml/v3/iou: matches 4 numbers\. Choose one: kd_ml/v3/T/iou, .*/ensemble/iou\."),
        ("zzz", r"--cell zzz: matches none of .* They are named like ml/v1/S1/iou\. Without --cell, all are listed\."),
    ],
)
def test_a_name_of_none_or_many_is_met_with_those_near(pages: Path, name: str, said: str) -> None:
    with pytest.raises(ClassroomError, match=f"^{said}$"):
        find(known(pages, "table4"), name)


def test_what_came_from_elsewhere_cannot_add_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pages and manifests may be pulled from anyone's remote, and what is printed is meant to be typed."""
    hostile = "\x1b[2Jx\nEND\ntouch pwned\n"
    monkeypatch.chdir(tmp_path)
    record = {"params": {"training": {"epochs": hostile, hostile: 1}}, "dependencies": {}, "code_version": hostile}
    (tmp_path / "params.yaml").write_text("training: {epochs: 1}\n")
    again = reproduction([], [record], ["; touch pwned"])
    lists = {"changed": {}, "absent": [], "not_on_record": [], "jobs": [], "settings": {}, "sources": []}
    number = {"report": "reports/table4.md", "cell": hostile, "disclaimer": hostile, "text": hostile, "paper": None}
    printed = text(number | lists | again | {"instead": []})
    assert "\x1b" not in printed
    script = printed[printed.index("REPRODUCE from scratch\n") :].partition("\n")[2]
    script = script.partition("\n\nor, ")[0].replace("classroom overlay", "cat")
    subprocess.run(["bash"], input=script, text=True, check=True, capture_output=True)
    assert not (tmp_path / "pwned").exists()


def test_code_in_folders_and_settings_in_files_of_their_own_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    contents = {"src/a/x.py": "x", "src/a/b/y.py": "y", "params.yaml": "", "studies/s.yaml": "alpha: 1\n"}
    for name, content in contents.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "1"]):
        subprocess.run([*git, *command], check=True)
    (commit,) = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.split()
    record = {
        "code_version": commit,
        "params": {"study.s": {"alpha": 1}},
        "dependencies": {"src/a": content_hash(Path("src/a"))},
    }
    assert reproduction([], [record], []) == {"commands": [f"git checkout {commit}"], "notes": []}
    Path("src/a/b/y.py").write_text("other")
    record |= {"params": {"study.s": {"alpha": 2}}, "dependencies": {"src/a": content_hash(Path("src/a"))}}
    again = reproduction([], [record], [])
    assert "studies:\n  s:\n    alpha: 2\n" in again["commands"][1]
    assert again["notes"] == [f"{commit} differs from the code that made it, which was not committed: src/a"]


# From a project that has run: what is said of a number ----------------------------------------------------------------

CELL = "kd_off/v1/ensemble/iou"


@pytest.fixture
def project(finished_project: Path, tmp_path: Path) -> Path:
    return finished.copy(finished_project, tmp_path / "project")


@pytest.fixture(scope="module")
def whole(finished_project: Path) -> dict[str, Any]:
    """What is said where everything is there."""
    return explained(finished_project, "table4", CELL)


def explained(project: Path, report: str, *cell: str) -> dict[str, Any]:
    arguments = " ".join(f"--cell {path}" for path in cell)
    done = classroom(f"classroom explain {report} {arguments} --json", project)
    assert done.code == 0, done.error
    return json.loads(done.out)


def test_a_number_is_led_back_to_all_that_it_stands_on(finished_project: Path, whole: dict[str, Any]) -> None:
    project, said = finished_project, whole
    csv = pd.read_csv(project / "reports/table4.csv").set_index(["technique", "strategy", "network", "metric"])
    assert said["value"] == pytest.approx(csv.loc[("kd_off", "v1", "ensemble", "iou"), "mean"], abs=1e-6)
    assert said["paper"] == 77.28
    assert (said["changed"], said["absent"], said["not_on_record"]) == ({}, [], [])
    (of,) = said["sources"]
    assert of["what"] == "IoU of ensemble on the test split"
    assert sum(run["value"] for run in of["runs"]) / 2 == pytest.approx(said["value"])
    for seed, run in enumerate(of["runs"]):
        folder = project / f"runs/{STUDY}/kd_off-v1/seed-{seed}"
        manifest = json.loads((folder / "manifest.json").read_text())
        assert run["run"] == str(folder.relative_to(project))
        assert (run["code_version"], run["identity"]) == (manifest["code_version"], manifest["identity"])
        assert (run["device"], run["threads"], run["reevaluated"]) == ("cpu", 1, True)
        made_from = {
            f"runs/{STUDY}/teacher/seed-{seed}/weights.safetensors",
            f"data/splits/{STUDY}.parquet",
            f"data/prepared/{STUDY}",
        }
        assert set(run["made_from"]) == made_from
        for path, digest in (run["made_from"] | run["made"]).items():
            assert content_hash(project / path) == digest
    assert said["settings"]["training"]["epochs"] == 1
    assert said["settings"][f"study.{STUDY}.weights.kd_off-v1"]["S1"] == {"alpha": 0.2, "beta": 0.8}


def test_a_report_goes_by_any_of_its_files(finished_project: Path, whole: dict[str, Any]) -> None:
    for report in ("table4.csv", "reports/table4.tex", "reports/table4.md"):
        assert explained(finished_project, report, CELL) == whole


@pytest.mark.parametrize("report", ["table4", "table12", "table2", "table10", "cost", f"tune-{STUDY}"])
def test_without_a_cell_all_are_listed_and_each_can_be_explained(finished_project: Path, report: str) -> None:
    listed = explained(finished_project, report)["numbers"]
    assert listed
    for one in (listed[0], listed[-1]):
        said = explained(finished_project, report, one["cell"])
        assert {key: said[key] for key in one} == one
        for run in (run for of in said["sources"] for run in of["runs"]):
            assert run["reevaluated"] in ((None,) if report in ("cost", f"tune-{STUDY}") else (True,))
            assert f"classroom train {STUDY} {run['run'].split('/')[2]}" in "\n".join(said["commands"])


def test_a_report_without_numbers_says_so_in_one_sentence(finished_project: Path) -> None:
    for report in ("table5", "table7.md", "index.html"):
        done, name = classroom(f"classroom explain {report}", finished_project), Path(report).stem
        said = rf"Error: reports/{name}\.\w+: names no runs that it is made from; `dvc repro .*` makes it again\."
        assert re.fullmatch(f"{said}\n", done.error), done.error
        assert done.code == 1


@pytest.mark.parametrize(
    ("report", "methods"),
    [(f"curves-{STUDY}", ["ml-v3", "kd_ml-v3", "kd_off-v1"]), (f"agreement-{STUDY}", ["kd_ml-v3", "kd_off-v1"])],
)
def test_of_a_picture_the_runs_behind_it_are_told(finished_project: Path, report: str, methods: list[str]) -> None:
    """It was said to come from no run."""
    said = explained(finished_project, report)
    (of,) = said["sources"]
    expected = {f"runs/{STUDY}/{method}/seed-{seed}" for method in methods for seed in (0, 1)}
    assert {run["run"] for run in of["runs"]} == expected
    assert all(run["identity"] and run["made"] for run in of["runs"])
    assert (said["changed"], said["absent"], said["not_on_record"]) == ({}, [], [])
    for method in methods:
        assert f"classroom train {STUDY} {method} --seed 1" in said["commands"]
    printed = classroom(f"classroom explain {report}", finished_project)
    assert printed.code == 0
    assert all(f"\n{run}\n  best epochs" in printed.out for run in expected)
    refused = classroom(f"classroom explain {report} --cell x", finished_project)
    assert re.fullmatch(rf"Error: --cell x: reports/{report}\.\w+ has no numbers .*\n", refused.error), refused.error


def test_of_a_picture_the_runs_are_told_though_none_is_evaluated(project: Path) -> None:
    """Some pictures are made of runs alone."""
    shutil.rmtree(project / "results")
    (of,) = explained(project, f"agreement-{STUDY}")["sources"]
    assert {run["device"] for run in of["runs"]} == {"cpu"}
    shutil.rmtree(project / "runs")
    refused = classroom(f"classroom explain agreement-{STUDY}", project)
    assert f"depends on a run that is not evaluated, runs/{STUDY}/kd_ml-v3/seed-0. " in refused.error


def test_a_report_that_is_not_made_is_named_with_the_command_that_makes_it(project: Path) -> None:
    (project / "reports/pages/table4.json").unlink()
    refused = classroom("classroom explain table4", project).error
    assert refused.startswith("Error: reports/pages/table4.json: cannot be read (no such file). ")
    assert "`snakemake --cores all reports/table4.md`" in refused


def test_what_has_changed_since_is_named_by_key_and_file(project: Path) -> None:
    settings = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(settings.replace("  epochs: 1", "  epochs: 3"))
    with (project / "src/classroom/training/loop.py").open("a") as code:
        code.write("# another thought\n")
    said = explained(project, "table4", CELL)
    for job in (f"train_offline@{STUDY}-kd_off-v1-0", f"baseline@{STUDY}-teacher-0"):
        assert said["changed"][job]["training.epochs"] == [1, 3]
        assert set(said["changed"][job]) == {"training.epochs", "src/classroom/training"}
    assert not any(job.startswith(("fetch", "prepare", "split", "train@")) for job in said["changed"])
    assert said["settings"]["training"]["epochs"] == 1, "the settings are those of the run"
    text = classroom(f"classroom explain table4 --cell {CELL}", project).out
    assert "stale: training.epochs: was 1, is 3" in text


def test_a_number_that_does_not_follow_from_the_predictions_is_said(project: Path) -> None:
    """Results were edited, and the report made of them."""
    page = project / "reports/pages/table4.json"
    content = json.loads(page.read_text())
    for of in numbers(content)[CELL]["sources"]:
        of["values"][f"runs/{STUDY}/kd_off-v1/seed-0"] = 99.0
    page.write_text(json.dumps(content))
    assert [run["reevaluated"] for run in explained(project, "table4", CELL)["sources"][0]["runs"]] == [False, True]
    assert "recomputed   OTHER VALUE" in classroom(f"classroom explain table4 --cell {CELL}", project).out


def test_a_report_of_other_runs_than_are_evaluated_says_what_to_run(project: Path) -> None:
    """As reports/index.html does: it is the same check."""
    costs = project / f"results/costs/variants/{STUDY}/kd_off-v1.json"
    content = json.loads(costs.read_text())
    content["seeds"]["0"]["predictions"] = "of another training"
    costs.write_text(json.dumps(content))
    error = f"reports/pages/table4.json: depends on a run that has been trained again, runs/{STUDY}/kd_off-v1/seed-0. "
    assert error in classroom(f"classroom explain table4 --cell {CELL}", project).error
    costs.unlink()
    assert (
        "depends on a run that is not evaluated" in classroom(f"classroom explain table4 --cell {CELL}", project).error
    )
    (project / "reports/pages/table4.json").unlink()
    assert "table4.json: cannot be read" in classroom("classroom explain table4", project).error


@pytest.mark.parametrize("recorded", [True, False], ids=["with dvc.lock", "without"])
def test_without_runs_and_data_it_says_what_it_can(
    request: pytest.FixtureRequest, tmp_path: Path, whole: dict[str, Any], recorded: bool
) -> None:
    """A clone into which results and reports alone were pulled; dvc.lock, which git brings, knows the rest."""
    made = request.getfixturevalue("recorded_project" if recorded else "finished_project")
    project = finished.copy(made, tmp_path / "project")
    for name in ("runs", "data", "checkpoints", ".classroom"):
        shutil.rmtree(project / name)
    said = explained(project, "table4", CELL)
    assert (said["value"], said["paper"], said["commands"]) == (whole["value"], whole["paper"], whole["commands"])
    runs, known_runs = said["sources"][0]["runs"], whole["sources"][0]["runs"]
    for key in ("value", "seconds", "best_epoch", "identity", "code_version"):
        assert [run[key] for run in runs] == [run[key] for run in known_runs], key
    assert [run["reevaluated"] for run in runs] == [None, None]
    if recorded:
        assert [run["made_from"] for run in runs] == [run["made_from"] for run in known_runs]
        assert [list(run["made"]) for run in runs] == [[run["run"]] for run in runs], "to DVC a run is one folder"
        assert leaves(said["settings"]) == leaves(whole["settings"])
        assert f"data/prepared/{STUDY}" in said["absent"]
    else:
        assert said["not_on_record"] == said["jobs"]
        assert "nothing else is recorded here" in classroom(f"classroom explain table4 --cell {CELL}", project).out


@pytest.mark.parametrize(("study", "report"), [(STUDY, "table4"), ("own", "own")])
def test_the_commands_make_the_same_number_in_a_fresh_clone(
    study: str, report: str, project: Path, tmp_path: Path
) -> None:
    """As typed by hand, though params.yaml was edited for this run and never committed, nor one's own study."""
    yaml = YAML()
    params = yaml.load((project / "params.yaml").read_text())
    params["seeds"], params["training"]["epochs"] = [1], 2
    if study == "own":
        params["studies"].append(study)
        settings = yaml.load((project / f"studies/{STUDY}.yaml").read_text())
        settings["reports"] = {kind: f"{kind}-{study}" for kind in settings["reports"]} | {"variants": report}
        yaml.dump(settings, project / f"studies/{study}.yaml")
    yaml.dump(params, project / "params.yaml")
    write_plan(check(load(project / "params.yaml")), project)
    for command in (f"prepare {study}", f"split {study}", f"train {study} teacher --seed 1",
                    f"train {study} kd_off-v1 --seed 1", f"evaluate {study} kd_off-v1"):  # fmt: skip
        done = classroom(f"classroom {command}", project)
        assert done.code == 0, done.error
    results, page = f"results/variants/{study}/kd_off-v1.json", project / f"reports/pages/{report}.json"
    value = source(json.loads((project / results).read_text()), "ensemble", "iou")
    content = json.loads((project / "reports/pages/table4.json").read_text()) | {"name": report}
    numbers(content)[CELL]["sources"] = [asdict(value)]  # as its table would have it, made again with all else in it
    page.write_text(json.dumps(content))
    said = explained(project, report, CELL)
    assert said["notes"] == []
    assert re.fullmatch(r"git checkout [0-9a-f]{12}", said["commands"][0])
    assert said["commands"][-6:] == [
        "classroom fetch lgg", f"classroom prepare {study}", f"classroom split {study}",
        f"classroom train {study} teacher --seed 1", f"classroom train {study} kd_off-v1 --seed 1",
        f"classroom evaluate {study} kd_off-v1",
    ]  # fmt: skip
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    by_shell, by_us = said["commands"][:2], said["commands"][2:]
    assert by_shell[1].startswith("cat > explained.yaml <<'END'\n")
    subprocess.run(["bash", "-e"], input="\n".join(by_shell), text=True, cwd=clone, check=True, capture_output=True)
    for command in by_us:
        done = classroom(command, clone)
        assert done.code == 0, done.error
    again = json.loads((clone / results).read_text())
    assert source(again, "ensemble", "iou") == value
