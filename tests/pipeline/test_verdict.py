"""The verdict that `reconcile` reaches without DVC is that of `dvc status`, whatever changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom.engines import graph, lockfile, store
from classroom.engines.freshness import Verdict
from classroom.engines.reconcile import reconcile
from classroom.errors import ClassroomError
from classroom.state import Hashes

PIPELINE = {
    "dvc.yaml": """
stages:
  fetch: {cmd: fetch, params: [source], deps: [code], outs: [raw]}
  prepare: {cmd: prepare, deps: [raw], params: [{studies/a.yaml: }], outs: [prepared: {cache: false}]}
  train:
    matrix: {study: "${studies}", seed: "${seeds}"}
    cmd: train ${item.study} ${item.seed}
    deps: [prepared, code/loss.py]
    params: ["weights.${item.study}", "training.sizes.0", {"studies/${item.study}.yaml": [task, split.percent]}]
    outs: ["runs/${item.study}/${item.seed}/weights"]
    metrics: ["runs/${item.study}/${item.seed}/metrics.json"]
  report: {cmd: report, deps: [runs], params: [scale], metrics: [report.json: {cache: false}]}
""",
    "params.yaml": """
source: phantom # a comment
studies: {a: , b: }
seeds: [0, 1]
weights: {a: {alpha: 0.1, on: yes}, b: {alpha: 1e-3}}
training: {sizes: [1, 2.5]}
scale: demo
""",
    "studies/a.yaml": "task: masks\nsplit: {percent: [80, 20], seed: 007}\nnone: ~\nnumbers: {7: 8}\n",
    "studies/b.yaml": "task: 'on'\nsplit: {percent: [70, 30], seed: 1_000}\n",
    "code/loss.py": "loss",
    "code/data/read.py": "read",
    "code/__pycache__/loss.pyc": "compiled",
    ".dvcignore": "__pycache__\n.*.tmp\n.snakemake_timestamp\n",
    "raw/1": "one",
    "raw/more/2": "two",
    "raw/.snakemake_timestamp": "",
    "prepared": "p",
    **{f"runs/{study}/{seed}/weights": f"{study}{seed}" for study in "ab" for seed in "01"},
    **{f"runs/{study}/{seed}/metrics.json": f"{seed}" for study in "ab" for seed in "01"},
    "report.json": "{}",
}
FILES = sorted(set(PIPELINE) - {"dvc.yaml", ".dvcignore"})


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose every stage is committed. Not to be changed: copy it."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("verdict") / "project"
    for name, text in PIPELINE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with contextlib.chdir(root):
        Repo.init(no_scm=True).close()
        store.commit(graph.load().values())
        assert ours() == dvcs() == set()
    return root


def ours() -> set[str]:
    hashes = Hashes()
    found = set(Verdict(hashes).changed(graph.load()))
    hashes.save()
    assert set(Verdict(Hashes()).changed(graph.load())) == found, "remembered hashes"
    return found


def dvcs() -> set[str]:
    from dvc.repo import Repo

    with Repo() as repo:
        return set(repo.status())


def outcome(verdict: Callable[[], set[str]]) -> set[str] | str:
    from dvc.exceptions import DvcException

    try:
        return verdict()
    except (ClassroomError, DvcException):  # both refuse what cannot be read
        return "an error"


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def replace(name: str, old: str, new: str) -> None:
    path = Path(name)
    if path.is_file():
        path.write_text(path.read_text().replace(old, new))


def unlock(stage: str) -> None:
    """Removes a stage from dvc.lock."""
    entries = lockfile.stages() | {}
    entries.pop(stage, None)
    Path("dvc.lock").unlink()
    if entries:
        lockfile.update(entries)


def lose_a_copy(number: int) -> None:
    """As after `dvc gc`."""
    copies = sorted(path for path in Path(".dvc/cache/files").rglob("*") if path.is_file())
    if copies:
        copies[number % len(copies)].unlink()


def spoil_a_copy(number: int) -> None:
    """DVC reads again what has lost its write protection, and removes it."""
    copies = sorted(path for path in Path(".dvc/cache/files").rglob("*") if path.is_file())
    if copies:
        copies[number % len(copies)].chmod(0o644)
        copies[number % len(copies)].write_text("[]")


VALUES = st.sampled_from(["0.1", "0.10", "1e-3", "0.001", "yes", "'yes'", "[1]", "{}", "~", "true", "1", "1.0", "010"])
PATHS = st.sampled_from(FILES)
NUMBERS = st.integers(0, 50)
SETTINGS = [
    ("params.yaml", "0.1"), ("params.yaml", "1e-3"), ("params.yaml", "demo"), ("params.yaml", "[1, 2.5]"),
    ("studies/a.yaml", "7: 8"), ("params.yaml", "phantom"), ("studies/a.yaml", "masks"), ("studies/a.yaml", "007"),
    ("studies/b.yaml", "1_000"), ("studies/b.yaml", "'on'"), ("studies/a.yaml", "[80, 20]"),
]  # fmt: skip
EDITS: st.SearchStrategy[tuple[Callable[..., Any], tuple[Any, ...]]] = st.one_of(
    st.tuples(st.sampled_from(SETTINGS), VALUES).map(lambda t: (replace, (*t[0], t[1]))),
    st.just((replace, ("params.yaml", "scale: demo", ""))),
    st.just((replace, ("studies/b.yaml", "task:", "tusk:"))),
    st.just((replace, ("params.yaml", "# a comment", "# another"))),
    st.just((replace, ("params.yaml", "seeds: [0, 1]", "seeds: [0, 2]"))),
    st.tuples(PATHS, st.just("# comment\n")).map(lambda t: (write, (t[0], PIPELINE[t[0]] + t[1]))),
    PATHS.map(lambda name: (os.utime, (name,))),
    PATHS.filter(lambda name: name != "params.yaml").map(lambda name: (os.unlink, (name,))),
    st.sampled_from(["raw/3", "code/new.py", "runs/c", "raw/.3.tmp", "code/data/__pycache__/x"]).map(
        lambda name: (write, (name, "new"))
    ),
    st.sampled_from(["raw", "runs", "code", "runs/a", "raw/more"]).map(lambda name: (shutil.rmtree, (name,))),
    st.sampled_from(["fetch", "report", "train@a-0", "train@b-1"]).map(lambda name: (unlock, (name,))),
    st.sampled_from(
        [("cmd: fetch", "cmd: other"), ("deps: [raw]", "deps: [raw, code]"), ("[scale]", "[scale, seeds]"),
         ("report, deps: [runs]", "report, deps: [runs/a]"), (", code/loss.py]", "]"), (": {cache: false}], ", "], "),
         ("cmd: prepare", "frozen: true, cmd: prepare"), ("cmd: report", "always_changed: true, cmd: report")]
    ).map(lambda change: (replace, ("dvc.yaml", *change))),
    NUMBERS.map(lambda number: (lose_a_copy, (number,))),
    NUMBERS.map(lambda number: (spoil_a_copy, (number,))),
)  # fmt: skip


@pytest.fixture(scope="module")
def tree(committed: Path) -> Iterator[Path]:
    target = committed.parent / "tree"
    yield target
    shutil.rmtree(target, ignore_errors=True)


@given(edits=st.lists(EDITS, min_size=1, max_size=3))
def test_the_verdict_is_that_of_dvc_status(committed: Path, tree: Path, edits: list[Any]) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(committed, tree)
    with contextlib.chdir(tree):
        for edit, arguments in edits:
            with contextlib.suppress(FileNotFoundError):
                edit(*arguments)
        assert outcome(ours) == outcome(dvcs)


def test_what_is_committed_is_read_by_dvc_as_it_was_meant(committed: Path, tmp_path: Path) -> None:
    """Values that YAML 1.1 and 1.2 read differently, in a dvc.lock that was written by us and then by DVC."""
    from dvc.repo import Repo

    shutil.copytree(committed, tmp_path / "tree")
    with contextlib.chdir(tmp_path / "tree"):
        values = "[1e3, '1e3', on, 'on', 010, '010', 0o17, '~', '1:30', é, 'a: b #c', .inf, 1_000, '1_000', 1.5e-7]"
        replace("params.yaml", "{alpha: 0.1, on: yes}", values)
        assert ours() == dvcs() == {"train@a-0", "train@a-1"}
        store.commit([graph.load()["train@a-0"]])
        assert ours() == dvcs() == {"train@a-1"}
        with Repo() as repo:
            repo.commit("train@a-1", force=True)
        assert ours() == dvcs() == set()


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml", "studies/b.yaml", "dvc.lock"])
def test_a_file_that_cannot_be_read_is_named(committed: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(committed, tmp_path / "tree")
    with contextlib.chdir(tmp_path / "tree"):
        write(name, "a: [")
        with pytest.raises(ClassroomError, match=rf"{name}.* Fix it"):
            ours()


def test_only_outputs_of_no_stage_are_stashed(committed: Path, tmp_path: Path) -> None:
    """Not code in a folder that stages depend on, nor what lies in an output that is a folder."""
    shutil.copytree(committed, tmp_path / "tree")
    with contextlib.chdir(tmp_path / "tree"):
        for name in ("runs/c/0/weights", "code/new.py", "raw/3"):
            write(name, "new")
        assert reconcile() == set(graph.load()), "the code decides everything"
        assert Path(".classroom/obsolete/runs/c/0/weights").exists()
        assert not Path("runs/c/0/weights").exists()
        assert Path("code/new.py").exists()
        assert Path("raw/3").exists()


def test_ignored_names_are_those_of_dvcignore() -> None:
    from classroom.files import IGNORED
    from support.studies import ROOT

    patterns = [line for line in (ROOT / ".dvcignore").read_text().splitlines() if not line.startswith("#")]
    assert [pattern for pattern in patterns if not IGNORED.fullmatch(pattern.replace("*", "x"))] == []
    assert len(patterns) == IGNORED.pattern.count("|") + 1


def test_dvc_is_not_imported_for_a_verdict(committed: Path) -> None:
    import subprocess

    code = (
        "import sys; from classroom.engines import freshness, graph; from classroom.state import Hashes;"
        "assert not freshness.Verdict(Hashes()).changed(graph.load()); sys.exit('dvc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=committed, check=False).returncode == 0
