"""`classroom overlay` and `classroom add-twin`: a study is added by settings alone, and never half."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

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
    assert "stand-ins" in added.baseline_tables
    assert {key.split(".")[0] for key in changed} == {"dataset", "study", "weights", "studies", "baseline_tables"}
    kept = [line for line in before if not line.startswith(("studies:", "baseline_tables:"))]
    after = iter(settings.read_text().splitlines())
    assert all(line in after for line in kept), "every other line is there, in its order"


def test_stand_ins_do_not_pass_for_the_paper_s_tables(settings: Path) -> None:
    """Results on other data must not stand beside the paper's numbers."""
    scales.write(ROOT / "examples" / "stand-ins.yaml", settings)
    for name in ("idc-resnet18", "isic2017-segmentation"):
        tables = params.check(params.load(settings)).study[name].tables
        assert not any(value.startswith("table") for value in tables.model_dump().values())


def test_a_twin_is_the_same_study_split_the_other_way(settings: Path) -> None:
    scales.add_twin(STUDY, settings)
    with_twin = params.check(params.load(settings))
    study, twin = with_twin.study[STUDY], with_twin.study[f"{STUDY}-twin"]
    assert (study.split.by, twin.split.by) == ("group", "image")
    assert twin.model_copy(update={"split": study.split, "tables": study.tables}) == study
    assert with_twin.weights[STUDY] == with_twin.weights[f"{STUDY}-twin"]
    assert with_twin.twins == {"table4-splits": (STUDY, f"{STUDY}-twin")}
    assert len(set(twin.tables.model_dump().values()) & set(study.tables.model_dump().values())) == 0


def test_a_twin_follows_its_study_to_another_scale(settings: Path) -> None:
    """Or the side-by-side table would compare networks of two sizes, not two splits."""
    scales.add_twin(STUDY, settings)
    scales.apply("paper", settings, ROOT / "scales")
    with_twin = params.check(params.load(settings))
    study, twin = with_twin.study[STUDY], with_twin.study[f"{STUDY}-twin"]
    assert (study.image_size, study.split.by, twin.split.by) == (256, "image", "group")
    assert twin.model_copy(update={"split": study.split, "tables": study.tables}) == study


def test_a_scale_leaves_out_what_the_user_removed(settings: Path) -> None:
    """A params.yaml cut down to one study can still change its scale."""
    yaml = YAML()
    cut = yaml.load(settings.read_text())
    for section in ("study", "weights"):
        cut[section] = {STUDY: cut[section][STUDY]}
    cut |= {"studies": [STUDY], "baseline_tables": ["table2"], "samples": {}}
    cut["grid"]["studies"] = []
    cut["cka"] = {"studies": [], "figures": {}}
    cut["deploy"]["studies"] = [STUDY]
    for section in ("comparison", "tune"):
        cut[section]["classification"] = {"studies": [], "methods": []}
    cut["method_weights"] = {STUDY: cut["method_weights"][STUDY]}
    cut["dataset"] = {"lgg": cut["dataset"]["lgg"]}
    yaml.dump(cut, settings)
    scales.apply("small", settings, ROOT / "scales")
    small = params.check(params.load(settings))
    assert small.studies == (STUDY,)
    assert small.dataset["lgg"].source == "directory"
    scales.apply("demo", settings, ROOT / "scales")
    demo = params.check(params.load(settings))
    assert demo.grid.studies == demo.tune.classification.studies == ()
    assert demo.tune.segmentation.studies == (STUDY,)


def test_two_twins_live_side_by_side(settings: Path) -> None:
    scales.add_twin(STUDY, settings)
    scales.add_twin("ham10000-segmentation", settings)
    assert set(params.check(params.load(settings)).twins) == {"table4-splits", "table15-splits"}


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


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {epoch: 3}", "unknown key 'training.epoch'"),
        ("study: {new: {dataset: lgg}}", "study.new.task' is missing"),
        ("- a list", "expected a mapping"),
        ("training: {epochs: 3", "not valid YAML"),
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
