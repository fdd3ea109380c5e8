"""The results of a grid search of the loss weights α, β and γ, and the best weights as an overlay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from classroom import places
from classroom.artifacts import GridPoint
from classroom.core.ensemble import STUDENTS
from classroom.evaluation.grid import read_points
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import Grid
from classroom.reporting.common.drawing import panels, saved, synthetic_mark
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.provenance import searched
from classroom.reporting.common.search import search_page
from classroom.reporting.common.tables import GREEK, Cell, Part, in_greek, mean_sd, percent_cell, variant_label
from classroom.reporting.registry import Report, Request

POINT = ("alpha_1", "alpha_2", "teacher_share")
METRIC = "the selection metric"


def grid_report(study: str, points: Sequence[GridPoint], scale: str, seeds: Sequence[int]) -> Page:
    """A table and a map of every variant; its .yaml has the best weights, for `classroom overlay`.

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
                *(f"{record[key]:g}" for key in POINT),
                *(in_greek({name: record[f"{name}_{student}"] for name in GREEK}) for student in STUDENTS),
                percent_cell(record, searched(points[at], "ensemble", METRIC), best=record["best"]),
                *(
                    Cell(f"{record[student]:.2f}", record[student], sources=(searched(points[at], student, METRIC),))
                    for student in STUDENTS
                ),
            ]
            for at, record in zip(of.index, of.to_dict("records"), strict=True)
        ]  # fmt: skip
        header = ["α of S1", "α of S2", "teacher's share", "weights of S1", "weights of S2", "ensemble", "S1", "S2"]
        parts.append(Part(header, rows, variant_label(variant)))
    facts = [
        "- each cell: the metric that selects epochs (IoU or accuracy) in percent **on validation**: for the ensemble "
        "mean ± sample standard deviation over seeds, the best mean in bold; for S1 and S2 the mean. The test split "
        "was not used.",
        "- teacher's share: the part of 1 − α that goes to β; the rest goes to γ. Only KD + ML has both",
    ]
    synthetic = any(point["data"]["synthetic"] for point in points)
    picture = _map(table, f"Grid search on {study}, scale {scale}{synthetic_mark(synthetic)}")
    return search_page(
        f"grid-{study}", f"Grid search on {study}", study, scale, seeds, points=points,
        facts=facts, parts=parts, table=table,
        winner="ensemble", key="weights", chosen=[_weights(*pair) for pair in best.items()],
        drawing=Drawing(picture, _alt_text(table)),
    )  # fmt: skip


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


def _alt_text(table: pd.DataFrame) -> str:
    """The alternative text of the map."""
    best = []
    for row in table[table.best].itertuples():
        lowest = table["mean"][table.variant == row.variant].min()
        best.append(
            f"{variant_label(row.variant)} from {lowest:.1f} to {row.mean:.1f} %, best at α of S1 {row.alpha_1:g}, "
            f"α of S2 {row.alpha_2:g}, teacher's share {row.teacher_share:g}"
        )
    return (
        f"Heat maps of the ensemble's metric on validation, a row per α of S1, a column per α of S2: {'; '.join(best)}."
    )


def _weights(variant: str, point: GridPoint) -> str:
    """The weights of every student that its variant uses, in YAML."""
    students = []
    for student in STUDENTS:
        received = getattr(EXCHANGE[variant], student)
        unused = {"beta": received.from_teacher is None, "gamma": received.from_peer is None}
        kept = {name: value for name, value in point["weights"][student].items() if value or not unused.get(name)}
        students.append(f"{student}: {{{', '.join(f'{name}: {value:g}' for name, value in kept.items())}}}")
    return f"{variant}: {{{', '.join(students)}}}"


def _map(table: pd.DataFrame, title: str) -> bytes:
    """A row of panels per variant, a panel per teacher's share: S1's α in rows, S2's in columns, the best outlined."""
    from matplotlib.patches import Rectangle  # slow

    variants, shares = list(dict.fromkeys(table.variant)), list(dict.fromkeys(table.teacher_share))
    first, second = list(dict.fromkeys(table.alpha_1)), list(dict.fromkeys(table.alpha_2))
    width, height = max(2.2, 0.6 * len(second) + 0.9), max(1.9, 0.55 * len(first) + 0.9)
    size = max(3.4, width * len(shares) + 1.0), height * len(variants) + 0.8
    figure, rows = panels(size, len(variants), len(shares), dpi=130)
    figure.get_layout_engine().set(hspace=0.08, wspace=0.04)
    for axes, variant in zip(rows, variants, strict=True):
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
    figure.suptitle(f"{heading}\nensemble on validation, percent; the best point is outlined", fontsize=8)
    return saved(figure)


def draw(request: Request) -> Page:
    points = read_points(Path("grid", request.study), request.setting("grid", Grid), request.seeds)
    return grid_report(request.study, points, request.scale, request.seeds)


REPORT = Report(
    names=lambda params: {f"grid-{study}": {"study": study} for study in params.searched_studies},
    inputs=lambda params, item: places.grid_runs_of(params, item["study"]),
    settings=("scale", "seeds", "grid"),
    draw=draw,
    category="Diagnostics",
    shows="search of loss weights",
    asked_by=("grid.studies",),
    suffixes=(".md", ".csv", ".png", ".yaml"),
)
