"""Figures 4, 5, 7 and 9: predictions of the variants on the hardest test images."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from classroom import places
from classroom.core import predictions
from classroom.core.ensemble import STUDENTS, with_ensemble
from classroom.core.metrics import predict_labels
from classroom.errors import DataError, counted
from classroom.files import read_metrics
from classroom.methods.learning_styles.exchange import EXCHANGE, Variant
from classroom.methods.registry import run_folder
from classroom.params import PictureKind
from classroom.reporting.common import heading, paper
from classroom.reporting.common.drawing import (
    GROUND_TRUTH_COLOUR,
    PREDICTION_COLOUR,
    outline,
    panels,
    saved,
    synthetic_mark,
    without_ticks,
)  # fmt: skip
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.tables import TECHNIQUE_LABELS, variant_label
from classroom.reporting.common.tested_images import image_iou, one_of_each_group, rows_and_groups
from classroom.reporting.registry import Report, Request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALLEST = 0.002
"""Smallest fraction of an image that the foreground must cover to be visible in print."""
HEAT = "inferno"
OUTLINE = "#56B4E9"
WIDTH = 7.2
"""Inches: the width of a page's text. The picture is printed at this size, so its type stays readable."""
SMALL, LARGE = 5.5, 7.0
"""Points."""


SHOWN: dict[str, tuple[Callable[[Variant], bool], int, str]] = {
    "all_variants": (lambda variant: True, 3, "students of every variant"),
    "diverse": (lambda variant: variant.strategy == "v3", 4, "students of every technique's V3"),
    "ensembles": (lambda variant: variant.strategy == "v3", 4, "ensembles of every technique's V3"),
    "kd_ml": (lambda variant: variant.technique == "kd_ml", 4, "students of KD + ML"),
}
"""By kind: which variants it shows, how many images, and what it is called."""


class Sample(NamedTuple):
    """A hard test image, and the probabilities ⌊256·p⌋ of every variant's networks."""

    group: str
    image: np.ndarray
    ground_truth: np.ndarray
    mean_iou: float
    probabilities: dict[tuple[str, str], np.ndarray]
    """By variant and network, (H, W)."""


def picture(name: str, kind: str, runs: Mapping[str, Path], prepared: Path, scale: str) -> Page:
    """One picture of a study; `kind` as in `reports.pictures` of its settings.

    `runs`: by variant, the folder of one seed's run. Which images are shown does not depend on the kind: see `hardest`.
    Raises DataError for runs of different test images, if no test image has visible foreground, or if none of the
    variants that the kind shows is trained.
    """
    about = read_metrics(next(iter(runs.values())))
    known = [variant for variant in EXCHANGE if variant in runs]
    shows, count, what = SHOWN[kind]
    shown = [variant for variant in known if shows(EXCHANGE[variant])]
    if not shown:
        raise DataError(
            f"pictures.{name}: none of the variants that '{kind}' shows is trained. Trained: {', '.join(known)}."
        )
    samples = hardest(runs, prepared, count)
    colours = "Heat maps: probability of the foreground from 0 (dark) to 1 (bright); outlined: ground truth"
    if kind == "ensembles":
        colours = "Prediction orange, ground truth blue"
    title = f"{paper.title(name)}: {what} on {about['study']}"
    group = about["data"]["group"]
    each = "" if group == "image" else f", at most one per {group}"
    above = (
        f"{title}, scale {scale}, seed {about['seed']}{synthetic_mark(about['data']['synthetic'])}"
        f"\nThe hardest test images{each}: those with the lowest mean IoU of {counted(len(known), 'ensemble')}. "
        f"{colours}. Below each panel: IoU, %."
    )
    networks = ("ensemble",) if kind == "ensembles" else STUDENTS
    alt = (
        f"{len(samples)} hard test images, one below the other, each with its ground truth and the {what}: "
        f"{', '.join(map(variant_label, shown))}. {colours}. Mean IoU of all ensembles on them: "
        f"{', '.join(f'{100 * sample.mean_iou:.0f}' for sample in samples)} %."
    )
    disclaimer = heading.disclaimer(scale, [about["data"]], shows_paper=False)
    drawing = Drawing(saved(_grid(samples, shown, networks, above, by_row=kind == "all_variants")), alt)
    made_from = [run.as_posix() for run in runs.values()]
    return Page(title, disclaimer, drawing=drawing, study=about["study"], made_from=made_from)


def hardest(runs: Mapping[str, Path], prepared: Path, count: int) -> list[Sample]:
    """The test images on which all ensembles together do worst.

    Among images with visible foreground, those with the lowest mean IoU over the variants, at most one per group
    (patient, lesion); ties go to the first. Raises DataError as `picture`.
    """
    ids, ground_truth, ious = _mean_ious(runs)
    rows, groups = rows_and_groups(prepared, ids)
    chosen = one_of_each_group(ious, ground_truth.mean(axis=(1, 2)) >= SMALLEST, groups, share=0)[:count]
    if not chosen:
        raise DataError(f"{prepared}: no test image has visible foreground, so there is nothing to show.")
    probabilities: list[dict[tuple[str, str], np.ndarray]] = [{} for _ in chosen]
    for variant, run in runs.items():
        stacks = with_ensemble(predictions.read(run / "predictions.parquet")[1])
        for name, stack in stacks.items():
            for kept, position in zip(probabilities, chosen, strict=True):
                kept[variant, name] = stack[position].copy()  # not a view that would keep all images
    images = np.load(prepared / "images.npy", mmap_mode="r")
    return [
        Sample(str(groups[position]), images[rows[position]], ground_truth[position], float(ious[position]), kept)
        for position, kept in zip(chosen, probabilities, strict=True)
    ]


def _mean_ious(runs: Mapping[str, Path]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Test ids, ground-truth masks, and each image's IoU of the ensemble, mean over variants."""
    first: tuple[list[str], np.ndarray] | None = None
    total: Any = 0
    for run in runs.values():
        ids, stacks = predictions.read(run / "predictions.parquet")
        ground_truth = predict_labels(stacks.pop(predictions.GROUND_TRUTH))
        if first is None:
            first = (ids, ground_truth)
        elif first[0] != ids:
            raise DataError(f"{run}: was tested on other images than the other variants. Train this run again.")
        total = total + image_iou(predict_labels(with_ensemble(stacks)["ensemble"]), ground_truth)
    return *first, total / len(runs)


def _grid(
    samples: Sequence[Sample], variants: Sequence[str], networks: Sequence[str], title: str, by_row: bool
) -> Figure:
    """Image and ground truth, then a panel for each variant and network: a student's heatmap, an ensemble's outline.

    `by_row`: every network has a row of its own, below the same image.
    """
    columns = [(variant, network) for variant in variants for network in ([""] if by_row else networks)]
    rows = [(sample, network) for sample in samples for network in (networks if by_row else [""])]
    side = (WIDTH - 0.3) / (len(columns) + 2)
    wrapped = "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, 130))
    height = (side + 0.16) * len(rows) + 0.35 + 0.12 * len(wrapped.splitlines())
    figure, axes = panels((WIDTH, height), len(rows), len(columns) + 2, dpi=300)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for row, (sample, of_row) in zip(axes, rows, strict=True):
        first = of_row in ("", networks[0])
        for axis, pixels in zip(row, (sample.image, sample.ground_truth), strict=False):
            if first:
                axis.imshow(pixels, interpolation="nearest", cmap="gray")
                without_ticks(axis)
            else:
                axis.axis("off")
        row[0].set_xlabel(sample.group if first else "", fontsize=SMALL, labelpad=1, loc="left", parse_math=False)
        row[2].set_ylabel(of_row, fontsize=SMALL)
        for axis, (variant, of_column) in zip(row[2:], columns, strict=True):
            network = of_column or of_row
            probability = sample.probabilities[variant, network]
            mask = predict_labels(probability[None])[0]
            if network == "ensemble":
                axis.imshow(sample.image, interpolation="nearest")
                outline(axis, mask, PREDICTION_COLOUR, 1.1)
                outline(axis, sample.ground_truth, GROUND_TRUTH_COLOUR, 1.1)
            else:
                axis.imshow(probability, cmap=HEAT, vmin=0, vmax=255, interpolation="nearest")
                outline(axis, sample.ground_truth, OUTLINE, 0.7)
            without_ticks(axis)
            axis.set_xlabel(f"{100 * image_iou(mask, sample.ground_truth):.0f}", fontsize=SMALL, labelpad=1)
    for axis, text in zip(axes[0], ("image", "ground\ntruth"), strict=False):
        axis.set_title(text, fontsize=LARGE)
    for axis, (variant, network) in zip(axes[0, 2:], columns, strict=True):
        of, who = EXCHANGE[variant], "" if network in ("", "ensemble") else f" {network}"
        axis.set_title(f"{TECHNIQUE_LABELS[of.technique]}\n{of.strategy.upper()}{who}", fontsize=SMALL)
    figure.suptitle(wrapped, fontsize=LARGE)
    return figure


def draw(request: Request) -> Page:
    kind = request.setting("study.{study}.reports.pictures.{name}", PictureKind)
    runs = {name: run_folder(request.study, name, request.seeds[0]) for name in request.variants}
    return picture(request.name, kind, runs, Path("data/prepared", request.study), request.scale)


REPORT = Report(
    names=lambda params: {name: {"study": study} for study, of in params.study.items() for name in of.reports.pictures},
    inputs=lambda params, item: [
        *places.all_runs_of(params, item["study"]),
        f"data/prepared/{item['study']}",
    ],
    settings=("scale", "seeds", "variants", "study.{study}.reports.pictures.{name}"),
    draw=draw,
    category="Figures",
    shows="hard test images",
    asked_by=("study.{study}.reports.pictures",),
    suffixes=(".png",),
)
