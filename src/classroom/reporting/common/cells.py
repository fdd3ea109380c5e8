"""The grid of Tables 3, 4, 8, 9, 11, 12, 14 and 15: a row per technique and network, columns per strategy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from classroom.artifacts import Result
from classroom.core.ensemble import STUDENTS
from classroom.core.metrics import LABELS
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import STRATEGIES, TECHNIQUES
from classroom.reporting.common.provenance import Kind, source
from classroom.reporting.common.tables import (
    NETWORKS,
    TECHNIQUE_LABELS,
    Cell,
    Part,
    in_greek,
    measured,
    percent_cell,
)  # fmt: skip

KEYS = ["technique", "strategy", "network", "metric"]
ABSENT = "–: this variant is not among `variants` in params.yaml, so it is not trained."
UNCERTAIN = "†"
"""After a paper's value whose place in the printed table is not certain."""


def cells(results: Sequence[Result], seeds: Sequence[int], kind: Kind, printed: pd.DataFrame) -> pd.DataFrame:
    """A row per technique, strategy, network and metric: mean, sd (percent), whether the best strategy.

    Also what else `measured` returns; where the table is one of the paper's, its values, ours minus them and, if
    that is so of any, whether it is uncertain that they belong there.
    """
    records = []
    for result in results:
        variant = EXCHANGE[result["method"]]
        for network in result["seeds"][str(seeds[0])][kind]:
            keys = {"technique": variant.technique, "strategy": variant.strategy, "network": network}
            records += [keys | record | {"seeds": len(seeds)} for record in measured(result, network, seeds, kind)]
    table = pd.DataFrame(records, columns=None if records else [*KEYS, "mean", "sd", "seeds"])
    strategies = table.groupby(["technique", "network", "metric"])["mean"]
    table["best"] = (table["mean"] == strategies.transform("max")) & (strategies.transform("size") > 1)
    if len(printed):
        table = table.merge(printed.rename(columns={"mean": "paper", "sd": "paper_sd"}), how="left", on=KEYS)
        table["difference"] = table["mean"] - table["paper"]
        certain = table.pop("certain")
        if certain.eq(False).any():
            table["uncertain"] = certain.eq(False)
    return table


def by_place(results: Sequence[Result], kind: Kind, table: pd.DataFrame) -> dict[tuple[str, ...], Cell]:
    """Every cell by technique, strategy, network and metric; `table`: as `cells` returns it for these results."""
    of_variant = {result["method"]: result for result in results}
    found = {}
    for record in table.to_dict("records"):
        technique, strategy, network, metric = place = tuple(record[key] for key in KEYS)
        origin = source(of_variant[f"{technique}-{strategy}"], network, metric, kind)
        mark = UNCERTAIN if record.get("uncertain") else ""
        found[place] = percent_cell(record, origin, best=record["best"], mark=mark)
    return found


def layout(results: Sequence[Result], kind: Kind, table: pd.DataFrame, metrics: Sequence[str]) -> Part:
    """The printed grid: a row for each technique and network, a column for each strategy and metric."""
    columns = [(strategy, metric) for strategy in STRATEGIES for metric in metrics]
    header = ["technique", "network", *(f"{s.upper()} {LABELS[m]}" for s, m in columns)]
    by_key = by_place(results, kind, table)
    rows = []
    for technique in TECHNIQUES:
        name = f"**{TECHNIQUE_LABELS[technique]}**"
        for network, label in NETWORKS.items():
            found = [by_key.get((technique, strategy, network, metric)) for strategy, metric in columns]
            if any(found):
                rows.append([name, label, *(cell or "–" for cell in found)])
    below = [ABSENT] if any("–" in row for row in rows) else []
    return Part(header, rows, below=below, grouped=True)


def loss_weights(results: Sequence[Result]) -> Part:
    """The weights of both students' losses: a row per technique and student, a column per strategy."""
    weights = {result["method"]: result["settings"]["weights"] for result in results}
    rows = []
    for technique in TECHNIQUES:
        of = [weights.get(f"{technique}-{strategy}") for strategy in STRATEGIES]
        if any(of):
            name = f"**{TECHNIQUE_LABELS[technique]}**"
            rows += [[name, student, *(in_greek(one[student]) if one else "–" for one in of)] for student in STUDENTS]
    header = ["technique", "network", *(strategy.upper() for strategy in STRATEGIES)]
    return Part(
        header, rows, title="Loss weights", grouped=True,
        above=["α weights the task loss, β distillation from the teacher, γ mutual learning with the other student."],
    )  # fmt: skip
