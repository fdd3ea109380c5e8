"""What the figures and the table of CKA share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from classroom.analysis.similarities import read
from classroom.errors import DataError
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.methods.registry import run_folder
from classroom.reporting.registry import Request

Tables = Mapping[str, Sequence[pd.DataFrame]]
"""By variant what `analysis.similarities.read` returned, a table a seed."""

SHARED = ("study", "data", "images", "layers", "last")
"""What all tables of a report must share, in addition to the seeds."""


def read_similarities(request: Request) -> Tables:
    """By variant, the similarities of its layers for every seed."""
    folder = Path("results/cka", request.study)
    return {name: [read(folder / name / f"seed-{seed}.parquet") for seed in request.seeds] for name in request.variants}


def seeds_of(tables: Sequence[pd.DataFrame]) -> list[int]:
    return [table.attrs["seed"] for table in tables]


def runs_of(tables: Tables, teacher: bool) -> list[str]:
    """The folders of the runs behind the tables. `teacher`: T is shown, which where no run trains one is alone."""
    found = {variant: of for variant, of in tables.items() if of}
    first = next(iter(found.values()))
    alone = teacher and any(EXCHANGE[variant].teacher != "trained" for variant in found)
    methods = [*(["teacher"] if alone else []), *found]
    return [
        run_folder(first[0].attrs["study"], method, seed).as_posix() for method in methods for seed in seeds_of(first)
    ]


def first_of(tables: Tables, name: str) -> pd.DataFrame:
    """The first table. Raises DataError unless all are of the same study, images, layers and seeds."""
    if not any(tables.values()):
        raise DataError(f"{name}: there is no CKA of any variant that it shows. Add one of them to variants.")
    first = next(of for of in tables.values() if of)
    for variant, of in tables.items():
        other = [key for key in SHARED if any(table.attrs[key] != first[0].attrs[key] for table in of)]
        if seeds_of(of) != seeds_of(first):
            other.append("seeds")
        if other:
            raise DataError(
                f"{name}: CKA of {variant} differs from that of {next(iter(tables))} in {', '.join(other)}. Run "
                f"`classroom cka {first[0].attrs['study']} {variant}` again with every seed."
            )
    return first[0]
