"""Pictures of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from classroom.core import predictions
from classroom.core.ensemble import with_ensemble
from classroom.core.metrics import predict_labels
from classroom.errors import DataError
from classroom.files import read_metrics
from classroom.methods.names import run_folder
from classroom.params import select
from classroom.reporting.common import heading
from classroom.reporting.common.drawing import GROUND_TRUTH_COLOUR, PREDICTION_COLOUR, png
from classroom.reporting.common.pages import Drawing, Page, write_picture
from classroom.reporting.common.tested_images import image_iou, rows_and_groups, worst_of_each_group
from classroom.reporting.registry import Item, Report, of_studies

ROWS = 4


def samples(run: Path, prepared: Path, scale: str, target: Path) -> None:
    """Test images of distinct groups (patients, lesions) with ground truth and every network's mask, as PNG.

    Of segmentation runs only. The rule of choice: of the test images with a lesion, each group's worst, those at
    equal steps of the ensemble's IoU from the worst to the best, so that failures show as well as successes.
    """
    ids, stacks = predictions.read(run / "predictions.parquet")
    about = read_metrics(run)
    rows, groups = rows_and_groups(prepared, ids)
    ground_truth = predict_labels(stacks.pop(predictions.GROUND_TRUTH))
    masks = {name: predict_labels(stack) for name, stack in with_ensemble(stacks).items()}
    ordered_by = masks[list(masks)[-1]]
    chosen = _from_worst_to_best(ordered_by, ground_truth, groups)
    if not chosen:
        raise DataError(f"{run}: no test image has a lesion, so there is nothing to show. Use more data.")
    images = np.load(prepared / "images.npy", mmap_mode="r")

    ious = []
    figure = Figure(figsize=(1.9 * (len(masks) + 1), 1.95 * len(chosen) + 0.9), layout="constrained", dpi=130)
    axes = figure.subplots(len(chosen), len(masks) + 1, squeeze=False)
    for row, position in enumerate(chosen):
        image = images[rows[position]]
        _panel(axes[row, 0], image, ground_truth[position], None, "image, ground truth" if row == 0 else "")
        for column, (name, stack) in enumerate(masks.items(), start=1):
            iou = image_iou(stack[position], ground_truth[position])
            _panel(axes[row, column], image, ground_truth[position], stack[position], name if row == 0 else "")
            axes[row, column].set_xlabel(f"IoU {100 * iou:.0f}", fontsize=8)
        ious.append(f"{100 * iou:.0f}")
    synthetic = " – SYNTHETIC images" if about["data"]["synthetic"] else ""
    figure.suptitle(
        f"{about['method']} on {about['study']}, scale {scale}, seed {about['seed']}{synthetic}\n"
        f"ground truth blue, prediction orange; worst to best test {about['data']['group']}", fontsize=9,
    )  # fmt: skip
    alt = (
        f"{len(chosen)} test images, one below the other, from the worst to the best: the image with the true lesion "
        f"outlined in blue, then the masks of {', '.join(masks)} outlined in orange. IoU of {list(masks)[-1]}: "
        f"{', '.join(ious)} %."
    )
    drawing = Drawing(png(figure), alt)
    page = Page(
        "samples", f"Test images of {about['study']}, {about['method']}",
        heading.disclaimer(scale, [about["data"]], shows_paper=False), drawing=drawing, study=about["study"],
    )  # fmt: skip
    write_picture(target, page)


def _from_worst_to_best(mask: np.ndarray, ground_truth: np.ndarray, groups: np.ndarray) -> list[int]:
    candidates = worst_of_each_group(image_iou(mask, ground_truth), ground_truth.any(axis=(1, 2)), groups)
    steps = np.linspace(0, len(candidates) - 1, min(ROWS, len(candidates)))
    return [candidates[round(step)] for step in steps]


def _panel(axis, image: np.ndarray, ground_truth: np.ndarray, mask: np.ndarray | None, title: str) -> None:
    axis.imshow(image, interpolation="nearest")
    for pixels, colour in ((ground_truth, GROUND_TRUTH_COLOUR), (mask, PREDICTION_COLOUR)):
        if pixels is not None and pixels.any():
            axis.contour(pixels, levels=[0.5], colors=colour, linewidths=1.2)
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study, seed = item["study"], select(settings, "seeds", list[int])[0]
    run = run_folder(study, select(settings, "ours", str), seed)
    samples(run, Path("data/prepared", study), select(settings, "scale", str), Path("reports", f"{name}.png"))


REPORT = Report(
    names=lambda params: of_studies(
        params, lambda study: f"samples-{study}" if params.study[study].reports.samples else None
    ),
    inputs=lambda params, item: [
        run_folder(item["study"], params.ours, params.seeds[0]).as_posix(),
        f"data/prepared/{item['study']}",
    ],
    make=make,
    category="Figures",
    shows="test images",
    endings=(".png",),
)
