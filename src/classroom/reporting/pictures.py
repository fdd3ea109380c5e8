"""Figures 4, 5, 7 and 9: predictions of the variants on the test images that are hardest for all of them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from classroom import places
from classroom.core import predictions
from classroom.core.ensemble import STUDENTS, with_ensemble
from classroom.core.metrics import predict_labels
from classroom.errors import DataError
from classroom.files import read_metrics
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.methods.names import run_folder
from classroom.params import PictureKind, Variants, select
from classroom.reporting.common import heading, paper
from classroom.reporting.common.drawing import GROUND_TRUTH_COLOUR, PREDICTION_COLOUR, png
from classroom.reporting.common.pages import Drawing, Page, write_picture
from classroom.reporting.common.tables import TECHNIQUE_LABELS, variant_label
from classroom.reporting.common.tested_images import image_iou, rows_and_groups, worst_of_each_group
from classroom.reporting.registry import Item, Report

SMALLEST = 0.002
"""Smallest fraction of an image that a lesion must cover to be visible in print."""
HEAT = "inferno"
OUTLINE = "#56B4E9"
WIDTH = 7.2
"""Inches: the width of a page's text. The picture is printed at this size, so its type stays readable."""
SMALL, LARGE = 5.5, 7.0
"""Points."""


@dataclass(frozen=True)
class Sample:
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
    Raises DataError for runs of different test images, if no test image has a visible lesion, or if none of the
    variants that the kind shows is trained.
    """
    about = read_metrics(next(iter(runs.values())))
    known = [variant for variant in EXCHANGE if variant in runs]
    shown, count, what = {
        "all_variants": (known, 3, "students of every variant"),
        "diverse": ([v for v in known if EXCHANGE[v].strategy == "v3"], 4, "students of every technique's V3"),
        "ensembles": ([v for v in known if EXCHANGE[v].strategy == "v3"], 4, "ensembles of every technique's V3"),
        "kd_ml": ([v for v in known if EXCHANGE[v].technique == "kd_ml"], 4, "students of KD + ML"),
    }[kind]
    if not shown:
        raise DataError(f"pictures.{name}: none of the variants that '{kind}' shows is trained: {', '.join(known)}.")
    samples = hardest(runs, prepared, count)
    colours = "Heat: probability of a lesion, from dark 0 to bright 1; outlined: the ground truth"
    if kind == "ensembles":
        colours = "Prediction orange, ground truth blue"
    title = f"{paper.title(name)}: {what} on {about['study']}"
    above = (
        f"{title}, scale {scale}, seed {about['seed']}"
        + (" – SYNTHETIC images" if about["data"]["synthetic"] else "")
        + f"\nOf every {about['data']['group']} the test image with the lowest mean IoU of {len(known)} ensembles,"
        f" the hardest first. {colours}. Below: IoU, %."
    )
    if kind == "all_variants":
        rows = [(sample, student) for sample in samples for student in STUDENTS]
        columns = [(variant, "") for variant in shown]
    else:
        rows = [(sample, "") for sample in samples]
        networks = ("ensemble",) if kind == "ensembles" else STUDENTS
        columns = [(variant, network) for variant in shown for network in networks]
    disclaimer = heading.disclaimer(scale, [about["data"]], shows_paper=False)
    alt = (
        f"{len(samples)} hard test images, one below the other, each with its ground truth and the {what}: "
        f"{', '.join(map(variant_label, shown))}. {colours}. Mean IoU of all ensembles on them: "
        f"{', '.join(f'{100 * sample.mean_iou:.0f}' for sample in samples)} %."
    )
    drawing = Drawing(_grid(rows, columns, above), alt)
    return Page("pictures", title, disclaimer, drawing=drawing, study=about["study"])


def hardest(runs: Mapping[str, Path], prepared: Path, count: int) -> list[Sample]:
    """The test images on which all ensembles together do worst.

    Among images with a visible lesion, those with the lowest mean IoU over the variants, at most one per group
    (patient, lesion); ties go to the first. Raises DataError as `picture`.
    """
    ids, ground_truth, ious = _mean_ious(runs)
    rows, groups = rows_and_groups(prepared, ids)
    chosen = worst_of_each_group(ious, ground_truth.mean(axis=(1, 2)) >= SMALLEST, groups)[:count]
    if not chosen:
        raise DataError(f"{prepared}: no test image has a visible lesion, so there is nothing to show.")
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
            raise DataError(f"{run}: tested on other images than the other variants. Train this run again.")
        total = total + image_iou(predict_labels(with_ensemble(stacks)["ensemble"]), ground_truth)
    return *first, total / len(runs)


def _grid(rows: Sequence[tuple[Sample, str]], columns: Sequence[tuple[str, str]], title: str) -> bytes:
    """Image and ground truth, then a panel for each column: a student's heatmap, or an ensemble's outline."""
    across = len(columns) + 2
    side = (WIDTH - 0.3) / across
    wrapped = "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, 130))
    height = (side + 0.16) * len(rows) + 0.35 + 0.12 * len(wrapped.splitlines())
    figure = Figure(figsize=(WIDTH, height), layout="constrained", dpi=300)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    axes = figure.subplots(len(rows), across, squeeze=False)
    for row, (sample, student) in enumerate(rows):
        first = student in ("", STUDENTS[0])
        for axis, picture, name in (
            (axes[row, 0], sample.image, "image"),
            (axes[row, 1], sample.ground_truth, "ground\ntruth"),
        ):
            axis.axis("off") if not first else _bare(axis)
            if first:
                axis.imshow(picture, interpolation="nearest", cmap="gray")
            axis.set_title(name if row == 0 else "", fontsize=LARGE)
        axes[row, 0].set_xlabel(sample.group if first else "", fontsize=SMALL, labelpad=1, loc="left", parse_math=False)
        for axis, (variant, network) in zip(axes[row, 2:], columns, strict=True):
            name = network or student
            byte = sample.probabilities[variant, name]
            if name == "ensemble":
                axis.imshow(sample.image, interpolation="nearest")
                _outline(axis, predict_labels(byte[None])[0], PREDICTION_COLOUR)
                _outline(axis, sample.ground_truth, GROUND_TRUTH_COLOUR)
            else:
                axis.imshow(byte, cmap=HEAT, vmin=0, vmax=255, interpolation="nearest")
                _outline(axis, sample.ground_truth, OUTLINE, 0.7)
            _bare(axis)
            iou = image_iou(predict_labels(byte[None]), sample.ground_truth[None])[0]
            axis.set_xlabel(f"{100 * iou:.0f}", fontsize=SMALL, labelpad=1)
            if row == 0:
                of = EXCHANGE[variant]
                who = "" if name == "ensemble" or not network else f" {network}"
                axis.set_title(f"{TECHNIQUE_LABELS[of.technique]}\n{of.strategy.upper()}{who}", fontsize=SMALL)
        if not first or rows[row][1]:
            axes[row, 2].set_ylabel(student, fontsize=SMALL)
    figure.suptitle(wrapped, fontsize=LARGE)
    return png(figure)


def _outline(axis: Any, mask: np.ndarray, colour: str, width: float = 1.1) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=colour, linewidths=width)


def _bare(axis: Any) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study, seed = item["study"], select(settings, "seeds", list[int])[0]
    kind = select(settings, f"study.{study}.reports.pictures.{name}", PictureKind)
    variants = select(settings, "variants", Variants)
    runs = {method: run_folder(study, method, seed) for method in (*variants.joint, *variants.offline)}
    page = picture(name, kind, runs, Path("data/prepared", study), select(settings, "scale", str))
    write_picture(Path("reports", f"{name}.png"), page)


REPORT = Report(
    names=lambda params: {name: {"study": study} for study, of in params.study.items() for name in of.reports.pictures},
    inputs=lambda params, item: [
        *places.all_runs_of(params, item["study"]),
        f"data/prepared/{item['study']}",
    ],
    make=make,
    category="Figures",
    shows="hard test images",
    endings=(".png",),
)
