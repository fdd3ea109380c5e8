"""dvc.lock is read and written by stages as DVC reads and writes the whole."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, dumps_yaml, parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from classroom.engines.dvc_lock import edited, parse

TEXT = st.text("ab 'é:#-&*!|>%@`\"\\{[?,\n\t", max_size=8) | st.sampled_from(
    ["", "no", "1e3", "~", "word " * 40, "x" * 200, "a && b *", "- &a"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(datetime.date(2020, 1, 2)) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers(0, 3), inner, max_size=3),
    max_leaves=6,
)
FILES = st.lists(
    st.fixed_dictionaries({"path": TEXT, "hash": st.just("md5"), "md5": TEXT, "size": st.integers(0)}), max_size=2
)
ENTRIES = st.fixed_dictionaries(
    {"cmd": TEXT}, optional={"deps": FILES, "params": st.fixed_dictionaries({"params.yaml": VALUES}), "outs": FILES}
)
NAMES = st.sampled_from(["train", "train@lgg-ml-v1-0", "12", "1.5", "true", "null", "-x", "a.b", "é", "x" * 200])
TWO = {"a": {"cmd": "x"}, "b": {"cmd": "y"}}
STAGES = st.dictionaries(NAMES, ENTRIES, max_size=4)


def content(stages: dict[str, Any]) -> dict[str, Any]:
    return {"schema": "2.0", "stages": stages}


def outcome(what: Callable[[], Any]) -> str:
    """What comes of it, in an order and with types that `==` would pass over; or what is wrong."""
    try:
        return repr(what())
    except YAMLFileCorruptedError as error:
        return f"{error} {error.__cause__}"


def read(text: str, folder: str | Path, parser: Callable[[str, str], Any] = parse_yaml) -> Any:
    path = Path(folder, "dvc.lock")
    path.write_text(text, encoding="utf-8")
    return parse(text, str(path), parser)


@given(versions=st.lists(STAGES, min_size=1, max_size=3))
def test_it_says_what_dvc_reads_in_it(versions: list[dict[str, Any]]) -> None:
    """Whatever of it was read before."""
    with TemporaryDirectory() as folder:
        for stages in versions:
            text = dumps_yaml(content(stages))
            theirs = outcome(lambda: parse_yaml(text, f"{folder}/dvc.lock"))  # noqa: B023
            assert outcome(lambda: read(text, folder)) == theirs  # noqa: B023


LINES = st.sampled_from(
    ["# by hand", "", "---", "...", "%YAML 1.1", "\tx: 1", "  ? a", "  : b", "  - a", "  a: b", "  a:", "   a: b",
     "    a: b", "    b: *a", "    a: &a [1]", "    <<: *a", "    - b", "stages:", "datasets: []", "schema: '1.0'",
     "    cmd: 'x", "    x'", "    [a,", "    b]", "    cmd: |", "      text", "    cmd: 2020-01-02", "    1: 2",
     "    a: b\r", "    cmd: 'x\x85y'", "    cmd: x\x85  b: y", "    cmd: x\u2028  b:\u2028    cmd: y", "<<<<<<< HEAD"]
)  # fmt: skip


@given(stages=STAGES, edits=st.lists(st.tuples(st.integers(0, 40), st.booleans(), LINES), max_size=4))
@example(stages=TWO, edits=[(3, False, "    a: &a [1]"), (6, False, "    b: *a"), (3, True, "    a: &a [2]")])
@example(stages=TWO, edits=[(4, True, "  a:"), (5, True, "    cmd: x")])  # twice, and the same
@example(stages=TWO, edits=[(4, True, "  a:")])  # twice, and one is known
@example(stages=TWO, edits=[(3, True, "    cmd: x\x85  c:\x85    cmd: y")])
def test_an_edited_one_is_understood_or_refused_as_by_dvc(
    stages: dict[str, Any], edits: list[tuple[int, bool, str]]
) -> None:
    with TemporaryDirectory() as folder:
        lines = dumps_yaml(content(stages)).split("\n")
        for place, instead, line in [(0, False, None), *edits]:
            if line is not None:
                place %= len(lines)
                lines[place : place + instead] = [line]
            text = "\n".join(lines)
            theirs = outcome(lambda: parse_yaml(text, f"{folder}/dvc.lock"))  # noqa: B023
            assert outcome(lambda: read(text, folder)) == theirs  # noqa: B023


@example(before={"train": {"cmd": "x"}}, changes=[{}], gone={"train"})
@example(
    before=TWO, changes=[{"b": {"params": {"params.yaml": {"of": value}}}} for value in (1, True, 1.0)], gone=set()
)
@example(before={"a": {"params": {"params.yaml": {"of": 6.804625110536882e17}}}}, changes=[{"b": {}}], gone=set())
@example(before={"a": {"x": 1, "y": 2}}, changes=[{"a": {"y": 2, "x": 1}}], gone=set())
@given(before=st.none() | STAGES, changes=st.lists(STAGES, min_size=1, max_size=3), gone=st.sets(NAMES, max_size=1))
def test_what_is_written_is_read_back(
    before: dict[str, Any] | None, changes: list[dict[str, Any]], gone: set[str]
) -> None:
    """As from a text that DVC writes whole; editing one, DVC spoils digits of large floats that did not change."""
    with TemporaryDirectory() as folder:
        path, expected = Path(folder, "dvc.lock"), dict(before or {})
        if before is not None:
            path.write_text(dumps_yaml(content(before)), encoding="utf-8")
        for stages in changes:
            with edited(path) as now:
                now.setdefault("schema", "2.0")
                entries = now.setdefault("stages", {})
                for same in (entries, expected):
                    for name in gone & set(same):
                        del same[name]
                    same.update(stages)
            whole = dumps_yaml(content(expected))
            assert outcome(lambda: parse_yaml(path.read_text(), path)) == outcome(lambda: parse_yaml(whole, path))  # noqa: B023


@pytest.mark.parametrize(
    "text", ["# by hand\nschema: '2.0'\nstages:\n  a:\n    cmd: x # mine\n", "schema: '2.0'\ndatasets: []\n"]
)
def test_what_someone_wrote_into_it_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(text)
    with edited(path) as now:
        now.setdefault("stages", {})["b"] = {"cmd": "y"}
    assert text.removesuffix("\n") in path.read_text()
    assert parse_yaml(path.read_text(), path)["stages"]["b"] == {"cmd": "y"}


def test_other_parts_of_it_are_written_too(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(dumps_yaml(content({"a": {"cmd": "x"}})))
    with edited(path) as now:
        now["datasets"] = [{"name": "d"}]
    assert parse_yaml(path.read_text(), path) == content({"a": {"cmd": "x"}}) | {"datasets": [{"name": "d"}]}


def test_only_what_changed_is_parsed(tmp_path: Path) -> None:
    """By whichever process, and until the stage changes again."""
    seen: list[str] = []

    def counting(text: str, path: str) -> Any:
        seen.append(text)
        return parse_yaml(text, path)

    stages = {name: {"cmd": f"echo {name}"} for name in "abc"}
    for changed, parsed in (
        ({}, "abc"),
        ({}, ""),
        ({"b": {"cmd": "echo"}}, "b"),
        ({"d": {"cmd": "echo"}}, "d"),
        ({}, ""),
    ):
        stages |= changed
        seen.clear()
        assert read(dumps_yaml(content(stages)), tmp_path, counting) == content(stages)
        assert [[*parse_yaml(text, "")["stages"]] for text in seen] == ([[*parsed]] if parsed else [])


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 1}', "null", "\xff"])
def test_what_is_remembered_may_be_damaged(tmp_path: Path, damage: str) -> None:
    text = dumps_yaml(content({"a": {"cmd": "x"}}))
    remembered = tmp_path / ".classroom" / "dvc.lock.json"
    for _ in range(2):
        assert read(text, tmp_path) == content({"a": {"cmd": "x"}})
        assert len(json.loads(remembered.read_text())) == 1
        remembered.write_text(damage, encoding="latin-1")


def test_nothing_need_be_remembered(tmp_path: Path) -> None:
    """On a disk that is full or read-only; here, where a file is in the way of the folder."""
    (tmp_path / ".classroom").write_text("")
    assert read(dumps_yaml(content(TWO)), tmp_path) == content(TWO)


def test_of_gits_history_nothing_is_remembered(tmp_path: Path) -> None:
    """DVC calls such a file `/dvc.lock`, and `/.classroom` is not ours to make."""
    assert parse(dumps_yaml(content(TWO)), str(tmp_path / "dvc.lock"), parse_yaml) == content(TWO)
    assert not list(tmp_path.iterdir())


def test_an_edit_that_fails_leaves_it_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_text(before := dumps_yaml(content({"a": {"cmd": "x"}})))
    with pytest.raises(KeyError), edited(path) as now:
        del now["stages"]["a"], now["stages"]["b"]
    assert path.read_text() == before
