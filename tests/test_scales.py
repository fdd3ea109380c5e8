"""`classroom scale`: an overlay is written into params.yaml, and nothing else of the file changes."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from classroom import params
from classroom.engines import scales
from classroom.errors import ParamsError

NAMES = ("demo", "small", "paper")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root with the committed settings and scales, where commands may write."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def comments(text: str) -> list[str]:
    return re.findall(r"(?:^|\s)#.*", text)


def overlaid(settings: Any, overlay: Any) -> Any:
    """The meaning of an overlay, derived again: mappings merge, an empty one empties, everything else replaces."""
    if not isinstance(settings, dict) or not isinstance(overlay, dict) or not overlay:
        return overlay
    merged = {key: overlaid(settings[key], overlay[key]) if key in overlay else settings[key] for key in settings}
    return merged | {key: value for key, value in overlay.items() if key not in settings}


def test_demo_on_the_committed_settings_changes_not_one_byte(project):
    before = (project / "params.yaml").read_bytes()
    assert scales.apply("demo") == []
    assert (project / "params.yaml").read_bytes() == before


def test_a_scale_that_is_in_force_leaves_the_users_own_layout(project):
    """Without anything to change there is no reason to write the file, and Snakemake and DVC see no new time."""
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("seeds: [0]", "seeds:   [ 0 ]").replace("\nstudy:", "\n\n\nstudy:"))
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    assert scales.apply("demo") == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)


def test_the_scales_are_those_that_the_settings_know():
    assert sorted(path.stem for path in (ROOT / "scales").glob("*.yaml")) == sorted(NAMES)


@pytest.mark.parametrize(("before", "name"), list(itertools.permutations(NAMES, 2)))
def test_a_scale_gives_valid_settings_that_hold_exactly_its_values(project, before, name):
    scales.apply(before)
    settings = params.load(project / "params.yaml")
    scales.apply(name)
    now = params.load(project / "params.yaml")
    assert params.check(now).scale == name
    assert now == overlaid(settings, params.load(project / "scales" / f"{name}.yaml"))


@pytest.mark.parametrize("journey", list(itertools.permutations(NAMES)))
def test_any_journey_that_ends_at_demo_restores_the_file_byte_for_byte(project, journey):
    before = (project / "params.yaml").read_bytes()
    for name in (*journey, "demo"):
        scales.apply(name)
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_all_comments_survive(project, name):
    before = comments((project / "params.yaml").read_text())
    assert len(before) > 10
    scales.apply(name)
    assert comments((project / "params.yaml").read_text()) == before


def test_only_lines_with_changed_values_differ(project):
    """A diff after `classroom scale` must show settings, not reformatted lines."""
    overlay = "scale: small\ndataset: {lgg: {source: directory}}\ntraining: {epochs: 13, threads: 1}\n"
    (project / "scales" / "mine.yaml").write_text(overlay)
    before = (project / "params.yaml").read_text().splitlines()
    changed = scales.apply("mine")
    after = (project / "params.yaml").read_text().splitlines()
    assert len(before) == len(after)
    different = [line.strip() for old, line in zip(before, after, strict=True) if old != line]
    assert different == ["scale: small", "source: directory", "epochs: 13"]
    assert changed == ["scale", "dataset.lgg.source", "training.epochs"]


def test_settings_that_a_scale_does_not_name_keep_the_users_values(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("directory: data/downloads/lgg #", "directory: my/folder #"))
    scales.apply("paper")
    assert params.load(project / "params.yaml")["dataset"]["lgg"]["directory"] == "my/folder"


def test_the_reported_keys_are_those_whose_value_changed(project):
    before = params.load(project / "params.yaml")
    changed = scales.apply("paper")
    after = params.load(project / "params.yaml")

    def value(raw: dict[str, Any], key: str) -> Any:
        for part in key.split("."):
            raw = raw[part]
        return raw

    assert changed
    assert len(set(changed)) == len(changed)
    for key in changed:
        assert value(before, key) != value(after, key), key


def test_an_unknown_scale_is_met_with_the_nearest_name(project):
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ParamsError, match=r"unknown scale 'papre'\. Did you mean 'paper'\?"):
        scales.apply("papre")
    with pytest.raises(ParamsError, match=r"unknown scale 'xyz'\. Known: demo, paper, small\."):
        scales.apply("xyz")
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {epochs: 0}", r"training\.epochs: should be greater than or equal to 1"),
        ("training: {epoch: 3}", r"unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("scale: mine", r"scale: should be 'demo', 'small' or 'paper'"),
        ("studies: [lgg-mobilenet]", r"not in studies"),
        ("study: {lgg-resnet18: {student: {decoder_channels: [8, 8, 8, 8, 8]}}}", r"decoder_channels must start alike"),
    ],
)
def test_an_overlay_that_gives_invalid_settings_leaves_the_file_as_it_was(project, overlay, message):
    before = (project / "params.yaml").read_bytes()
    (project / "scales" / "mine.yaml").write_text(overlay + "\n")
    with pytest.raises(ParamsError, match=rf"scales/mine\.yaml: .*{message}"):
        scales.apply("mine")
    assert (project / "params.yaml").read_bytes() == before
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "scales"]


def test_a_setting_that_should_be_a_mapping_is_replaced_by_the_scales(project):
    (project / "params.yaml").write_text("training: 5\n")
    with pytest.raises(ParamsError, match="key 'studies' is missing"):
        scales.apply("demo")


def test_an_overlay_that_is_no_yaml_is_named(project):
    (project / "scales" / "mine.yaml").write_text("scale: [demo\n")
    with pytest.raises(ParamsError, match=r"scales/mine\.yaml: not valid YAML"):
        scales.apply("mine")


def test_without_settings_there_is_nothing_to_scale(project):
    (project / "params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        scales.apply("demo")


def test_paper_has_the_published_settings(project):
    """Sec. 4.2: U-Nets on ResNet50, ResNet18 and MobileNet with ImageNet weights, Adam at 1e-4, batch 8, three runs."""
    scales.apply("paper")
    settings = params.check(params.load(project / "params.yaml"))
    assert settings.seeds == (0, 1, 2)
    assert settings.training.batch_size == 8
    assert settings.training.learning_rate == 1e-4
    assert settings.training.precision == "fp32"
    assert settings.losses.prediction.temperature == 2
    assert settings.losses.prediction.direction == "student||target"
    assert not settings.losses.prediction.multiply_by_squared_temperature
    assert settings.losses.task.focal_gamma == 2
    assert settings.dataset["lgg"].source == "kaggle"
    assert settings.dataset["lgg"].kaggle == "mateuszbuda/lgg-mri-segmentation"
    for name, student in (("lgg-resnet18", "resnet18"), ("lgg-mobilenet", "tu-mobilenetv1_100")):
        study = settings.study[name]
        assert study.image_size == 256
        assert study.split.by == "image"
        assert study.split.percent == (75, 10, 15)
        assert (study.teacher.encoder, study.student.encoder) == ("resnet50", student)
        for network in (study.teacher, study.student):
            assert network.weights == "hub"
            assert network.encoder_options == {}
            assert network.decoder_channels == (256, 128, 64, 32, 16)


@pytest.mark.parametrize("name", ["demo", "small"])
def test_scales_other_than_the_papers_keep_patients_apart_and_need_no_download_of_weights(project, name):
    scales.apply(name)
    settings = params.check(params.load(project / "params.yaml"))
    assert settings.dataset["lgg"].source == {"demo": "phantom", "small": "directory"}[name]
    for study in settings.study.values():
        assert study.split.by == "group"
        assert study.teacher.weights == study.student.weights == "random"
