"""A study's training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.errors import reading
from classroom.methods.registry import run_folder
from classroom.reporting.common import heading
from classroom.reporting.common.drawing import label_panels, saved, synthetic_mark, variant_panels
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.results import read_variants
from classroom.reporting.common.tables import NETWORKS, variant_label
from classroom.reporting.registry import Report, Request, of_studies

COLOURS = {"T": "#000000", "S1": "#0072B2", "S2": "#E69F00", "ensemble": "#009E73"}
MARKS = {"T": ":", "S1": "-", "S2": "--", "ensemble": "-."}
"""Line styles, so that networks differ without Okabe and Ito's colours too."""


def read_curves(runs: Mapping[str, Mapping[int, Path]], metric: str) -> pd.DataFrame:
    """A row per variant, seed, network and epoch: the validation `metric` in percent, and the weighted loss.

    `runs`: by variant and seed the run's folder. Raises DataError if a history is missing or damaged.
    """
    frames = []
    for variant, seed, folder in ((variant, *of) for variant, folders in runs.items() for of in folders.items()):
        path = folder / "history.csv"
        with reading(path, "Train this run again."):
            history = pd.read_csv(path)
            columns = {name: f"val/{name}/{metric}" for name in NETWORKS if f"val/{name}/{metric}" in history}
            if not columns or "epoch" not in history:
                raise ValueError(f"it lacks the columns epoch and val/…/{metric}")
        loss = history.filter(regex="^weighted/").sum(axis=1)
        for name, column in columns.items():
            facts = {"variant": variant, "seed": seed, "network": name, "epoch": history.epoch}
            frames.append(pd.DataFrame({**facts, metric: 100 * history[column], "loss": loss}))
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
    """A panel per variant: each network's validation metric over epochs, a line per seed, a dot at the best epoch."""
    data = results[0]["data"]
    metric = METRICS[data["task"]][0]
    title = f"Validation {LABELS[metric]} over epochs, {study}"
    figure, axes = variant_panels(f"{title}, scale {scale}{synthetic_mark(data['synthetic'])}", set(table.variant))
    low, high = table[metric].min(), table[metric].max()
    for variant, axis in axes.items():
        of = table[table.variant == variant]
        for name in NETWORKS:
            for seed, line in of[of.network == name].groupby("seed"):
                label = name if seed == of.seed.min() else None
                axis.plot(line.epoch, line[metric], MARKS[name], color=COLOURS[name], linewidth=1, label=label)
                best = line.loc[line[metric].idxmax()]
                axis.plot(best.epoch, best[metric], "o", color=COLOURS[name], markersize=2.5)
        axis.set_ylim(low - 2, high + 2)
        axis.xaxis.get_major_locator().set_params(integer=True)
    label_panels(figure, "epoch", f"{LABELS[metric]}, %")
    reached = ensembles(table)
    best = reached.groupby("variant", sort=False).ensemble.max()
    networks = ", ".join(name for name in NETWORKS if name in set(table.network))
    alt = (
        f"Panels of curves, one for each variant: {LABELS[metric]} on validation of {networks} "
        f"over {table.epoch.nunique()} epochs, a line for each seed, a dot at its best epoch. The ensembles reach "
        f"{best.min():.1f} to {best.max():.1f} %, the most with {variant_label(best.idxmax())}."
    )
    disclaimer = heading.disclaimer(scale, [data], shows_paper=False)
    runs = table[["variant", "seed"]].drop_duplicates().itertuples(index=False)
    return Page(
        title, disclaimer, drawing=Drawing(saved(figure), alt), study=study, table=reached,
        made_from=[run_folder(study, *run).as_posix() for run in runs],
    )  # fmt: skip


def draw(request: Request) -> Page:
    study = request.study
    results = read_variants(study, request.variants)
    runs = {name: {seed: run_folder(study, name, seed) for seed in request.seeds} for name in request.variants}
    return curves(study, read_curves(runs, METRICS[results[0]["data"]["task"]][0]), results, request.scale)


REPORT = Report(
    names=lambda params: of_studies(params, lambda study: f"curves-{study}"),
    inputs=lambda params, item: [
        *places.all_runs_of(params, item["study"]), *places.results_of(params, item["study"]),
    ],
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Diagnostics",
    shows="training curves",
    suffixes=(".png", ".csv"),
)  # fmt: skip
