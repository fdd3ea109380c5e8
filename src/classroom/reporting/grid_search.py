"""The results of a grid search of α, β, γ, and the best weights as an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from classroom import places
from classroom.artifacts import GridPoint
from classroom.core.ensemble import STUDENTS
from classroom.evaluation.grid import read_points
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import Grid, select
from classroom.reporting.common.drawing import png
from classroom.reporting.common.pages import Drawing, Page, write
from classroom.reporting.common.provenance import runs_of, searched
from classroom.reporting.common.tables import GREEK, Cell, Part, csv, markdown, mean_cell, mean_sd, variant_label
from classroom.reporting.registry import Item, Report

POINT = ("alpha_1", "alpha_2", "teacher_share")


def grid_report(study: str, points: Sequence[GridPoint], scale: str, seeds: Sequence[int], target: Path) -> None:
    """Writes `target`.md, .csv, .png (a map of every variant) and .yaml (the best weights, for `classroom overlay`).

    `points`: as `evaluation.grid.read_points` returns them. The best point of a variant has the largest validation
    metric of the ensemble, mean over seeds; ties go to the first.
    """
    table = _table(points, seeds)
    best = {variant: points[of["mean"].idxmax()] for variant, of in table.groupby("variant", sort=False)}
    table["best"] = [any(point is chosen for chosen in best.values()) for point in points]

    parts = []
    for variant, of in table.groupby("variant", sort=False):
        rows = [
            [
                *(f"{value:g}" for value in (row.alpha_1, row.alpha_2, row.teacher_share)),
                *_weights(row), *_cells(row, points[row.Index]),
            ]
            for row in of.itertuples()
        ]  # fmt: skip
        header = ["α of S1", "α of S2", "teacher's share", "weights of S1", "weights of S2", "ensemble", "S1", "S2"]
        parts.append(Part(header, rows, variant_label(variant)))
    facts = [
        f"- scale: {scale}",
        f"- seeds: {', '.join(map(str, seeds))}",
        "- each cell: the metric by which epochs are chosen (IoU or accuracy), in percent, **on validation**; the "
        "ensemble's mean ± sample standard deviation over seeds chooses, in bold. The test split was not used.",
        "- teacher's share: the part of 1 − α that goes to β, the rest to γ; only KD + ML has both",
        f"- the best weights are in {target.with_suffix('.yaml').name}: "
        f"`classroom overlay {target.with_suffix('.yaml')}` writes them into studies/{study}.yaml",
    ]
    disclaimer = ""
    if any(point["synthetic"] for point in points):
        disclaimer = "**Synthetic images, not patients: these weights mean nothing elsewhere.**"
    table.insert(0, "study", study)
    table.insert(1, "scale", scale)
    picture = _map(table, f"Grid search on {study}, scale {scale}{' – SYNTHETIC images' if disclaimer else ''}")
    drawing = Drawing(picture, _alt_text(table))
    page = Page(
        "grid_search",
        f"Grid search on {study}",
        disclaimer,
        facts,
        parts,
        drawing=drawing,
        study=study,
        runs=runs_of(points),
    )
    fragment = _fragment(study, best, scale, seeds)
    contents = {".md": markdown(*page.content), ".csv": csv(table), ".png": picture, ".yaml": fragment}
    write(target, contents, page)


def _table(points: Sequence[GridPoint], seeds: Sequence[int]) -> pd.DataFrame:
    """A row per point: its weights, the ensemble's mean and sd and the students' means, in percent."""
    records = []
    for point in points:
        runs = [point["seeds"][str(seed)] for seed in seeds]
        weights = {f"{name}_{student}": point["weights"][student][name] for student in STUDENTS for name in GREEK}
        mean, sd = mean_sd([run["ensemble"] for run in runs])
        students = {student: mean_sd([run[student] for run in runs])[0] for student in STUDENTS}
        records.append({key: point[key] for key in ("variant", *POINT)} | weights | {"mean": mean, "sd": sd} | students)
    return pd.DataFrame(records)


def _cells(row: Any, point: GridPoint) -> list[Cell]:
    """The ensemble and both students."""
    of = {name: searched(point, name, "the metric that chooses") for name in ("ensemble", *STUDENTS)}
    students = [Cell(f"{value:.2f}", value, sources=(of[n],)) for n in STUDENTS for value in [getattr(row, n)]]
    return [mean_cell(row.mean, row.sd, of["ensemble"], best=row.best), *students]


def _alt_text(table: pd.DataFrame) -> str:
    """The alternative text of the map."""
    best = []
    for row in table[table.best].itertuples():
        lowest = table["mean"][table.variant == row.variant].min()
        best.append(
            f"{variant_label(row.variant)} from {lowest:.1f} to {row.mean:.1f} %, best at α of S1 {row.alpha_1:g}, "
            f"α of S2 {row.alpha_2:g}, teacher's share {row.teacher_share:g}"
        )
    return f"Maps of the ensemble's metric on validation, α of S1 down, α of S2 across: {'; '.join(best)}."


def _weights(row: Any) -> list[str]:
    return [
        ", ".join(f"{sign} {value:g}" for name, sign in GREEK.items() if (value := getattr(row, f"{name}_{student}")))
        for student in STUDENTS
    ]


def _fragment(study: str, best: dict[str, GridPoint], scale: str, seeds: Sequence[int]) -> str:
    """The best weights as an overlay: of every student those that its variant uses."""
    lines = [
        f"# chosen by `classroom report grid-{study}`: the best ensemble on validation, scale {scale}, mean over "
        f"seeds {', '.join(map(str, seeds))}",
        "studies:",
        f"  {study}:",
        "    weights:",
    ]
    for variant, point in best.items():
        students = []
        for student in STUDENTS:
            received = getattr(EXCHANGE[variant], student)
            unused = {"beta": received.from_teacher is None, "gamma": received.from_peer is None}
            kept = {name: value for name, value in point["weights"][student].items() if value or not unused.get(name)}
            students.append(f"{student}: {{{', '.join(f'{name}: {value:g}' for name, value in kept.items())}}}")
        lines.append(f"      {variant}: {{{', '.join(students)}}}")
    return "\n".join(lines) + "\n"


def _map(table: pd.DataFrame, title: str) -> bytes:
    """A row of panels per variant, a panel per teacher's share: S1's α down, S2's across; the best outlined."""
    variants, shares = list(dict.fromkeys(table.variant)), list(dict.fromkeys(table.teacher_share))
    first, second = list(dict.fromkeys(table.alpha_1)), list(dict.fromkeys(table.alpha_2))
    width, height = max(2.2, 0.6 * len(second) + 0.9), max(1.9, 0.55 * len(first) + 0.9)
    figure = Figure(
        figsize=(max(3.4, width * len(shares) + 1.0), height * len(variants) + 0.8), layout="constrained", dpi=130
    )
    figure.get_layout_engine().set(hspace=0.08, wspace=0.04)
    panels = figure.subplots(len(variants), len(shares), squeeze=False)
    for axes, variant in zip(panels, variants, strict=True):
        of = table[table.variant == variant]
        low, high = of["mean"].min(), of["mean"].max()
        for axis, share in zip(axes, shares, strict=True):
            here = of[of.teacher_share == share]
            values = here.pivot(index="alpha_1", columns="alpha_2", values="mean").reindex(index=first, columns=second)
            image = axis.imshow(values.to_numpy(), cmap="cividis", vmin=low, vmax=max(high, low + 1e-9))
            for row, column in np.ndindex(values.shape):
                value = values.iat[row, column]
                colour = "white" if value <= (low + high) / 2 else "black"
                axis.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
            for chosen in here[here.best].itertuples():
                corner = (second.index(chosen.alpha_2) - 0.46, first.index(chosen.alpha_1) - 0.46)
                axis.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="#D55E00", linewidth=2.5))
            axis.set_xticks(range(len(second)), [f"{value:g}" for value in second], fontsize=8)
            axis.set_yticks(range(len(first)), [f"{value:g}" for value in first], fontsize=8)
            axis.set_xlabel("α of S2", fontsize=8)
            axis.set_ylabel("α of S1", fontsize=8)
            axis.set_title(f"{variant_label(variant)}, teacher's share {share:g}", fontsize=8)
        bar = figure.colorbar(image, ax=list(axes), shrink=0.9)
        bar.ax.tick_params(labelsize=7)
    heading = title.replace(", scale", "\nscale")  # or the title would be wider than a single panel
    figure.suptitle(f"{heading}\nensemble on validation, percent; the best outlined", fontsize=8)
    return png(figure)


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study, seeds = item["study"], select(settings, "seeds", list[int])
    points = read_points(Path("grid", study), select(settings, "grid", Grid), seeds)
    grid_report(study, points, select(settings, "scale", str), seeds, Path("reports", f"{name}.md"))


REPORT = Report(
    names=lambda params: {f"grid-{study}": {"study": study} for study in params.searched_studies},
    inputs=lambda params, item: places.grid_runs_of(params, item["study"]),
    make=make,
    category="Diagnostics",
    shows="search of weights",
    endings=(".md", ".csv", ".png", ".yaml"),
)
