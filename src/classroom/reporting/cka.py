"""Figures 6, 10 and 11: similarity (CKA) of the layers of teacher and students, and a table of their last stages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from classroom.analysis.similarities import last_stages, read
from classroom.errors import DataError
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.methods.names import run_folder
from classroom.params import Variants, select
from classroom.reporting.common import heading, paper
from classroom.reporting.common.pages import Drawing, Page, write
from classroom.reporting.common.provenance import Source
from classroom.reporting.common.tables import TECHNIQUE_LABELS, Cell, Part, csv, markdown, number

Tables = Mapping[str, Sequence[pd.DataFrame]]
"""By variant what `analysis.similarities.read` returned, a table a seed."""

COLOURS = "viridis"  # perceptually uniform, also for the colour-blind and in greyscale
NOT_A_NUMBER, OUTLINE = "0.75", "#D55E00"
SHARED = ("study", "data", "images", "layers", "last")
"""What all tables of a figure must share, in addition to the seeds."""
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


def variants_of(name: str, variants: Sequence[str]) -> list[str]:
    """Those of `variants` that the figure called `name` shows."""
    return [variant for variant in variants if EXCHANGE[variant].technique in FIGURES[name].techniques]


def cka_figure(name: str, scale: str, tables: Tables, target: Path) -> None:
    """Writes `target`.png and .svg: heat maps of CKA from 0 to 1, mean over seeds, of one study.

    `name`: one of FIGURES; variants that it does not show are left out, panels without a variant are blank. The cell
    of both encoders' last layers, which the table averages, is outlined. A CKA that is not a number is grey, in one
    seed or in all; one below 0 is drawn as 0. Raises DataError for tables of other studies, seeds or layers than each
    other, or if no variant is left.
    """
    grid = FIGURES[name]
    shown = {variant: tables[variant] for variant in variants_of(name, list(tables))}
    first = _first(shown, name)
    techniques = [key for key in grid.techniques if any(EXCHANGE[variant].technique == key for variant in shown)]
    strategies = sorted({EXCHANGE[variant].strategy for variant in shown})
    layers = {network: list(about) for network, about in first.attrs["layers"].items()}
    down = len(layers[grid.pairs[0][0]])
    across = sum(len(layers[second]) for _, second in grid.pairs) * len(strategies)

    with matplotlib.rc_context({"svg.hashsalt": "classroom", "svg.fonttype": "none"}):
        disclaimer = heading.disclaimer(scale, [first.attrs["data"]], shows_paper=False)
        title = f"{paper.title(name)}: similarity of layers on {first.attrs['study']}"
        above = _above(title, scale, first, shown, disclaimer)
        width = max(CELL * across + 0.16 * len(grid.pairs) * len(strategies) + 1.9, 5.0)
        height = (CELL * down + 0.3) * len(techniques) + 0.9 + 0.16 * len(above.splitlines())
        figure = Figure(figsize=(width, height), layout="constrained", dpi=200)
        figure.get_layout_engine().set(hspace=0.02, wspace=0.02)
        panels = figure.subplots(len(techniques), len(grid.pairs) * len(strategies), squeeze=False)
        columns = [(pair, strategy) for pair in grid.pairs for strategy in strategies]
        for axes, technique in zip(panels, techniques, strict=True):
            for axis, (pair, strategy) in zip(axes, columns, strict=True):
                found = shown.get(f"{technique}-{strategy}")
                image = _panel(axis, _mean(found, pair, layers) if found else None, pair, layers, first.attrs["last"])
                axis.set_title(f"{'–'.join(pair)}, {strategy.upper()}", fontsize=FONT + 1)
            axes[0].set_ylabel(f"{TECHNIQUE_LABELS[technique]}\n{grid.pairs[0][0]}", fontsize=FONT + 1)
            axes[0].set_yticks(range(down), layers[grid.pairs[0][0]], fontsize=FONT)
        for axis, (pair, _) in zip(panels[-1], columns, strict=True):
            axis.set_xticks(range(len(layers[pair[1]])), layers[pair[1]], fontsize=FONT, rotation=90)
            axis.set_xlabel(pair[1], fontsize=FONT + 1)
        bar = figure.colorbar(image, ax=list(panels.flat), aspect=30, pad=0.01)
        bar.ax.tick_params(labelsize=FONT)
        bar.set_label("linear CKA", fontsize=FONT + 1)
        figure.suptitle(above, fontsize=FONT + 1)
        pictures = {f".{form}": _saved(figure, form) for form in ("png", "svg")}
    page = Page(
        "cka_figure", title, disclaimer, drawing=Drawing(pictures[".png"], _alt_text(shown, grid)),
        study=first.attrs["study"],
    )  # fmt: skip
    write(target, pictures, page)


def cka_table(name: str, scale: str, tables: Tables, target: Path) -> None:
    """Writes `target`.md and .csv: of every variant the CKA of the networks' last stages, mean ± sd over seeds.

    The last stage of an encoder is taken where it ends. Raises DataError as `cka_figure` does.
    """
    first = _first(tables, name)
    records = [
        {
            "technique": EXCHANGE[variant].technique,
            "strategy": EXCHANGE[variant].strategy,
            "run": run_folder(table.attrs["study"], variant, table.attrs["seed"]).as_posix(),
        }
        | row._asdict()
        for variant in EXCHANGE  # in the order of all tables
        for table in tables.get(variant, ())
        for row in last_stages(table).itertuples(index=False)
    ]
    keys = ["technique", "strategy", "first", "second", "first_layer", "second_layer"]
    of_cell = pd.DataFrame(records).groupby(keys, sort=False)
    # Not skipping NaN: a mean without one seed could not be compared with its neighbours.
    table = of_cell.cka.agg(mean=lambda of: of.mean(skipna=False), sd=lambda of: of.std(ddof=1, skipna=False))
    table = table.reset_index()

    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    values = [dict(zip(of.run, of.cka, strict=True)) for _, of in of_cell]
    cells = {
        (c.technique, c.strategy, c.first, c.second): _cell(c, Source(f"CKA of {c.first} and {c.second}", of, unit=""))
        for c, of in zip(table.itertuples(), values, strict=True)
    }
    rows = [
        [TECHNIQUE_LABELS[technique], strategy.upper(), *(cells[technique, strategy, *pair] for pair in pairs)]
        for technique, strategy in dict.fromkeys(zip(table.technique, table.strategy, strict=True))
    ]
    last = first.attrs["last"]
    attributes = [one.attrs for by_seed in tables.values() for one in by_seed]
    dropped = max(about["dropped"] for about in attributes)
    facts = [
        f"- scale: {scale}",
        f"- study: {first.attrs['study']}, {first.attrs['images']} test images"
        + (f" ({dropped} more made a batch too small for HSIC and were left out)" if dropped else ""),
        f"- seeds: {', '.join(str(one.attrs['seed']) for one in next(iter(tables.values())))}",
        "- each cell: linear CKA (unbiased HSIC summed over minibatches) of the ends of both encoders' last stages, "
        f"{', '.join(f'{layer} of {network}' for network, layer in last.items())}; mean ± sample standard deviation "
        "over seeds; a dash where features are the same for all images",
    ]
    if any(variant.startswith("ml-") for variant in tables) and "T" in last:
        facts.append("- the T of ML, from which no student learned, is the study's teacher alone")
    part = Part(["technique", "strategy", *("–".join(pair) for pair in pairs)], rows)
    data = [first.attrs["data"]]
    title = f"{paper.title(name)}: similarity of the last stages on {first.attrs['study']}"
    disclaimer = heading.disclaimer(scale, data, shows_paper=False)
    page = Page("cka_table", title, disclaimer, facts, [part], study=first.attrs["study"])
    table.insert(0, "study", first.attrs["study"])
    table.insert(1, "scale", scale)
    table.insert(2, "synthetic", first.attrs["data"]["synthetic"])
    write(target, {".md": markdown(*page.content), ".csv": csv(table)}, page)


def _first(tables: Tables, name: str) -> pd.DataFrame:
    """The first table. Raises DataError unless all are of the same study, images, layers and seeds."""
    if not any(tables.values()):
        raise DataError(f"{name}: there is no CKA of any variant that it shows. Add one of them to variants.")
    first = next(of for of in tables.values() if of)
    seeds = [table.attrs["seed"] for table in first]
    for variant, of in tables.items():
        other = [key for key in SHARED if any(table.attrs[key] != first[0].attrs[key] for table in of)]
        if [table.attrs["seed"] for table in of] != seeds:
            other.append("seeds")
        if other:
            raise DataError(
                f"{name}: CKA of {variant} has other {', '.join(other)} than that of {next(iter(tables))}. Run "
                f"`classroom cka {first[0].attrs['study']} {variant}` again with every seed."
            )
    return first[0]


def _mean(tables: Sequence[pd.DataFrame], pair: tuple[str, str], layers: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Mean over seeds: (layers of the first network, layers of the second)."""
    first, second = pair
    maps = []
    for table in tables:
        of_pair = table[(table["first"] == first) & (table.second == second)]
        if of_pair.empty:
            raise DataError(
                f"CKA of {table.attrs['method']}: lacks {first}–{second}. Run `classroom cka` for it again."
            )
        square = of_pair.pivot(index="first_layer", columns="second_layer", values="cka")
        maps.append(square.reindex(index=layers[first], columns=layers[second]).to_numpy())
    return np.mean(maps, axis=0)


def _panel(
    axis: Axes,
    values: np.ndarray | None,
    pair: tuple[str, str],
    layers: Mapping[str, Sequence[str]],
    last: Mapping[str, str],
) -> AxesImage:
    """One heat map, both networks' first layers at the top left; without values only its frame."""
    first, second = pair
    colours = matplotlib.colormaps[COLOURS].with_extremes(bad=NOT_A_NUMBER)
    shape = len(layers[first]), len(layers[second])
    image = axis.imshow(np.zeros(shape) if values is None else values, cmap=colours, vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.tick_params(length=1.5, pad=1.5)
    if values is None:
        image.set_visible(False)
        axis.text(0.5, 0.5, "not trained", transform=axis.transAxes, ha="center", va="center", fontsize=FONT)
    elif first in last and second in last:
        corner = layers[second].index(last[second]) - 0.5, layers[first].index(last[first]) - 0.5
        axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=OUTLINE, linewidth=1.2))
    return image


def _alt_text(tables: Tables, grid: Grid) -> str:
    """The figure's alternative text."""
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
        f"each strategy, from dark (0) to bright (1). Where the last stages end it is {ends}."
    )


def _above(title: str, scale: str, first: pd.DataFrame, tables: Tables, disclaimer: str) -> str:
    about = first.attrs
    seeds = [table.attrs["seed"] for table in next(iter(tables.values()))]
    lines = [
        f"{title}, scale {scale}",
        f"{about['images']} test images, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}; outlined: "
        "where the last stages end",
        disclaimer.replace("**", ""),
    ]
    return "\n".join(line for line in lines if line)


def _cell(cell: Any, source: Source) -> Cell:
    text = "–" if pd.isna(cell.mean) else f"{number(cell.mean, '.3f')} ± {number(cell.sd, '.3f')}"
    return Cell(text, cell.mean, sources=(source,))


def _saved(figure: Figure, form: str) -> bytes:
    """The picture's bytes, reproducible."""
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata={"png": {"Software": None}, "svg": {"Date": None}}[form])
    return content.getvalue()


def read_similarities(settings: dict[str, Any], study: str) -> dict[str, list[pd.DataFrame]]:
    """By variant, the similarities of its layers for every seed."""
    variants, seeds = select(settings, "variants", Variants), select(settings, "seeds", list[int])
    names = (*variants.joint, *variants.offline)
    return {name: [read(Path("results/cka", study, name, f"seed-{seed}.parquet")) for seed in seeds] for name in names}
