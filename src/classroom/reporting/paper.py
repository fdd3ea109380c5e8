"""The paper's printed numbers, from the data files in `printed/`."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd


def variants(table: int) -> pd.DataFrame:
    """Rows of a table of twelve variants: technique, strategy, network, metric, mean, sd (percent)."""
    printed = _read("variants.csv")
    return printed[printed.table == table].drop(columns="table").reset_index(drop=True)


def baselines(table: int) -> pd.DataFrame:
    """Rows of Table 2 or 13 (or 10): dataset, task, name, metric, mean, sd (percent)."""
    printed = _read("baselines-and-methods.csv")
    return printed[printed.table == table].drop(columns="table").reset_index(drop=True)


def _read(name: str) -> pd.DataFrame:
    with (files("classroom.reporting") / "printed" / name).open() as file:
        return pd.read_csv(file)
