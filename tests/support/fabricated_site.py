"""Reports of fabricated results as a project has them, and the site made of them, in a second and without training."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from classroom.methods.grid.points import weights_at
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.reporting.agreement import agreement
from classroom.reporting.baselines import baselines_table
from classroom.reporting.cost import cost_table
from classroom.reporting.exchange import TABLES
from classroom.reporting.fidelity import fidelity_table
from classroom.reporting.grid_search import grid_report
from classroom.reporting.site import site
from classroom.reporting.variants import variants_table
from support.fabricated import LGG, MOBILENET, TEACHER, all_twelve, alone, network
from support.rendered import save
from support.studies import ROOT

SEEDS = [0, 1, 2]
STUDY = "lgg-resnet18"


def taken(run: str, **changes: Any) -> dict[str, Any]:
    """What a run took and was made from, as `evaluation.costs` has it; of every run another digest."""
    seed = int(run.rsplit("-", 1)[1])
    facts = {
        "run": run, "seconds": 100.0 + seed, "seconds_per_epoch": 8.0, "peak_memory_mb": {"process": 900},
        "device": "cpu", "threads": 1, "bytes": 2**20, "identity": sha256(run.encode()).hexdigest(),
        "code_version": "0123456789ab", "command": f"classroom train for {run}",
        "best_epoch": {"T": 4, "S1": 5 + seed, "S2": 9}, "predictions": "of no run",
    }  # fmt: skip
    return facts | changes


def runs_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [taken(f"runs/{result['study']}/{result['method']}/seed-{seed}") for seed in SEEDS]


def results(study: str = STUDY, data: dict[str, Any] = LGG) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The twelve variants; a teacher and two students alone, the second of another study."""
    student = alone("student", [0.68, 0.70, 0.69], network(), data=data, study=study)
    teacher = alone("teacher", [0.80, 0.81, 0.82], TEACHER, data=data, study=study)
    small = alone("student", [0.50, 0.52, 0.51], MOBILENET, data=data, study="lgg-mobilenet")
    return all_twelve(3, data, study=study), [student, teacher, small]


def all_runs(**changes: Any) -> dict[str, dict[str, Any]]:
    """What the runs of all `results` took, by their folders."""
    variants, baselines = results(**changes)
    return {run["run"]: run for of in (*variants, *baselines) for run in runs_of(of)}


def make_reports(folder: Path, study: str = STUDY, data: dict[str, Any] = LGG) -> None:
    """One of most kinds of reports in `folder`, with their pages."""
    variants, baselines = results(study, data)
    save("variants", variants_table("table4", "small", SEEDS, variants, baselines[0]), folder / "table4.md")
    save("fidelity", fidelity_table("table12", "small", SEEDS, variants), folder / "table12.md")
    save("baselines", baselines_table("table2", "small", SEEDS, baselines), folder / "table2.md")
    for name, render in TABLES.items():
        save("exchange", render(), folder / f"{name}.md")
    costs = [
        {"study": of["study"], "method": of["method"], "table": "table4", "seeds": dict(enumerate(runs_of(of)))}
        for of in (*variants, *baselines)
    ]
    save("cost", cost_table("small", costs), folder / "cost.md")
    save("grid_search", grid_report(study, points(study), "small", SEEDS), folder / f"grid-{study}.md")
    save("agreement", agreement(study, variants, "small"), folder / f"agreement-{study}.png")


def points(study: str) -> list[dict[str, Any]]:
    """A grid of two points of KD + ML V3."""
    found = []
    for at, quality in (((0.1, 0.4, 0.5), 0.71), ((0.4, 0.4, 0.5), 0.75)):
        place = f"grid/{study}/kd_ml-v3/{'-'.join(map(str, at))}"
        scores = {"T": 0.9, "S1": quality - 0.02, "S2": quality - 0.01, "ensemble": quality}
        found.append(
            {
                "variant": "kd_ml-v3",
                **dict(zip(("alpha_1", "alpha_2", "teacher_share"), at, strict=True)),
                "weights": weights_at(EXCHANGE["kd_ml-v3"], *at).model_dump(mode="json"),
                "data": LGG,
                "seeds": {str(seed): scores for seed in SEEDS},
                "costs": {str(seed): taken(f"{place}/seed-{seed}", seconds=30.0) for seed in SEEDS},
            }
        )
    return found


def make_site(folder: Path, **changes: Any) -> Path:
    """A folder's reports/index.html; `changes` as of `make_reports`."""
    reports = folder / "reports"
    make_reports(reports, **changes)
    render(reports, all_runs(**changes))
    return reports / "index.html"


def render(reports: Path, runs: dict[str, dict[str, Any]]) -> int:
    captions = ROOT / "workflow" / "report"
    return site(reports / "pages", runs, captions, "small", SEEDS, reports / "index.html")
