"""`classroom scale`: an overlay is written into params.yaml, and nothing else of the file changes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from classroom import params
from classroom.core.networks.build import feature_channels
from classroom.engines import scales
from classroom.errors import ParamsError
from classroom.params import Params
from support.studies import ROOT

NAMES = ("demo", "small", "paper")
WALK = ("small", "paper", "demo", "paper", "small", "demo")
"""From demo, as the committed settings are: from every scale to every other one."""


class Step(NamedTuple):
    """One change of scale on the way: params.yaml before and after, and the keys that are said to have changed."""

    name: str
    before: str
    after: str
    changed: list[str]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    path = Path(shutil.copy(ROOT / "params.yaml", tmp_path_factory.mktemp("walk")))
    steps = []
    for name in WALK:
        before = path.read_text()
        changed = scales.apply(name, path, ROOT / "scales")
        steps.append(Step(name, before, path.read_text(), changed))
    return steps


@pytest.fixture(scope="module")
def at(walk: list[Step]) -> dict[str, Params]:
    """The settings at every scale."""
    return {step.name: params.check(settings(step.after)) for step in walk}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root with the committed settings and scales, where commands may write."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings(text: str) -> dict[str, Any]:
    return YAML(typ="safe").load(text)


def value(raw: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        raw = raw[part]
    return raw


def comments(text: str) -> list[str]:
    return re.findall(r"(?:^|\s)#.*", text)


def overlaid(settings: Any, overlay: Any) -> Any:
    """The meaning of an overlay, derived again: mappings merge, an empty one empties, everything else replaces."""
    if not isinstance(settings, dict) or not isinstance(overlay, dict) or not overlay:
        return overlay
    merged = {key: overlaid(settings[key], overlay[key]) if key in overlay else settings[key] for key in settings}
    return merged | {key: value for key, value in overlay.items() if key not in settings}


def test_the_scales_are_those_that_the_settings_know():
    assert sorted(path.stem for path in (ROOT / "scales").glob("*.yaml")) == sorted(NAMES)


def test_a_scale_gives_valid_settings_that_hold_exactly_its_values(walk, at):
    for step in walk:
        overlay = settings((ROOT / "scales" / f"{step.name}.yaml").read_text())
        assert settings(step.after) == overlaid(settings(step.before), overlay), step.name
        assert at[step.name].scale == step.name


def test_the_committed_settings_come_back_from_every_scale_byte_for_byte(walk):
    """Values of null, flow style and all; a diff after `classroom scale` shows settings, not reformatted lines."""
    committed = (ROOT / "params.yaml").read_text()
    assert [step.after == committed for step in walk] == [step.name == "demo" for step in walk]


def test_all_comments_survive(walk):
    before = comments((ROOT / "params.yaml").read_text())
    assert len(before) > 10
    assert all(comments(step.after) == before for step in walk)


def test_the_reported_keys_are_those_whose_value_changed(walk):
    for step in walk:
        before, after = settings(step.before), settings(step.after)
        assert step.changed
        assert len(set(step.changed)) == len(step.changed)
        for key in step.changed:
            assert value(before, key) != value(after, key), key


def test_a_scale_that_is_in_force_leaves_the_users_own_layout(project):
    """Without anything to change there is no reason to write the file, and Snakemake and DVC see no new time."""
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("seeds: [0]", "seeds:   [ 0 ]").replace("\nstudy:", "\n\n\nstudy:"))
    before, time = path.read_bytes(), path.stat().st_mtime_ns
    assert scales.apply("demo") == []
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, time)


def test_only_lines_with_changed_values_differ(project):
    """Settings that a scale does not name keep the user's values."""
    overlay = "scale: small\ndataset: {lgg: {source: directory}}\ntraining: {epochs: 13, threads: 1}\n"
    (project / "scales" / "mine.yaml").write_text(overlay)
    text = (project / "params.yaml").read_text()
    text = text.replace("directory: data/downloads/lgg #", "directory: my/folder #")
    (project / "params.yaml").write_text(text)
    changed = scales.apply("mine")
    before, after = text.splitlines(), (project / "params.yaml").read_text().splitlines()
    different = [line.strip() for old, line in zip(before, after, strict=True) if old != line]
    assert different == ["scale: small", "source: directory", "epochs: 13"]
    assert changed == ["scale", "dataset.lgg.source", "training.epochs"]
    assert settings("\n".join(after))["dataset"]["lgg"]["directory"] == "my/folder"


def test_an_unknown_scale_is_met_with_the_nearest_name(project):
    with pytest.raises(ParamsError, match=r"unknown scale 'papre'\. Did you mean 'paper'\?"):
        scales.apply("papre")
    with pytest.raises(ParamsError, match=r"unknown scale 'xyz'\. Known: demo, paper, small\."):
        scales.apply("xyz")


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {epoch: 3}", r"unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("samples: {lgg-resnet81: ml-v1}", r"samples\.lgg-resnet81: unknown study 'lgg-resnet81'\. Did you mean"),
        ("scale: [demo", r"not valid YAML"),
    ],
)
def test_an_overlay_that_gives_invalid_settings_leaves_the_file_as_it_was(project, overlay, message):
    before = (project / "params.yaml").read_bytes()
    (project / "scales" / "mine.yaml").write_text(overlay + "\n")
    with pytest.raises(ParamsError, match=rf"scales/mine\.yaml: .*{message}"):
        scales.apply("mine")
    assert (project / "params.yaml").read_bytes() == before
    assert sorted(path.name for path in project.iterdir()) == ["params.yaml", "scales"]


def test_settings_that_are_not_valid_are_not_scaled(project):
    (project / "params.yaml").write_text("training: 5\n")
    with pytest.raises(ParamsError, match="key 'studies' is missing"):
        scales.apply("demo")
    (project / "params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        scales.apply("demo")


def test_paper_has_the_published_settings(at):
    """Sec. 4.2: ResNet50, ResNet18 and MobileNet with ImageNet weights, Adam at 1e-4, batch 8, three runs."""
    settings = at["paper"]
    assert settings.seeds == (0, 1, 2)
    assert settings.training.batch_size == 8
    assert settings.training.learning_rate == 1e-4
    assert settings.training.precision == "fp32"
    assert settings.losses.prediction.temperature == 2
    assert settings.losses.prediction.direction == "student||target"
    assert not settings.losses.prediction.multiply_by_squared_temperature
    assert settings.losses.task.focal_gamma == 2
    assert settings.grid.studies == (), "the weights are the published ones"
    assert {name: dataset.kaggle for name, dataset in settings.dataset.items()} == {
        "histopathologic": ("competitions/histopathologic-cancer-detection",),
        "lgg": ("mateuszbuda/lgg-mri-segmentation",),
        "ham10000": ("kmader/skin-cancer-mnist-ham10000", "tschandl/ham10000-lesion-segmentations"),
    }
    assert {dataset.source for dataset in settings.dataset.values()} == {"kaggle"}
    assert {name: dataset.subset for name, dataset in settings.dataset.items()} == {
        "histopathologic": 20_000, "lgg": None, "ham10000": None
    }  # fmt: skip
    # study: image size, balance, teacher, width of Conv6, student
    studies = {
        "histopathologic-resnet18": (224, "none", "resnet50.tv_in1k", 512, "resnet18.tv_in1k"),
        "lgg-resnet18": (256, "none", "resnet50", None, "resnet18"),
        "histopathologic-mobilenet": (224, "none", "resnet50.tv_in1k", 1024, "mobilenetv1_100"),
        "lgg-mobilenet": (256, "none", "resnet50", None, "tu-mobilenetv1_100"),
        "ham10000-classification": (224, "mean", "resnet50.tv_in1k", 512, "resnet18.tv_in1k"),
        "ham10000-segmentation": (224, "none", "resnet50", None, "resnet18"),
    }
    assert {
        name: (s.image_size, s.balance, s.teacher.encoder, s.teacher.conv6_channels, s.student.encoder)
        for name, s in settings.study.items()
    } == studies
    for study in settings.study.values():
        assert study.split.by == "image"
        assert study.split.percent == (75, 10, 15)
        assert study.student.conv6_channels is None
        for network in (study.teacher, study.student):
            assert network.weights == "hub"
            assert network.encoder_options == {}
            assert network.decoder_channels == (None if study.task == "classification" else (256, 128, 64, 32, 16))


@pytest.mark.parametrize(("name", "source"), [("demo", "phantom"), ("small", "directory")])
def test_scales_other_than_the_papers_keep_groups_apart_and_need_no_download_of_weights(at, name, source):
    assert {dataset.source for dataset in at[name].dataset.values()} == {source}
    for study in at[name].study.values():
        assert study.split.by == "group"
        assert study.teacher.weights == study.student.weights == "random"


def test_at_every_scale_teacher_and_students_can_be_compared(at):
    """One that does not fit would be found when V2 starts. Of demo see test_params.py."""
    widths = {}
    for name in ("small", "paper"):
        for key, study in at[name].study.items():
            for network in (study.teacher, study.student):
                about = network.model_dump_json(), study.task, study.image_size
                if about not in widths:
                    widths[about] = feature_channels(network, *about[1:])
            teacher, student = (
                widths[network.model_dump_json(), study.task, study.image_size]
                for network in (study.teacher, study.student)
            )
            assert teacher == student, (name, key)
