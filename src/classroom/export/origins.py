"""Where a dataset's images come from and under which licence, as far as this program knows."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

from classroom.artifacts import Data

SYNTHETIC = "MIT, as the program that drew the images"
UNKNOWN = "not known to this program; ask where the images are from"


class Origin(NamedTuple):
    """A row of origins.csv. The page in `source` decides if it says something else today."""

    name: str
    images: int
    """Of the complete original."""
    licence: str
    licence_id: str
    """As Hugging Face names it."""
    source: str
    cite: str


def origin(data: Data) -> Origin | None:
    """Of the images that a run's `data` describe; None for synthetic ones and for a dataset that is not the paper's."""
    return None if data["synthetic"] else _known().get(data["dataset"])


def licence(data: Data) -> str:
    """Of the images that a run's `data` describe, in words."""
    if data["synthetic"]:
        return SYNTHETIC
    known = origin(data)
    return known.licence if known else UNKNOWN


def _known() -> dict[str, Origin]:
    with (files("classroom.export") / "origins.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["dataset"]: Origin(
                row["name"], int(row["images"]), row["licence"], row["licence_id"], row["from"], row["cite"]
            )
            for row in csv.DictReader(file)
        }
