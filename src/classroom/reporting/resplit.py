"""A study split by image, as in the paper, next to the same study without that leak, split by patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.errors import DataError
from classroom.params import STRATEGIES, TECHNIQUES, Params, select
from classroom.reporting.common import heading, paper
from classroom.reporting.common.cells import KEYS, cells
from classroom.reporting.common.pages import Page, write_table
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_variants
from classroom.reporting.common.tables import NETWORKS, TECHNIQUE_LABELS, Cell, Part, mean_cell, number
from classroom.reporting.registry import Item, Report


def resplit_table(
    name: str, scale: str, seeds: Sequence[int], first_results: list[Result],
    second_results: list[Result], target: Path, number_name: str | None = None,
) -> None:  # fmt: skip
    """Writes `target`.md, .csv and .tex: the first metric of both studies, second minus first, for every network.

    `number_name`: the table of variants of the first study, whose values in the paper are shown if it is one of the
    paper's. Raises DataError for results of other seeds, data or training than their study's, or for two studies
    of different tasks or training settings.
    """
    for results in (first_results, second_results):
        check_alike(results, seeds)
    first, second = first_results[0], second_results[0]
    if first["data"]["task"] != second["data"]["task"]:
        raise DataError(
            f"{first['study']} is {first['data']['task']}, {second['study']} {second['data']['task']}: they cannot "
            f"be compared. Name a study of the same task under resplit.of in studies/{second['study']}.yaml."
        )
    check_alike([first, second], seeds, same_data=False)
    metric = METRICS[first["data"]["task"]][0]
    table = _joined(first_results, second_results, seeds, metric, number_name)
    shows_paper = "paper" in table
    printed_title = paper.title(number_name) if number_name else ""

    header = ["technique", "strategy", "network", first["study"], second["study"], "second − first"]
    if shows_paper:
        header.append(f"paper ({printed_title})")
    by_method = [{result["method"]: result for result in results} for results in (first_results, second_results)]
    grid = []
    for row in table.itertuples():
        sides = [of.get(f"{row.technique}-{row.strategy}") for of in by_method]
        sources = [(source(side, row.network, metric),) if side else () for side in sides]
        grid.append(
            [
                f"**{TECHNIQUE_LABELS[row.technique]}**", row.strategy.upper(), row.network,
                mean_cell(row.first_mean, row.first_sd, *sources[0]),
                mean_cell(row.second_mean, row.second_sd, *sources[1]),
                Cell(number(row.difference, "+.2f"), row.difference, sources=sources[1] + sources[0]),
                *([number(row.paper, ".2f")] if shows_paper else []),
            ]
        )  # fmt: skip
    facts = [f"- scale: {scale}"]
    for which, result in (("first", first), ("second", second)):
        facts += [f"- {which}, **{result['study']}**:", *(f"  {line}" for line in heading.data_lines(result))]
    facts += [
        *heading.lines(scale, seeds, [first])[-2:],
        f"- each cell: {LABELS[metric]} in percent, mean ± sample standard deviation over seeds",
    ]
    title = f"{name}: {first['study']} and {second['study']} side by side"
    disclaimer = heading.disclaimer(scale, [first["data"], second["data"]], shows_paper)
    part = Part(header, grid, below=_summary(table, first, second), grouped=True)
    table.insert(0, "first_study", first["study"])
    table.insert(1, "second_study", second["study"])
    table.insert(2, "scale", scale)
    table.insert(3, "synthetic", first["data"]["synthetic"] or second["data"]["synthetic"])
    write_table(target, Page("resplit", title, disclaimer, facts, [part]), table)


def _joined(
    first: list[Result],
    second: list[Result],
    seeds: Sequence[int],
    metric: str,
    number_name: str | None,
) -> pd.DataFrame:
    """A row per technique, strategy and network, in the paper's order; what one study lacks is not a number."""
    nothing = paper.variants("")
    halves = [
        table[table.metric == metric][[*KEYS, "mean", "sd"]].rename(columns={"mean": f"{n}_mean", "sd": f"{n}_sd"})
        for n, results in (("first", first), ("second", second))
        for table in [cells(results, seeds, "test", nothing)]
    ]
    table = halves[0].merge(halves[1], how="outer", on=KEYS)
    table["difference"] = table.second_mean - table.first_mean
    printed = paper.variants(number_name) if number_name else nothing
    if len(printed):
        table = table.merge(printed[[*KEYS, "mean"]].rename(columns={"mean": "paper"}), how="left", on=KEYS)
    order = {"technique": TECHNIQUES, "strategy": STRATEGIES, "network": NETWORKS}
    return table.sort_values(
        list(order), key=lambda column: column.map(order[column.name].index), ignore_index=True
    )  # fmt: skip


def _summary(table: pd.DataFrame, first: Result, second: Result) -> list[str]:
    """The mean difference over variants, and what it means where only one split keeps groups together."""
    both = table[table.difference.notna()]
    if not len(both):
        return ["No variant has results in both studies."]
    ensembles = both.difference[both.network == "ensemble"]
    mean = ensembles.mean()
    lines = [
        f"**Mean difference over {_ensembles(len(ensembles))}: {number(mean, '+.2f')} percentage points** "
        f"(from {number(ensembles.min(), '+.2f')} to {number(ensembles.max(), '+.2f')}; over all networks "
        f"{number(both.difference.mean(), '+.2f')})."
    ]
    splits = [result["data"]["split"]["by"] for result in (first, second)]
    group = first["data"]["group"]
    same = first["data"]["dataset"] == second["data"]["dataset"]
    if same and set(splits) == {"image", "group"} and group != "image":
        optimism = -mean if splits[0] == "image" else mean
        lines.append(
            f"Splitting by image, where images of one {group} fall into different splits, reads "
            f"{abs(optimism):.2f} points {'higher' if optimism > 0 else 'lower'} than splitting by {group}. "
            "The test splits hold different images, so part of this is chance."
        )
    return lines


def _ensembles(count: int) -> str:
    return "the ensemble of 1 variant" if count == 1 else f"the ensembles of {count} variants"


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    results = [read_variants(settings, study) for study in (item["of"], item["study"])]
    scale, seeds = select(settings, "scale", str), select(settings, "seeds", list[int])
    resplit_table(name, scale, seeds, *results, Path("reports", f"{name}.md"), item["table"])


def names(params: Params) -> dict[str, dict[str, str]]:
    return {
        again.report: {"study": name, "of": again.of, "table": params.study[again.of].reports.variants}
        for name, study in params.study.items()
        if (again := study.resplit) and again.of in params.study
    }


REPORT = Report(
    names=names,
    inputs=lambda params, item: [path for key in ("of", "study") for path in places.results_of(params, item[key])],
    make=make,
    category="Tables",
    shows="two splits",
)
