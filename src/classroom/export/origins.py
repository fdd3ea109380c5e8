"""The origin and licence of known datasets."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

from classroom.artifacts import Data

SYNTHETIC = "MIT, as the program that drew the images"
UNKNOWN = "unknown to this program; ask the provider of the images"


class Origin(NamedTuple):
    """A row of origins.csv. The page in `source` is authoritative."""

    name: str
    images: int
    """Number of images of the complete dataset."""
    licence: str
    licence_id: str
    """In Hugging Face's notation."""
    source: str
    cite: str


def origin(data: Data) -> Origin | None:
    """The origin of a run's `data`; None for synthetic images and datasets that are not the paper's."""
    return None if data["synthetic"] else _known().get(data["dataset"])


def licence(data: Data) -> str:
    """The licence of a run's `data`, in words."""
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
