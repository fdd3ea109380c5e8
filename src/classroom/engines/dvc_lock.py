"""dvc.lock stage by stage: what stayed as it was is neither parsed nor written out anew.

DVC parses all of it at every start, and after every job once more, to write all of it: with 300 trainings these are two
million characters. Here only the stages that changed are parsed and written; the text of the others stays. A text that
DVC would not have written so itself is left to DVC.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from classroom.engines.plan import HIDDEN
from classroom.errors import ClassroomError
from classroom.files import write_json, write_text

LOCK = Path("dvc.lock")

HEAD = "schema: '2.0'\nstages:\n"
STAGE = re.compile(r"  [\w.-][\w.@-]*:\n(?:    .*\n)+")
REFERENCE = re.compile(r"[\s\[{,][&*]\w")
"""An anchor or an alias, which may tie one stage to another."""


def read(path: Path = LOCK) -> Any:
    """What DVC reads in the dvc.lock at `path`. Raises OSError if it cannot be read, ValueError if it is not YAML."""
    return understood(path.read_text(encoding="utf-8"), path)


def understood(text: str, path: Path = LOCK) -> Any:
    """What DVC reads in `text`, which stands in the dvc.lock at `path`. Raises ValueError if it is not YAML."""

    def parser(text: str, path: str) -> Any:
        from dvc.utils.serialize import ParseError, parse_yaml  # half a second, and seldom needed

        try:
            return parse_yaml(text, path)
        except ParseError as error:
            raise ValueError(" ".join(str(error).split())) from error

    return parse(text, str(path), parser)


def parse(text: str, path: str, parser: Callable[[str, str], Any]) -> Any:
    """What `parser` makes of the `text` of the dvc.lock at `path`, but it sees only stages that are new there.

    What it made of the others is in `.classroom/`, beside a file: not of a text that is in git's history alone. Raises
    what `parser` raises.
    """
    pieces = _pieces(text)
    if not pieces or not Path(path).exists():
        return parser(text, path)
    remembered = Path(path).parent / HIDDEN / "dvc.lock.json"
    by_sign = {hashlib.sha256(piece.encode()).hexdigest(): piece for piece in pieces}
    before = _remembered(remembered)
    known = {sign: before.get(sign) for sign in by_sign}
    if new := [sign for sign in by_sign if known[sign] is None]:
        try:
            made = parser("stages:\n" + "".join(by_sign[sign] for sign in new), path)["stages"]
        except Exception:  # which names a line of what it was given
            return parser(text, path)
        if len(made) != len(new) or json.loads(json.dumps(made, default=str)) != made:  # dates; names that are numbers
            return parser(text, path)
        known |= zip(new, made.items(), strict=True)
        with suppress(ClassroomError):  # so it is parsed next time again
            write_json(remembered, known)
    stages = dict(filter(None, known.values()))
    return {"schema": "2.0", "stages": stages} if len(stages) == len(pieces) else parser(text, path)


@contextmanager
def edited(path: Path) -> Iterator[dict[str, Any]]:
    """The content of the dvc.lock at `path`, empty if there is none, to be changed; after that it is written.

    Raises DVC's error if the file is not YAML, ClassroomError if it cannot be written, which is whole or not at all.
    """
    from dvc.utils.serialize import dumps_yaml, parse_yaml, parse_yaml_for_update

    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pieces = _pieces(text)
    if not pieces:
        content = parse_yaml_for_update(text, path)
        yield content
        write_text(path, dumps_yaml(content))
        return
    content = parse(text, str(path), parse_yaml)
    stages = content["stages"]
    before = {name: (repr(stages[name]), piece) for name, piece in zip(stages, pieces, strict=True)}
    yield content
    stages = content["stages"]
    changed = {name: entry for name, entry in stages.items() if name not in before or repr(entry) != before[name][0]}
    rendered = _pieces(dumps_yaml({"schema": "2.0", "stages": changed})) if changed else []
    if stages and content == {"schema": "2.0", "stages": stages} and rendered is not None:
        now = dict(zip(changed, rendered, strict=True))
        after = HEAD + "".join(now[name] if name in now else before[name][1] for name in stages)
    else:
        whole = parse_yaml_for_update(text, path)
        whole.update(content)
        after = dumps_yaml(whole)
    if after != text:
        write_text(path, after)


def _pieces(text: str) -> list[str] | None:
    """The text of each stage; none if the whole is not as DVC writes it."""
    pieces = STAGE.findall(text, len(HEAD))
    return pieces if HEAD + "".join(pieces) == text and not REFERENCE.search(text) else None


def _remembered(path: Path) -> dict[str, tuple[str, Any]]:
    """By the hash of a stage's text, its name and what that text says."""
    try:
        return {sign: (name, entry) for sign, (name, entry) in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
