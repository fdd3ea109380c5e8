"""The command line: one thin command per rule, usable by hand and under a debugger.

Imports are lazy, so that `classroom --help` does not wait for torch.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from classroom.errors import ClassroomError

app = typer.Typer(
    help="One teacher and two students learn together: the pipeline's commands. Each runs in the project's root, "
    "reads its settings from params.yaml, and is what the rule or DVC stage of the same name runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StudyName = Annotated[str, typer.Argument(help="A study: a key of `study` in params.yaml, e.g. lgg-resnet18.")]
MethodName = Annotated[str, typer.Argument(help="teacher, student, or a variant such as kd_ml-v3.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the networks' random parts, the order and augmentation.")]


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="A key of `dataset` in params.yaml, e.g. lgg.")],
) -> None:
    """Bring a dataset to data/raw/DATASET and validate every file of it."""
    from classroom.data import sources
    from classroom.params import Dataset, select

    with _job(f"classroom fetch {dataset}") as job:
        settings = select(job.raw, f"dataset.{dataset}", Dataset)
        count = sources.fetch(dataset, settings, Path("data/raw", dataset))
    typer.echo(f"data/raw/{dataset}: {count} images with masks, all valid ({settings.source})")


@app.command()
def prepare(study: StudyName) -> None:
    """Resize a study's images once, into memory-mapped arrays and an index."""
    from classroom.data.prepare import prepare as run
    from classroom.params import select

    with _job(f"classroom prepare {study}") as job:
        name = select(job.raw, f"study.{study}.dataset", str)
        size = select(job.raw, f"study.{study}.image_size", int)
        reader = select(job.raw, f"dataset.{name}.reader", str)
        source = select(job.raw, f"dataset.{name}.source", str)
        count = run(name, reader, source, size, Path("data/raw", name), Path("data/prepared", study))
    typer.echo(f"data/prepared/{study}: {count} images at {size}×{size}")


@app.command()
def split(study: StudyName) -> None:
    """Split a study's images into training, validation and test."""
    from classroom.data.split import write
    from classroom.params import Split, select

    with _job(f"classroom split {study}") as job:
        settings = select(job.raw, f"study.{study}.split", Split)
        sizes = write(Path("data/prepared", study), settings, Path("data/splits", f"{study}.parquet"))
    typer.echo(f"data/splits/{study}.parquet: " + ", ".join(f"{count} {name}" for name, count in sizes.items()))


@app.command()
def train(
    study: StudyName,
    method: MethodName,
    seed: Seed,
    device: Annotated[
        str,
        typer.Option(envvar="CLASSROOM_DEVICE", help="auto (the first accelerator, else the CPU), cpu, cuda:1, …"),
    ] = "auto",
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, envvar="CLASSROOM_CHECKPOINT_MINUTES", help="Checkpoint this often within an epoch."),
    ] = 10.0,
) -> None:
    """Train one run: a baseline or one of the twelve variants. Started again after a kill, it goes on where it was."""
    from classroom.methods import names

    names.check(method)
    with _job(f"classroom train {study} {method} --seed {seed}") as job:
        from classroom.training.progress import Show
        from classroom.training.run import train as run

        checkpoints = Path("checkpoints", study, method, f"seed-{seed}")
        with Show(f"{study} {method} seed {seed}") as show:
            job.facts = run(
                study, method, seed, job.raw,
                prepared=Path("data/prepared", study),
                splits=Path("data/splits", f"{study}.parquet"),
                teacher_weights=_run_folder(study, "teacher", seed) / "weights.safetensors",
                target=_run_folder(study, method, seed),
                checkpoint_folder=checkpoints,
                identity=job.identity,
                device=device,
                checkpoint_minutes=checkpoint_minutes,
                show=show,
            )  # fmt: skip
    shutil.rmtree(checkpoints, ignore_errors=True)  # only now: the run and its receipt are on disk
    epochs = ", ".join(f"{name} {epoch}" for name, epoch in job.facts["best_epoch"].items())
    typer.echo(f"runs/{study}/{method}/seed-{seed}: best epochs {epochs}, {job.facts['seconds']} s")


@app.command()
def evaluate(study: StudyName, method: MethodName) -> None:
    """Evaluate a method's runs over all seeds, with the students' ensemble, from their saved predictions."""
    from classroom.evaluation.evaluate import evaluate as run
    from classroom.files import write_json
    from classroom.methods import names
    from classroom.params import BASELINES, select

    names.check(method)
    with _job(f"classroom evaluate {study} {method}") as job:
        seeds = select(job.raw, "seeds", list[int])
        results = run({seed: _run_folder(study, method, seed) for seed in seeds})
        kind = "baselines" if method in BASELINES else "variants"
        write_json(Path("results", kind, study, f"{method}.json"), results)
    for seed, result in results["seeds"].items():
        scores = ", ".join(f"{name} {100 * scores['iou']:.2f}" for name, scores in result["test"].items())
        typer.echo(f"{study} {method} seed {seed}: test IoU {scores}")


@app.command()
def table(
    name: Annotated[str, typer.Argument(help="table2 (baselines), or a key of `tables` in params.yaml.")],
) -> None:
    """Render a table of the paper with our values beside: reports/NAME.md, .csv and .tex."""
    from classroom.params import BASELINES, Variants, select
    from classroom.reporting import tables

    with _job(f"classroom table {name}") as job:
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        target = Path("reports", f"{name}.md")
        if name == "table2":
            number = 2
            studies = select(job.raw, "baseline_studies", list[str])
            paths = [Path("results/baselines", study, f"{method}.json") for study in studies for method in BASELINES]
            render = tables.baselines_table
        else:
            study = select(job.raw, f"tables.{name}", str)
            number = int(name.removeprefix("table"))
            variants = select(job.raw, "variants", Variants)
            paths = [Path("results/variants", study, f"{v}.json") for v in (*variants.joint, *variants.offline)]
            render = tables.variants_table
        render(number, scale, seeds, tables.read_results(paths), target)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def samples(study: StudyName, method: MethodName, seed: Seed) -> None:
    """Draw test images with truth and predictions of one run: reports/samples-STUDY.png."""
    from classroom.params import select
    from classroom.reporting import figures

    with _job(f"classroom samples {study} {method} --seed {seed}") as job:
        run = _run_folder(study, method, seed)
        target = Path("reports", f"samples-{study}.png")
        figures.samples(run, Path("data/prepared", study), select(job.raw, "scale", str), target)
    typer.echo(f"{target}")


@app.command()
def scale(name: Annotated[str, typer.Argument(help="demo, small or paper: a file of scales/.")]) -> None:
    """Write a scale's settings into params.yaml, keeping its comments."""
    from classroom.engines import scales

    changed = scales.apply(name)
    typer.echo(f"params.yaml: scale {name}, {len(changed)} values changed")
    for key in changed:
        typer.echo(f"  {key}")


@app.command()
def check() -> None:
    """Validate params.yaml completely, encoders included."""
    from classroom.engines.checks import check_all

    params = check_all()
    typer.echo(f"params.yaml: valid, scale {params.scale}")


@app.command()
def reconcile() -> None:
    """Bring Snakemake and DVC to one verdict (Snakemake does this itself at start and end)."""
    from classroom.engines.reconcile import reconcile as run

    stale = run(typer.echo)
    typer.echo(f"{len(stale)} jobs to do" if stale else "nothing to do")


@app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml, for editors."""
    import json

    from classroom.params import Params

    typer.echo(json.dumps(Params.model_json_schema(), indent=1, ensure_ascii=False))


def _run_folder(study: str, method: str, seed: int) -> Path:
    return Path("runs", study, method, f"seed-{seed}")


def _job(command: str):  # noqa: ANN202 - a context manager of receipts.Job
    from classroom.engines.receipts import job
    from classroom.params import load

    return job(command, load(Path("params.yaml")))


def main() -> None:
    """Runs the command; what a user can mend is said in one paragraph, without a traceback."""
    warnings.showwarning = lambda message, *rest: print(f"Warning: {message}", file=sys.stderr)
    try:
        app(standalone_mode=True)
    except ClassroomError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
