"""`classroom scale`: an overlay is written into params.yaml, and nothing else of the file changes."""

from __future__ import annotations

import copy
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from classroom import params
from classroom.engines import scales
from classroom.errors import ParamsError
from classroom.networks.build import feature_channels
from support.studies import ROOT

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
        ("samples: {lgg-resnet81: ml-v1}", r"samples\.lgg-resnet81: unknown study 'lgg-resnet81'\. Did you mean"),
        ("study: {lgg-resnet18: {balance: mean}}", r"study\.lgg-resnet18: balance is of classes"),
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
    """Sec. 4.2: ResNet50, ResNet18 and MobileNet with ImageNet weights, Adam at 1e-4, batch 8, three runs."""
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


@pytest.mark.parametrize("name", ["demo", "small"])
def test_scales_other_than_the_papers_keep_groups_apart_and_need_no_download_of_weights(project, name):
    scales.apply(name)
    settings = params.check(params.load(project / "params.yaml"))
    assert {dataset.source for dataset in settings.dataset.values()} == {
        {"demo": "phantom", "small": "directory"}[name]
    }
    for study in settings.study.values():
        assert study.split.by == "group"
        assert study.teacher.weights == study.student.weights == "random"


@pytest.mark.parametrize("name", NAMES)
def test_at_every_scale_teacher_and_students_can_be_compared(project, name):
    """Widths are settings of every scale; one that does not fit would be found when V2 starts."""
    scales.apply(name)
    for key, study in params.check(params.load(project / "params.yaml")).study.items():
        widths = {feature_channels(network, study.task, study.image_size) for network in (study.teacher, study.student)}
        assert len(widths) == 1, key


def test_a_value_of_null_is_written_as_null(project):
    """ruamel would write nothing, and `subset:` reads like a mistake."""
    scales.apply("paper")
    scales.apply("demo")
    assert "\n    subset: null\n" in (project / "params.yaml").read_text()


# --- overlays of the user's own ---


def own_overlay(project: Path, **changes: Any) -> Path:
    """A seventh study: the LGG pair once more, under names of its own."""
    raw = params.load(project / "params.yaml")
    study = raw["study"]["lgg-resnet18"] | {
        "tables": {"variants": "mine", "baselines": "mine-alone", "fidelity": "mine-f", "architecture": "mine-a"}
    }
    overlay = {"study": {"mine": study}, "weights": {"mine": raw["weights"]["lgg-resnet18"]}} | changes
    path = project / "overlay.yaml"
    path.write_text(json.dumps(overlay))  # JSON is YAML
    return path


def test_a_new_study_is_listed_wherever_the_engines_look_for_it(project):
    changed = scales.write(own_overlay(project))
    settings = params.check(params.load(project / "params.yaml"))
    assert settings.studies[-1] == "mine"
    assert settings.baseline_tables[-1] == "mine-alone"
    assert settings.study["mine"].student == settings.study["lgg-resnet18"].student
    assert {"study.mine", "weights.mine", "studies", "baseline_tables"} == set(changed)
    assert len(changed) == len(set(changed))


def test_an_overlay_keeps_every_comment_and_every_line_that_it_does_not_change(project):
    before = (project / "params.yaml").read_text()
    scales.write(own_overlay(project))
    after = (project / "params.yaml").read_text()
    assert set(comments(before)) <= set(comments(after))
    gone = [line for line in before.splitlines() if line not in after.splitlines()]
    assert [line.split(":")[0] for line in gone] == ["studies", "baseline_tables"]


def test_the_same_overlay_twice_changes_nothing_the_second_time(project):
    overlay = own_overlay(project)
    scales.write(overlay)
    before = (project / "params.yaml").read_bytes()
    assert scales.write(overlay) == []
    assert (project / "params.yaml").read_bytes() == before


def test_an_overlay_that_takes_a_name_is_refused_and_changes_nothing(project):
    before = (project / "params.yaml").read_bytes()
    overlay = own_overlay(project, twins={"table4": ["lgg-resnet18", "mine"]})
    with pytest.raises(ParamsError, match=r"overlay\.yaml: twins\.table4: the name is taken"):
        scales.write(overlay)
    assert (project / "params.yaml").read_bytes() == before


# --- twins: the same study, split the other way ---


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_a_twin_is_the_same_study_but_for_its_split(project, scale):
    """Beside each other they show what leaks when images of one patient fall into two splits."""
    scales.apply(scale)
    before = params.load(project / "params.yaml")
    own, other = {"demo": ("group", "image"), "paper": ("image", "group")}[scale]
    changed = scales.add_twin("lgg-resnet18")
    now = params.load(project / "params.yaml")
    settings = params.check(now)
    twin = "lgg-resnet18-twin"
    assert settings.twins == {"table4-splits": ("lgg-resnet18", twin)}
    assert settings.study["lgg-resnet18"].split.by == own
    assert settings.study[twin].split.by == other
    assert now["weights"][twin] == now["weights"]["lgg-resnet18"]
    alike = copy.deepcopy(now["study"]["lgg-resnet18"])
    alike["split"]["by"] = other
    alike["tables"] = {kind: f"{name}-twin" for kind, name in alike["tables"].items()}
    assert now["study"][twin] == alike
    # nothing else is different
    assert now["studies"] == [*before["studies"], twin]
    assert now["baseline_tables"] == [*before["baseline_tables"], "table2-twin"]
    del now["study"][twin], now["weights"][twin]
    untouched = now | {key: before[key] for key in ("studies", "baseline_tables", "twins")}
    assert untouched == before
    assert set(changed) == {"twins", f"study.{twin}", f"weights.{twin}", "studies", "baseline_tables"}


def test_comments_survive_a_twin(project):
    before = comments((project / "params.yaml").read_text())
    scales.add_twin("ham10000-segmentation")
    after = comments((project / "params.yaml").read_text())
    assert set(before) <= set(after)


def test_a_scale_can_be_changed_with_a_twin_in_force(project):
    """The scales do not name the twin: it follows its study, and is still valid."""
    scales.add_twin("lgg-resnet18")
    for name in ("small", "demo"):
        scales.apply(name)
        assert "lgg-resnet18-twin" in params.check(params.load(project / "params.yaml")).study
