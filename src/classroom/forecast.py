"""`classroom forecast`: jobs, hours and disk of reports, from the settings and a few measured steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from classroom.artifacts import SPLIT_NAMES
from classroom.data.readers import classes_of, for_task, reader
from classroom.engines import graph, together
from classroom.engines.graph import Graph, Stage
from classroom.engines.manifest import matches
from classroom.files import read_json
from classroom.params import BASELINES, Dataset, Params, load
from classroom.progress import duration
from classroom.provenance.explain import stage_of_report
from classroom.reporting.common.tables import TECHNIQUE_LABELS
from classroom.settings.checks import check
from classroom.state import Hashes

START_UP = 5.0
"""Seconds before a training's first step: imports, networks, data."""


@dataclass(frozen=True)
class Run:
    """One training."""

    stage: Stage
    study: str
    method: str

    @property
    def kind(self) -> str:
        """A baseline or technique: all strategies of a technique take the same time."""
        return self.method if self.method in BASELINES else self.method.split("-")[0]


def forecast(reports: Sequence[str], device: str) -> str:
    """The jobs that `reports` need (all reports if none is named), and their time and disk space, as text.

    Raises ClassroomError for an unknown report, and as building the networks does.
    """
    raw = load(Path("params.yaml"))
    params, stages = check(raw), graph.load()
    needed = _needed(stages, reports)
    remembered = Hashes()
    to_do = stages.downstream(name for name, stage in needed.items() if not matches(stage, raw, remembered))
    counts = Counter(name.split("@")[0] for name in needed if name in to_do)
    lines = ["jobs: " + (", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none")]
    if done := len(needed) - counts.total():
        lines[0] += f"; {done} of {len(needed)} are done already"
    runs = [_run(stage) for stage in needed.values() if stage.is_training]
    images = {}
    for name, task in sorted({(params.study[run.study].dataset, params.study[run.study].task) for run in runs}):
        images[name, task], source = count_images(name, params.dataset[name], task)
        lines.append(f"images: {images[name, task]:,} of {name} for {task} ({source})")
    sizes = {study: split_sizes(params, study, images) for study in {run.study for run in runs}}
    left = [run for run in runs if run.stage.name in to_do]
    if len(left) < len(runs):
        lines.append(f"{len(runs) - len(left)} of {len(runs)} trainings are done already and not counted below")
    grouped = together.runs_in(run.stage for run in left)
    rows, seconds, weights, costs = _trainings(params, raw, left, {run.study for run in grouped}, sizes, device)
    if rows:
        header = ["study", "", "trainings", "s/step", "time per training", "total"]
        lines.append(tabulate(rows, header, tablefmt="simple", floatfmt=("", "", "", ".3f", "", "")))
    if len(grouped) > 1:
        header = ["at a time", "time, one by one", "time, as Snakemake groups them", "jobs"]
        table = tabulate(_grouped(grouped, raw, costs), header, tablefmt="simple")
        lines.append(f"baselines and variants, which may share a process (`together` in params.yaml):\n{table}")
    threads, most = params.training.threads, "at most " if params.training.early_stopping else ""
    data = sum(_prepared_bytes(params, study, of) for study, of in sizes.items())
    if left:
        lines.append(
            f"{most}{duration(seconds)} of trainings in total (core time {duration(seconds * threads)}; threads per "
            f"training: {threads}), from steps measured on this machine; divide by the number of parallel jobs or "
            "GPUs. Everything else takes minutes."
        )
    lines += [
        f"disk: {_gigabytes(weights)} of weights and predictions, {_gigabytes(data)} of prepared images; "
        "DVC's cache keeps a second copy unless its cache.type is reflink.",
    ]
    return "\n".join(lines)


def _needed(stages: Graph, reports: Sequence[str]) -> dict[str, Stage]:
    """The stages of the reports and everything upstream."""
    of = [stage_of_report(stages, report) for report in reports] or map(stages.producer.get, stages.below["reports"])
    return {stage.name: stage for stage in stages.upstream(stage.name for stage in of if stage)}


def _run(stage: Stage) -> Run:
    study, method = stage.command.split()[2:4]
    return Run(stage, study, method)


def _trainings(
    params: Params,
    raw: dict[str, Any],
    runs: list[Run],
    grouped: set[str],
    sizes: Mapping[str, tuple[int, int, int]],
    device: str,
) -> tuple[list[list[Any]], float, float, dict[str, dict[str, float]]]:
    """A row per study and kind; total seconds and bytes; by `grouped` study, those of its teacher and its student.

    `sizes`: by study, of its splits.
    """
    from classroom.speed import measure

    rows, total, size = [], 0.0, 0.0
    costs: dict[str, dict[str, float]] = {study: {} for study in grouped}
    methods = {(run.study, run.kind): run.method for run in runs}
    methods |= {(study, kind): kind for study in sorted(grouped) for kind in BASELINES}
    counts = Counter((run.study, run.kind) for run in runs)
    for (study, kind), method in methods.items():
        count = counts[study, kind]
        settings = params.study[study]
        classes = max(len(classes_of(params.dataset[settings.dataset])), 2)
        speed = measure(method, study, raw, classes, device)
        train, val, test = sizes[study]
        batch, epochs = params.training.batch_size, params.training.epochs
        seconds = epochs * (train // batch * speed.training_step + val / batch * speed.prediction)
        seconds += START_UP + 2 * (val + test) / batch * speed.prediction
        if study in grouped and kind in BASELINES:
            costs[study][kind] = seconds
        if not count:
            continue
        pixels = settings.image_size**2 * 4 if settings.task == "segmentation" else classes * 16
        rows.append(
            [
                study, TECHNIQUE_LABELS.get(kind, kind), count, speed.training_step, duration(seconds),
                duration(count * seconds),
            ]
        )  # fmt: skip
        total += count * seconds
        size += count * (speed.weight_bytes + test * pixels)
    return rows, total, size, costs


def _grouped(
    runs: list[together.Run], raw: dict[str, Any], costs: dict[str, dict[str, float]]
) -> Iterator[tuple[int, str, str, int]]:
    """By the number of trainings at a time: time run by run, time as planned, and jobs as planned."""
    slots, one_by_one = 1, raw | {"together": {"enabled": False}}
    while True:
        alone, plan = (together.choose(runs, settings, slots, costs) for settings in (one_by_one, raw))
        yield slots, duration(alone.duration), duration(plan.duration), len(plan.groups)
        if slots >= len(runs):
            return
        slots *= 2


def split_sizes(params: Params, study: str, images: Mapping[tuple[str, str], int]) -> tuple[int, int, int]:
    """Images in training, validation and test; an estimate before there is a split of as many images.

    `images`: their number, by dataset and task.
    """
    of = params.study[study]
    count, path = images[of.dataset, of.task], Path("data/splits", f"{study}.parquet")
    if path.exists():  # maybe of another source's images
        counts = pd.read_parquet(path, columns=["split"]).split.value_counts()
        if counts.sum() == count:
            return tuple(int(counts[name]) for name in SPLIT_NAMES)
    return tuple(count * percent // 100 for percent in of.split.percent)


def count_images(name: str, dataset: Dataset, task: str) -> tuple[int, str]:
    """The images of a dataset that is to be fetched which a study of `task` uses, and where they were counted.

    They are counted by their file names where they are: in the folder of the dataset's file, else in data/raw, if they
    were fetched from the same source. Before they are there, it is not known which have a mask, so all count.

    Raises DataError if the folder is none of the reader's layout.
    """
    if dataset.source == "directory" and (folder := Path(dataset.directory).expanduser()).is_dir():
        samples = reader(dataset.reader).find([folder], dataset).samples
        count, source = len(for_task(samples, task, dataset.missing_masks)), str(folder)
    elif dataset.source != "synthetic" and _is_fetched(name, dataset):
        fetched = Path("data/raw", name, "samples.csv")
        table = pd.read_csv(fetched, usecols=["label", "mask"], dtype=str, keep_default_na=False)
        all_count = task == "segmentation" and dataset.missing_masks == "empty"
        needed = table["mask" if task == "segmentation" else "label"] != ""
        count, source = len(table) if all_count else int(needed.sum()), f"data/raw/{name}"
    else:
        count, key = dataset.size
        source = f"datasets/{name}.yaml: {key}"
        if dataset.source == "directory":
            source += f"; its directory is not there: {dataset.directory}"
        elif dataset.source != "synthetic":
            source += "; not fetched yet"
    return min(count, dataset.subset or count), source


def _is_fetched(name: str, dataset: Dataset) -> bool:
    """Whether data/raw has the images of these settings, and not of another scale's."""
    path = Path("data/raw", name, "about.json")
    if not path.exists():
        return False
    about = read_json(path, (), f"Run `classroom fetch {name}` again.")
    return all(about.get(key) == getattr(dataset, key) for key in ("source", "subset"))


def _prepared_bytes(params: Params, study: str, sizes: tuple[int, int, int]) -> int:
    settings = params.study[study]
    channels = 4 if settings.task == "segmentation" else 3
    return sum(sizes) * settings.image_size**2 * channels


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
