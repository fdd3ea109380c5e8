"""Figures 6, 10 and 11: similarity (CKA) of the layers of teacher and students."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from classroom import places
from classroom.analysis.similarities import last_stages
from classroom.errors import DataError
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.cka import Tables, first_of, read_similarities, runs_of, seeds_of
from classroom.reporting.common import heading, paper
from classroom.reporting.common.drawing import panels, saved, without_ticks
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.tables import TECHNIQUE_LABELS
from classroom.reporting.registry import Report, Request

COLOURS, NOT_A_NUMBER = "viridis", "0.75"
"""Perceptually uniform, also for the colour-blind and in greyscale; grey for what is not a number."""
OUTLINE = "#D55E00"
CELL, FONT = 0.105, 6.0
"""Inches per layer and the font size of its name in points, which match."""


class Grid(NamedTuple):
    """The layout of a figure: a row per technique, a panel per pair of networks and strategy."""

    techniques: Sequence[str]
    pairs: Sequence[tuple[str, str]]


TEACHER_AND_STUDENTS = (("T", "S1"), ("T", "S2"))
FIGURES = {
    "figure6": Grid(("kd_ml",), TEACHER_AND_STUDENTS),
    "figure10": Grid(("kd_on", "kd_off", "ml"), TEACHER_AND_STUDENTS),
    "figure11": Grid(("kd_ml", "kd_on", "kd_off", "ml"), (("S1", "S2"),)),
}


def cka_figure(name: str, scale: str, tables: Tables) -> Page:
    """Heat maps of CKA from 0 to 1, mean over seeds, of one study.

    `name`: one of FIGURES; variants that it does not show are left out, panels without a variant are blank. The cell
    of both encoders' last layers, which the table averages, is outlined. A CKA that is not a number is grey, in one
    seed or in all; one below 0 is drawn as 0. Raises DataError as `first_of` does, or if no variant is left.
    """
    import matplotlib  # slow
    from matplotlib.patches import Rectangle

    grid = FIGURES[name]
    shown = {variant: of for variant, of in tables.items() if EXCHANGE[variant].technique in grid.techniques}
    first = first_of(shown, name).attrs
    techniques = [key for key in grid.techniques if any(EXCHANGE[variant].technique == key for variant in shown)]
    strategies = sorted({EXCHANGE[variant].strategy for variant in shown})
    layers, last = {network: list(about) for network, about in first["layers"].items()}, first["last"]
    columns = list(product(grid.pairs, strategies))
    down = layers[grid.pairs[0][0]]
    disclaimer = heading.disclaimer(scale, [first["data"]], shows_paper=False)
    title = f"{paper.title(name)}: similarity of layers on {first['study']}"
    seeds = seeds_of(next(iter(shown.values())))
    above = [
        f"{title}, scale {scale}",
        f"{first['images']} test images, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; outlined: "
        "outputs of the last stages",
        *([disclaimer.replace("**", "")] if disclaimer else []),
    ]
    across = sum(len(layers[second]) for (_, second), _ in columns)
    width = max(CELL * across + 0.16 * len(columns) + 1.9, 5.0)
    height = (CELL * len(down) + 0.3) * len(techniques) + 0.9 + 0.16 * len(above)
    colours = matplotlib.colormaps[COLOURS].with_extremes(bad=NOT_A_NUMBER)
    with matplotlib.rc_context({"svg.hashsalt": "classroom", "svg.fonttype": "none"}):
        figure, axes = panels((width, height), len(techniques), len(columns), dpi=200)
        figure.get_layout_engine().set(hspace=0.02, wspace=0.02)
        for row, technique in zip(axes, techniques, strict=True):
            for axis, (pair, strategy) in zip(row, columns, strict=True):
                found = shown.get(f"{technique}-{strategy}")
                names = [layers[network] for network in pair]
                values = _mean(found, pair, names) if found else np.zeros([len(of) for of in names])
                image = axis.imshow(values, cmap=colours, vmin=0, vmax=1)
                without_ticks(axis)
                axis.tick_params(length=1.5, pad=1.5)
                axis.set_title(f"{'–'.join(pair)}, {strategy.upper()}", fontsize=FONT + 1)
                if not found:
                    image.set_visible(False)
                    middle = {"transform": axis.transAxes, "ha": "center", "va": "center"}
                    axis.text(0.5, 0.5, "not trained", fontsize=FONT, **middle)
                elif set(pair) <= set(last):
                    y, x = (of.index(last[network]) - 0.5 for network, of in zip(pair, names, strict=True))
                    axis.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=OUTLINE, linewidth=1.2))
            row[0].set_ylabel(f"{TECHNIQUE_LABELS[technique]}\n{grid.pairs[0][0]}", fontsize=FONT + 1)
            row[0].set_yticks(range(len(down)), down, fontsize=FONT)
        for axis, ((_, second), _) in zip(axes[-1], columns, strict=True):
            axis.set_xticks(range(len(layers[second])), layers[second], fontsize=FONT, rotation=90)
            axis.set_xlabel(second, fontsize=FONT + 1)
        bar = figure.colorbar(image, ax=list(axes.flat), aspect=30, pad=0.01)
        bar.ax.tick_params(labelsize=FONT)
        bar.set_label("linear CKA", fontsize=FONT + 1)
        figure.suptitle("\n".join(above), fontsize=FONT + 1)
        png, svg = (saved(figure, form) for form in ("png", "svg"))
    drawing = Drawing(png, _alt_text(shown, grid))
    return Page(
        title,
        disclaimer,
        drawing=drawing,
        study=first["study"],
        made_from=runs_of(shown, teacher="T" in grid.pairs[0]),
        files={".svg": svg},
    )


def _mean(tables: Sequence[pd.DataFrame], pair: tuple[str, str], names: Sequence[Sequence[str]]) -> np.ndarray:
    """Mean over seeds: (layers of the first network, layers of the second)."""
    maps = []
    for table in tables:
        of_pair = table[(table["first"] == pair[0]) & (table.second == pair[1])]
        if of_pair.empty:
            lacks = "–".join(pair)
            raise DataError(f"CKA of {table.attrs['method']}: lacks {lacks}. Run `classroom cka` for it again.")
        square = of_pair.pivot(index="first_layer", columns="second_layer", values="cka")
        maps.append(square.reindex(index=names[0], columns=names[1]).to_numpy())
    return np.mean(maps, axis=0)


def _alt_text(tables: Tables, grid: Grid) -> str:
    of_pairs = [
        last_stages(table).set_index(["first", "second"]).cka.reindex(grid.pairs)
        for by_seed in tables.values()
        for table in by_seed
    ]
    lasting = pd.concat(of_pairs).dropna()
    ends = f"{lasting.min():.2f} to {lasting.max():.2f}" if len(lasting) else "not a number"
    techniques = ", ".join(dict.fromkeys(TECHNIQUE_LABELS[EXCHANGE[variant].technique] for variant in tables))
    pairs = " and ".join(" with ".join(pair) for pair in grid.pairs)
    return (
        f"Heat maps of linear CKA between the layers of {pairs}, a row for each technique ({techniques}), a column for "
        f"each strategy, from dark (0) to bright (1). For the outputs of the last stages it is {ends}."
    )


def draw(request: Request) -> Page:
    return cka_figure(request.name, request.scale, read_similarities(request))


REPORT = Report(
    names=lambda params: {
        figure: {"study": name} for name, study in params.study.items() for figure in study.reports.cka or ()
    },
    inputs=lambda params, item: places.similarities_of(params, item["study"]),
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Figures",
    shows="similarity of layers",
    asked_by=("study.{study}.reports.cka",),
    suffixes=(".png", ".svg"),
)
