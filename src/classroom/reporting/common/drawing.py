"""What pictures share."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from classroom.params import STRATEGIES, TECHNIQUES
from classroom.reporting.common.tables import variant_label

if TYPE_CHECKING:  # slow, and Snakemake's start reads what reports there are
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUND_TRUTH_COLOUR, PREDICTION_COLOUR = "#0072B2", "#E69F00"
"""From Okabe and Ito's palette, which colour-blind readers can distinguish."""
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}


def panels(size: tuple[float, float], down: int, across: int, dpi: int, **more: Any) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches with panels (down, across)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", dpi=dpi)
    return figure, figure.subplots(down, across, squeeze=False, **more)


def variant_panels(
    title: str, variants: Collection[str], techniques: Sequence[str] = TECHNIQUES
) -> tuple[Figure, dict[str, Axes]]:
    """The panels of those of `variants` that are of these `techniques`, by name; none for what is not trained.

    With all strategies of a technique, a technique is a row and a strategy a column.
    """
    shown = [variant for variant in map("-".join, product(techniques, STRATEGIES)) if variant in variants]
    across = max(len({variant.split("-")[1] for variant in shown}), 1)
    down = max(-(-len(shown) // across), 1)
    figure, axes = panels((7.2, 1.55 * down + 0.9), down, across, dpi=150, sharex=True, sharey=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    found = dict(zip(shown, axes.flat, strict=False))
    for variant, axis in found.items():
        axis.set_title(variant_label(variant), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25, linewidth=0.5)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=9)
    return figure, found


def label_panels(figure: Figure, across: str, up: str) -> None:
    """One legend below all panels, and what their axes show."""
    labelled: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        labelled |= dict(zip(labels, handles, strict=True))
    shown = [axis for axis in figure.axes if axis.axison]
    for axis in {axis.get_subplotspec().colspan.start: axis for axis in shown}.values():  # the lowest of each column
        axis.tick_params(labelbottom=True)
        axis.set_xlabel(across, fontsize=8)
    for axis in {axis.get_subplotspec().rowspan.start: axis for axis in reversed(shown)}.values():
        axis.tick_params(labelleft=True)
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=max(len(labelled), 1), fontsize=8,
        frameon=False,
    )  # fmt: skip
    figure.supylabel(up, fontsize=8)


def saved(figure: Figure, form: str = "png") -> bytes:
    """The same bytes for the same picture."""
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=METADATA[form])
    return content.getvalue()


def without_ticks(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def outline(axis: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    """Draws a closed line around the mask (H, W) on its image, also along the image's border; none if it is empty.

    Without the border, a mask of the whole image would look like an empty one.
    """
    if mask.any():
        axis.autoscale(False)  # the panel ends where the image does
        down, across = (np.arange(-1, side + 1) for side in mask.shape)
        drawn = axis.contour(across, down, np.pad(mask, 1), levels=[0.5], colors=colour, linewidths=width, zorder=3)
        drawn.set_clip_on(False)  # whole where it covers the panel's frame


def synthetic_mark(synthetic: bool) -> str:
    """For the title of a picture."""
    return " – SYNTHETIC images" if synthetic else ""
