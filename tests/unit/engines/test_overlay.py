"""`classroom overlay` and `classroom add-twin`: a study is added by settings alone, and never half."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from classroom import params
from classroom.engines import scales
from classroom.errors import ParamsError
from support.studies import ROOT, STUDY


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A copy of the committed params.yaml."""
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def test_the_stand_in_studies_are_added_by_settings_alone(settings: Path) -> None:
    """The promise of docs/new-study.md: a new study is a diff of params.yaml, and the rest of the file stays."""
    before = settings.read_text().splitlines()
    changed = scales.write(ROOT / "examples" / "stand-ins.yaml", settings)
    added = params.check(params.load(settings))
    assert added.studies[-2:] == ("idc-resnet18", "isic2017-segmentation")
    assert added.baseline_tables[-1] == "stand-ins"
    assert {key.split(".")[0] for key in changed} == {"dataset", "study", "weights", "studies", "baseline_tables"}
    assert len(changed) == len(set(changed))
    kept = [line for line in before if not line.startswith(("studies:", "baseline_tables:"))]
    after = iter(settings.read_text().splitlines())
    assert all(line in after for line in kept), "every other line is there, in its order"
    names = [name for study in added.studies[-2:] for name in added.study[study].tables.model_dump().values()]
    assert not any(name.startswith("table") for name in names), "results on other data beside the paper's numbers"
    assert scales.write(ROOT / "examples" / "stand-ins.yaml", settings) == [], "once more, and nothing changes"


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {epoch: 3}", "unknown key 'training.epoch'"),
        ("study: {new: {dataset: lgg}}", "study.new.task' is missing"),
        (f"twins: {{table4: [{STUDY}, lgg-mobilenet]}}", "twins.table4: the name is taken"),
        ("- a list", "expected a mapping"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused_whole(settings: Path, overlay: str, message: str) -> None:
    """The error names the overlay's file, where the mistake is, and params.yaml stays as it was."""
    file = settings.parent / "mine.yaml"
    file.write_text(overlay)
    before = settings.read_bytes()
    with pytest.raises(ParamsError) as caught:
        scales.write(file, settings)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)
    assert settings.read_bytes() == before


def test_an_overlay_that_is_not_there_is_named(settings: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.yaml: no such file"):
        scales.write(settings.parent / "nowhere.yaml", settings)


def test_a_twin_is_the_same_study_but_for_its_split(settings: Path) -> None:
    """Next to each other they show what leaks when images of one patient fall into two splits."""
    before, twin = params.load(settings), f"{STUDY}-twin"
    changed = scales.add_twin(STUDY, settings)
    now = params.load(settings)
    assert params.check(now).twins == {"table4-splits": (STUDY, twin)}
    assert now["weights"].pop(twin) == now["weights"][STUDY]
    alike = copy.deepcopy(now["study"][STUDY])
    alike["split"]["by"] = {"group": "image"}[alike["split"]["by"]]
    alike["tables"] = {kind: f"{name}-twin" for kind, name in alike["tables"].items()}
    assert now["study"].pop(twin) == alike
    assert now["studies"] == [*before["studies"], twin]
    assert now["baseline_tables"] == [*before["baseline_tables"], "table2-twin"]
    assert now | {key: before[key] for key in ("studies", "baseline_tables", "twins")} == before, "all else stays"
    assert set(changed) == {"twins", f"study.{twin}", f"weights.{twin}", "studies", "baseline_tables"}


def test_twins_follow_their_studies_to_another_scale(settings: Path) -> None:
    """Or the side-by-side table would compare networks of two sizes, not two splits."""
    comments = re.findall(r"#.*", settings.read_text())
    studies = {STUDY: "table4-splits", "ham10000-segmentation": "table15-splits"}
    for study in studies:
        scales.add_twin(study, settings)
    scales.apply("paper", settings, ROOT / "scales")
    now = params.check(params.load(settings))
    assert set(now.twins) == set(studies.values())
    for name in studies:
        study, twin = now.study[name], now.study[f"{name}-twin"]
        assert (study.split.by, twin.split.by) == ("image", "group")
        assert twin.model_copy(update={"split": study.split, "tables": study.tables}) == study
    assert set(comments) <= set(re.findall(r"#.*", settings.read_text()))


@pytest.mark.parametrize(
    ("study", "message"),
    [("lgg-resnet81", "unknown study 'lgg-resnet81'. Did you mean 'lgg-resnet18'?"), (STUDY, "is there already")],
)
def test_a_twin_that_cannot_be_added_leaves_the_file_alone(settings: Path, study: str, message: str) -> None:
    if study == STUDY:
        scales.add_twin(STUDY, settings)
    before = settings.read_bytes()
    with pytest.raises(ParamsError, match=re.escape(message)):
        scales.add_twin(study, settings)
    assert settings.read_bytes() == before


def cut_down(raw: dict[str, Any]) -> None:
    """To one study."""
    for section in ("study", "weights", "method_weights"):
        raw[section] = {STUDY: raw[section][STUDY]}
    raw |= {"studies": [STUDY], "baseline_tables": ["table2"], "samples": {}}
    raw["grid"]["studies"] = []
    raw["cka"] = {"studies": [], "figures": {}}
    raw["deploy"]["studies"] = [STUDY]
    for section in ("comparison", "tune"):
        raw[section]["classification"] = {"studies": [], "methods": []}
    raw["dataset"] = {"lgg": raw["dataset"]["lgg"]}


def test_a_scale_leaves_out_what_the_user_removed(settings: Path) -> None:
    yaml = YAML()
    raw = yaml.load(settings.read_text())
    cut_down(raw)
    yaml.dump(raw, settings)
    scales.apply("small", settings, ROOT / "scales")
    small = params.check(params.load(settings))
    assert small.studies == (STUDY,)
    assert small.dataset["lgg"].source == "directory"
    scales.apply("demo", settings, ROOT / "scales")
    demo = params.check(params.load(settings))
    assert demo.grid.studies == demo.tune.classification.studies == ()
    assert demo.tune.segmentation.studies == (STUDY,)
