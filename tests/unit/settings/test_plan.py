"""workflow/plan.yaml: which jobs the settings ask for, of the studies in force alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from classroom import params
from classroom.errors import ParamsError
from classroom.params import load
from classroom.settings import overlays
from classroom.settings.plan import PLAN, check_plan, plan, write_plan
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
    assert yaml.safe_load((ROOT / PLAN).read_text()) == {"plan": plan(params.check(raw))}


def test_every_list_names_studies_in_force_alone(raw: dict[str, Any]) -> None:
    """Reports of another one are not asked for, though its file and the searches in params.yaml name them."""
    everything = of(raw, *raw["studies"])
    assert set(everything["studies"]) == set(raw["studies"])
    assert everything["grid"] == [OTHER]
    for study in raw["studies"]:
        text = yaml.dump(alone := of(raw, study))
        assert list(alone["studies"]) == [study]
        assert list(alone["datasets"]) == [raw["study"][study]["dataset"]]
        assert not [name for name in raw["studies"] if name != study and name in text], study
        for name, report in everything["studies"][study].items():
            assert alone["studies"][study][name] == report


def test_of_a_study_without_further_reports_the_lists_are_empty(raw: dict[str, Any]) -> None:
    """DVC makes no stages of an empty list."""
    alone = of(raw, CLASSES_STUDY)
    assert alone["comparison"] == {"tables": [], "classification": {}, "segmentation": {}}
    assert alone["cka"] == {"studies": [], "figures": {}}
    assert alone["deploy"] == {"studies": [], "tables": []}
    assert (alone["samples"], alone["pictures"], alone["resplits"], alone["grid"]) == ([], {}, {}, [])
    assert alone["tune"] == {"classification": [], "segmentation": []}
    assert alone["baselines"] == ["table13"]


def test_reports_of_a_study_are_in_the_lists_that_their_stages_read(raw: dict[str, Any]) -> None:
    alone = of(raw, STUDY)
    reports = raw["study"][STUDY]["reports"]
    assert alone["datasets"] == {"lgg": "lgg"}
    assert alone["baselines"] == [reports["baselines"]]
    assert alone["comparison"] == {"tables": ["table10"], "classification": {}, "segmentation": {STUDY: "table10"}}
    assert alone["samples"] == [STUDY]
    assert alone["pictures"] == dict.fromkeys(reports["pictures"], STUDY)
    assert alone["deploy"] == {"studies": [STUDY], "tables": ["deploy"]}
    assert alone["tune"] == {"classification": [], "segmentation": [STUDY]}
    raw["study"][STUDY]["reports"] |= {"cka": [], "samples": False, "pictures": {}, "deploy": False, "comparison": None}
    bare = of(raw, STUDY)
    assert bare["cka"] == {"studies": [STUDY], "figures": {}}
    assert (bare["samples"], bare["pictures"], bare["deploy"]["tables"], bare["comparison"]["tables"]) == (
        [],
        {},
        [],
        [],
    )


def test_studies_that_share_a_report_name_it_once(raw: dict[str, Any]) -> None:
    both = of(raw, STUDY, OTHER)
    assert both["baselines"] == ["table2"]
    assert both["comparison"]["tables"] == ["table10"]


def test_a_search_of_no_method_trains_nothing(raw: dict[str, Any]) -> None:
    raw["tune"]["segmentation"]["methods"] = []
    assert of(raw, STUDY)["tune"]["segmentation"] == []


def test_two_splits_are_compared_where_both_studies_are_in_force(project: Path) -> None:
    overlays.resplit(STUDY)
    raw = load()
    pair = {"of": STUDY, "report": "table4-splits", "table": "table4"}
    assert of(raw, STUDY, f"{STUDY}-resplit")["resplits"] == {f"{STUDY}-resplit": pair}
    assert of(raw, f"{STUDY}-resplit")["resplits"] == {}


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
    with pytest.raises(ParamsError, match=rf"^{PLAN}: not what the settings ask for.*`classroom check`"):
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
