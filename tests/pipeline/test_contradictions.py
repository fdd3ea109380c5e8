"""No result counts as what it is not: dvc.lock and the manifest in a run agree. A project of two small stages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from classroom.engines import graph, lockfile, locks, manifest
from classroom.engines.reconcile import reconcile
from classroom.errors import ClassroomError
from classroom.files import content_hash
from classroom.provenance.verify import verify
from classroom.state import CACHE

TRAIN, EVALUATE = "classroom train study ml --seed 0", "classroom evaluate study ml"
STAGES = f"""
stages:
  train: {{cmd: {TRAIN}, deps: [code], params: [weight], outs: [run]}}
  evaluate: {{cmd: {EVALUATE}, deps: [run/metrics], outs: [result]}}
"""
MEMORY = "memory"
"""DVC's, of hashes by size and mtime; ours is in `state.CACHE`."""
REMOVED = "removed from dvc.lock, as the outputs were made differently; to be made again: train ({})"


LOSS = Path("code/loss")


def edit(**facts: object) -> None:
    """`loss` is a file in a folder of code, `weight` a setting."""
    if "loss" in facts:
        LOSS.write_text(str(facts["loss"]))
    if "weight" in facts:
        Path("params.yaml").write_text(f"weight: {facts['weight']}\n")


def edit_unseen(loss: str) -> None:
    """Size and mtime stay, as after a copy that keeps times or on a failing disk."""
    before = LOSS.stat()
    edit(loss=loss)
    os.utime(LOSS, ns=(before.st_atime_ns, before.st_mtime_ns))


def recorded() -> dict[str, str]:
    """What dvc.lock says that the run was made from."""
    return manifest.record(lockfile.stages()["train"])["dependencies"]


def run(*commands: str) -> None:
    """Does these jobs as their commands would."""
    raw = {"weight": int(Path("params.yaml").read_text().split()[1])}
    for command in commands:
        with manifest.job(command, raw):
            if command == TRAIN:
                Path("run").mkdir(exist_ok=True)
                Path("run/metrics").write_text(f"{LOSS.read_text()} {raw['weight']}")
            else:
                Path("result").write_text("of " + Path("run/metrics").read_text())


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "classroom")
    Repo.init(no_scm=True).close()
    Path(".dvc/config").write_text(f"[core]\n    no_scm = True\n    site_cache_dir = {tmp_path / MEMORY}\n")
    Path("dvc.yaml").write_text(STAGES)
    LOSS.parent.mkdir()
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
    entry = entry.rename(entry.with_name("0" * 64))  # DVC names it by its content
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


# What is hashed truly is what is recorded -------------------------------------------------------------------------


@pytest.mark.parametrize("forgotten", [[], [str(CACHE)]], ids=["both remember", "DVC remembers"])
@pytest.mark.parametrize("under_dvc", [False, True], ids=["by reconcile", "by DVC"])
def test_a_job_is_recorded_as_made_from_what_it_read(
    forgotten: list[str], under_dvc: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edit(weight=2)
    edit_unseen("b")
    for path in forgotten:
        shutil.rmtree(path)
    monkeypatch.setattr(locks, "UNDER_DVC", under_dvc)
    monkeypatch.setattr(locks, "is_dvc", lambda process: True)
    run(TRAIN)
    if under_dvc:
        subprocess.run(["dvc", "commit", "--force", "--quiet", "train"], check=True)
    if not forgotten:
        assert caplog.messages == ["code/loss: has changed while its size and mtime have not; used as it is now"]
    assert reconcile() == {"evaluate"}
    assert recorded() == {"code": content_hash(Path("code"))}


def test_what_contradicts_its_manifest_is_not_recorded(caplog: pytest.LogCaptureFixture) -> None:
    """Neither in dvc.lock nor in the cache, which others may share."""
    edit(weight=2)
    run(TRAIN)
    edit_unseen("b")
    shutil.rmtree(MEMORY)
    cached = {path for path in Path(".dvc/cache").rglob("*") if path.is_file()}
    assert reconcile() == {"train", "evaluate"}
    assert caplog.messages[0].startswith("train: not recorded, as DVC contradicts its manifest: code: ")
    assert {path for path in Path(".dvc/cache").rglob("*") if path.is_file()} == cached


def test_what_changes_while_a_job_runs_is_not_recorded_by_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "UNDER_DVC", True)
    monkeypatch.setattr(locks, "is_dvc", lambda process: True)
    said = rf"^settings or files that `{EVALUATE}` depends on have changed while"
    with pytest.raises(ClassroomError, match=said), manifest.job(EVALUATE, {}):
        Path("run/metrics").write_text("of a training that ends now")


def test_verify_finds_what_has_changed_unseen(caplog: pytest.LogCaptureFixture) -> None:
    edit_unseen("b")
    assert reconcile() == set()
    assert verify() == ["code/loss"]
    assert "code/loss: has changed while its size and mtime have not: what depends on it is stale" in caplog.messages
    assert reconcile() == {"train", "evaluate"}
    run(TRAIN, EVALUATE)
    assert verify() == []


def test_verify_undoes_what_was_recorded_as_made_from_something_else(caplog: pytest.LogCaptureFixture) -> None:
    """As by an older version: of prepared images, whose manifest is no output, and of an image changed unseen."""
    path = graph.load()["evaluate"].manifest
    made = json.loads(path.read_text())
    path.write_text(json.dumps(made | {"dependencies": {"run/metrics": "of another run"}}))
    assert verify() == ["result"]
    assert "result: its manifest names other inputs than dvc.lock (run/metrics: " in caplog.text
    assert reconcile() == {"evaluate"}
    run(EVALUATE)
    assert verify() == []
