"""Settings, engines' files, artefacts and command lines that are wrong, damaged or hostile: one paragraph, no more.

`pytest tests/unit -k "bad_project or bad_input" -rP` prints what a user reads in each case.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classroom.engines import graph
from support import finished
from support.finished import Done, classroom
from support.studies import ROOT, STUDY

Spoil = Callable[[Path], Any]
PWNED = "pwned"
"""The file that hostile input would leave in the project, could it run a command."""
CALL = f"!!python/object/apply:os.system ['touch {PWNED}']"
PICKLE = f"cposix\nsystem\n(S'touch {PWNED}'\ntR."
PREPARED, RUN = f"data/prepared/{STUDY}", f"runs/{STUDY}/ml-v3/seed-0"
OF_STUDY = f"studies/{STUDY}.yaml"
TEACHER = f"runs/{STUDY}/teacher/seed-0/weights.safetensors"
CHECKPOINT = f"checkpoints/{RUN}/newest.pt"
TRAIN, OFFLINE = f"train {STUDY} ml-v3 --seed 0", f"train {STUDY} kd_off-v1 --seed 0"
VARIANT = f"results/variants/{STUDY}/ml-v3.json"


class Evil:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {PWNED}",)


def nothing(root: Path) -> None:
    pass


def put(path: str, content: str | bytes) -> Spoil:
    def spoil(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).unlink(missing_ok=True)  # DVC's files may be links
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def cut(path: str) -> Spoil:
    return lambda root: put(path, (root / path).read_bytes()[: (root / path).stat().st_size // 2])(root)


def gone(path: str) -> Spoil:
    return lambda root: shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()


def exchanged(path: str, other: str) -> Spoil:
    return lambda root: put(path, (root / other).read_bytes())(root)


def folder(path: str) -> Spoil:
    return lambda root: (gone(path)(root), (root / path).mkdir())


def file_for(path: str) -> Spoil:
    """Permissions would not stop the superuser; a file where a folder belongs does."""
    return lambda root: (shutil.rmtree(root / path, ignore_errors=True), put(path, "in the way")(root))


def edited(path: str, before: str, after: str) -> Spoil:
    def spoil(root: Path) -> None:
        text = (root / path).read_text()
        assert before in text, path  # or the case would test nothing
        put(path, text.replace(before, after, 1))(root)

    return spoil


def added(path: str, text: str) -> Spoil:
    return lambda root: put(path, (root / path).read_text() + text)(root)


def remembered(before: str, after: str) -> Spoil:
    """What the engines remember of the graph, under the right digest, names `after` in place of `before`."""
    replace = edited(".classroom/cache/graph.json", json.dumps(before), json.dumps(after))
    return lambda root: (replace(root), graph._resolved.cache_clear())  # as in a new process


def with_pickle(pattern: str) -> Spoil:
    """Every file that fits holds a pickle that runs a command."""
    return lambda root: [put(str(path.relative_to(root)), PICKLE)(root) for path in sorted(root.glob(pattern))] or 1 / 0


def elsewhere(path: str) -> Spoil:
    """The folder is a link to one next to the project, where files of the user's are."""

    def spoil(root: Path) -> None:
        folder = root.parent / "elsewhere"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "letter.txt").write_text("Dear")
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).symlink_to(folder)

    return spoil


def array(path: str, change: Callable[[np.ndarray], np.ndarray], pickled: bool = False) -> Spoil:
    def spoil(root: Path) -> None:
        changed = change(np.load(root / path))
        (root / path).unlink()
        np.save(root / path, changed, allow_pickle=pickled)

    return spoil


def table(path: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Spoil:
    return lambda root: change(pd.read_parquet(root / path)).to_parquet(root / path, index=False)


def bomb(kind: str) -> str:
    """Nine levels of nine aliases each: four hundred million values, or a mapping merged as often."""
    first, level = {
        "list": ("[1]", lambda name: "[" + ", ".join([name] * 9) + "]"),
        "merge": ("{a: 1}", lambda name: "{<<: [" + ", ".join([name] * 9) + "]}"),
    }[kind]
    lines = [f"  b0: &b0 {first}"] + [f"  b{i}: &b{i} {level(f'*b{i - 1}')}" for i in range(1, 10)]
    return "\n".join(["grid:", *lines, ""])


def made_anew(made: str, path: str) -> str:
    """What is said of a file that is not as a command left it, alone or in a folder."""
    return (
        rf"{re.escape(path)}: damaged, edited or replaced since `classroom {re.escape(made)}` made it\. "
        rf"Run that command again, or restore it from DVC's cache: `dvc checkout .*`\."
    )


PREPARE, SPLIT, EVALUATE = f"prepare {STUDY}", f"split {STUDY}", f"evaluate {STUDY} ml-v3"
TABLE, TEACH = "report table4", f"train {STUDY} teacher --seed 0"
NO_JOB = r"`classroom {}` is not a job that the settings ask for\. {}"

PARAMS = {
    # name: (what is done to the project, what is said of params.yaml)
    "none": (gone("params.yaml"), r"no such file\. Commands run in the project's root.*"),
    "a folder": (folder("params.yaml"), r"cannot be read \(Is a directory\)\. Expected.*"),
    "a tab": (edited("params.yaml", "  joint:", "\tjoint:"), r"not valid YAML: found character '\\t' .*"),
    "two documents": (added("params.yaml", "---\na: 1\n"), r"not valid YAML: expected a single document .*"),
    "a NUL": (added("params.yaml", "a: \0\n"), r"not valid YAML: unacceptable character.*"),
    "Python's tag": (
        added("params.yaml", f"a: {CALL}\n"),
        r"not valid YAML: could not determine a constructor for the tag '.*os\.system' in line \d+.*",
    ),
    "bomb of lists": (put("params.yaml", bomb("list")), r"expected settings, found more .*"),
    "bomb of merges": (put("params.yaml", bomb("merge")), r"expected settings, found more than 100,000 values.*"),
    "an alias to itself": (put("params.yaml", "grid: &a [*a]\n"), r"expected settings, found more than 100,000 .*"),
    "nested without end": (put("params.yaml", "a: " + "[" * 1500), r"not valid YAML: brackets nested too deeply\. .*"),
    "a number of 5000 digits": (put("params.yaml", f"a: {'9' * 5000}\n"), r"not valid YAML: Exceeds the limit .*"),
    "unknown key": (
        edited("params.yaml", "  epochs: 1", "  epoch: 1"),
        r"key 'training\.epochs' is missing; unknown key 'training\.epoch'\. Did you mean 'epochs'\?",
    ),
    "a key that breaks the line": (
        added("params.yaml", '"a\\nb\\e[2J": 1\n'), r"unknown key 'a\\nb\\x1b\[2J'\. Known: .*",
    ),
    "a number as a key": (added("params.yaml", "7: 1\n"), r"7: Keys should be strings.*"),
    "everything missing": (
        put("params.yaml", "scale: demo\n"), r"key 'seeds' is missing; .*; key 'training' is missing",
    ),
    "mistakes without end": (
        put("params.yaml", "".join(f"key{n}: 1\n" for n in range(99))),
        r"key 'scale' is missing; .*; and \d+ more mistakes",
    ),
    "of the older layout": (
        added("params.yaml", "study: {}\n"),
        r"'study' is of an older layout\. Move each study into a file of its own, studies/<name>\.yaml; .*",
    ),
    "a value without end": (
        edited("params.yaml", "scale: demo", f"scale: {'x' * 10_000}"), r"scale: should be .{,200}",
    ),
    "out of range": (
        edited("params.yaml", "  learning_rate: 0.001", "  learning_rate: -1"),
        r"training\.learning_rate: should be greater than 0, not -1",
    ),
    "a seed too large": (
        edited("params.yaml", "seeds:\n- 0", "seeds:\n- 1000000000"),
        r"seeds\.0: should be less than or equal to 999999999, not 1000000000",
    ),
}  # fmt: skip

SETTINGS = {
    # name: (what is done to the project, command, what it says)
    "study: without its file": (
        gone(OF_STUDY), "check", rf"params\.yaml: studies: '{STUDY}' has no file {OF_STUDY}\. Did you .*",
    ),
    "study: cut off": (put(OF_STUDY, "dataset: [lgg"), "check", rf"{OF_STUDY}: not valid YAML: .*"),
    "study: a folder": (folder(OF_STUDY), "check", rf"{OF_STUDY}: cannot be read \(Is a directory\)\. .*"),
    "study: Python's tag": (added(OF_STUDY, f"a: {CALL}\n"), "check", rf"{OF_STUDY}: not valid YAML: .*os\.system.*"),
    "study: bomb": (put(OF_STUDY, bomb("list")), "check", rf"{OF_STUDY}: expected settings, found more than .*"),
    "study: unknown key": (
        added(OF_STUDY, "tsak: 1\n"), "check", rf"{OF_STUDY}: unknown key 'tsak'\. Did you mean 'task'\?",
    ),
    "study: a report that climbs out": (
        edited(OF_STUDY, "variants: table4", "variants: ../table4"), "check",
        rf"{OF_STUDY}: reports\.variants: a name has lower-case letters.*not '\.\./table4'",
    ),
    "study: a report that is HTML": (
        edited(OF_STUDY, "variants: table4", "variants: <script>alert(1)</script>"), "check",
        rf"{OF_STUDY}: reports\.variants: a name has lower-case letters.*",
    ),
    "study: a dataset without its file": (
        gone("datasets/lgg.yaml"), "check", rf"{OF_STUDY}: dataset: 'lgg' has no file datasets/lgg\.yaml\. Known: .*",
    ),
    "study: a job whose file is cut off": (put(OF_STUDY, "dataset: [lgg"), TRAIN, rf"{OF_STUDY}: not valid YAML: .*"),
    "use: unknown": (
        nothing, "use lgg-resnet81", rf"params\.yaml: studies: 'lgg-resnet81' has no .*\. Did you mean '{STUDY}'\? .*",
    ),
    "resplit: unknown": (nothing, "resplit lgg-resnet81", rf"unknown study 'lgg-resnet81'\. Did you mean '{STUDY}'\?"),
    "scale: unknown": (nothing, "scale huge", r"unknown scale 'huge'\. Known: demo, paper, small\."),
    "scale: cut off": (
        put("scales/small.yaml", "scale: small\nstudies: {lgg-resnet18: {"), "scale small",
        r"scales/small\.yaml: not valid .*",
    ),
    "scale: sections of a wrong kind": (
        put("scales/small.yaml", "studies: 5\ntune: 4\n"), "scale small",
        r"scales/small\.yaml: params\.yaml: studies: .* not 5; tune: .* not 4",
    ),
    "overlay: none": (nothing, "overlay nowhere.yaml", r"nowhere\.yaml: no such file\. .*"),
    "overlay: a folder": (nothing, "overlay docs", r"docs: cannot be read \(Is a directory\)\. .*"),
    "overlay: Python's tag": (
        put("o.yaml", f"seeds: {CALL}\n"), "overlay o.yaml", r"o\.yaml: not valid YAML: .*os\.system.*",
    ),
    "overlay: bomb": (put("o.yaml", bomb("list")), "overlay o.yaml", r"o\.yaml: expected settings, found more than .*"),
    "overlay: a study that is a number": (
        put("o.yaml", "studies: {new: 3}\n"), "overlay o.yaml", r"o\.yaml: studies\.new: .* not 3",
    ),
    "overlay: reports that are a number": (
        put("o.yaml", f"studies: {{{STUDY}: {{reports: 3}}}}\n"), "overlay o.yaml",
        rf"o\.yaml: {OF_STUDY}: reports: .* not 3",
    ),
    "overlay: a name that climbs out": (
        put("o.yaml", "studies: {../new: {task: segmentation}}\n"), "overlay o.yaml",
        r"o\.yaml: studies: a name has lower-case letters.*not '\.\./new'",
    ),
    "overlay: of the older layout": (
        put("o.yaml", "study: {new: {task: segmentation}}\n"), "overlay o.yaml",
        r"o\.yaml: 'study' is of an older layout\. .* in an overlay, below 'studies'\. .*",
    ),
    "graph: dvc.yaml cut off": (
        put("dvc.yaml", "stages: ["), PREPARE,
        r"dvc\.yaml cannot be resolved: .*corrupted\. Fix it, or .*git checkout.*",
    ),
    "graph: dvc.yaml a folder": (
        folder("dvc.yaml"), PREPARE, r"dvc\.yaml: cannot be read \(Is a directory\)\. Restore .*",
    ),
    "graph: dvc.yaml not UTF-8": (
        put("dvc.yaml", b"\xff"), PREPARE, r"dvc\.yaml cannot be resolved: .*not valid utf-8.*",
    ),
    "graph: dvc.yaml names no setting": (
        edited("dvc.yaml", "${plan.studies}", "${plan.studdies}"), PREPARE,
        r"dvc\.yaml cannot be resolved: .*Could not find 'plan\.studdies'.*",
    ),
    "graph: no git": (
        lambda root: (gone(".classroom/cache")(root), gone(".git")(root)), "reconcile",
        r"/.*/project: no \.git here or above, and DVC, .* needs it\. Work in a clone, as `git clone` makes it: .*",
    ),
    "graph: no DVC": (
        gone(".dvc"), "reconcile",
        r"/.*/project: no \.dvc here or above, .*Restore it: `git checkout -- \.dvc`\.",
    ),
    "graph: none": (gone("dvc.yaml"), "reconcile", r"dvc\.yaml: no such file\. Run this in the project's root\."),
    "graph: remembered outputs that climb out": (
        remembered(f"data/splits/{STUDY}.parquet", "../victim"), "reconcile",
        r"\.\./victim: lies outside the project, in /.*\. Results are .*remove the folder \.classroom/cache\.",
    ),
    "graph: a remembered job's name that climbs out": (
        remembered(f"split@{STUDY}", "../../../victim"), TABLE, r".*/\.\./\.\./\.\./victim\.json: lies outside .*",
    ),
    "graph: an absolute path": (remembered(f"data/splits/{STUDY}.parquet", "/tmp/x"), "reconcile", r"/tmp/x: lies .*"),
    "graph: results behind a link": (
        elsewhere("results/variants"), "reconcile",
        rf"results/variants/{STUDY}/.*: lies outside the project, in /.*elsewhere/.*Replace the link by a folder; .*",
    ),
    "graph: the state behind a link": (
        elsewhere(".classroom/obsolete"), "reconcile", r"\.classroom/obsolete/any: lies outside the project, .*",
    ),
    "graph: dvc.lock with a conflict": (
        put("dvc.lock", "<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> x\n"), "reconcile",
        r"dvc\.lock: has conflict markers of a merge\. Take .*--ours dvc\.lock.*--theirs.*reconcile.*",
    ),
}  # fmt: skip

ARTEFACTS = {
    "raw data: none": (
        gone("data/raw/lgg"), PREPARE, r"data/raw/lgg: no such .*needs it\. Run `classroom fetch lgg` first\.",
    ),
    "raw data: description cut off": (
        cut("data/raw/lgg/about.json"), PREPARE, made_anew("fetch lgg", "data/raw/lgg"),
    ),
    "images: none": (
        gone(f"{PREPARED}/images.npy"), TRAIN, made_anew(PREPARE, f"{PREPARED}/images.npy"),
    ),
    "images: cut off": (cut(f"{PREPARED}/images.npy"), TRAIN, made_anew(PREPARE, f"{PREPARED}/images.npy")),
    "images: a folder": (
        folder(f"{PREPARED}/images.npy"), TRAIN, made_anew(PREPARE, f"{PREPARED}/images.npy"),
    ),
    "splits: test images trained on": (
        table(f"data/splits/{STUDY}.parquet", lambda t: t.assign(split=t.split.replace("test", "train"))), TRAIN,
        made_anew(SPLIT, f"data/splits/{STUDY}.parquet"),
    ),
    "teacher: none": (
        gone(TEACHER), OFFLINE, rf"{TEACHER}: no such .*Run `classroom train {STUDY} teacher --seed 0` first\.",
    ),
    "teacher: of another seed": (
        exchanged(TEACHER, TEACHER.replace("seed-0", "seed-1")), OFFLINE, made_anew(TEACH, TEACHER),
    ),
    "teacher: a hostile pickle": (
        put(TEACHER, f"cposix\nsystem\n(S'touch {PWNED}'\ntR."), OFFLINE, made_anew(TEACH, TEACHER),
    ),
    "run: metrics edited": (
        edited(f"{RUN}/metrics.json", '"test_images"', '"images"'), EVALUATE, made_anew(TRAIN, f"{RUN}/metrics.json"),
    ),
    "run: manifest cut off": (
        cut(f"{RUN}/manifest.json"), EVALUATE,
        rf"{RUN}/manifest\.json: cannot be read as a run's manifest .*Train this run again\.",
    ),
    "run: manifest of another kind": (
        edited(f"{RUN}/manifest.json", '"threads": 1,\n "best', '"threads": "all",\n "best'), EVALUATE,
        rf"{RUN}/manifest\.json: cannot be read as a run's manifest .*'all'.*Train this run again\.",
    ),
    "results: none": (gone(VARIANT), TABLE, rf"{VARIANT}: no such file .*Run `classroom {EVALUATE}` first\."),
    "results: a better number": (edited(VARIANT, '"iou": 0.', '"iou": 0.9'), TABLE, made_anew(EVALUATE, VARIANT)),
    "results: of published methods": (
        put(f"results/comparison/table10/{STUDY}.json", "{}"), "report table10",
        made_anew(f"evaluate {STUDY} published", f"results/comparison/table10/{STUDY}.json"),
    ),
    "results: costs that lack something": (
        put("results/costs/variants/x/ml-v3.json", '{"study": "x", "method": "ml-v3"}'), "report cost",
        r"results/costs/variants/x/ml-v3\.json: cannot be read .*'seeds'.*Run `classroom evaluate` for it again; .*",
    ),
    "search: metrics edited": (
        put(f"tune/{STUDY}/at/0.1/seed-0/metrics.json", "{}"), f"report tune-{STUDY}",
        made_anew(f"train {STUDY} at --seed 0 --point 0.1", f"tune/{STUDY}/at/0.1/seed-0/metrics.json"),
    ),
    "code: none": (gone("src"), TRAIN, r"src/classroom/.*: no such file .*Is this the project's root\?"),
    "in the way: of reports": (file_for("reports"), TABLE, r"reports: cannot be written .*Move .*"),
    "in the way: of results": (file_for("results"), EVALUATE, r"results/.*: cannot be written .*Move .*"),
    "in the way: of runs": (file_for(RUN), TRAIN, rf"{RUN}: cannot be written .*Move .*"),
    "in the way: of checkpoints": (file_for("checkpoints"), TRAIN, r"checkpoints/.*: cannot be written .*Move .*"),
    "in the way: of the engines' notes": (file_for(".classroom"), TRAIN, r"\.classroom.*: cannot be written .*Move .*"),
}  # fmt: skip

ANOTHER_MACHINE = {
    # Arrays that came without their manifests: they are verified by what is in them.
    "images: hostile objects": (
        array(f"{PREPARED}/images.npy", lambda a: np.array([Evil()], dtype=object), pickled=True),
        rf"{PREPARED}, .*: cannot be read \(.*objects.*\)\. Run `classroom prepare` and `classroom split`.*",
    ),
    "images: of floats": (
        array(f"{PREPARED}/images.npy", lambda a: a / 2),
        rf"{PREPARED}/images\.npy: expected bytes of shape .*, found float64 .*Run `classroom prepare` .*",
    ),
    "images: flat": (
        array(f"{PREPARED}/images.npy", lambda a: a.reshape(len(a), -1)),
        rf"{PREPARED}/images\.npy: expected bytes of shape .*, found uint8 of shape \(66, 3072\)\. .*",
    ),
    "targets: of another size": (
        array(f"{PREPARED}/targets.npy", lambda a: a[:, :16, :16]),
        rf"{PREPARED}/targets\.npy: expected bytes, a mask or a class for .*found uint8 of shape \(66, 16, 16\)\..*",
    ),
    "targets: classes": (
        array(f"{PREPARED}/targets.npy", lambda a: a[:, 0, 0]),
        rf"{PREPARED}/dataset\.json: does not describe the arrays next to it\. Run `classroom prepare` .*",
    ),
    "description: cut off": (
        cut(f"{PREPARED}/dataset.json"), rf"{PREPARED}/dataset\.json: cannot be read .*Run `classroom prepare` .*",
    ),
    "description: lacks something": (
        put(f"{PREPARED}/dataset.json", "{}"),
        rf"{PREPARED}/dataset\.json: lacks dataset, .*Run `classroom prepare` .*",
    ),
    "splits: nothing to test": (
        table(f"data/splits/{STUDY}.parquet", lambda t: t.assign(split="train")),
        rf"data/splits/{STUDY}\.parquet: has no images for val, test\. Run `classroom split` .*",
    ),
    "splits: how is not said": (
        table(f"data/splits/{STUDY}.parquet", lambda t: t.drop(columns="label")),
        rf"data/splits/{STUDY}\.parquet: lacks the settings of the split\. Run `classroom split` .*",
    ),
}  # fmt: skip

RAW = {
    # And so is raw data.
    "raw data: description cut off": (
        cut("data/raw/lgg/about.json"), PREPARE, r"data/raw/lgg: cannot be read .*Run `classroom fetch lgg` again\.",
    ),
    "raw data: description of another kind": (
        put("data/raw/lgg/about.json", "[]"), PREPARE,
        r"data/raw/lgg: cannot be read .*Run `classroom fetch lgg` again\.",
    ),
    "raw data: description lacks something": (
        put("data/raw/lgg/about.json", "{}"), PREPARE, r"data/raw/lgg: cannot be read \(about\.json lacks dataset, .*",
    ),
    "raw data: a path that climbs out": (
        put("data/raw/lgg/samples.csv", "id,group,label,image,mask\na,b,,../../../x.png,../../../x.png\n"), PREPARE,
        r"data/raw/lgg: cannot be read \(samples\.csv names '\.\./\.\./\.\./x\.png', which is outside this folder\).*",
    ),
    "raw data: an absolute path": (
        put("data/raw/lgg/samples.csv", "id,group,label,image,mask\na,b,,/etc/x.png,/etc/x.png\n"), PREPARE,
        r"data/raw/lgg: cannot be read \(samples\.csv names '/etc/x\.png', which is outside this folder\).*",
    ),
}  # fmt: skip

COMMAND_LINES = {
    # name: (command, what it says)
    "method: unknown": (f"train {STUDY} kd_mll-v3 --seed 0", r"unknown method 'kd_mll-v3'\. Did you mean 'kd_ml-v3'\?"),
    "study: unknown": (
        "train lgg-resnet81 ml-v3 --seed 0",
        rf"unknown study 'lgg-resnet81': no file studies/lgg-resnet81\.yaml\. Did you mean '{STUDY}'\?",
    ),
    "study: climbs out": ("train ../../etc ml-v3 --seed 0", r"unknown study '.*': no file .*\. Known: .*"),
    "study: nothing": ("train '' ml-v3 --seed 0", r"unknown study '': no file .*\. Known: .*"),
    "study: breaks the line": ("train 'a\nb' ml-v3 --seed 0", r"unknown study 'a\\nb': no file studies/a\\nb\.yaml.*"),
    "point: no numbers": (f"{TRAIN} --point 0.1,x", r"--point 0\.1,x: expected three numbers from 0 to 1, such as .*"),
    "point: not a number": (
        f"{TRAIN} --point nan,nan,nan", r"--point nan,nan,nan: expected three numbers from 0 to 1.*",
    ),
    "point: of a baseline": (
        f"train {STUDY} teacher --seed 0 --point 0.1,0.1,0.1", r"--point .*: teacher learns from its task loss only.*",
    ),
    "point: of a published method": (
        f"train {STUDY} emkd --seed 0 --point -1", r"--point -1: expected a factor of emkd's reference weights.*",
    ),
    "device: nonsense": (f"{TRAIN} --device gpu", r"device 'gpu' cannot be used .*Use 'auto' or 'cpu'\."),
    "device: not there": (f"{TRAIN} --device cuda:9", r"device 'cuda:9' cannot be used .*Use 'auto' or 'cpu'\."),
    "device: without memory": (f"{TRAIN} --device meta", r"device 'meta' cannot be used .*Use 'auto' or 'cpu'\."),
    "report: unknown": ("forecast table99", r"unknown report 'table99'\. .*"),
    "job: unknown study": (
        "prepare lgg-resnet81", NO_JOB.format("prepare lgg-resnet81", rf"Did you mean '.* {STUDY}'\?"),
    ),
    "job: unknown method": (
        f"evaluate {STUDY} kd_on-v3", NO_JOB.format(f"evaluate {STUDY} kd_on-v3", f"Did you mean '.* {STUDY} .*-v.'.*"),
    ),
    "job: unknown report": ("report table33", r"unknown report 'table33'\. Did you mean 'table.'\?"),
    "job: a report of a study that is not active": (
        "report table9", r"'table9' is a report of lgg-mobilenet, which is not active\. Add it: "
        rf"`classroom use {STUDY} lgg-mobilenet`\.",
    ),
    "explain: a report of a study that is not active": (
        "explain reports/table9.csv", r"'table9' is a report of lgg-mobilenet, which is not active\. Add it: .*",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy(finished_project, tmp_path_factory.mktemp("bad") / "project")


@pytest.fixture
def project(tree: Path, finished_project: Path) -> Iterator[Path]:
    """A copy free to damage; the next test finds it whole again, without copying all of it again."""
    yield tree
    finished.restore(finished_project, tree)
    graph._resolved.cache_clear()


NOTES = {".dvc/tmp", ".git"} | {
    ".classroom/locks/workflow.lock",
    *(f".classroom/cache/{name}.json" for name in ("graph", "lock", "hashes", "networks", "methods")),
}
"""What the engines note for themselves."""


def contents(root: Path) -> dict[str, bytes]:
    return {path: Path(entry).read_bytes() for path, entry in finished.files(root, NOTES) if entry.is_file()}


def refused(root: Path, command: str, said: str) -> Done:
    """The command says `said` in one paragraph, fails, and leaves every file as it was."""
    before = contents(root)
    done = classroom(f"classroom {command}", root)
    print(f"classroom {command}\n    {done.error.strip()}")
    assert re.fullmatch(rf"Error: {said}\n", done.error), done.error
    assert done.code == 1
    assert done.out == ""
    assert contents(root) == before
    assert not (root / PWNED).exists()
    return done


@pytest.mark.parametrize("case", PARAMS)
def test_bad_settings_are_named_in_one_paragraph(project: Path, case: str) -> None:
    spoil, said = PARAMS[case]
    spoil(project)
    refused(project, "check", rf"params\.yaml: {said}")


@pytest.mark.parametrize("case", [*SETTINGS, *ARTEFACTS])
def test_bad_input_is_named_in_one_paragraph_and_nothing_is_written(project: Path, case: str) -> None:
    spoil, command, said = (SETTINGS | ARTEFACTS)[case]
    spoil(project)
    refused(project, command, said)


@pytest.mark.parametrize("case", RAW)
def test_raw_data_without_a_manifest_is_judged_by_what_is_in_it(project: Path, case: str) -> None:
    spoil, command, said = RAW[case]
    spoil(project)
    gone(".classroom/manifests/fetch@lgg.json")(project)
    refused(project, command, said)


@pytest.mark.parametrize("case", ANOTHER_MACHINE)
def test_arrays_without_manifests_are_judged_by_what_is_in_them(project: Path, case: str) -> None:
    spoil, said = ANOTHER_MACHINE[case]
    spoil(project)
    for stage in ("prepare", "split"):
        gone(f".classroom/manifests/{stage}@{STUDY}.json")(project)
    refused(project, TRAIN, said)


@pytest.mark.parametrize("case", COMMAND_LINES)
def test_a_bad_command_line_is_named_in_one_paragraph(project: Path, case: str) -> None:
    command, said = COMMAND_LINES[case]
    refused(project, command, said)


@pytest.mark.parametrize("content", ["dataset: [lgg", "- lgg\n", "task: nonsense\n", b"\xff"])
def test_a_broken_file_of_a_study_that_is_not_active_disturbs_nobody(project: Path, content: str | bytes) -> None:
    """One study may be edited while another one runs."""
    put("studies/lgg-mobilenet.yaml", content)(project)
    for command in ("check", EVALUATE, "scale demo"):
        done = classroom(f"classroom {command}", project)
        assert (done.code, done.error) == (0, ""), command
    assert classroom(f"classroom use {STUDY}", project).code == 0
    refused(project, "use lgg-mobilenet", r"studies/lgg-mobilenet\.yaml: .*")


# What else hostile or damaged input must not do -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [PICKLE, "PK\x03\x04"], ids=["a hostile pickle", "a damaged archive"])
def test_a_checkpoint_that_is_not_ours_is_said_and_not_used(project: Path, content: str) -> None:
    """The user need not repair it: the training starts again, and ends as if the file had never been."""
    before = (project / RUN / "weights.safetensors").read_bytes()
    put(CHECKPOINT, content)(project)
    done = classroom(f"classroom {TRAIN}", project)
    assert done.code == 0
    assert f"{CHECKPOINT} is damaged or no checkpoint, and ignored" in done.error
    assert not (project / PWNED).exists()
    assert not (project / CHECKPOINT).exists()
    assert (project / RUN / "weights.safetensors").read_bytes() == before


def test_a_checkpoint_that_torch_would_unpickle_is_not_unpickled(project: Path) -> None:
    """The format is right and the pickle in it hostile."""
    import torch

    (project / CHECKPOINT).parent.mkdir(parents=True)
    torch.save({"identity": Evil()}, project / CHECKPOINT)
    done = classroom(f"classroom {TRAIN}", project)
    assert "ignored (UnpicklingError)" in done.error
    assert not (project / PWNED).exists()


HOSTILE: dict[str, list[tuple[Spoil, str]]] = {
    # by the files in SECURITY.md: code put into them, and a command that reads it
    "params.yaml": [(put("params.yaml", CALL), "check")],
    "studies/*.yaml, datasets/*.yaml": [
        (put(OF_STUDY, CALL), "check"), (put("datasets/lgg.yaml", CALL), "check"),
    ],
    "scales/*.yaml, overlays": [
        (put("scales/small.yaml", CALL), "scale small"), (put("o.yaml", CALL), "overlay o.yaml"),
    ],
    "workflow/plan.yaml": [(put("workflow/plan.yaml", CALL), TABLE)],
    "dvc.lock": [(put("dvc.lock", CALL), "reconcile")],
    ".classroom/": [(put(".classroom/cache/hashes.json", PICKLE), "reconcile")],
    "workflow/report/*.rst": [(put(
        "workflow/report/curves.rst", f"{{{{ cycler.__init__.__globals__.os.system('touch {PWNED}') }}}}"
    ), "report index")],
    "data/raw/ and the folders it comes from: images, masks, tables": [
        (with_pickle("data/raw/lgg/**/*_1.tif"), PREPARE), (with_pickle("data/raw/lgg/about.json"), PREPARE),
    ],
    "data/prepared/, data/splits/": [
        (array(f"{PREPARED}/images.npy", lambda _: np.array([Evil()], dtype=object), pickled=True), TRAIN),
        (with_pickle(f"{PREPARED}/index.parquet"), SPLIT), (with_pickle("data/splits/*.parquet"), TRAIN),
    ],
    "checkpoints/": [(put(CHECKPOINT, PICKLE), TRAIN)],
    "runs/, compared/, grid/, tune/": [
        (with_pickle(f"{RUN}/weights.safetensors"), f"export {STUDY} ml-v3"), (with_pickle(TEACHER), OFFLINE),
        (with_pickle(f"{RUN}/predictions.parquet"), EVALUATE), (with_pickle(f"{RUN}/metrics.json"), EVALUATE),
    ],
    "results/, reports/": [(with_pickle(VARIANT), TABLE), (with_pickle("reports/pages/table4.json"), "report index")],
    "exports/: model.onnx": [(put("exports/model.onnx", PICKLE), "predict exports docs")],
}  # fmt: skip


@pytest.mark.parametrize("files", HOSTILE)
def test_files_that_never_run_code_do_not(project: Path, finished_project: Path, files: str) -> None:
    """Nobody vouches for them any more, so that they are read and not only found to be changed."""
    for spoil, command in HOSTILE[files]:
        spoil(project)
        gone(".classroom/manifests")(project)
        done = classroom(f"classroom {command}", project)
        assert done.code == 1 or "ignored" in done.error or command == "reconcile", command
        assert not (project / PWNED).exists(), command
        finished.restore(finished_project, project)
        graph._resolved.cache_clear()


def test_the_files_that_security_md_calls_harmless_are_those_that_are_tried() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8").split("## Files that never run code")[1]
    rows = [row.split("|")[1].replace("`", "").strip() for row in page.splitlines() if row.startswith("| `")]
    assert rows == list(HOSTILE)


def test_nothing_behind_a_link_is_moved(project: Path) -> None:
    """Someone else's project may hold links: `classroom reconcile` moves what no setting asks for out of results."""
    elsewhere(f"results/variants/{STUDY}")(project)
    assert classroom("classroom reconcile", project).code == 1
    assert (project.parent / "elsewhere/letter.txt").read_text() == "Dear"


@pytest.mark.parametrize("caption", [
    "{{ ''.__class__.__mro__[1].__subclasses__() | map(attribute='__init__.__globals__') | list }}",
    f"{{{{ snakemake.config.__init__.__globals__['os'].system('touch {PWNED}') }}}}",
    f"{{{{ cycler.__init__.__globals__.os.system('touch {PWNED}') }}}}",
    "{{ nothing }}", "{% for %}", "{{ 'a' * 'b' }}",
])  # fmt: skip
def test_a_caption_cannot_run_code(project: Path, caption: str) -> None:
    """The site fills in the captions of the project, which may be someone else's."""
    put("workflow/report/curves.rst", caption)(project)
    refused(
        project, "report index", r"workflow/report/curves\.rst: cannot be used as a caption \(.*\)\. Restore it: .*"
    )


def test_a_page_does_not_choose_which_file_is_its_caption(project: Path) -> None:
    page = f"reports/pages/curves-{STUDY}.json"
    edited(page, '"kind": "curves"', '"kind": "../../../secret"')(project)
    for manifest in (project / ".classroom/manifests").glob("*.json"):
        manifest.unlink()
    refused(project, "report index", rf"{page}: kind: '\.\./\.\./\.\./secret' is not a kind of report\. Make .*")


def test_the_engines_damaged_notes_are_made_anew(recorded_project: Path, tmp_path: Path) -> None:
    """They hold nothing that is not known elsewhere; nor does a lock file, as long as there are manifests."""
    project = finished.copy(recorded_project, tmp_path / "project")
    notes = ("graph", "hashes", "networks", "methods", "lock")
    for name, content in zip(notes, ("[]", "[1]", '{"versions": 1}', "{", '{"content": 1}'), strict=True):
        put(f".classroom/cache/{name}.json", content)(project)
    assert classroom("classroom check", project).code == 0
    assert classroom("classroom reconcile", project).out.endswith("nothing to do\n")
    gone("dvc.lock")(project)
    assert classroom("classroom reconcile", project).out.endswith("nothing to do\n")
    assert (project / "dvc.lock").read_bytes() == (recorded_project / "dvc.lock").read_bytes()


def test_code_of_a_dataset_or_a_method_is_an_input_of_what_uses_it_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited list of classes fetched and trained everything again, an edited adversary most of it."""
    monkeypatch.chdir(project)
    stages = graph.load()

    def users(path: str) -> set[str]:
        below = {name: {path, *map(str, Path(path).parents)} & {*of.dependencies} for name, of in stages.items()}
        return {name.split("@")[0] for name, of in below.items() if of}

    assert users("src/classroom/data/readers/ham10000.py") == set(), "no study of it is active"
    assert users("src/classroom/data/readers/lgg.py") == {"fetch", "architecture"}
    assert users("src/classroom/methods/adversarial/adversary.py") <= {"method_adversarial", "tune_adversarial"}


def test_what_dvc_brought_back_is_as_good_as_what_a_job_made(recorded_project: Path, tmp_path: Path) -> None:
    """Manifests that are not outputs stay behind when DVC checks out another version: then dvc.lock is right."""
    project = finished.copy(recorded_project, tmp_path / "project")
    manifest = f".classroom/manifests/split@{STUDY}.json"
    said = json.loads((project / manifest).read_text())
    put(manifest, json.dumps(said | {"outputs": {f"data/splits/{STUDY}.parquet": "of another version"}}))(project)
    assert classroom(f"classroom {TRAIN}", project).code == 0
    cut(f"data/splits/{STUDY}.parquet")(project)
    refused(project, TRAIN, made_anew(SPLIT, f"data/splits/{STUDY}.parquet"))


def test_another_seed_may_be_tried_by_hand_and_is_said_to_count_for_nothing(project: Path) -> None:
    done = classroom(f"classroom train {STUDY} ml-v3 --seed 7", project)
    assert done.code == 0
    assert done.out.endswith("; this run is not part of the settings, so dvc.lock and the reports leave it out\n")


@pytest.mark.parametrize("place", ["reports", "results", RUN, "data/splits"])
def test_a_place_that_cannot_be_written_is_named(project: Path, place: str) -> None:
    """Read-only for the superuser too, for whom permissions are none."""
    command = {"reports": TABLE, "results": EVALUATE, RUN: TRAIN, "data/splits": SPLIT}[place]
    mounted = ["mount", "--bind", str(project / place), str(project / place)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("only a superuser who may mount can make a folder read-only for all: this test is not one here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(project / place)], check=True)
        refused(project, command, rf"{place}.*: cannot be written \(Read-only file system\)\. Its file system .*")
    finally:
        subprocess.run(["umount", str(project / place)], check=True)
