"""A study split by image, as in the paper, compared with the same study split by patient, which has no leakage."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.errors import DataError
from classroom.params import STRATEGIES, TECHNIQUES, Params
from classroom.reporting.common import heading, paper
from classroom.reporting.common.cells import KEYS, cells
from classroom.reporting.common.pages import Page
from classroom.reporting.common.provenance import source
from classroom.reporting.common.results import check_alike, read_variants
from classroom.reporting.common.tables import (
    ENSEMBLES,
    NETWORKS,
    TECHNIQUE_LABELS,
    Cell,
    Part,
    labelled,
    number,
    percent_cell,
)
from classroom.reporting.registry import Report, Request


def resplit_table(
    name: str, scale: str, seeds: Sequence[int], pair: tuple[list[Result], list[Result]], table_name: str = ""
) -> Page:
    """The first metric of both studies, second minus first, for every network.

    `table_name`: the table of variants of the first study, whose values in the paper are shown if it is one of the
    paper's. Raises DataError for results of other seeds, data or training than their study's, or for two studies
    of different tasks or training settings.
    """
    for results in pair:
        check_alike(results, seeds)
    first, second = (results[0] for results in pair)
    if first["data"]["task"] != second["data"]["task"]:
        raise DataError(
            f"{first['study']} is {first['data']['task']}, {second['study']} {second['data']['task']}: they cannot "
            f"be compared. Name a study of the same task under resplit.of in studies/{second['study']}.yaml."
        )
    check_alike([first, second], seeds, same_data=False)
    metric = METRICS[first["data"]["task"]][0]
    table = _joined(pair, seeds, metric, table_name)
    shows_paper = "paper" in table

    header = ["technique", "strategy", "network", first["study"], second["study"], "second − first"]
    if shows_paper:
        header.append(f"paper ({paper.title(table_name)})")
    by_method = [{result["method"]: result for result in results} for results in pair]
    grid = []
    for row in table.to_dict("records"):
        sides = [of.get(f"{row['technique']}-{row['strategy']}") for of in by_method]
        sources = [(source(side, row["network"], metric),) if side else () for side in sides]
        cells = [
            percent_cell({"mean": row[f"{which}_mean"], "sd": row[f"{which}_sd"]}, *origin)
            for which, origin in zip(("first", "second"), sources, strict=True)
        ]
        difference = Cell(number(row["difference"], "+.2f"), row["difference"], sources=sources[1] + sources[0])
        of_paper = [number(row["paper"], ".2f")] if shows_paper else []
        labels = [f"**{TECHNIQUE_LABELS[row['technique']]}**", row["strategy"].upper(), NETWORKS[row["network"]]]
        grid.append([*labels, *cells, difference, *of_paper])
    facts = [f"- scale: {scale}"]
    for which, result in (("first", first), ("second", second)):
        facts += [f"- {which}, **{result['study']}**:", *(f"  {line}" for line in heading.data_lines(result))]
    facts += [
        *heading.lines(scale, seeds, [first])[-2:],
        f"- each cell: {LABELS[metric]} in percent, mean ± sample standard deviation over seeds",
        *heading.pooling([metric]),
        ENSEMBLES,
    ]
    part = Part(header, grid, below=_summary(table, first, second), grouped=True)
    synthetic = first["data"]["synthetic"] or second["data"]["synthetic"]
    studies = {"first_study": first["study"], "second_study": second["study"]}
    return Page(
        f"{name}: {first['study']} and {second['study']} side by side",
        heading.disclaimer(scale, [first["data"], second["data"]], shows_paper),
        facts,
        [part],
        table=labelled(table, **studies, scale=scale, synthetic=synthetic),
    )


def _joined(pair: Sequence[list[Result]], seeds: Sequence[int], metric: str, table_name: str) -> pd.DataFrame:
    """A row per technique, strategy and network, in the paper's order; what one study lacks is not a number."""
    halves = [
        table[table.metric == metric].drop(columns=["best", "seeds"]).set_index(KEYS).add_prefix(f"{n}_").reset_index()
        for n, results in zip(("first", "second"), pair, strict=True)
        for table in [cells(results, seeds, "test", paper.variants(""))]
    ]
    table = halves[0].merge(halves[1], how="outer", on=KEYS)
    table["difference"] = table.second_mean - table.first_mean
    if len(printed := paper.variants(table_name)):
        table = table.merge(printed[[*KEYS, "mean"]].rename(columns={"mean": "paper"}), how="left", on=KEYS)
    order = {"technique": TECHNIQUES, "strategy": STRATEGIES, "network": list(NETWORKS)}
    return table.sort_values(list(order), key=lambda column: column.map(order[column.name].index), ignore_index=True)


def _summary(table: pd.DataFrame, first: Result, second: Result) -> list[str]:
    """The mean difference over variants, and what it means where only one split keeps groups together."""
    both = table[table.difference.notna()]
    if not len(both):
        return ["No variant has results in both studies."]
    ensembles = both.difference[both.network == "ensemble"]
    mean = ensembles.mean()
    count = len(ensembles)
    of = "the ensemble of 1 variant" if count == 1 else f"the ensembles of {count} variants"
    lines = [
        f"**Mean difference over {of}: {number(mean, '+.2f')} percentage points** "
        f"(from {number(ensembles.min(), '+.2f')} to {number(ensembles.max(), '+.2f')}; over all networks "
        f"{number(both.difference.mean(), '+.2f')})."
    ]
    splits = [result["data"]["split"]["by"] for result in (first, second)]
    group = first["data"]["group"]
    same = first["data"]["dataset"] == second["data"]["dataset"]
    if same and set(splits) == {"image", "group"} and group != "image":
        optimism = -mean if splits[0] == "image" else mean
        lines.append(
            f"Splitting by image, where images of one {group} may be in different splits, gives results "
            f"{abs(optimism):.2f} points {'higher' if optimism > 0 else 'lower'} than splitting by {group}. "
            "The test splits contain different images, so part of this is chance."
        )
    return lines


def draw(request: Request) -> Page:
    first, second = (read_variants(request.item[key], request.variants) for key in ("of", "study"))
    return resplit_table(request.name, request.scale, request.seeds, (first, second), request.item["table"])


def names(params: Params) -> dict[str, dict[str, str]]:
    return {
        again.report: {"study": name, "of": again.of, "table": params.study[again.of].reports.variants}
        for name, study in params.study.items()
        if (again := study.resplit) and again.of in params.study
    }


REPORT = Report(
    names=names,
    inputs=lambda params, item: [path for key in ("of", "study") for path in places.results_of(params, item[key])],
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Tables",
    shows="split by image and by patient",
    asked_by=("study.{study}.resplit",),
)
