"""The numbers of a report by name: those that come from runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from classroom.errors import ClassroomError
from classroom.params import VARIANTS
from classroom.reporting.common.tables import TECHNIQUE_LABELS

KEYS = {label: name for name, label in TECHNIQUE_LABELS.items()}


def numbers(page: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of a page, as `pages.read_page` returns it, that have sources, by name; one shown twice once.

    A value of one method is named by what it is of: `kd_ml/v3/ensemble/iou`, before it the study where the report is of
    several. Any other, such as a difference, by its place: `kd_ml/v3/ensemble/second-first`.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in page["parts"]:
        for row in part["rows"]:
            for header, cell in zip(part["header"], row, strict=True):
                if isinstance(cell, dict) and cell["sources"]:
                    found.setdefault(_of_what(cell["sources"], page["study"]) or _position(row, header), cell)
    return found


def find(known: Iterable[str], name: str) -> str:
    """The number that `name` names, in full or by some of the words in it, in their order, if no other has them.

    Raises ClassroomError, with what is near, if there is none or more than one.
    """
    known = list(known)
    parts = _parts(name.strip("/").split("/"))
    fitting = [one for one in known if _parts(one.split("/")) == parts]
    fitting = fitting or [one for one in known if _in_order(parts, _parts(one.split("/")))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ClassroomError(f"--cell {name}: matches {len(fitting)} numbers. Choose one: {', '.join(fitting[:6])}.")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Similar: {', '.join(near)}." if near else f"They are named like {known[0]}."
    raise ClassroomError(
        f"--cell {name}: matches none of this report's {len(known)} numbers. {hint} Without --cell, all are listed."
    )


def _of_what(sources: Sequence[Mapping[str, Any]], study: str) -> str:
    """The name of a value of one method's runs; empty for other values."""
    folders = {PurePosixPath(run).parent.parts for source in sources for run in source["values"]}
    if len(sources) > 1 or len(folders) > 1 or not sources[0]["network"]:
        return ""
    _, *path = folders.pop()  # the first says what kind of run it is
    path = path[1:] if path[0] == study else path
    return "/".join(part for part in (*_parts(path), sources[0]["network"], sources[0]["metric"]) if part)


def _position(row: Sequence[Any], header: str) -> str:
    """The words that lead a row, and the header of the column."""
    leading = [cell for cell in row[: next(at for at, cell in enumerate(row) if isinstance(cell, dict))] if cell]
    return "/".join(_plain(text) for text in (*leading, header))


def _plain(text: str) -> str:
    text = text.replace("**", "")
    return KEYS.get(text) or re.sub(r"\W+", "-", text).strip("-").lower()


def _parts(path: Iterable[str]) -> list[str]:
    """A variant's name is technique and strategy."""
    return [part for whole in path for part in (whole.split("-") if whole in VARIANTS else [whole])]


def _in_order(parts: Sequence[str], of: Sequence[str]) -> bool:
    """Whether all `parts` are among `of`, in their order."""
    left = iter(of)
    return all(part in left for part in parts)
