"""The paper's printed numbers, from the data files in `printed/`."""

from __future__ import annotations

import re
from importlib.resources import files

import pandas as pd


def title(name: str) -> str:
    """`Table 4` of `table4`, `Figure 4` of `figure4`; a name that is none of the paper's as it is."""
    found = re.fullmatch(r"(table|figure)([1-9]\d*)", name)
    return f"{found[1].capitalize()} {found[2]}" if found else name


def variants(name: str) -> pd.DataFrame:
    """Rows of a table of variants: technique, strategy, network, metric, mean, sd (percent), certain.

    The metrics of fidelity have the names of the task's, in the paper's order. Empty for a
    table that the paper does not have.
    """
    printed = _table("variants.csv", name)
    return printed.assign(metric=printed.metric.str.removeprefix("fidelity_"))


def networks_and_methods(name: str) -> pd.DataFrame:
    """Rows of Table 2, 10 or 13: dataset, task, name (of a network or method), metric, mean, sd (percent).

    Empty for any other name.
    """
    return _table("baselines-and-methods.csv", name)


def means(printed: pd.DataFrame, dataset: str, task: str, name: str) -> dict[str, float]:
    """By metric the means of a network or method among `printed` rows of `networks_and_methods`."""
    rows = printed[(printed.dataset == dataset) & (printed.task == task) & (printed.name == name)]
    return dict(zip(rows.metric, rows["mean"], strict=True))


def compares(method: str) -> bool:
    """Whether Table 10 has this published method; the weights of any other are its own file's, not a reference's."""
    return method in set(networks_and_methods("table10").name)


def architecture(name: str) -> pd.DataFrame:
    """Rows of Table 6 or 7: layer, output, teacher, student; empty for any other name."""
    return _table("architecture.csv", name)


def parameters(task: str, network: str) -> float:
    """A network's parameters in millions (Secs. 4.2, A.2); not a number where the paper has none.

    For classification they are nearest to the networks of ImageNet, with their 1000 classes: 25.6, 11.7 and 4.2.
    """
    printed = _read("parameters.csv")
    return _only(printed.millions[(printed.task == task) & (printed.name == network)])


def compression(teacher: str, student: str) -> float:
    """Percent of the teacher that two students save (Sec. 4.2); not a number where the paper prints none."""
    printed = _read("compression.csv")
    return _only(printed.percent[(printed.teacher == teacher) & (printed.student == student)])


def network_name(encoder: str) -> str:
    """The paper's name of an encoder: `tu-mobilenetv1_100` is its `mobilenet`, `resnet50.tv_in1k` its `resnet50`."""
    name = encoder.removeprefix("tu-").split(".")[0]
    return "mobilenet" if name.startswith("mobilenetv1") else name


def _table(file: str, name: str) -> pd.DataFrame:
    printed = _read(file)
    found = re.fullmatch(r"table([1-9]\d*)", name)
    return printed[printed.table == (int(found[1]) if found else None)].drop(columns="table").reset_index(drop=True)


def _only(values: pd.Series) -> float:
    return float(values.iloc[0]) if len(values) else float("nan")


def _read(name: str) -> pd.DataFrame:
    with (files("classroom.reporting.common") / "printed" / name).open(encoding="utf-8") as file:
        return pd.read_csv(file)
