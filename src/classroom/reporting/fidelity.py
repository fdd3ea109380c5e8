"""Tables 11, 12: fidelity, the agreement of the students with their own teacher."""

from __future__ import annotations

from collections.abc import Sequence

from classroom import places
from classroom.artifacts import Result
from classroom.core.metrics import LABELS
from classroom.reporting.common import heading, paper
from classroom.reporting.common.cells import UNCERTAIN, cells, layout
from classroom.reporting.common.pages import Page, results_page
from classroom.reporting.common.results import check_alike, read_variants
from classroom.reporting.common.tables import ENSEMBLES, labelled, shown_metrics, variant_label
from classroom.reporting.registry import Report, Request, of_studies


def fidelity_table(name: str, scale: str, seeds: Sequence[int], results: list[Result]) -> Page:
    """The metrics of the task with the teacher's predictions as the ground truth.

    One row per technique with a teacher and student or ensemble, for each strategy the metrics in percent, as in the
    tables of variants. Results of methods without a teacher are left out. Raises DataError for results of other seeds,
    data or training settings than each other.
    """
    check_alike(results, seeds)
    taught = [result for result in results if result["seeds"][str(seeds[0])]["fidelity"]]
    data, study = results[0]["data"], results[0]["study"]
    printed = paper.variants(name)
    metrics = shown_metrics(data, printed)
    table = cells(taught, seeds, "fidelity", printed)
    facts = [
        heading.networks(taught or results),
        ENSEMBLES,
        f"- each cell: {' and '.join(LABELS[metric] for metric in metrics)} in percent with the teacher's predictions "
        "as the ground truth, mean ± sample standard deviation over seeds, the best strategy of each row in bold"
        + ("; below it the paper's mean and ours minus the paper's." if len(printed) else "."),
        *heading.pooling(metrics),
    ]
    below = [
        "Students are compared with their own teacher of the same seed: in KD (on) and KD + ML the one that trained "
        "with them, in KD (off) the baseline teacher."
    ]
    if len(printed) and not printed.certain.all():
        below.append(
            f"{UNCERTAIN} The order of V2 and V3 is garbled in the source that the paper's values were read from: "
            "these two may be swapped. Their standard deviations show which students belong to which ensemble."
        )
    if len(printed) and table.paper[table.metric.isin(metrics)].isna().any():
        below.append("The source has the paper's values of KD (off), but not their order, so they are not shown.")
    below += _silent_teachers(taught, metrics)
    part = layout(taught, "fidelity", table, metrics)
    if not taught:
        below = ["None of the trained variants has a teacher."]
    return results_page(
        name, f"fidelity of the students to their teacher on {study}", scale, seeds, results, printed,
        facts, parts=[part._replace(below=[*part.below, *below])], study=study,
        table=labelled(table, study=study, scale=scale, synthetic=data["synthetic"]),
    )  # fmt: skip


def _silent_teachers(results: Sequence[Result], metrics: Sequence[str]) -> list[str]:
    """A sentence on the runs whose teacher predicts no foreground in any test image."""
    if results[:1] and results[0]["data"]["task"] != "segmentation":
        return []
    silent = [
        f"{variant_label(result['method'])} (seed {seed})"
        for result in results
        for seed, of in result["seeds"].items()
        if not sum(of["test_images"]["T"]["tp"]) + sum(of["test_images"]["T"]["fp"])
    ]
    if not silent:
        return []
    return [
        f"**The teacher predicts no foreground in any test image: {', '.join(silent)}.** "
        f"{heading.on_empty_masks(metrics)}"
    ]


def draw(request: Request) -> Page:
    results = read_variants(request.study, request.variants)
    return fidelity_table(request.name, request.scale, request.seeds, results)


REPORT = Report(
    names=lambda params: of_studies(params, lambda study: params.study[study].reports.fidelity),
    inputs=lambda params, item: places.results_of(params, item["study"]),
    settings=("scale", "seeds", "variants"),
    draw=draw,
    category="Tables",
    shows="fidelity",
    asked_by=("study.{study}.reports.fidelity",),
)
