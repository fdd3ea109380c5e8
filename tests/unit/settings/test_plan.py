"""workflow/plan.yaml: which jobs the settings ask for, of the active studies alone."""

from __future__ import annotations

from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import yaml

from classroom import params
from classroom.errors import ParamsError
from classroom.params import load
from classroom.settings import overlays
from classroom.settings.plan import PLAN, check_plan, digest, plan, write_plan
from support.studies import CLASSES_STUDY, ROOT, STUDY, copy_settings

OTHER = "histopathologic-resnet18"


def of(raw: dict[str, Any], *studies: str) -> dict[str, Any]:
    return plan(params.check(raw | {"studies": list(studies)}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root with the committed settings and their plan; commands run there."""
    copy_settings(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_plan(params.check(load()))
    return tmp_path


def test_the_committed_plan_is_what_the_committed_settings_ask_for(raw: dict[str, Any]) -> None:
    """Or a fresh clone would begin with other jobs for DVC than for Snakemake."""
    settings = params.check(raw)
    written = yaml.safe_load((ROOT / PLAN).read_text())
    assert written == {"settings": digest(raw), "plan": plan(settings)}
    assert digest(settings.model_dump(mode="json")) == digest(raw)


def test_every_list_names_active_studies_alone(raw: dict[str, Any]) -> None:
    """Reports of another one are not asked for, though its file and the searches in params.yaml name them."""
    everything = of(raw, *raw["studies"])
    assert set(everything["studies"]) == set(raw["studies"])
    assert everything["grid"] == [OTHER]
    for study in raw["studies"]:
        alone = of(raw, study)
        assert list(alone["studies"]) == [study]
        assert list(alone["datasets"]) == [raw["study"][study]["dataset"]]
        assert not [name for name in raw["studies"] if name != study and name in yaml.dump(alone)], study
        for kind, reports in alone["reports"].items():
            named = {
                name: item for name, item in everything["reports"][kind].items() if item.get("study", study) == study
            }
            assert reports.items() <= named.items(), (study, kind)


def test_of_a_study_without_further_reports_the_lists_are_empty(raw: dict[str, Any]) -> None:
    """DVC makes no stages of an empty list."""
    alone = of(raw, CLASSES_STUDY)
    assert alone["compared"] == {"classification": {}, "segmentation": {}}
    assert alone["tune"] == {"classification": [], "segmentation": []}
    assert (alone["cka"], alone["deploy"], alone["grid"]) == ([], {}, [])
    for kind in ("comparison", "cka_table", "cka_figure", "samples", "pictures", "deploy", "resplit", "grid_search"):
        assert alone["reports"][kind] == {}, kind
    assert list(alone["reports"]["variants"]) == ["table14"]
    assert list(alone["reports"]["baselines"]) == ["table13"]


def test_reports_of_a_study_are_in_the_lists_that_their_stages_read(raw: dict[str, Any]) -> None:
    alone = of(raw, STUDY)
    reports = raw["study"][STUDY]["reports"]
    assert alone["datasets"] == {"lgg": "lgg"}
    assert alone["studies"] == {STUDY: {"dataset": "lgg", "baselines": "table2"}}
    assert alone["compared"] == {"classification": {}, "segmentation": {STUDY: "table10"}}
    assert alone["deploy"] == {STUDY: {"dataset": "lgg"}}
    assert [(of["study"], of["network"], of["dataset"]) for of in alone["exported"].values()] == [
        (STUDY, network, "lgg") for network in ("S1", "ensemble")
    ]
    assert alone["tune"] == {"classification": [], "segmentation": [STUDY]}
    assert alone["methods"] == {
        "segmentation": ["fitnet", "at", "cwd", "dsd", "emkd"], "adversarial": ["skd", "ifvd"],
    }  # fmt: skip
    assert alone["tuned"] == {"segmentation": ["at"], "adversarial": []}
    asked = alone["reports"]
    for kind in ("variants", "fidelity", "architecture", "baselines", "comparison"):
        assert list(asked[kind]) == [reports[kind]], kind
    assert asked["pictures"] == {name: {"study": STUDY} for name in reports["pictures"]}
    assert asked["samples"] == {f"samples-{STUDY}": {"study": STUDY}}
    assert list(asked["method_search"]) == [f"tune-{STUDY}"]
    raw["study"][STUDY]["reports"] |= {"cka": [], "samples": False, "pictures": {}, "deploy": False, "comparison": None}
    bare = of(raw, STUDY)
    assert (bare["cka"], bare["deploy"]) == ([STUDY], {})
    assert list(bare["reports"]["cka_table"]) == [f"cka-{STUDY}"]
    for kind in ("cka_figure", "samples", "pictures", "deploy", "comparison"):
        assert bare["reports"][kind] == {}, kind


def test_studies_that_share_a_report_name_it_once(raw: dict[str, Any]) -> None:
    both = of(raw, STUDY, OTHER)["reports"]
    assert list(both["baselines"]) == ["table2"]
    assert list(both["comparison"]) == ["table10"]


def test_a_search_of_no_method_trains_nothing(raw: dict[str, Any]) -> None:
    raw["tune"]["segmentation"]["methods"] = []
    alone = of(raw, STUDY)
    assert (alone["tune"]["segmentation"], alone["reports"]["method_search"]) == ([], {})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study/lgg-resnet18/reports/cka", []),
        ("study/lgg-resnet18/reports/deploy", False),
        ("study/lgg-resnet18/reports/fidelity", "mine"),
        ("study/lgg-resnet18/reports/pictures", {}),
        ("study/lgg-resnet18/resplit", {"of": "lgg-mobilenet", "report": "mine"}),
        ("study/lgg-resnet18/image_size", 96),
        ("study/lgg-mobilenet/reports/variants", "mine"),
        ("dataset/lgg/full_size", 9),
        ("studies", [STUDY]),
        ("grid/studies", []),
        ("tune/segmentation/methods", []),
        ("training/epochs", 9),
    ],
)
def test_the_digest_changes_where_the_plan_does(raw: dict[str, Any], path: str, value: Any) -> None:
    """By it alone a job sees that the plan is another one, as composing the plan takes too long."""
    before = plan(params.check(raw)), digest(raw)
    *above, last = path.split("/")
    reduce(getitem, above, raw)[last] = value
    after = plan(params.check(raw)), digest(raw)
    assert before[0] == after[0] or before[1] != after[1]
    if path.endswith(("image_size", "full_size", "epochs")):
        assert before == after


def test_two_splits_are_compared_where_both_studies_are_active(project: Path) -> None:
    overlays.resplit(STUDY)
    raw = load()
    pair = {"study": f"{STUDY}-resplit", "of": STUDY, "table": "table4"}
    assert of(raw, STUDY, f"{STUDY}-resplit")["reports"]["resplit"] == {"table4-splits": pair}
    assert of(raw, f"{STUDY}-resplit")["reports"]["resplit"] == {}


def test_the_plan_is_written_only_where_it_changes(project: Path) -> None:
    """A new time would have DVC read everything again."""
    before = (project / PLAN).stat().st_mtime_ns
    assert not write_plan(params.check(load()))
    assert (project / PLAN).stat().st_mtime_ns == before
    overlays.use([STUDY])
    assert write_plan(params.check(load()))
    assert list(yaml.safe_load((project / PLAN).read_text())["plan"]["studies"]) == [STUDY]


@pytest.mark.parametrize("spoil", ["studies", "report", "absent", "damaged"])
def test_a_plan_that_is_not_what_the_settings_ask_for_is_refused(project: Path, spoil: str) -> None:
    """Edited by hand, the settings ask for jobs that DVC does not know, or the other way round."""
    check_plan(load())
    study = project / f"studies/{STUDY}.yaml"
    if spoil == "studies":
        overlays.use([STUDY])
    elif spoil == "report":
        study.write_text(study.read_text().replace("fidelity: table12", "fidelity: mine"))
    elif spoil == "absent":
        (project / PLAN).unlink()
    else:
        (project / PLAN).write_text("plan: [")
    with pytest.raises(ParamsError, match=rf"^{PLAN}: out of date: .*`classroom check`"):
        check_plan(load())
    write_plan(params.check(load()))
    check_plan(load())


def test_what_decides_no_job_leaves_the_plan_alone(project: Path) -> None:
    study = project / f"studies/{STUDY}.yaml"
    study.write_text(study.read_text().replace("image_size: 64", "image_size: 96"))
    check_plan(load())


def test_settings_that_are_not_valid_are_left_to_the_jobs_that_need_them(project: Path) -> None:
    """One study may be edited while another runs."""
    (project / f"studies/{STUDY}.yaml").write_text("dataset: [lgg")
    check_plan(load())
