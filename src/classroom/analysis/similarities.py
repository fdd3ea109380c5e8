"""Writes and reads the file of CKA. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from classroom.artifacts import RunFacts
from classroom.errors import DataError, reading
from classroom.files import written_whole

COLUMNS = ["first", "second", "first_layer", "second_layer", "cka"]
RUN_FACTS: tuple[Literal["study", "method", "seed", "data"], ...] = ("study", "method", "seed", "data")
"""The facts about its run, copied from metrics.json."""


def write(path: Path, table: pd.DataFrame, about: RunFacts) -> None:
    """Writes the result of `analysis.cka.similarities` as Parquet.

    Parameters
    ----------
    path
        the file
    table
        with its `attrs`
    about
        the run's metrics.json
    """
    kept = table.copy()
    kept.attrs = table.attrs | {key: about[key] for key in RUN_FACTS}
    with written_whole(path) as (temporary,):
        kept.to_parquet(temporary, index=False)


def read(path: Path) -> pd.DataFrame:
    """Reads the table of `write`. Raises DataError if the file is missing, damaged or incomplete."""
    again = "Run `classroom cka` for it again."
    with reading(path, again):
        table = pd.read_parquet(path)
        missing = [*{*COLUMNS} - {*table.columns}, *{*RUN_FACTS, "images", "layers", "last"} - table.attrs.keys()]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}. {again}")
    return table


def last_stages(table: pd.DataFrame) -> pd.DataFrame:
    """For every pair of networks, the row of their encoders' last layers."""
    last = table.attrs["last"]
    rows = (table.first_layer == table["first"].map(last)) & (table.second_layer == table["second"].map(last))
    return table[rows].reset_index(drop=True)
