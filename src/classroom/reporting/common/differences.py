"""Significance of the differences between methods, as a part of a table and as columns of its .csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.evaluation import significance
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.common.provenance import source
from classroom.reporting.common.tables import Cell, Part, number, variant_label


def compared(
    results: Sequence[Result], seeds: Sequence[int], pairs: Sequence[tuple[str, str]]
) -> list[significance.PairedDifference]:
    """`significance.paired_bootstrap`; p is NaN if there are too few groups for a test."""
    found = significance.paired_bootstrap(results, seeds, pairs)
    if significance.group_count(results[0]) >= significance.FEW_GROUPS:
        return found
    return [one._replace(p=math.nan, adjusted_p=math.nan) for one in found]


def tested(
    differences: Sequence[significance.PairedDifference], between: str, seeds: Sequence[int], results: Sequence[Result]
) -> Part:
    """A row for each difference, with interval, p and verdict.

    Parameters
    ----------
    differences
        as `compared` returns them
    between
        which methods they are, for the title
    seeds
        of the results
    results
        of all methods that were compared, of one study
    """
    data, groups = results[0]["data"], significance.group_count(results[0])
    group, metric = data["group"], METRICS[data["task"]][0]
    of_method = {result["method"]: result for result in results}
    rows = [
        [
            _label(of_method[one.method]), _label(of_method[one.versus]), _difference(one, metric, of_method),
            f"{number(100 * one.low, '+.2f')} to {number(100 * one.high, '+.2f')}",
            *(number(p, ".4f") for p in (one.p, one.adjusted_p)),
            _verdict(one, results),
        ]
        for one in differences
    ]  # fmt: skip
    caveats = []
    if groups < significance.FEW_GROUPS:
        caveats.append(
            f"Only {groups} test {group}{'s' if groups != 1 else ''}: with so few, intervals are too narrow. A test "
            f"needs at least {significance.FEW_GROUPS}."
        )
    if len(seeds) == 1:
        caveats.append("One seed only: these intervals do not include the variation between seeds.")
    drawn = f"{group}s of the test split" + (", and seeds," if len(seeds) > 1 else "")
    return Part(
        ["first", "second", "difference", "95 % interval", "p", "adjusted p", "the first is"],
        rows,
        title=f"Significance of the differences between {between}",
        above=[
            f"Difference: {LABELS[metric]} of the first minus that of the second, in percentage points, on the same "
            f"test images and seeds. Paired bootstrap: {drawn} were resampled with replacement "
            f"{significance.REPLICATES} times, identically for both. The interval is a percentile interval, p is "
            f"two-sided, and the adjusted p is corrected for these {len(rows)} comparisons (Holm).",
            *([f"**{' '.join(caveats)}**"] if caveats else []),
        ],
        grouped=True,
    )


def columns(one: significance.PairedDifference, prefix: str, results: Sequence[Result]) -> dict[str, Any]:
    """A difference in percentage points, its interval, p and verdict, by names that begin with `prefix`."""
    figures = {key: 100 * getattr(one, key) for key in ("difference", "low", "high")}
    figures |= {"p": one.p, "adjusted_p": one.adjusted_p, "verdict": _verdict(one, results)}
    return {f"{prefix}_{key}": value for key, value in figures.items()}


def _difference(one: significance.PairedDifference, metric: str, of_method: dict[str, Result]) -> Cell:
    sources = [source(of_method[name], significance.network_of(name), metric) for name in (one.method, one.versus)]
    return Cell(number(100 * one.difference, "+.2f"), 100 * one.difference, sources=(*sources,))


def _label(result: Result) -> str:
    if published := result["settings"].get("published"):
        return published["label"]
    label = variant_label(result["method"])
    return f"{label} (ensemble)" if result["method"] in EXCHANGE else label


def _verdict(one: significance.PairedDifference, results: Sequence[Result]) -> str:
    """In words, what the first is; without a verdict if there are too few groups for one."""
    return f"too few {results[0]['data']['group']}s for a test" if math.isnan(one.p) else one.verdict
