"""What was made before comes back from DVC's cache, and nothing else does. A project of three small stages."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from classroom.engines import graph, lockfile, locks, store
from classroom.engines.freshness import Verdict
from classroom.engines.manifest import record
from classroom.engines.reconcile import reconcile
from classroom.errors import ClassroomError
from classroom.files import write_text
from classroom.state import Hashes

STAGES = """
stages:
  draw: {cmd: draw, deps: [source], params: [seed], outs: [drawn]}
  square: {cmd: square, deps: [drawn], params: [power.of], outs: [squares/square], metrics: [note: {cache: false}]}
  add: {cmd: add, deps: [squares], outs: [sum: {cache: false}]}
"""


class Small:
    """Two settings and a file decide all; `run` is the engine, which does what is stale and refuses to do it twice."""

    def __init__(self) -> None:
        from dvc.repo import Repo

        Repo.init(no_scm=True).close()
        Path("dvc.yaml").write_text(STAGES)
        self.facts = {"source": "a", "seed": 1, "power": 2}
        self.made: set[tuple[str, str]] = set()
        self.edit()

    def edit(self, **facts: object) -> None:
        self.facts |= facts
        Path("source").write_text(str(self.facts["source"]))
        Path("params.yaml").write_text(f"seed: {self.facts['seed']}\npower: {{of: {self.facts['power']}}}\n")

    def contents(self) -> dict[str, dict[str, str]]:
        """What every stage makes, by its outputs."""
        drawn = f"{self.facts['source']} {self.facts['seed']}"
        square = f"{drawn} to the {self.facts['power']}"
        return {
            "draw": {"drawn": drawn},
            "square": {"squares/square": square, "note": f"of {square}"},
            "add": {"sum": f"sum of {square}"},
        }

    def run(self) -> list[str]:
        stale = reconcile()
        ran = [stage.name for stage in graph.load().in_order if stage.name in stale]
        for name in ran:
            contents = self.contents()[name]
            assert (name, str(contents)) not in self.made, "made a second time"
            self.made.add((name, str(contents)))
            for path, text in contents.items():
                Path(path).parent.mkdir(exist_ok=True)
                Path(path).write_text(text)
        store.commit(graph.load()[name] for name in ran)
        return ran

    def is_right(self) -> bool:
        return all(
            Path(path).read_text() == text for outputs in self.contents().values() for path, text in outputs.items()
        )


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Small:
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", "classroom")
    project = Small()
    assert project.run() == ["draw", "square", "add"]
    caplog.clear()
    return project


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_results_are_right_and_nothing_is_made_twice(small: Small, seed: int) -> None:
    """A walk through settings, a source file, and outputs that are deleted or spoilt by hand."""
    choice = random.Random(seed)
    for _ in range(12):
        for key, values in {"source": "ab", "seed": (1, 2), "power": (2, 3)}.items():
            if choice.random() < 0.4:
                small.edit(**{key: choice.choice(values)})
        path = Path(choice.choice(["drawn", "squares/square", "note", "sum"]))
        if choice.random() < 0.3:
            path.write_text("spoilt")
        elif choice.random() < 0.3:
            path.unlink()
        small.run()
        assert small.is_right()
        assert Verdict(Hashes()).changed(graph.load()) == []


def test_it_says_what_it_restored(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    small.edit(power=3)
    assert small.run() == ["square", "add"]
    small.edit(power=2)
    assert reconcile() == set()
    assert caplog.messages == ["restored from DVC's cache: square, add"]
    assert small.is_right()


def test_what_the_cache_lost_is_stale_and_stays_where_it_is(small: Small) -> None:
    """As after `dvc gc`: the run-cache names a result whose files are gone."""
    small.edit(seed=2)
    small.run()
    before = small.contents()
    shutil.rmtree(".dvc/cache/files")
    small.edit(seed=1)
    assert reconcile() == {"draw", "square", "add"}
    assert Path("drawn").read_text() == before["draw"]["drawn"]


def test_other_code_or_settings_never_get_a_saved_result(small: Small) -> None:
    """Neither do later stages, though their own inputs have not changed yet."""
    small.edit(source="c")
    assert reconcile() == {"draw", "square", "add"}
    small.edit(source="a", seed=7)
    assert reconcile() == {"draw", "square", "add"}
    small.edit(seed=1)
    Path("dvc.yaml").write_text(STAGES.replace("cmd: square", "cmd: cube"))
    assert reconcile() == {"square", "add"}


def test_a_record_of_a_run_that_never_was_is_stale(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """Put together by a merge of two branches, or by hand: the outputs are here, but were made from something else."""
    small.edit(power=3)
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(lock.replace("power.of: 2", "power.of: 3"))
    assert reconcile() == {"square", "add"}
    assert caplog.messages == [
        "removed from dvc.lock, as the outputs were made differently; to be made again: square (power.of: 3, made "
        "with 2)"
    ]
    assert small.run() == ["square", "add"]
    assert small.is_right()


def test_a_record_from_elsewhere_is_believed(small: Small) -> None:
    """DVC's run-cache does not come with `dvc pull`, and knows nothing of `dvc commit` on another machine."""
    small.edit(power=3)
    lock = Path("dvc.lock").read_text()
    shutil.rmtree(".dvc/cache/runs")
    Path("dvc.lock").write_text(lock.replace("power.of: 2", "power.of: 3"))
    assert reconcile() == set()


def test_a_run_that_dvc_was_told_not_to_save_is_believed(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """With `--no-run-cache`, after an edit that changes no output: the job's manifest says what it was made from."""
    small.edit(power=3)
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(lock.replace("power.of: 2", "power.of: 3"))
    write_text(graph.load()["square"].manifest, json.dumps(record(lockfile.stages()["square"])))
    assert reconcile() == set()
    assert caplog.messages == []


def test_running_jobs_keep_their_files(small: Small) -> None:
    """Nothing is put in place of what a job is about to write: one by hand, or of a Snakemake that was killed."""
    Path("sum").write_text("being written")
    with locks.one_process("add", "add"):
        assert reconcile() == {"add"}
        assert Path("sum").read_text() == "being written"
    assert reconcile() == set()
    assert small.is_right()


def test_a_damaged_copy_is_not_handed_out(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """DVC does not look into its cache, and would take the copy's content for the result."""
    (copy,) = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file() and path.read_text() == "a 1"]
    copy.chmod(0o644)
    copy.write_text("a 7")
    copy.chmod(0o444)  # what DVC takes for a sign that nobody has changed it
    Path("drawn").unlink()
    assert reconcile() == {"draw", "square", "add"}
    assert caplog.messages == ["drawn: its copy in DVC's cache is damaged, and is removed"]
    assert not Path("drawn").exists()


def test_what_nothing_else_holds_is_kept_before_it_is_replaced(small: Small, caplog: pytest.LogCaptureFixture) -> None:
    """A result edited by hand, tracked or not by DVC's cache; the newest edit stands for older ones."""
    for edit in ("first edit", "second edit"):
        Path("drawn").write_text(edit)
        Path("note").write_text("mine")
        caplog.clear()
        assert reconcile() == set()
        assert caplog.messages[:-1] == [
            f"{path}: neither in dvc.lock nor in DVC's cache; moved to .classroom/replaced/{path} before the saved "
            "result replaces it"
            for path in ("drawn", "note")
        ]
        assert Path(".classroom/replaced/drawn").read_text() == edit
        assert Path(".classroom/replaced/note").read_text() == "mine"
        assert small.is_right()


def test_what_the_cache_holds_or_the_record_names_is_replaced_without_a_word(small: Small) -> None:
    small.edit(power=3)
    small.run()
    small.edit(power=2)
    reconcile()
    assert small.is_right()
    small.edit(power=3)
    saved = small.contents()["square"]["squares/square"]
    (copy,) = [path for path in Path(".dvc/cache/files").rglob("*") if path.is_file() and path.read_text() == saved]
    reconcile()
    copy.unlink()  # as after `dvc gc`, while dvc.lock still names it
    small.edit(power=2)
    assert reconcile() == set()
    assert small.is_right()
    assert not Path(".classroom/replaced").exists()


@pytest.mark.parametrize("kept", [0, 0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("copy", [True, False], ids=["with a copy", "without"])
def test_a_half_written_lock_file_is_fixed(
    small: Small, kept: float, copy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """DVC writes dvc.lock in place, so a kill may leave any part of it."""
    lock = Path("dvc.lock").read_text()
    reconcile()
    if not copy:
        Path(".classroom/backup/dvc.lock").unlink()
    Path("dvc.lock").write_text(lock[: int(kept * len(lock))])
    assert reconcile() == set()
    assert caplog.messages[0].startswith("dvc.lock was half-written or damaged: ")
    assert YAML().load(Path("dvc.lock")) == YAML().load(lock)
    assert small.is_right()


def test_a_merge_conflict_in_the_record_is_left_to_its_user(small: Small) -> None:
    conflict = "<<<<<<< ours\n" + Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(conflict)
    with pytest.raises(ClassroomError, match=r"^dvc\.lock: has conflict markers of a merge\. Take"):
        reconcile()
    assert Path("dvc.lock").read_text() == conflict
