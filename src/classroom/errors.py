"""The one exception that users are meant to see."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class ClassroomError(Exception):
    """Something a user can fix. Its text is one paragraph: where, what was expected, how to fix it."""

    def __str__(self) -> str:
        return printable(re.sub(r"\[Errno -?\d+\] ", "", super().__str__()))  # a number that tells a user nothing


class ParamsError(ClassroomError):
    """A setting is missing, misspelt or impossible."""


class DataError(ClassroomError):
    """A dataset, or something made from it, is incomplete or damaged."""


class TrainingError(ClassroomError):
    """A training cannot start or go on."""


class ExportError(ClassroomError):
    """A model cannot be exported, or an exported one cannot be used."""


DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError)
"""What reading raises if a file is missing, not readable, damaged, or not what was expected."""


@contextmanager
def reading(
    path: object, remedy: str, *others: type[Exception], what: str = "", kind: type[ClassroomError] = DataError
) -> Iterator[None]:
    """Makes one error of all that reading a file raises, which ends with the `remedy`, a sentence.

    Parameters
    ----------
    path, what
        for the message: the file and, if not plain, what it is read `as …`
    remedy
        what to do
    others
        errors of a library in addition to DAMAGED
    kind
        the error to raise
    """
    failures: tuple[type[Exception], ...] = (*DAMAGED, *others)
    try:
        yield
    except failures as error:
        absent = isinstance(error, FileNotFoundError) and str(error.filename) == str(path)
        reason = "no such file" if absent else " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{path}: cannot be read{what and f' {what}'} ({reason}). {remedy}") from None


def raise_for(problems: Sequence[str], advice: str = "") -> None:
    """Raises a DataError for all `problems`, each a sentence: the first ten and their number, then the `advice`."""
    if problems:
        count = f" {len(problems)} such problems in total" if len(problems) > 1 else ""
        count += f"; the first {SHOWN} are listed." if len(problems) > SHOWN else "." if count else ""
        raise DataError(" ".join(problems[:SHOWN]) + count + (f" {advice}" if advice else ""))


SHOWN = 10
"""Problems that one message lists."""


def printable(text: str) -> str:
    """What came from a file (a name, a key, a value) can neither break the paragraph nor steer a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def listed(items: Iterable[object], most: int = 10) -> str:
    """`a, b, c`: the first of `items`, and how many there are if that is not all of them."""
    texts = [str(item) for item in items]
    more = f", … ({len(texts)} in all)" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def counted(count: int, what: str) -> str:
    """`1 image`, `2 images`."""
    return f"{count} {what}{'s' if count != 1 else ''}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """` Did you mean …?` with the nearest known word, or else the known words."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(known)}." if known else ""
