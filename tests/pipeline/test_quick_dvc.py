"""DVC's command as it is installed here gives the answers of DVC untouched, and does less for them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classroom.engines.quick_dvc import quick

QUICK = [sys.executable, "-c", "import sys; from classroom.engines.quick_dvc import main; sys.exit(main())"]
UNTOUCHED = [sys.executable, "-m", "dvc"]
STAGES = 4
PIPELINE = f"""
stages:
  first: {{cmd: echo 1 > first, params: [power.of, 'shapes'], deps: [source], outs: [first]}}
  next:
    matrix: {{item: [{", ".join(map(str, range(STAGES)))}]}}
    cmd: cp first next-${{item.item}}
    params: [power.of, "power.to.0", names]
    deps: [first]
    outs: ["next-${{item.item}}"]
"""
PARAMS = "power: {of: 2, to: [3, 4]}\nshapes: {a: [1, 2.5], b: null, on: yes}\nnames: [x, 'y']\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from dvc.repo import Repo

    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    Repo.init(no_scm=True).close()
    (root / "dvc.yaml").write_text(PIPELINE)
    (root / "params.yaml").write_text(PARAMS)
    (root / "source").write_text("s")
    return root


def answers(root: Path) -> list[Any]:
    """What DVC says of the tree before and after, and what it did between."""
    from dvc.repo import Repo

    with contextlib.chdir(root):
        before = Repo().status()
        done = [stage.addressing for stage in Repo().reproduce()]
        return [before, done, Repo().status(), Repo().params.show()]


def complaint(root: Path) -> list[tuple[type, str]]:
    """With its causes."""
    from dvc.exceptions import DvcException

    with pytest.raises(DvcException) as raised:
        answers(root)
    error, causes = raised.value, []
    while error:
        causes.append((type(error), str(error)))
        error = error.__cause__
    return causes


def run(dvc: list[str], *arguments: str) -> str:
    return subprocess.run([*dvc, *arguments], check=True, capture_output=True, text=True).stdout


def test_the_command_dvc_is_this_one() -> None:
    """Not so where DVC was installed after classroom: `make table4` installs them in order."""
    (command,) = [each for each in entry_points(group="console_scripts", name="dvc") if "classroom" in each.value]
    assert command.value.split(":")[0] in Path(sys.executable).with_name("dvc").read_text()


def test_same_answers_whatever_changes(project: Path) -> None:
    steps = {
        "new": ("source", "s", 1 + STAGES),
        "a setting": ("params.yaml", PARAMS.replace("of: 2", "of: 3"), 1 + STAGES),
        "an item of a list": ("params.yaml", PARAMS.replace("of: 2, to: [3, 4]", "of: 3, to: [5, 4]"), STAGES),
        "no setting of theirs": ("params.yaml", PARAMS.replace("of: 2, to: [3, 4]", "of: 3, to: [5, 6]"), 0),
        "a file": ("source", "t", 1),
        "an output": ("next-3", "spoilt", 1),
    }
    for number, (what, (name, text, affected)) in enumerate(steps.items()):
        (project / name).write_text(text)
        twin = shutil.copytree(project, project.parent / f"twin-{number}")
        untouched = answers(twin)
        with quick():
            assert answers(project) == untouched, what
        assert len(untouched[1]) == affected, what
        assert (project / "dvc.lock").read_text() == (twin / "dvc.lock").read_text()
        assert not any(json.loads((project / ".dvc/tmp/rwlock").read_text()).values()), "a lock is left"
    assert run(QUICK, "status") == run(UNTOUCHED, "status") == "Data and pipelines are up to date.\n"
    assert run(QUICK, "repro") == run(UNTOUCHED, "repro")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("params.yaml", "power: [", "unable to read: 'params.yaml'"),
        ("params.yaml", "power: {of: 2}", "missing"),
        ("dvc.lock", "schema: '2.0'\nstages: [", "unable to read: 'dvc.lock'"),
        ("dvc.yaml", "stages: {first: {}}", "dvc.yaml' validation failed"),
        ("dvc.yaml", PIPELINE.replace("deps: [first]", "deps: [dvc.yaml]"), "cannot be a dependency"),
        ("dvc.yaml", PIPELINE.replace("deps: [source]", "deps: [elsewhere]"), "No such file or directory"),
    ],
)
def test_same_complaints(project: Path, name: str, text: str, said: str) -> None:
    (project / name).write_text(text)
    untouched = complaint(project)
    with quick():
        assert complaint(project) == untouched
    assert said in str(untouched)


def test_a_no_op_parses_each_file_once_and_takes_each_lock_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ruamel.yaml
    from dvc import rwlock
    from dvc.repo import Repo

    with Repo() as repo:
        repo.reproduce()
    parsed: list[str] = []
    noted: list[Any] = []
    load, note = ruamel.yaml.YAML.load, rwlock._edit_rwlock
    monkeypatch.setattr(ruamel.yaml.YAML, "load", lambda self, text: parsed.append(text) or load(self, text))
    monkeypatch.setattr(rwlock, "_edit_rwlock", lambda *arguments: noted.append(arguments) or note(*arguments))
    with quick(), Repo() as repo:
        assert repo.reproduce() == []
    assert len(parsed) == 4  # dvc.yaml, dvc.lock, and params.yaml under two names
    assert len(noted) == 2 * (STAGES + 1)  # once at the beginning of a stage, once at its end
    parsed.clear()
    noted.clear()
    with quick(), Repo() as repo:
        assert repo.status() == {}
    assert len(parsed) == 3  # dvc.lock is as it was the last time
    assert len(noted) == 2


def test_a_job_that_ends_has_its_own_stage_written_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ruamel.yaml
    from dvc.repo import Repo

    with Repo() as repo:
        repo.reproduce()
    Path("first").unlink()
    Path("source").write_text("t")
    dumped: list[Any] = []
    dump = ruamel.yaml.YAML.dump
    monkeypatch.setattr(
        ruamel.yaml.YAML, "dump", lambda self, data, stream: dumped.append(data) or dump(self, data, stream)
    )
    with quick(), Repo() as repo:
        assert [stage.addressing for stage in repo.reproduce()] == ["first"]
    assert [[*data["stages"]] for data in dumped if "stages" in data] == [["first"]]


def test_other_revisions_are_their_own(project: Path) -> None:
    """`dvc diff`, `dvc exp show`: there a file of the same path is another one, in git and not in the tree."""
    from dvc.repo import Repo

    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
    run(UNTOUCHED, "init", "--force", "--quiet")
    for text in "st":
        Path("source").write_text(text)
        run(UNTOUCHED, "repro")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", text], check=True)
    Path("source").unlink()

    def seen() -> list[Any]:
        with Repo() as repo:
            return [
                (revision or "tree", str(dep), dep.exists, dep.fs.protocol, dep.hash_info.value)
                for revision in repo.brancher(revs=["HEAD~1", "HEAD"])
                for stage in repo.index.stages
                for dep in stage.deps
            ]

    untouched = seen()
    with quick():
        assert seen() == untouched
    assert {exists for _, name, exists, *_ in untouched if name == "source"} == {True, False}
    assert run(QUICK, "diff", "HEAD~1") == run(UNTOUCHED, "diff", "HEAD~1")


def test_paths_lie_where_dvc_finds_them(project: Path) -> None:
    """Here, elsewhere on this machine, on a remote and on another machine."""
    from dvc import output
    from dvc.repo import Repo

    urls = ["a", "b/c-1.x@y", "../d", str(project), "remote://store/e", "file:///f", "http://g/h", "i j", "k:l", "é"]
    with Repo() as repo:
        repo.config["remote"]["store"] = {"url": str(project.parent)}
        untouched = [output.get_cloud_fs(repo.config, url=url) for url in urls]
        with quick():
            assert [output.get_cloud_fs(repo.config, url=url) for url in urls] == untouched
            output.get_cloud_fs(repo.config, url="a")[1]["jobs"] = 1
            assert [output.get_cloud_fs(repo.config, url=url) for url in urls] == untouched
        repo.config["core"]["checksum_jobs"] = 3
        with quick():
            assert output.get_cloud_fs(repo.config, url="a")[1]["checksum_jobs"] == 3


def test_same_answers_of_some_stages(project: Path) -> None:
    """By name, by group, by file; and what `dvc commit` then records."""
    from dvc.repo import Repo

    def said(number: int) -> Any:
        Path("source").write_text(f"{number}")
        with Repo() as repo:
            return [
                lambda: [stage.addressing for stage in repo.reproduce("next@1")],
                lambda: repo.status(["next"]),
                lambda: [stage.addressing for stage in repo.reproduce("first", downstream=True)],
                lambda: [stage.addressing for stage in repo.reproduce("dvc.yaml", single_item=True)],
                lambda: repo.status(["dvc.yaml"]),
                lambda: [stage.addressing for stage in repo.commit("next@2", force=True)],
                lambda: repo.freeze("first").addressing,
                lambda: repo.status(),
            ][number]()

    twin = shutil.copytree(project, project.parent / "twin")
    for number in range(8):
        with contextlib.chdir(twin):
            untouched = said(number)
        with quick():
            assert said(number) == untouched, number
        assert (project / "dvc.lock").read_text() == (twin / "dvc.lock").read_text(), number


def test_what_is_edited_meanwhile_is_read_anew(project: Path) -> None:
    """By whoever waits for a job of `dvc repro`; of the same length too. And nobody shares what was read."""
    from dvc.dependency import param
    from dvc.fs import localfs
    from dvc.repo import Repo

    path = str(project / "params.yaml")
    with quick():
        Repo().reproduce()
        assert Repo().status() == {}
        Path("source").write_text("t")
        assert list(Repo().status()) == ["first"]
        Path("source").write_text("s")
        Path("first").unlink()
        assert set(Repo().status()) == {"first", *(f"next@{item}" for item in range(STAGES))}
        first = param.read_param_file(localfs, path, ["names"], True)
        first["names"].append("z")
        assert param.read_param_file(localfs, path, ["names"], True) == {"names": ["x", "y"]}
        for names in (["w"], ["v"]):
            Path(path).write_text(f"names: {names}\n")
            assert param.read_param_file(localfs, path, ["names"], True) == {"names": names}


NAMES = st.sampled_from(["a", "b", "on", "1", "a*", "?", "[a]"])
SETTINGS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("xy ", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(
    settings=st.dictionaries(NAMES, SETTINGS, max_size=3),
    keys=st.lists(st.lists(NAMES | st.just("0"), min_size=1, max_size=3).map(".".join), min_size=1, max_size=3),
)
def test_keys_are_looked_up_as_dvc_looks_them_up(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any], keys: list[str]
) -> None:
    """Present or not, through lists, and as patterns."""
    from dvc.dependency import param
    from dvc.fs import localfs

    path = str(tmp_path_factory.getbasetemp() / f"settings-{os.getpid()}.json")
    Path(path).write_text(json.dumps(settings))
    untouched = param.read_param_file
    with quick():
        try:
            expected = untouched(localfs, path, keys, True)
        except ValueError:  # a pattern that fits more than one key
            with pytest.raises(ValueError, match="must match only one"):
                param.read_param_file(localfs, path, keys, True)
        else:
            assert list(param.read_param_file(localfs, path, keys, True).items()) == list(expected.items())


def test_locks_hold_against_other_processes_as_before(tmp_path: Path) -> None:
    """Readers side by side; one writer alone; and what is held twice is let go only at the end of the first."""
    from dvc import rwlock
    from dvc.fs import localfs
    from dvc.lock import LockError

    def take(read: list[str], write: list[str]) -> Any:
        return rwlock.rwlock(str(tmp_path), localfs, "here", read, write, False)

    def elsewhere(read: list[str], write: list[str]) -> bool:
        """Whether another process, which lives as long as this one, could take them."""
        monkey = pytest.MonkeyPatch()
        monkey.setattr(os, "getpid", os.getppid)
        try:
            with original(str(tmp_path), localfs, "elsewhere", read, write, False):
                return True
        except LockError:
            return False
        finally:
            monkey.undo()

    original = rwlock.rwlock
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    with quick():
        assert rwlock.rwlock is not original
        with take([a], []):
            assert elsewhere([a], [])
            assert not elsewhere([], [a])
            with take([a], [b]), take([a, b], []), take([b], []):
                assert not elsewhere([b], [])
            assert elsewhere([b], [])
            with take([a], []):
                pass
            assert not elsewhere([], [a])
            with take([], [a]):  # reading becomes writing
                assert not elsewhere([a], [])
            assert elsewhere([a], [])
            assert not elsewhere([], [a])
        assert elsewhere([], [a, b])
        with pytest.raises(KeyError), take([], [a]):
            raise KeyError
        assert elsewhere([], [a])
    assert rwlock.rwlock is original
