"""`classroom scale`: a preset is written into the files of settings, and nothing else of them changes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

from classroom import params
from classroom.core.networks.build import feature_channels
from classroom.errors import ParamsError
from classroom.params import FOLDERS, Params
from classroom.settings.overlays import apply_scale, use
from support.studies import ROOT, STUDY, copy_settings

SCALES = ("demo", "small", "paper")
WALK = ("small", "paper", "demo", "paper", "small", "demo")
"""From demo, as the committed settings are: from every scale to every other one."""


class Step(NamedTuple):
    """One change of scale: all files before and after it by path, and the keys that are said to have changed."""

    name: str
    before: dict[str, str]
    after: dict[str, str]
    changed: list[str]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    path = copy_settings(tmp_path_factory.mktemp("walk"))
    steps = []
    for name in WALK:
        before = files(path.parent)
        changed = apply_scale(name, path, ROOT / "scales")
        steps.append(Step(name, before, files(path.parent), changed))
    return steps


@pytest.fixture(scope="module")
def at(walk: list[Step]) -> dict[str, Params]:
    """The settings at every scale."""
    return {step.name: params.check(settings(step.after)) for step in walk}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's root with the committed settings and scales, where commands may write."""
    copy_settings(tmp_path)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(root: Path) -> dict[str, str]:
    """By path, the texts of all files of settings."""
    paths = [root / "params.yaml", *(path for folder in FOLDERS for path in (root / folder).iterdir())]
    return {str(path.relative_to(root)): path.read_text() for path in paths}


def parsed(text: str) -> dict[str, Any]:
    return YAML(typ="safe").load(text)


def settings(texts: dict[str, str]) -> dict[str, Any]:
    """What `params.load` makes of these files, derived again."""
    raw = parsed(texts["params.yaml"])
    for folder, block in FOLDERS.items():
        raw[block] = {Path(path).stem: parsed(text) for path, text in texts.items() if path.startswith(folder)}
    return raw


def value(texts: dict[str, str], key: str) -> Any:
    """The value of a key as it is said to have changed."""
    file, _, key = key.rpartition(": ")
    found = parsed(texts[file or "params.yaml"])
    for part in key.split("."):
        found = found[part]
    return found


def comments(text: str) -> list[str]:
    return re.findall(r"(?:^|\s)#.*", text)


def overlaid(settings: Any, overlay: Any) -> Any:
    """The meaning of an overlay, derived again: mappings merge, an empty one empties, everything else replaces."""
    if not isinstance(settings, dict) or not isinstance(overlay, dict) or not overlay:
        return overlay
    merged = {key: overlaid(settings[key], overlay[key]) if key in overlay else settings[key] for key in settings}
    return merged | {key: value for key, value in overlay.items() if key not in settings}


def test_the_scales_are_those_that_the_settings_know():
    assert sorted(path.stem for path in (ROOT / "scales").glob("*.yaml")) == sorted(SCALES)


def test_a_scale_gives_valid_settings_that_hold_exactly_its_values(walk, at):
    for step in walk:
        overlay = parsed((ROOT / "scales" / f"{step.name}.yaml").read_text())
        overlay |= {block: overlay.pop(folder) for folder, block in FOLDERS.items()}
        assert settings(step.after) == overlaid(settings(step.before), overlay), step.name
        assert at[step.name].scale == step.name


def test_the_committed_settings_come_back_from_every_scale_byte_for_byte(walk):
    """Values of null, flow style and all; a diff after `classroom scale` shows settings, not reformatted lines."""
    committed = files(ROOT)
    assert [step.after == committed for step in walk] == [step.name == "demo" for step in walk]


def test_all_comments_survive(walk):
    before = {path: comments(text) for path, text in files(ROOT).items()}
    assert all(len(of) > 1 for of in before.values())
    assert all({path: comments(text) for path, text in step.after.items()} == before for step in walk)


def test_a_preset_is_short():
    """Networks are named once, so that they can be read and changed in one place."""
    for name in SCALES:
        assert len((ROOT / "scales" / f"{name}.yaml").read_text().splitlines()) <= 40, name


def test_the_reported_keys_are_those_whose_value_changed(walk):
    for step in walk:
        assert step.changed
        assert len(set(step.changed)) == len(step.changed)
        for key in step.changed:
            assert value(step.before, key) != value(step.after, key), key
        assert {path for path in step.before if step.before[path] != step.after[path]} == {
            key.rpartition(": ")[0] or "params.yaml" for key in step.changed
        }


def test_a_scale_that_is_active_leaves_the_users_own_layout(project):
    """Without anything to change there is no reason to write the file, and Snakemake and DVC see no new time."""
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("seeds: [0]", "seeds:   [ 0 ]").replace("\ngrid:", "\n\n\ngrid:"))
    before, times = files(project), [(project / name).stat().st_mtime_ns for name in files(project)]
    assert apply_scale("demo") == []
    assert (files(project), [(project / name).stat().st_mtime_ns for name in files(project)]) == (before, times)


def test_only_lines_with_changed_values_differ(project):
    """Settings that a scale does not name keep the user's values."""
    overlay = "scale: small\ndatasets: {lgg: {source: directory}}\ntraining: {epochs: 13, threads: 1}\n"
    (project / "scales" / "mine.yaml").write_text(overlay)
    dataset = project / "datasets/lgg.yaml"
    dataset.write_text(dataset.read_text().replace("directory: data/downloads/lgg #", "directory: my/folder #"))
    before = files(project)
    changed = apply_scale("mine")
    after = files(project)
    different = [
        line.strip()
        for path, text in after.items()
        for old, line in zip(before[path].splitlines(), text.splitlines(), strict=True)
        if old != line
    ]
    assert different == ["scale: small", "epochs: 13", "source: directory"]
    assert changed == ["scale", "training.epochs", "datasets/lgg.yaml: source"]
    assert settings(after)["dataset"]["lgg"]["directory"] == "my/folder"


def test_an_unknown_scale_is_met_with_the_nearest_name(project):
    with pytest.raises(ParamsError, match=r"unknown scale 'papre'\. Did you mean 'paper'\?"):
        apply_scale("papre")
    with pytest.raises(ParamsError, match=r"unknown scale 'xyz'\. Known: demo, paper, small\."):
        apply_scale("xyz")


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("training: {epoch: 3}", r"unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("studies: [lgg-resnet81]", r"studies: 'lgg-resnet81' has no file studies/lgg-resnet81\.yaml\. Did you mean"),
        ("studies: {lgg-resnet18: {balance: mean}}", r"studies/lgg-resnet18\.yaml: balance applies to classes"),
        ("scale: [demo", r"not valid YAML"),
    ],
)
def test_an_overlay_that_gives_invalid_settings_leaves_the_file_as_it_was(project, overlay, message):
    before = files(project)
    (project / "scales" / "mine.yaml").write_text(overlay + "\n")
    with pytest.raises(ParamsError, match=rf"scales/mine\.yaml: .*{message}"):
        apply_scale("mine")
    assert files(project) == before
    assert sorted(path.name for path in project.iterdir()) == ["datasets", "params.yaml", "scales", "studies"]


def test_settings_that_are_not_valid_are_not_scaled(project):
    (project / "params.yaml").write_text("training: 5\n")
    with pytest.raises(ParamsError, match="key 'studies' is missing"):
        apply_scale("demo")
    (project / "params.yaml").unlink()
    with pytest.raises(ParamsError, match=r"params\.yaml: no such file"):
        apply_scale("demo")


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


@pytest.mark.parametrize(("name", "source"), [("demo", "synthetic"), ("small", "directory")])
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


def test_a_scale_leaves_out_what_the_user_removed(project):
    """Studies, datasets and methods of Table 10."""
    use([STUDY])
    for path in [*project.glob("studies/*"), *project.glob("datasets/*")]:
        if path.stem not in (STUDY, "lgg"):
            path.unlink()
    edit(project / f"studies/{STUDY}.yaml", r"  ifvd:\n.*\n.*\n", "")
    edit(project / "params.yaml", "ifvd, ", "")
    before = set(files(project))
    apply_scale("small")
    small = params.check(params.load())
    assert small.studies == (STUDY,)
    assert small.dataset["lgg"].source == "directory"
    apply_scale("demo")
    demo = params.check(params.load())
    assert demo.searched_studies == demo.tuned_studies("classification") == ()
    assert demo.tuned_studies("segmentation") == (STUDY,)
    assert list(demo.study[STUDY].methods) == ["fitnet", "at", "skd", "cwd", "dsd", "emkd"]
    apply_scale("small")
    one = "\nmethods: {cwd: {options: {}, weights: {logits: 3.0, feature: 50.0}}}\n"
    edit(project / f"studies/{STUDY}.yaml", r"\nmethods:\n(  .*\n)+", one)
    edit(project / "params.yaml", r"  segmentation: \[fitnet, .*\]", "  segmentation: [cwd]")
    apply_scale("paper")
    assert list(params.check(params.load()).study[STUDY].methods) == ["cwd"]
    assert set(files(project)) == before


def edit(path: Path, pattern: str, text: str) -> None:
    changed, count = re.subn(pattern, text, path.read_text())
    assert count == 1, pattern
    path.write_text(changed)
