"""Predictions on test images, from the worst patient to the best."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from classroom.core import predictions
from classroom.core.ensemble import with_ensemble
from classroom.core.metrics import predict_labels
from classroom.errors import DataError
from classroom.files import read_metrics
from classroom.methods.registry import run_folder
from classroom.reporting.common import heading
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
from classroom.reporting.common.tested_images import image_iou, one_of_each_group, rows_and_groups
from classroom.reporting.registry import Report, Request, of_studies

ROWS = 4


def samples(run: Path, prepared: Path, scale: str) -> Page:
    """Test images of distinct groups (patients, lesions) with ground truth and every network's mask.

    Of segmentation runs only. The rule of choice: of each group's test images with foreground the one with the median
    IoU of the ensemble; of these, those at equal steps from the worst group to the best, so that failures show as
    well as successes.
    """
    ids, stacks = predictions.read(run / "predictions.parquet")
    about = read_metrics(run)
    rows, groups = rows_and_groups(prepared, ids)
    ground_truth = predict_labels(stacks.pop(predictions.GROUND_TRUTH))
    masks = {name: predict_labels(stack) for name, stack in with_ensemble(stacks).items()}
    last = list(masks)[-1]
    ious = {name: image_iou(stack, ground_truth) for name, stack in masks.items()}
    candidates = one_of_each_group(ious[last], ground_truth.any(axis=(1, 2)), groups, share=0.5)
    if not candidates:
        raise DataError(f"{run}: no test image has foreground, so there is nothing to show. Use more data.")
    chosen = [candidates[round(step)] for step in np.linspace(0, len(candidates) - 1, min(ROWS, len(candidates)))]
    group = about["data"]["group"]
    median = "" if group == "image" else f", for each {group} the image with the median IoU"
    images = np.load(prepared / "images.npy", mmap_mode="r")

    figure, axes = panels((1.9 * (len(masks) + 1), 1.95 * len(chosen) + 0.9), len(chosen), len(masks) + 1, dpi=130)
    for row, position in zip(axes, chosen, strict=True):
        for axis, name in zip(row, (None, *masks), strict=True):
            axis.imshow(images[rows[position]], interpolation="nearest")
            outline(axis, ground_truth[position], GROUND_TRUTH_COLOUR, 1.2)
            if name:
                outline(axis, masks[name][position], PREDICTION_COLOUR, 1.2)
                axis.set_xlabel(f"IoU {100 * ious[name][position]:.0f}", fontsize=8)
            without_ticks(axis)
    for axis, name in zip(axes[0], ("image, ground truth", *masks), strict=True):
        axis.set_title(name, fontsize=9)
    figure.suptitle(
        f"{about['method']} on {about['study']}, scale {scale}, seed {about['seed']}"
        f"{synthetic_mark(about['data']['synthetic'])}\n"
        f"ground truth blue, prediction orange; test {group}s from the worst to the best{median}",
        fontsize=9,
    )  # fmt: skip
    alt = (
        f"{len(chosen)} test images, one below the other, {group}s from the worst to the best{median}: the image with "
        f"the ground truth outlined in blue, then the masks of {', '.join(masks)} outlined in orange. IoU of {last}: "
        f"{', '.join(f'{100 * ious[last][position]:.0f}' for position in chosen)} %."
    )
    disclaimer = heading.disclaimer(scale, [about["data"]], shows_paper=False)
    title = f"Test images of {about['study']}, {about['method']}"
    return Page(
        title, disclaimer, drawing=Drawing(saved(figure), alt), study=about["study"], made_from=[run.as_posix()]
    )


def draw(request: Request) -> Page:
    run = run_folder(request.study, request.setting("ours", str), request.seeds[0])
    return samples(run, Path("data/prepared", request.study), request.scale)


REPORT = Report(
    names=lambda params: of_studies(
        params, lambda study: f"samples-{study}" if params.study[study].reports.samples else None
    ),
    inputs=lambda params, item: [
        run_folder(item["study"], params.ours, params.seeds[0]).as_posix(),
        f"data/prepared/{item['study']}",
    ],
    settings=("scale", "seeds", "ours"),
    draw=draw,
    category="Figures",
    shows="test images",
    asked_by=("study.{study}.reports.samples",),
    suffixes=(".png",),
)
