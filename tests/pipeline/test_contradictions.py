"""No result counts as what it is not: dvc.lock and the manifest in a run agree. A project of two small stages."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from classroom.engines import graph, manifest
from classroom.engines.reconcile import reconcile
from classroom.errors import ClassroomError

TRAIN, EVALUATE = "classroom train study ml --seed 0", "classroom evaluate study ml"
STAGES = f"""
stages:
  train: {{cmd: {TRAIN}, deps: [loss], params: [weight], outs: [run]}}
  evaluate: {{cmd: {EVALUATE}, deps: [run/metrics], outs: [result]}}
"""
REMOVED = "removed from dvc.lock, as the manifest in the run says otherwise, so to be made again: train ({})"


def edit(**facts: object) -> None:
    """`loss` is a file, `weight` a setting."""
    if "loss" in facts:
        Path("loss").write_text(str(facts["loss"]))
    if "weight" in facts:
        Path("params.yaml").write_text(f"weight: {facts['weight']}\n")


def run(*commands: str) -> None:
    """Does these jobs as their commands would."""
    raw = {"weight": int(Path("params.yaml").read_text().split()[1])}
    for command in commands:
        with manifest.job(command, raw):
            if command == TRAIN:
                Path("run").mkdir(exist_ok=True)
                Path("run/metrics").write_text(f"{Path('loss').read_text()} {raw['weight']}")
            else:
                Path("result").write_text("of " + Path("run/metrics").read_text())


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "classroom")
    Repo.init(no_scm=True).close()
    Path("dvc.yaml").write_text(STAGES)
    edit(loss="a", weight=1)
    run(TRAIN, EVALUATE)
    assert reconcile() == set()
    caplog.clear()


@pytest.mark.parametrize("side", ["--ours", "--theirs"])
def test_merged_branches_of_which_neither_trained_the_result(side: str, caplog: pytest.LogCaptureFixture) -> None:
    """One changes a weight, the other a loss; `git merge` combines the lines of their entries with one of the runs."""
    base = Path("dvc.lock").read_text()
    locks = {}
    for branch, facts in {"ours": {"weight": 2}, "theirs": {"loss": "b"}}.items():
        edit(**{"loss": "a", "weight": 1} | facts)
        run(TRAIN, EVALUATE)
        reconcile()
        locks[branch] = Path("dvc.lock").read_text()
    edit(weight=2)
    for name, text in {**locks, "base": base}.items():
        Path(name).write_text(text)
    command = ["git", "merge-file", "-p", side, "ours", "base", "theirs"]
    Path("dvc.lock").write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert "weight: 2" in Path("dvc.lock").read_text(), "or nothing was merged"
    caplog.clear()
    assert reconcile() == {"train", "evaluate"}
    assert REMOVED.format("")[:-2] in caplog.text
    run(TRAIN, EVALUATE)
    assert reconcile() == set()
    assert Path("result").read_text() == "of b 2"


def test_a_weight_set_in_the_lock_file_too(caplog: pytest.LogCaptureFixture) -> None:
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace("weight: 1", "weight: 3"))
    edit(weight=3)
    with pytest.raises(ClassroomError, match=r"^run: dvc\.lock and the manifest .*\(weight: 3, made with 1\)\. Run `"):
        run(EVALUATE)  # as `dvc repro` would do it
    (record,) = manifest.records(graph.load()["train"])
    assert record["params"] == {"weight": 1}, "what `classroom explain` compares with"
    assert reconcile() == {"train", "evaluate"}
    assert caplog.messages == [REMOVED.format("weight: 3, made with 1")]
    edit(weight=1)
    assert reconcile() == set(), "the run is there, and what it is of is known"


def test_what_is_restored_from_the_cache_is_read_first() -> None:
    """A run-cache that others share may pair inputs with a run of others, and so may dvc.lock in a fresh clone."""
    (entry,) = (path for path in Path(".dvc/cache/runs").glob("*/*/*") if TRAIN in path.read_text())
    entry.write_text(entry.read_text().replace("weight: 1", "weight: 4"))
    lock = Path("dvc.lock").read_text()
    for text in (lock, lock.replace("weight: 1", "weight: 4")):
        Path("dvc.lock").write_text(text)
        edit(weight=4)
        for path in Path("run").iterdir():
            path.unlink()
        assert reconcile() == {"train", "evaluate"}
        assert not entry.exists()
    assert "weight: 4" not in Path("dvc.lock").read_text()


def test_a_manifest_of_other_files_than_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Weights of one training next to the manifest of another one, which only `dvc commit` would record."""
    said = json.loads(Path("run/manifest.json").read_text())
    Path("run/manifest.json").write_text(json.dumps(said | {"outputs": {"run/metrics": "of another one"}}))
    subprocess.run(["dvc", "commit", "--force", "--quiet"], check=True)
    assert reconcile() == {"train", "evaluate"}
    assert REMOVED[:20] in caplog.text
