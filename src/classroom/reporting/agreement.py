"""Agreement of a study's students with the ground truth and with their own teacher (fidelity)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS, METRICS
from classroom.methods.registry import run_folder
from classroom.reporting.common import heading
from classroom.reporting.common.drawing import label_panels, saved, synthetic_mark, variant_panels
from classroom.reporting.common.pages import Drawing, Page
from classroom.reporting.common.results import read_variants
from classroom.reporting.registry import Report, of_studies

WITH_TEACHER = ("kd_off", "kd_on", "kd_ml")
STUDENTS = ("S1", "S2", "ensemble")
BARS = (
    (-0.2, "test", "#56B4E9", "", "with the ground truth"),
    (0.2, "fidelity", "#D55E00", "//", "with the teacher"),
)


def agreement(study: str, results: Sequence[Result], scale: str) -> Page:
    """Agreement of the students with teacher and ground truth: a panel per technique and strategy with a teacher.

    Bars are means over seeds, whiskers the sample standard deviation.
    """
    data = results[0]["data"]
    metric = METRICS[data["task"]][0]
    taught = {one["method"]: one for one in results if all(of["fidelity"] for of in one["seeds"].values())}
    title = f"{LABELS[metric]} of the students with the ground truth and with their own teacher (fidelity), {study}"
    figure, axes = variant_panels(f"{title}, scale {scale}{synthetic_mark(data['synthetic'])}", taught, WITH_TEACHER)
    at = np.arange(len(STUDENTS))
    of_ensembles: dict[str, list[float]] = {"test": [], "fidelity": []}
    for variant, axis in axes.items():
        for shift, kind, colour, hatch, label in BARS:
            runs = taught[variant]["seeds"].values()
            values = 100 * np.array([[run[kind][name][metric] for name in STUDENTS] for run in runs])
            means, spread = values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None
            axis.bar(
                at + shift, means, 0.38, yerr=spread, color=colour, hatch=hatch, edgecolor="white", label=label,
                error_kw={"linewidth": 0.8},
            )  # fmt: skip
            for place, value in zip(at + shift, means, strict=True):
                axis.text(place, value + 1.5, f"{value:.0f}", ha="center", fontsize=6)
            of_ensembles[kind].append(means[-1])
        axis.set_xticks(at, STUDENTS)
        axis.set_ylim(0, 109)
    label_panels(figure, "", f"{LABELS[metric]}, %")
    told = "None of the trained variants has a teacher."
    if axes:
        ground_truth, teacher = (f"{min(values):.0f} to {max(values):.0f} %" for values in of_ensembles.values())
        told = f"The ensembles agree with the ground truth at {ground_truth}, with their teacher at {teacher}."
    alt = (
        "Pairs of bars for S1, S2 and the ensemble, a panel for each variant with a teacher: "
        f"{LABELS[metric]} with the ground truth and with the teacher. {told}"
    )
    disclaimer = heading.disclaimer(scale, [data], shows_paper=False)
    runs = [run_folder(study, name, seed).as_posix() for name, of in taught.items() for seed in of["seeds"]]
    return Page(title, disclaimer, drawing=Drawing(saved(figure), alt), study=study, made_from=runs)


REPORT = Report(
    names=lambda params: of_studies(params, lambda study: f"agreement-{study}"),
    inputs=lambda params, item: places.results_of(params, item["study"]),
    settings=("scale", "variants"),
    draw=lambda request: agreement(request.study, read_variants(request.study, request.variants), request.scale),
    category="Figures",
    shows="agreement with the teacher",
    suffixes=(".png",),
)
