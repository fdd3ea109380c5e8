"""What reports will take: jobs, hours and disk, from the settings and a few measured steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from classroom.data.readers import classes_of
from classroom.engines import graph
from classroom.engines.graph import Stage, upstream
from classroom.engines.manifest import matches
from classroom.params import BASELINES, Dataset, Params, check, load
from classroom.provenance.explain import stage_of_report
from classroom.state import Hashes

START_UP = 5.0
"""Seconds until a training's first step: imports, networks, data."""

TECHNIQUES = {"ml": "ML", "kd_off": "KD (off)", "kd_on": "KD (on)", "kd_ml": "KD + ML"}


@dataclass(frozen=True)
class Run:
    """One training of the plan."""

    stage: Stage
    study: str
    method: str

    @property
    def kind(self) -> str:
        """Runs of a kind take the same time: a baseline, or a technique, whatever its strategy."""
        return self.method if self.method in BASELINES else self.method.split("-")[0]


def forecast(reports: Sequence[str], device: str, say: Callable[[str], None]) -> None:
    """Says, for the `reports` (all if none is named), which jobs they need and what those will take.

    Raises ClassroomError for an unknown report and whatever building the networks raises.
    """
    raw = load(Path("params.yaml"))
    params, stages = check(raw), graph.load()
    needed = _needed(stages, reports)
    counts = Counter(name.split("@")[0] for name in needed)
    say("jobs: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))
    runs = [_run(stage) for stage in needed.values() if stage.command.startswith("classroom train ")]
    remembered = Hashes()
    done = {run.stage.name for run in runs if matches(run.stage, raw, remembered)}
    if done:
        say(f"{len(done)} of {len(runs)} trainings are done already and not counted below")
    left = [run for run in runs if run.stage.name not in done]
    rows, hours, weights = _trainings(params, raw, left, device, say)
    if rows:
        header = ["study", "", "trainings", "s a step", "min a training", "hours"]
        say(
            tabulate(
                rows, header, tablefmt="simple", floatfmt=("", "", "", ".3f", ".1f", ".2f"), disable_numparse=False
            )
        )
    threads = params.training.threads
    say(
        f"{hours:.1f} hours of trainings in all ({hours * threads:.1f} core-hours, {threads} threads each), "
        "from steps measured here just now; on J jobs or GPUs at a time, a J-th of it. Everything else takes minutes."
    )
    data = sum(_prepared_bytes(params, study) for study in {run.study for run in runs})
    say(
        f"disk: {_gigabytes(weights)} of weights and predictions, {_gigabytes(data)} of prepared images; "
        "DVC's cache keeps a second copy unless its cache.type is reflink."
    )


def _needed(stages: dict[str, Stage], reports: Sequence[str]) -> dict[str, Stage]:
    """The stages that make the reports, and all that these stand on."""
    names = [stage_of_report(stages, report).name for report in reports] or [
        stage.name for stage in stages.values() if any(out.startswith("reports/") for out in stage.outputs)
    ]
    return {stage.name: stage for stage in upstream(stages, names)}


def _run(stage: Stage) -> Run:
    study, method = stage.command.split()[2:4]
    return Run(stage, study, method)


def _trainings(
    params: Params, raw: dict[str, Any], runs: list[Run], device: str, say: Callable[[str], None]
) -> tuple[list[list[Any]], float, float]:
    """A row per study and kind; hours and bytes of all."""
    from classroom.speed import measure

    rows, hours, size = [], 0.0, 0.0
    for (study, kind), count in Counter((run.study, run.kind) for run in runs).items():
        method = next(run.method for run in runs if (run.study, run.kind) == (study, kind))
        settings = params.study[study]
        classes = max(len(classes_of(params.dataset[settings.dataset].reader)), 2)
        speed = measure(method, study, raw, classes, device)
        train, val, test = split_sizes(params, study)
        batch, epochs = params.training.batch_size, params.training.epochs
        seconds = epochs * (train // batch * speed.training_step + val / batch * speed.prediction)
        seconds += START_UP + 2 * (val + test) / batch * speed.prediction
        pixels = settings.image_size**2 * 4 if settings.task == "segmentation" else classes * 16
        rows.append(
            [study, TECHNIQUES.get(kind, kind), count, speed.training_step, seconds / 60, count * seconds / 3600]
        )
        hours += count * seconds / 3600
        size += count * (speed.weight_bytes + test * pixels)
    return rows, hours, size


def split_sizes(params: Params, study: str) -> tuple[int, int, int]:
    """Images in training, validation and test: as split, or as they will about be."""
    path = Path("data/splits", f"{study}.parquet")
    if path.exists():
        counts = pd.read_parquet(path, columns=["split"]).split.value_counts()
        return tuple(int(counts[name]) for name in ("train", "val", "test"))
    images = expected_images(params.dataset[params.study[study].dataset])
    return tuple(images * percent // 100 for percent in params.study[study].split.percent)


def expected_images(dataset: Dataset) -> int:
    """The images of a dataset that is not here yet; of a folder of the user's no more is known than the original."""
    if dataset.subset:
        return dataset.subset
    if dataset.source == "synthetic":
        return dataset.synthetic.groups * dataset.synthetic.images_per_group
    return dataset.full_size


def _prepared_bytes(params: Params, study: str) -> int:
    settings = params.study[study]
    channels = 4 if settings.task == "segmentation" else 3
    return sum(split_sizes(params, study)) * settings.image_size**2 * channels


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
