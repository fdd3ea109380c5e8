"""The grid of Tables 3, 4, 8, 9, 11, 12, 14 and 15: techniques and networks down, strategies across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import STRATEGIES, TECHNIQUES
from classroom.reporting.common.provenance import source
from classroom.reporting.common.tables import (
    GREEK,
    NETWORKS,
    TECHNIQUE_LABELS,
    Cell,
    Part,
    mean_cell,
    mean_sd,
    with_paper,
)

KEYS = ["technique", "strategy", "network", "metric"]
UNCERTAIN = "†"
"""After a paper's value whose place in the printed table is not certain."""


def cells(
    results: Sequence[Result], seeds: Sequence[int], kind: Literal["test", "fidelity"], printed: pd.DataFrame
) -> pd.DataFrame:
    """A row per technique, strategy, network and metric: mean, sd (percent), whether the best strategy.

    Of `kind` test also the last epoch's; where the table is one of the paper's, its values, ours minus them and, if
    that is so of any, whether it is uncertain that they belong there.
    """
    records = []
    for result in results:
        variant = EXCHANGE[result["method"]]
        runs = [result["seeds"][str(seed)] for seed in seeds]
        for network in runs[0][kind]:
            for metric in METRICS[result["data"]["task"]]:
                mean, sd = mean_sd([run[kind][network][metric] for run in runs])
                place = (variant.technique, variant.strategy, network, metric)
                record: dict[str, Any] = {**dict(zip(KEYS, place, strict=True)), "mean": mean, "sd": sd}
                if kind == "test":
                    last_mean, last_sd = mean_sd([run["last_epoch_test"][network][metric] for run in runs])
                    record |= {"last_epoch_mean": last_mean, "last_epoch_sd": last_sd}
                records.append(record | {"seeds": len(seeds)})
    table = pd.DataFrame(records, columns=None if records else [*KEYS, "mean", "sd", "seeds"])
    table["best"] = table["mean"] == table.groupby(["technique", "network", "metric"])["mean"].transform("max")
    if len(printed):
        table = table.merge(printed.rename(columns={"mean": "paper", "sd": "paper_sd"}), how="left", on=KEYS)
        table["difference"] = table["mean"] - table["paper"]
        certain = table.pop("certain")
        if certain.eq(False).any():
            table["uncertain"] = certain.eq(False)
    return table


def by_place(
    results: Sequence[Result], kind: Literal["test", "fidelity"], table: pd.DataFrame
) -> dict[tuple[str, str, str, str], Cell]:
    """Every cell by technique, strategy, network and metric; `table`: as `cells` returns it for these results."""
    of_variant = {result["method"]: result for result in results}
    return {
        (c.technique, c.strategy, c.network, c.metric): _cell(c, of_variant[f"{c.technique}-{c.strategy}"], kind)
        for c in table.itertuples()
    }


def layout(
    results: Sequence[Result], kind: Literal["test", "fidelity"], table: pd.DataFrame, metrics: Sequence[str]
) -> Part:
    """The grid to read: per technique its weights, then a row per network; per strategy a column for each metric."""
    columns = [(strategy, metric) for strategy in STRATEGIES for metric in metrics]
    header = ["technique", "network", *(f"{s.upper()} {LABELS[m]}" for s, m in columns)]
    by_key = by_place(results, kind, table)
    rows = []
    for technique in TECHNIQUES:
        done = [result for result in results if EXCHANGE[result["method"]].technique == technique]
        if not done:
            continue
        weights = {EXCHANGE[result["method"]].strategy: _weights(result["settings"]["weights"]) for result in done}
        name = f"**{TECHNIQUE_LABELS[technique]}**"
        rows.append([name, "weights", *_spread(weights, len(metrics))])
        for network in NETWORKS:
            found = [by_key.get((technique, strategy, network, metric)) for strategy, metric in columns]
            if any(found):
                label = network if network != "ensemble" else "**Ensemble**"
                rows.append([name, label, *(cell or "–" for cell in found)])
    return Part(header, rows, grouped=True)


def _cell(cell: Any, result: Result, kind: Literal["test", "fidelity"]) -> Cell:
    ours = mean_cell(cell.mean, cell.sd, source(result, cell.network, cell.metric, kind), best=cell.best)
    if not hasattr(cell, "paper"):
        return ours
    return with_paper(ours, cell.paper, cell.difference, UNCERTAIN if getattr(cell, "uncertain", False) else "")


def _weights(weights: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"{student}: " + ", ".join(f"{GREEK[name]} {value:g}" for name, value in weights[student].items() if value)
        for student in ("S1", "S2")
    ]


def _spread(weights: dict[str, list[str]], width: int) -> list[str]:
    """`width` cells a strategy: S1's weights under the first metric, S2's under the second, or both under the only."""
    row = []
    for strategy in STRATEGIES:
        texts = weights.get(strategy, ["–", "–"])
        if width == 1:
            texts = ["<br>".join(dict.fromkeys(texts))]
        row += [*texts, *[""] * (width - len(texts))]
    return row
