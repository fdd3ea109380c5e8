"""`classroom explain`: where a number of a report is from, whether it is up to date, and how to make it again.

The report's page, which reports/index.html shows too, names the runs behind a number; the records of their jobs say
what the runs were made from. Nothing is changed, and neither runs nor data need to be here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classroom.engines import graph, manifest
from classroom.engines.graph import Graph, Stage
from classroom.engines.manifest import Record
from classroom.errors import ClassroomError, DataError
from classroom.evaluation.costs import cost_of
from classroom.evaluation.evaluate import evaluate_predictions
from classroom.params import load
from classroom.provenance.reproduction import reproduction
from classroom.reporting.common import provenance
from classroom.reporting.common.numbers import find, numbers
from classroom.reporting.common.pages import read_page
from classroom.reporting.registry import unknown
from classroom.state import Hashes

VALUE = ("value", "paper", "difference")


def explain(report: str, cell: str = "") -> dict[str, Any]:
    """Returns what is known about the number `cell` of a report, or without it lists the report's numbers; as JSON.

    Of a number, and of a whole picture: its `sources` with the `runs` behind each; the `jobs` that make it and the
    `settings` that they had; what has `changed` since, by job, as pairs of the recorded and the current value; which
    files are `absent`, which jobs are `not_on_record`; the `commands` that make it again, in a fresh clone too, with
    `notes`; and what to type `instead` to leave that to Snakemake or DVC.

    Raises ClassroomError for an unknown report or number and for a report that names no runs, and DataError if the
    report's page is missing, damaged, or not of the runs that are evaluated now.
    """
    stages = graph.load()
    stage = stage_of_report(stages, report)
    files = [out for out in stage.outputs if Path(out).stem == Path(report).stem]
    file = next((out for out in files if out.endswith(".md")), files[0])
    remedy = f"Make the report first: `snakemake --cores all {file}` or `dvc repro {stage.name}`."
    page = next((read_page(Path(out), remedy) for out in files if out.startswith("reports/pages/")), None)
    known = numbers(page) if page else {}
    if known and not cell:
        return {"report": file, "numbers": [{"cell": name, **_value(of)} for name, of in known.items()]}
    if page is None or not (known or page["made_from"]):
        raise ClassroomError(f"{file}: names no runs that it is made from; `dvc repro {stage.name}` makes it again.")
    if cell and not known:
        raise ClassroomError(f"--cell {cell}: {file} has no numbers to choose from. Leave --cell out for its runs.")
    name = find(known, cell) if known else ""
    return {
        "report": file,
        "disclaimer": page["disclaimer"],
        "cell": name,
        **_explained(known[name] if known else _whole(page["made_from"]), page, file, stage, stages),
    }


def _whole(runs: Sequence[str]) -> dict[str, Any]:
    """A picture that `runs` are behind, in the form of a number."""
    source = {"what": "", "unit": "", "metric": "", "values": dict.fromkeys(runs), "predictions": {}}
    return {"text": "", **dict.fromkeys(VALUE), "sources": [source]}


def stage_of_report(stages: Graph, report: str) -> Stage:
    """The stage that renders a report, which may be named by any of its files or without an ending.

    Raises ClassroomError for an unknown one.
    """
    made = {Path(out).stem: stages.producer[out] for out in stages.below["reports"]}
    if (name := Path(report).stem) not in made:
        raise unknown(name, made)
    return made[name]


def _explained(
    number: Mapping[str, Any], page: Mapping[str, Any], file: str, stage: Stage, stages: Graph
) -> dict[str, Any]:
    costs = provenance.read_runs() | page["runs"]
    costs |= {run: cost_of(Path(run)) for run in page["made_from"] if run not in costs and Path(run).exists()}
    runs_of = [provenance.costs_of_runs(source, costs, page["name"]) for source in number["sources"]]
    trainings = {run: stages.producer.get(run) for runs in runs_of for run in runs}  # None: not asked for today
    jobs, needed = _jobs(trainings, stage, stages)
    raw, hash_of = load(Path("params.yaml")), Hashes()
    on_record = {one.name: _record(one, raw, hash_of) for one in needed}
    of_run = {run: on_record.get(training.name) if training else None for run, training in trainings.items()}
    sources = [
        {
            "what": source["what"],
            "unit": source["unit"],
            "runs": [_run(run, source, of, of_run[run]) for run, of in runs.items()],
        }
        for source, runs in zip(number["sources"], runs_of, strict=True)
    ]
    versions = [version for runs in runs_of for of in runs.values() if (version := of.get("code_version"))]
    again = reproduction(needed, [record for record in on_record.values() if record], versions)
    if unknown := [run for run, training in trainings.items() if training is None]:
        again["notes"].append(f"not among these commands, as the settings no longer include it: {', '.join(unknown)}")
    return {
        **_value(number),
        "sources": sources,
        **_changes_since(jobs, on_record, raw, hash_of),
        **again,
        "instead": [f"snakemake --cores all {file}", f"dvc repro {stage.name}"],
    }


def _value(cell: Mapping[str, Any]) -> dict[str, Any]:
    """`text`: of our own value, as the report prints it."""
    return {"text": cell["text"].split("<br>")[0].replace("**", ""), **{key: cell[key] for key in VALUE}}


def _jobs(trainings: Mapping[str, Stage | None], report: Stage, stages: Graph) -> tuple[list[Stage], list[Stage]]:
    """The jobs that make a number, from the trainings behind it; and all jobs that these need.

    The last ones read the trainings' runs, such as a table's `classroom evaluate`; one that reads other runs as well
    needs these. `trainings`: by run.
    """
    names = {one.name for one in trainings.values() if one}
    seeds = {Path(run).name.removeprefix("seed-") for run in trainings}
    readers = [
        one.name
        for one in stages.upstream([report.name])
        if _seed(one) is None and not names.isdisjoint(stages.depends_on[one.name])
    ] or [report.name]
    needed = [one for one in stages.upstream(readers) if _seed(one) in (None, *seeds)]
    own = {*readers, *(one.name for one in stages.upstream(names))} if names else {one.name for one in needed}
    return [one for one in needed if one.name in own], needed


def _seed(stage: Stage) -> str | None:
    """Of a training its seed."""
    words = stage.command.split()
    return words[words.index("--seed") + 1] if words[1] == "train" else None


def _run(run: str, source: Mapping[str, Any], cost: Mapping[str, Any], record: Record | None) -> dict[str, Any]:
    """One run behind a number: its value, what it took, the MD5s of what it was made from and of what it made."""
    found = {"run": run, "value": source["values"][run]}
    found |= {key: of for key, of in cost.items() if key != "run" and of is not None}
    known = record["outputs"] if record else {}
    # else the record is of another training than the number; dvc.lock has the folder's hash, a manifest its files'
    if known.get(run, ...) == cost["content"] or known.get(f"{run}/predictions.parquet", ...) == cost["predictions"]:
        found["made_from"] = {path: of for path, of in record["dependencies"].items() if not path.startswith("src/")}
        found["made"] = record["outputs"]
    return found | {"reevaluated": _reevaluated(run, source)}


def _reevaluated(run: str, source: Mapping[str, Any]) -> bool | None:
    """Whether the predictions of the run give its value once more; None if they are not here, or not what it is of."""
    path = Path(run, "predictions.parquet")
    if not source["metric"] or not path.exists():
        return None
    try:
        value = getattr(evaluate_predictions(path), source["kind"])[source["network"]][source["metric"]]
    except (DataError, KeyError):  # damaged, or of another network
        return False
    return 100 * value == source["values"][run]


def _record(stage: Stage, raw: dict[str, Any], hash_of: Hashes) -> Record | None:
    """What is on record of a job, and of two records the one that fits what is here."""
    found = list(manifest.records(stage))
    fitting = (record for record in found if not manifest.changes(stage, record, raw, hash_of))
    return next(fitting, next(iter(found), None))


def _changes_since(
    jobs: list[Stage], on_record: Mapping[str, Record | None], raw: dict[str, Any], hash_of: Hashes
) -> dict[str, Any]:
    """The jobs, their settings as recorded, and what is not any more as it was."""
    settings: dict[str, Any] = {}
    changed: dict[str, dict[str, tuple[Any, Any]]] = {}
    absent: set[str] = set()
    for stage in jobs:
        if record := on_record[stage.name]:
            settings |= record["params"]
            files = {*stage.dependencies, *stage.outputs, *record["dependencies"], *record["outputs"]}
            differences = manifest.changes(stage, record, raw, hash_of)
            gone = {what for what, (_, now) in differences.items() if what in files and now is None}
            absent |= gone
            if others := {what: pair for what, pair in differences.items() if what not in gone}:
                changed[stage.name] = others
    return {
        "jobs": [stage.name for stage in jobs],
        "settings": settings,
        "changed": changed,
        "absent": sorted(absent),
        "not_on_record": [stage.name for stage in jobs if on_record[stage.name] is None],
    }
