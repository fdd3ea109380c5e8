"""A study's training curves, and the agreement of its students with their teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from classroom import places
from classroom.artifacts import Data, Result
from classroom.core.metrics import LABELS, METRICS
from classroom.errors import DataError
from classroom.methods.names import run_folder
from classroom.params import STRATEGIES, TECHNIQUES, select
from classroom.reporting.common import heading
from classroom.reporting.common.drawing import png
from classroom.reporting.common.pages import Drawing, Page, write_picture
from classroom.reporting.common.results import read_variants
from classroom.reporting.common.tables import NETWORKS, csv, variant_label
from classroom.reporting.registry import Item, Report, of_studies

COLOURS = {"T": "#000000", "S1": "#0072B2", "S2": "#E69F00", "ensemble": "#009E73"}
MARKS = {"T": ":", "S1": "-", "S2": "--", "ensemble": "-."}
"""Line styles, so that networks differ without Okabe and Ito's colours too."""


def read_curves(runs: Mapping[str, Mapping[int, Path]], metric: str) -> pd.DataFrame:
    """A row per variant, seed, network and epoch: the validation `metric` in percent, and the weighted loss.

    `runs`: by variant and seed the run's folder. Raises DataError if a history is missing or damaged.
    """
    frames = []
    for variant, folders in runs.items():
        for seed, folder in folders.items():
            path = folder / "history.csv"
            try:
                history = pd.read_csv(path)
                columns = {
                    name: history[f"val/{name}/{metric}"] for name in NETWORKS if f"val/{name}/{metric}" in history
                }
                if not columns or "epoch" not in history:
                    raise ValueError(f"no epoch and val/…/{metric} in it")
            except (OSError, ValueError, pd.errors.ParserError) as error:
                raise DataError(f"{path}: cannot be read ({error}). Train this run again.") from None
            loss = history[[name for name in history if name.startswith("weighted/")]].sum(axis=1)
            frames += [
                pd.DataFrame(
                    {"variant": variant, "seed": seed, "network": name, "epoch": history.epoch, metric: 100 * values,
                     "loss": loss}
                )
                for name, values in columns.items()
            ]  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def ensembles(table: pd.DataFrame) -> pd.DataFrame:
    """A row per variant and epoch: the ensemble's validation metric, mean over seeds. What `dvc plots show` draws.

    Ends where the first seed was stopped early: a mean over fewer seeds would jump.
    """
    (metric,) = set(table.columns) - {"variant", "seed", "network", "epoch", "loss"}
    both = table[table.network == "ensemble"]
    last = both.groupby(["variant", "seed"]).epoch.max().groupby("variant").min()
    of = both[both.epoch <= both.variant.map(last)].groupby(["variant", "epoch"], sort=False)
    return of[[metric, "loss"]].mean().rename(columns={metric: "ensemble"}).reset_index()


def curves(study: str, table: pd.DataFrame, results: Sequence[Result], scale: str) -> Page:
    """A panel per variant: each network's validation metric over the epochs, a line per seed; a dot at the best."""
    data = results[0]["data"]
    metric = METRICS[data["task"]][0]
    title = f"Validation {LABELS[metric]} over epochs, {study}"
    figure, panels = _panels(f"{title}, scale {scale}{_synthetic(data)}")
    low, high = table[metric].min(), table[metric].max()
    for (technique, strategy), axis in panels.items():
        of = table[table.variant == f"{technique}-{strategy}"]
        for name in NETWORKS:
            for seed, line in of[of.network == name].groupby("seed"):
                label = name if seed == of.seed.min() else None
                axis.plot(line.epoch, line[metric], MARKS[name], color=COLOURS[name], linewidth=1, label=label)
                best = line.loc[line[metric].idxmax()]
                axis.plot(best.epoch, best[metric], "o", color=COLOURS[name], markersize=2.5)
        axis.set_ylim(low - 2, high + 2)
        axis.xaxis.get_major_locator().set_params(integer=True)
        if of.empty:
            axis.set_axis_off()
    _labelled(figure, panels, "epoch", f"{LABELS[metric]}, %")
    best = ensembles(table).groupby("variant", sort=False).ensemble.max()
    alt = (
        f"Panels of curves, a technique a row, a strategy a column: {LABELS[metric]} on validation of {_listed(table)} "
        f"over {table.epoch.nunique()} epochs, a line for each seed, a dot at its best epoch. The ensembles reach "
        f"{best.min():.1f} to {best.max():.1f} %, the most with {variant_label(best.idxmax())}."
    )
    return Page("curves", title, _disclaimer(scale, data), drawing=Drawing(png(figure), alt), study=study)


def agreement(study: str, results: Sequence[Result], scale: str) -> Page:
    """Agreement of the students with teacher and ground truth: a panel per technique and strategy with a teacher.

    Bars are means over seeds, whiskers the sample standard deviation.
    """
    data = results[0]["data"]
    metric = METRICS[data["task"]][0]
    by_variant = {result["method"]: result for result in results}
    title = f"{LABELS[metric]} with the ground truth and with their own teacher (fidelity), {study}"
    taught = [technique for technique in TECHNIQUES if technique != "ml"]
    figure, panels = _panels(f"{title}, scale {scale}{_synthetic(data)}", taught)
    students = ("S1", "S2", "ensemble")
    places = np.arange(len(students))
    for (technique, strategy), axis in panels.items():
        result = by_variant.get(f"{technique}-{strategy}")
        if result is None:
            axis.set_axis_off()
            continue
        for shift, kind, colour, hatch, label in (
            (-0.2, "test", "#56B4E9", "", "with the ground truth"),
            (0.2, "fidelity", "#D55E00", "//", "with the teacher"),
        ):
            values = 100 * np.array(
                [[run[kind][name][metric] for name in students] for run in result["seeds"].values()]
            )
            spread = values.std(axis=0, ddof=1) if len(values) > 1 else None
            axis.bar(
                places + shift, values.mean(axis=0), 0.38, yerr=spread, color=colour, hatch=hatch, edgecolor="white",
                label=label, error_kw={"linewidth": 0.8},
            )  # fmt: skip
            for place, value in zip(places + shift, values.mean(axis=0), strict=True):
                axis.text(place, value + 1.5, f"{value:.0f}", ha="center", fontsize=6)
        axis.set_xticks(places, students)
        axis.set_ylim(0, 109)
    _labelled(figure, panels, "", f"{LABELS[metric]}, %")
    alt = "Pairs of bars for S1, S2 and the ensemble, a technique with a teacher a row, a strategy a column: "
    alt += f"{LABELS[metric]} with the ground truth and with the teacher. {_agreeing(results, metric)}"
    return Page("agreement", title, _disclaimer(scale, data), drawing=Drawing(png(figure), alt), study=study)


def _agreeing(results: Sequence[Result], metric: str) -> str:
    """The agreement of the ensembles, as a sentence."""
    means = {
        kind: [
            100 * np.mean([run[kind]["ensemble"][metric] for run in result["seeds"].values()])
            for result in results
            if all("ensemble" in run["fidelity"] for run in result["seeds"].values())
        ]
        for kind in ("test", "fidelity")
    }
    if not means["test"]:
        return "None of the trained variants has a teacher."
    ground_truth, teacher = (f"{min(values):.0f} to {max(values):.0f} %" for values in means.values())
    return f"The ensembles agree with the ground truth at {ground_truth}, with their teacher at {teacher}."


def _disclaimer(scale: str, data: Data) -> str:
    return heading.disclaimer(scale, [data], shows_paper=False)


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(name for name in NETWORKS if name in set(table.network))


def _panels(title: str, techniques: Sequence[str] = TECHNIQUES) -> tuple[Figure, dict[tuple[str, str], Any]]:
    """A row of panels per technique, a column per strategy."""
    figure = Figure(figsize=(7.2, 1.55 * len(techniques) + 0.9), layout="constrained", dpi=150)
    axes = figure.subplots(len(techniques), len(STRATEGIES), squeeze=False, sharex=True, sharey=True)
    panels = {}
    for row, technique in zip(axes, techniques, strict=True):
        for axis, strategy in zip(row, STRATEGIES, strict=True):
            panels[technique, strategy] = axis
            axis.set_title(variant_label(f"{technique}-{strategy}"), fontsize=8)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.25, linewidth=0.5)
            axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=9)
    return figure, panels


def _labelled(figure: Figure, panels: Mapping[tuple[str, str], Any], across: str, up: str) -> None:
    labelled: dict[str, Any] = {}
    for axis in panels.values():
        handles, labels = axis.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=len(labelled), fontsize=8, frameon=False
    )
    for (technique, _), axis in panels.items():
        if technique == list(panels)[-1][0]:
            axis.set_xlabel(across, fontsize=8)
    figure.supylabel(up, fontsize=8)


def _synthetic(data: Data) -> str:
    return " – SYNTHETIC images" if data["synthetic"] else ""


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study, seeds = item["study"], select(settings, "seeds", list[int])
    results = read_variants(settings, study)
    runs = {one["method"]: {seed: run_folder(study, one["method"], seed) for seed in seeds} for one in results}
    table = read_curves(runs, METRICS[results[0]["data"]["task"]][0])
    page = curves(study, table, results, select(settings, "scale", str))
    write_picture(Path("reports", f"{name}.png"), page, csv=csv(ensembles(table)))


REPORT = Report(
    names=lambda params: of_studies(params, lambda study: f"curves-{study}"),
    inputs=lambda params, item: [
        *places.all_runs_of(params, item["study"]), *places.results_of(params, item["study"]),
    ],
    make=make,
    category="Diagnostics",
    shows="training curves",
    endings=(".png", ".csv"),
)  # fmt: skip
