"""`classroom overlay`, `use` and `resplit`: a study is added by settings alone, and never half."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from classroom import params
from classroom.errors import ParamsError
from classroom.settings import overlays
from support.studies import ROOT, STUDY, copy_settings, put_settings

STAND_INS = ROOT / "examples" / "stand-ins.yaml"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """params.yaml among a copy of the committed files."""
    return copy_settings(tmp_path)


def contents(settings: Path) -> dict[str, bytes]:
    """By path, all files of settings."""
    root = settings.parent
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.yaml") if path.name != "mine.yaml"}


def overlay(settings: Path, text: str) -> list[str]:
    file = settings.parent / "mine.yaml"
    file.write_text(text)
    return overlays.apply_overlay(file, settings)


# Studies of one's own


def test_the_stand_in_studies_are_added_by_settings_alone(settings: Path) -> None:
    """docs/getting-started/new-study.md: a new study is a file and a line of params.yaml, and the rest stays."""
    before = contents(settings)
    changed = overlays.apply_overlay(STAND_INS, settings)
    added = params.check(params.load(settings))
    assert added.studies[-2:] == ("idc-resnet18", "isic2017-segmentation")
    after = contents(settings)
    new = {
        "studies/idc-resnet18.yaml",
        "studies/isic2017-segmentation.yaml",
        "datasets/idc.yaml",
        "datasets/isic2017.yaml",
    }
    assert after.keys() - before.keys() == new
    assert {path for path in before if after[path] != before[path]} == {"params.yaml"}
    assert {key.split(": ")[0] for key in changed} == new | {"studies"}
    assert len(changed) == len(set(changed))
    lines, now = (of["params.yaml"].decode().splitlines() for of in (before, after))
    place = lines.index("  - ham10000-segmentation") + 1
    lines[place:place] = ["  - idc-resnet18", "  - isic2017-segmentation"]
    assert now == lines
    names = [name for study in added.studies[-2:] for name in added.study[study].reports.model_dump().values()]
    assert not any(str(name).startswith("table") for name in names), "results on other data next to the paper's numbers"
    assert overlays.apply_overlay(STAND_INS, settings) == [], "once more, and nothing changes"


def test_comments_of_an_overlay_come_along_into_a_new_file(settings: Path) -> None:
    overlays.apply_overlay(STAND_INS, settings)
    assert "# a folder that holds train_labels.csv and train/" in (settings.parent / "datasets/idc.yaml").read_text()


def test_a_study_alone_is_a_valid_project(tmp_path: Path, raw: dict[str, Any]) -> None:
    """No list of params.yaml but `studies` names it."""
    raw["study"] = {"mine": raw["study"][STUDY]}
    raw["dataset"] = {"lgg": raw["dataset"]["lgg"]}
    settings = put_settings(tmp_path, raw | {"studies": ["mine"]})
    assert overlay(settings, "studies: {mine: {image_size: 96}}\n") == ["studies/mine.yaml: image_size"]
    assert params.check(params.load(settings)).study["mine"].image_size == 96


def test_an_overlay_reaches_every_kind_of_file(settings: Path) -> None:
    text = f"""
training: {{epochs: 7}}
studies: {{{STUDY}: {{weights: {{ml-v1: {{S1: {{alpha: 0.3}}}}}}, reports: {{pictures: {{}}}}}}}}
datasets: {{lgg: {{full_size: 5}}}}
"""
    assert overlay(settings, text) == [
        "training.epochs",
        f"studies/{STUDY}.yaml: weights.ml-v1.S1.alpha",
        f"studies/{STUDY}.yaml: reports.pictures",
        "datasets/lgg.yaml: full_size",
    ]
    now = params.check(params.load(settings))
    assert (now.training.epochs, now.dataset["lgg"].full_size) == (7, 5)
    assert now.study[STUDY].weights["ml-v1"].S1.model_dump() == {"alpha": 0.3, "beta": 0.0, "gamma": 0.9}
    assert now.study[STUDY].reports.pictures == {}, "an empty mapping empties"


def test_a_study_that_is_not_active_is_changed_and_stays_out(settings: Path) -> None:
    overlays.use([STUDY], settings)
    overlay(settings, "studies: {lgg-mobilenet: {image_size: 96}}\n")
    raw = params.load(settings)
    assert raw["study"]["lgg-mobilenet"]["image_size"] == 96
    assert raw["studies"] == [STUDY]


# All or nothing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epoch: 3}", r"params\.yaml: unknown key 'training\.epoch'\. Did you mean 'epochs'\?"),
        ("studies: {new: {dataset: lgg}}", r"studies/new\.yaml: key 'task' is missing"),
        (f"studies: {{{STUDY}: {{tsak: 1}}}}", rf"studies/{STUDY}\.yaml: unknown key 'tsak'\. Did you mean 'task'\?"),
        (f"studies: {{{STUDY}: {{dataset: lgq}}}}", rf"studies/{STUDY}\.yaml: dataset: 'lgq' has no file datasets/lgq"),
        (f"studies: {{{STUDY}: {{split: 3}}}}", rf"studies/{STUDY}\.yaml: split: should be a mapping, not 3"),
        (f"studies: {{{STUDY}: {{reports: {{variants: table9}}}}}}", r"reports\.variants: 'table9' is taken"),
        ("studies: {new: 3}", r"studies\.new: should be a mapping, not 3"),
        ("studies: {new: }", r"studies\.new: should be a mapping, not None"),
        ("studies: {new: {}}", r"'new' has no file studies/new\.yaml"),
        (
            "studies: {a/b: {task: segmentation}}",
            r"studies: a name has lower-case letters, .*, not 'a/b'",
        ),
        ("datasets: {7: {reader: lgg}}", r"datasets: a name has lower-case letters, .*, not 7"),
        ("datasets: {lgg: {source: nowhere}}", r"datasets/lgg\.yaml: source: should be 'synthetic'"),
        ("study: {new: {}}", r"'study' is of an older layout\. .* in an overlay, below 'studies'"),
        ("- a list", r"not valid YAML"),
        ("scale: [demo", r"not valid YAML"),
    ],
)
def test_an_overlay_that_does_not_fit_is_refused_whole(settings: Path, text: str, message: str) -> None:
    """The error names the overlay's file and where the mistake is; what would fit is not written either."""
    before = contents(settings)
    with pytest.raises(ParamsError, match=rf"mine\.yaml: .*{message}"):
        overlay(settings, f"seeds: [3, 4]\n{text}")
    assert contents(settings) == before


def test_a_mistake_in_one_file_leaves_all_files_as_they_were(settings: Path) -> None:
    before = contents(settings)
    fits = f"seeds: [3, 4]\ndatasets: {{lgg: {{full_size: 7}}}}\nstudies:\n  {STUDY}: {{image_size: 96}}\n"
    with pytest.raises(ParamsError, match=r"mine\.yaml: .*studies/lgg-mobilenet\.yaml: image_size: .*not 97"):
        overlay(settings, fits + "  lgg-mobilenet: {image_size: 97}\n")
    assert contents(settings) == before
    assert len(overlay(settings, fits)) == 3, "what fits is written without it"


def test_an_overlay_that_is_not_there_is_named(settings: Path) -> None:
    with pytest.raises(ParamsError, match=r"nowhere\.yaml: no such file"):
        overlays.apply_overlay(settings.parent / "nowhere.yaml", settings)


def test_a_study_is_active_only_once_its_file_is_written(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, the settings are valid."""
    written, replace = [], Path.replace

    def killed(path: Path, target: Path) -> Path:
        if target == settings:
            raise KeyboardInterrupt
        written.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        overlays.apply_overlay(STAND_INS, settings)
    assert sorted(written) == ["idc-resnet18.yaml", "idc.yaml", "isic2017-segmentation.yaml", "isic2017.yaml"]
    assert len(params.check(params.load(settings)).studies) == 6


@pytest.mark.parametrize("content", ["dataset: [lgg", "- lgg", "resplit: 5\n", "resplit: {of: [1]}\n", "split: 3\n"])
def test_a_broken_file_of_a_study_that_is_not_active_disturbs_nobody(settings: Path, content: str) -> None:
    """And is not written over."""
    overlays.use([STUDY], settings)
    broken = settings.parent / "studies/lgg-mobilenet.yaml"
    broken.write_text(content)
    assert overlay(settings, "training: {epochs: 7}\n") == ["training.epochs"]
    assert overlays.apply_scale("small", settings, ROOT / "scales")
    overlays.use([STUDY, "ham10000-segmentation"], settings)
    overlays.resplit(STUDY, settings)
    readable = isinstance(params.load(settings)["study"]["lgg-mobilenet"], dict)
    if not readable:
        assert broken.read_text() == content
        with pytest.raises(ParamsError, match=r"mine\.yaml: .*studies/lgg-mobilenet\.yaml: (not|expected) "):
            overlay(settings, "studies: {lgg-mobilenet: {image_size: 96}}\n")


# Which studies are active


def test_use_makes_exactly_these_studies_active(settings: Path) -> None:
    before = settings.read_text()
    assert overlays.use(["lgg-mobilenet", STUDY, "lgg-mobilenet"], settings) == ["studies"]
    assert params.load(settings)["studies"] == ["lgg-mobilenet", STUDY]
    old, now = before.splitlines(), settings.read_text().splitlines()
    kept = [line for line in old if not line.startswith("  - ")]
    assert [line for line in now if not line.startswith("  - ")] == kept, "with all comments"
    assert overlays.use(["lgg-mobilenet", STUDY], settings) == []
    overlays.use(params.load(ROOT / "params.yaml")["studies"], settings)
    assert settings.read_text() == before


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("lgg-resnet81", r"^.*params\.yaml: studies: 'lgg-resnet81' has no file .*\. Did you mean 'lgg-resnet18'\?"),
        ("broken", r"studies/broken\.yaml: not valid YAML"),
        ("wrong", r"studies/wrong\.yaml: key 'dataset' is missing"),
        ("twice", r"studies/twice\.yaml: reports\.variants: 'table4' is taken \(studies/lgg-resnet18\.yaml: reports\."),
    ],
)
def test_a_study_that_cannot_be_is_not_made_active(settings: Path, study: str, message: str) -> None:
    folder = settings.parent / "studies"
    (folder / "broken.yaml").write_text("dataset: [lgg")
    (folder / "wrong.yaml").write_text("task: segmentation\n")
    (folder / "twice.yaml").write_bytes((folder / f"{STUDY}.yaml").read_bytes())
    before = contents(settings)
    with pytest.raises(ParamsError, match=message):
        overlays.use([STUDY, study], settings)
    assert contents(settings) == before


def test_use_helps_where_an_active_study_has_lost_its_file(settings: Path) -> None:
    """It is what the error asks for."""
    (settings.parent / "studies/lgg-mobilenet.yaml").unlink()
    with pytest.raises(ParamsError):
        params.check(params.load(settings))
    overlays.use([STUDY], settings)
    assert params.check(params.load(settings)).studies == (STUDY,)


# The same study, split another way


def test_a_resplit_study_is_the_same_but_for_its_split(settings: Path) -> None:
    """Next to each other they show what leaks when images of one patient fall into two splits."""
    before, name = params.load(settings), f"{STUDY}-resplit"
    changed = overlays.resplit(STUDY, settings)
    now = params.load(settings)
    params.check(now)
    alike = copy.deepcopy(now["study"][STUDY])
    alike["split"]["by"] = {"group": "image"}[alike["split"]["by"]]
    kinds = ("variants", "baselines", "fidelity", "architecture")
    alike["reports"] = {kind: f"{alike['reports'][kind]}-resplit" for kind in kinds}
    assert now["study"].pop(name) == alike | {"resplit": {"of": STUDY, "report": "table4-splits"}}
    assert now["studies"] == [*before["studies"], name]
    assert now | {"studies": before["studies"]} == before, "all else stays"
    assert {key.split(": ")[0] for key in changed} == {f"studies/{name}.yaml", "studies"}


def test_a_study_that_is_not_active_is_put_there_with_its_resplit(settings: Path) -> None:
    """Their report shows both: with the new one alone active, nothing made it."""
    overlays.use(("ham10000-segmentation",), settings)
    overlays.resplit(STUDY, settings)
    assert params.load(settings)["studies"] == ["ham10000-segmentation", STUDY, f"{STUDY}-resplit"]


def test_resplit_studies_follow_their_studies_to_another_scale(settings: Path) -> None:
    """Or the side-by-side table would compare networks of two sizes, not two splits."""
    comments = {path: re.findall(r"#.*", text.decode()) for path, text in contents(settings).items()}
    studies = {STUDY: "table4-splits", "ham10000-segmentation": "table15-splits"}
    for study in studies:
        overlays.resplit(study, settings)
    overlays.apply_scale("paper", settings, ROOT / "scales")
    now = params.check(params.load(settings))
    for name, report in studies.items():
        study, other = now.study[name], now.study[f"{name}-resplit"]
        assert other.resplit.report == report
        assert (study.split.by, other.split.by) == ("image", "group")
        assert other.model_copy(update={"split": study.split, "reports": study.reports, "resplit": None}) == study
    after = contents(settings)
    assert all(set(before) <= set(re.findall(r"#.*", after[path].decode())) for path, before in comments.items())


def test_a_wrong_split_of_a_study_that_is_resplit_is_named(settings: Path) -> None:
    overlays.resplit(STUDY, settings)
    before = contents(settings)
    with pytest.raises(
        ParamsError, match=rf"mine\.yaml: .*studies/{STUDY}\.yaml: split\.by: should be 'image', 'group' or 'given'"
    ):
        overlay(settings, f"studies: {{{STUDY}: {{split: {{by: patient}}}}}}\n")
    assert contents(settings) == before


@pytest.mark.parametrize(
    ("study", "message"),
    [("lgg-resnet81", "unknown study 'lgg-resnet81'. Did you mean 'lgg-resnet18'?"), (STUDY, "exists already")],
)
def test_a_study_that_cannot_be_resplit_leaves_the_files_alone(settings: Path, study: str, message: str) -> None:
    if study == STUDY:
        overlays.resplit(STUDY, settings)
    before = contents(settings)
    with pytest.raises(ParamsError, match=re.escape(message)):
        overlays.resplit(study, settings)
    assert contents(settings) == before
