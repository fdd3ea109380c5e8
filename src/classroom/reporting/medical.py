"""Metrics of medical imaging: Dice, sensitivity and HD95 per patient; balanced accuracy, AUROC, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from classroom import places
from classroom.artifacts import Result
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.methods.registry import run_folder
from classroom.params import BASELINES
from classroom.reporting.common.drawing import panels, saved, synthetic_mark
from classroom.reporting.common.pages import Drawing, Page, results_page
from classroom.reporting.common.paper import variants
from classroom.reporting.common.provenance import Source
from classroom.reporting.common.results import check_alike, read_results, read_variants
from classroom.reporting.common.tables import (
    BASELINE_LABELS,
    ENSEMBLES,
    NETWORKS,
    TECHNIQUE_LABELS,
    Cell,
    Part,
    csv,
    labelled,
    number,
    variant_label,
)
from classroom.reporting.registry import TABLE, Report, Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {
    "dice": "Dice, %",
    "sensitivity": "sensitivity, %",
    "hd95": "HD95, pixels",
    "balanced_accuracy": "balanced accuracy, %",
    "auroc": "AUROC, %",
}
NAMES = {"segmentation": "per-patient", "classification": "classes"}
"""By task, the end of the report's name."""
DRAWN = {"teacher": "T", "student": "S1"}
"""Of the baselines, the network that the picture shows; of variants the ensemble."""
VALUES = ".values.csv"
"""Suffix of the file with each seed's and group's values."""

OF_MASKS = (
    "- each cell: mean ± sample standard deviation and median over the test {group}s, after averaging each of them "
    "over seeds. Dice and sensitivity are computed from all pixels of a {group} together. HD95 is the mean over its "
    "images of the larger of the two directed 95th-percentile distances between the boundaries of the masks, in "
    "pixels of the resized image, as the pixel spacing is not known",
    "- empty masks are scored as Metrics Reloaded (doi:10.1038/s41592-023-02151-z) recommends: the best value if "
    "ground truth and prediction are both empty (Dice 100, HD95 0), the worst if only one of them is (Dice 0, HD95 "
    "the diagonal of the image). If a {group} has several images, those with both masks empty do not count for HD95. "
    "Sensitivity is undefined without foreground, so it leaves out {group}s that have none (`count` in the .csv)",
)
OF_CLASSES = (
    "- each cell: mean ± sample standard deviation over seeds. Balanced accuracy is the recall averaged over classes; "
    "AUROC is one-vs-rest, averaged over classes. Classes without a test image are left out",
)


class _Row(NamedTuple):
    """One network of a method."""

    result: Result
    network: str
    by_seed: pd.DataFrame
    """A column per metric, in the unit of the table; a row per seed, or per seed and group."""


def medical_report(name: str, scale: str, seeds: Sequence[int], results: Sequence[Result]) -> Page:
    """A row per network of every method, and a picture.

    Of segmentation the metrics of each patient (or other group), their mean, spread and median over patients; of
    classification those of the test split over seeds. Raises DataError for results of other seeds, data or training
    settings than each other.
    """
    check_alike(results, seeds)
    data, study = results[0]["data"], results[0]["study"]
    of_masks = data["task"] == "segmentation"
    measure = _by_group if of_masks else _by_seed
    rows = [_Row(of, network, measure(of, network, seeds)) for of in results for network in _networks(of)]
    records: list[dict[str, Any]] = []
    grid: list[list[str | Cell]] = []
    for row in rows:
        grid.append(_labels(row))
        for metric in row.by_seed:
            record, cell = _summary(row, metric)
            records.append(record)
            grid[-1].append(cell)
    header = ["technique", "strategy", "network", *(METRICS[metric] for metric in rows[0].by_seed)]
    group = data["group"]
    figure = _boxes(rows, group) if of_masks else _confusions(rows, list(data["labels"]))
    about = f"per {group}" if of_masks else "by class"
    title = f"{study} {about}, scale {scale}{synthetic_mark(data['synthetic'])}"
    if any(row.result["method"] in EXCHANGE for row in rows):
        title += "\nvariants: the ensemble of both students"
    figure.suptitle(title, fontsize=9)
    about_data = {"study": study, "scale": scale, "synthetic": data["synthetic"]}
    facts = [fact.format(group=group) for fact in (OF_MASKS if of_masks else OF_CLASSES)]
    return results_page(
        name, f"{study} {about}", scale, seeds, results, variants(""), [*facts, ENSEMBLES],
        parts=[Part(header, grid, grouped=True)], drawing=Drawing(saved(figure), _alt(rows, group)), study=study,
        table=labelled(pd.DataFrame(records), **about_data),
        files={VALUES: csv(labelled(pd.concat(map(_values, rows)), **about_data))},
    )  # fmt: skip


def _networks(result: Result) -> list[str]:
    return [name for name in NETWORKS if name in next(iter(result["seeds"].values()))["test"]]


def _by_group(result: Result, network: str, seeds: Sequence[int]) -> pd.DataFrame:
    """A row per seed and group: Dice and sensitivity of all its pixels (percent), HD95 as the mean of its images."""
    frames = {}
    for seed in seeds:
        of: Any = result["seeds"][str(seed)]
        counts = {key: of["test_images"][network][key] for key in ("tp", "fp", "fn")}
        images = pd.DataFrame(counts | {"hd95": pd.Series(of["hd95"][network], dtype=float)})
        how = dict.fromkeys(counts, "sum") | {"hd95": "mean"}
        group = images.groupby(np.array(of["test_images"]["group"]), sort=False).agg(how)
        dice = (2 * group.tp / (2 * group.tp + group.fp + group.fn)).fillna(1)
        sensitivity = group.tp / (group.tp + group.fn)
        frames[seed] = pd.DataFrame(
            {"dice": 100 * dice, "sensitivity": 100 * sensitivity, "hd95": group.hd95.fillna(0)}
        )
    return pd.concat(frames, names=["seed", "group"])


def _by_seed(result: Result, network: str, seeds: Sequence[int]) -> pd.DataFrame:
    """A row per seed: balanced accuracy and AUROC, in percent."""
    shares = _shares(result, network, seeds)
    aurocs = [result["seeds"][str(seed)]["auroc"][network] for seed in seeds]
    found = {"balanced_accuracy": np.nanmean(np.diagonal(shares, axis1=1, axis2=2), axis=1), "auroc": aurocs}
    return 100 * pd.DataFrame(found, index=pd.Index(seeds, name="seed"), dtype=float)


def _shares(result: Result, network: str, seeds: Sequence[int]) -> np.ndarray:
    """(seeds, true, predicted): which share of each class was predicted as which; NaN for classes without images."""
    classes = len(result["data"]["labels"])
    found = []
    for seed in seeds:
        of: Any = result["seeds"][str(seed)]["test_images"][network]
        pairs = classes * np.array(of["true"]) + np.array(of["predicted"])
        counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
        images = counts.sum(axis=1, keepdims=True)
        found.append(np.divide(counts, images, out=np.full(counts.shape, np.nan), where=images > 0))
    return np.array(found)


def _summary(row: _Row, metric: str) -> tuple[dict[str, Any], Cell]:
    """A metric over patients, each the mean of its seeds, or over seeds: for the .csv and to read."""
    values = row.by_seed[metric]
    one_each = values.groupby(level=-1, sort=False).mean().dropna()
    mean, sd, median = one_each.mean(), one_each.std(ddof=1), one_each.median()
    technique, strategy = _keys(row)
    record: dict[str, Any] = {
        "technique": technique, "strategy": strategy, "network": row.network, "metric": metric, "mean": mean, "sd": sd,
    }  # fmt: skip
    text = "–" if np.isnan(mean) else f"{mean:.2f} ± {number(sd, '.2f')}"
    if values.index.nlevels > 1:
        record |= {"median": median, "count": len(one_each)}
        text += "" if np.isnan(mean) else f", median {median:.2f}"
    runs = {
        run_folder(row.result["study"], row.result["method"], seed).as_posix(): float(of)
        for seed, of in values.groupby(level="seed", sort=False).mean().items()
    }
    what, _, unit = METRICS[metric].partition(", ")
    return record, Cell(text, mean, sources=(Source(f"{what} of {row.network} on the test split", runs, unit=unit),))


def _values(row: _Row) -> pd.DataFrame:
    """Every metric of each seed, and group, with the columns that say which network it is of."""
    technique, strategy = _keys(row)
    keys = {"technique": technique, "strategy": strategy, "network": row.network}
    return row.by_seed.reset_index().assign(**keys)[[*keys, *row.by_seed.index.names, *row.by_seed.columns]]


def _keys(row: _Row) -> tuple[str, str]:
    method = row.result["method"]
    return (EXCHANGE[method].technique, EXCHANGE[method].strategy) if method in EXCHANGE else (method, "")


def _labels(row: _Row) -> list[str | Cell]:
    technique, strategy = _keys(row)
    label = TECHNIQUE_LABELS.get(technique) or BASELINE_LABELS[technique]
    return [f"**{label}**", strategy.upper(), NETWORKS[row.network]]


def _drawn(rows: Sequence[_Row]) -> Iterator[tuple[str, _Row]]:
    """The rows that the picture shows, by label."""
    for row in rows:
        method = row.result["method"]
        if row.network == DRAWN.get(method, "ensemble"):
            yield variant_label(method), row


def _boxes(rows: Sequence[_Row], group: str) -> Figure:
    """Dice of every patient, the mean of its seeds: a box per method, a dot per patient."""
    drawn = {label: row.by_seed.dice.groupby(level=-1).mean() for label, row in _drawn(rows)}
    figure, ((axis,),) = panels((7.2, 3.6), 1, 1, dpi=150)
    axis.boxplot(list(drawn.values()), widths=0.6, showfliers=False, medianprops={"color": "#D55E00"})
    for place, values in enumerate(drawn.values(), start=1):
        axis.plot(np.full(len(values), place), values, "o", color="#0072B2", markersize=2.5, alpha=0.6)
    axis.set_xticks(range(1, len(drawn) + 1), list(drawn), rotation=40, ha="right", fontsize=8)
    axis.set_ylabel(f"Dice of each {group}, %", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.grid(axis="y", alpha=0.25, linewidth=0.5)
    return figure


def _confusions(rows: Sequence[_Row], labels: Sequence[str]) -> Figure:
    """A confusion matrix per method, each row in percent of its class, the mean over seeds."""
    drawn = {
        label: 100 * _shares(row.result, row.network, list(row.by_seed.index)).mean(axis=0)
        for label, row in _drawn(rows)
    }
    across = min(len(drawn), 4)
    down = -(-len(drawn) // across)
    side = 0.9 + 0.2 * len(labels)
    figure, axes = panels((side * across + 0.8, (side + 0.3) * down + 0.6), down, across, dpi=150)
    for axis in axes.flat[len(drawn) :]:
        axis.set_axis_off()
    for axis, (title, shares) in zip(axes.flat, drawn.items(), strict=False):
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (true, predicted), share in np.ndenumerate(shares):
            colour = "white" if share > 50 else "black"
            axis.text(predicted, true, number(share, ".0f"), ha="center", va="center", color=colour, fontsize=6)
        axis.set_title(title, fontsize=8)
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6)
        axis.set_yticks(range(len(labels)), labels, fontsize=6)
    figure.supxlabel("predicted class", fontsize=8)
    figure.supylabel("true class (each row sums to 100 %)", fontsize=8)
    return figure


def _alt(rows: Sequence[_Row], group: str) -> str:
    """The alternative text of the picture."""
    drawn = list(_drawn(rows))
    metric = drawn[0][1].by_seed.columns[0]
    what = f"Boxes of the Dice of every test {group}" if metric == "dice" else "Confusion matrices"
    means = ", ".join(f"{label} {row.by_seed[metric].mean():.1f}" for label, row in drawn)
    return f"{what}, one for each method; for variants, the ensemble of both students. Mean {METRICS[metric]}: {means}."


def draw(request: Request) -> Page:
    folder = Path("results/baselines", request.item["baselines"], request.study)
    alone = read_results([folder / f"{role}.json" for role in BASELINES])
    ours = read_variants(request.study, request.variants)
    return medical_report(request.name, request.scale, request.seeds, [*alone, *ours])


REPORT = Report(
    names=lambda params: {
        f"{study.reports.variants}-{NAMES[study.task]}": {"study": name, "baselines": study.reports.baselines}
        for name, study in params.study.items()
    },
    inputs=lambda params, item: [
        *places.baseline_results_of(params, item["study"]), *places.results_of(params, item["study"]),
    ],
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Tables",
    shows="metrics per patient or class",
    asked_by=("study.{study}.reports.variants",),
    suffixes=(*TABLE, ".png", VALUES),
)  # fmt: skip
