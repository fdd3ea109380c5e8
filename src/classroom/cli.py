"""The command line: one thin command per rule, usable by hand and under a debugger.

Imports are lazy, so that `classroom --help` does not wait for torch.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from classroom import log
from classroom.artifacts import Result
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
MethodName = Annotated[
    str, typer.Argument(help="teacher, student, a variant such as kd_ml-v3, or a published method such as fitnet.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=999_999_999, help="Seed of the networks' random parts, the order and augmentation.")
]


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
    typer.echo(f"data/raw/{dataset}: {count} images, all valid ({settings.source})")


@app.command()
def prepare(study: StudyName) -> None:
    """Resize a study's images once, into memory-mapped arrays and an index."""
    from classroom.data.prepare import prepare as run
    from classroom.params import select

    with _job(f"classroom prepare {study}") as job:
        name = select(job.raw, f"study.{study}.dataset", str)
        task = select(job.raw, f"study.{study}.task", str)
        size = select(job.raw, f"study.{study}.image_size", int)
        count = run(task, size, Path("data/raw", name), Path("data/prepared", study))
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
    point: Annotated[
        str,
        typer.Option(
            help="A point of a search in place of the weights: ALPHA_1,ALPHA_2,TEACHER_SHARE of a variant, or the "
            "FACTOR of a published method's reference weights."
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option(envvar="CLASSROOM_DEVICE", help="auto (the first accelerator, else the CPU), cpu, cuda:1, …"),
    ] = "auto",
    checkpoint_minutes: Annotated[
        float,
        typer.Option(min=0, envvar="CLASSROOM_CHECKPOINT_MINUTES", help="Checkpoint this often within an epoch."),
    ] = 10.0,
) -> None:
    """Train one run: a baseline, variant or published method. Started again after a kill, it goes on where it was."""
    from classroom.methods import names

    names.check(method)
    weights = _point(point, method)
    target = _run_folder(study, method, seed)
    if weights:
        search = "tune" if names.is_published(method) else "grid"
        target = Path(search, study, method, "-".join(point.split(",")), f"seed-{seed}")
    command = f"classroom train {study} {method} --seed {seed}" + (f" --point {point}" if point else "")
    with _job(command, only_planned=False) as job:
        from classroom.training.progress import Show
        from classroom.training.run import train as run

        checkpoints = Path("checkpoints", target)
        with Show(" ".join(target.parts[1:])) as show:
            job.facts = run(
                study, method, seed, job.raw,
                prepared=Path("data/prepared", study),
                splits=Path("data/splits", f"{study}.parquet"),
                teacher_weights=_run_folder(study, "teacher", seed) / "weights.safetensors",
                target=target,
                checkpoint_folder=checkpoints,
                identity=job.identity,
                device=device,
                checkpoint_minutes=checkpoint_minutes,
                show=show,
                point=weights,
            )  # fmt: skip
    shutil.rmtree(checkpoints, ignore_errors=True)  # only now: the run and its manifest are on disk
    epochs = ", ".join(f"{name} {epoch}" for name, epoch in job.facts["best_epoch"].items())
    noted = "" if job.stage else "; no job of dvc.yaml, so nothing is recorded of it and no report takes it up"
    typer.echo(f"{target}: best epochs {epochs}, {job.facts['seconds']} s{noted}")


@app.command()
def evaluate(study: StudyName, method: MethodName) -> None:
    """Evaluate a method's runs over all seeds, with the students' ensemble, from their saved predictions."""
    from classroom.evaluation.costs import costs
    from classroom.evaluation.evaluate import evaluate as run
    from classroom.files import write_json
    from classroom.methods import names
    from classroom.params import BASELINES, select

    names.check(method)
    if names.is_published(method):
        raise ClassroomError(f"{method} is evaluated beside the others of its study: `classroom compare {study}`.")
    with _job(f"classroom evaluate {study} {method}") as job:
        runs = {seed: _run_folder(study, method, seed) for seed in select(job.raw, "seeds", list[int])}
        results, cost = run(runs), {"study": study, "method": method, "seeds": costs(runs)}
        place = Path("variants", study, f"{method}.json")
        if method in BASELINES:
            place = Path("baselines", select(job.raw, f"study.{study}.tables.baselines", str), study, f"{method}.json")
        write_json("results" / place, results)
        write_json("results/costs" / place, cost)
    for seed, result in results["seeds"].items():
        metric = next(iter(next(iter(result["test"].values()))))
        scores = ", ".join(f"{name} {100 * scores[metric]:.2f}" for name, scores in result["test"].items())
        typer.echo(f"{study} {method} seed {seed}: test {metric} {scores}")


@app.command()
def compare(study: StudyName) -> None:
    """Evaluate a study's published methods, its student alone and ours: results/comparison/STUDY.json."""
    from classroom.evaluation.evaluate import compare as run
    from classroom.files import write_json
    from classroom.params import Comparison, MethodWeights, select

    with _job(f"classroom compare {study}") as job:
        settings, task = select(job.raw, "comparison", Comparison), select(job.raw, f"study.{study}.task", str)
        weights = select(job.raw, f"method_weights.{study}", dict[str, MethodWeights])
        seeds = select(job.raw, "seeds", list[int])
        methods = {"published": getattr(settings, task).methods, "beside": ("student", settings.ours)}
        results, taken = run(
            {
                group: {name: {seed: _run_folder(study, name, seed) for seed in seeds} for name in of}
                for group, of in methods.items()
            }
        )
        for result in results["published"]:
            result["tuned"] = weights[result["method"]].tuned
        write_json(Path("results/comparison", f"{study}.json"), results)
        write_json(Path("results/costs/comparison", f"{study}.json"), taken)
    typer.echo(f"results/comparison/{study}.json: {', '.join(name for of in methods.values() for name in of)}")


class TableKind(StrEnum):
    variants = "variants"
    fidelity = "fidelity"
    architecture = "architecture"


@app.command()
def table(
    study: StudyName,
    kind: Annotated[TableKind, typer.Argument(help="Which of the study's tables: a key of its `tables`.")],
) -> None:
    """Render one of a study's tables with the paper's values beside ours: reports/NAME.md, .csv and .tex."""
    from classroom.params import select

    with _job(f"classroom table {study} {kind.value}") as job:
        name = select(job.raw, f"study.{study}.tables.{kind.value}", str)
        scale = select(job.raw, "scale", str)
        target = Path("reports", f"{name}.md")
        if kind is TableKind.architecture:
            from classroom.data.labels import LABELS
            from classroom.params import Network
            from classroom.reporting.architecture import architecture_table

            dataset = select(job.raw, f"study.{study}.dataset", str)
            networks = [select(job.raw, f"study.{study}.{role}", Network) for role in ("teacher", "student")]
            task = select(job.raw, f"study.{study}.task", str)
            size = select(job.raw, f"study.{study}.image_size", int)
            classes = len(LABELS[select(job.raw, f"dataset.{dataset}.reader", str)])
            architecture_table(name, study, *networks, task, size, classes, scale, target)
        else:
            seeds, results = select(job.raw, "seeds", list[int]), _variant_results(job.raw, study)
            if kind is TableKind.fidelity:
                from classroom.reporting.fidelity import fidelity_table

                fidelity_table(name, scale, seeds, results, target)
            else:
                from classroom.reporting.results import read_results
                from classroom.reporting.variants import variants_table

                beside = select(job.raw, f"study.{study}.tables.baselines", str)
                (student,) = read_results([Path("results/baselines", beside, study, "student.json")])
                variants_table(name, scale, seeds, results, student, target)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def baselines(
    name: Annotated[str, typer.Argument(help="One of baseline_tables in params.yaml: table2, table13.")],
) -> None:
    """Render teachers and students trained alone: reports/NAME.md, .csv and .tex."""
    from classroom.params import BASELINES, select
    from classroom.reporting.baselines import baselines_table
    from classroom.reporting.results import read_results

    with _job(f"classroom baselines {name}") as job:
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        folders = sorted(path for path in Path("results/baselines", name).iterdir() if path.is_dir())
        results = read_results([folder / f"{method}.json" for folder in folders for method in BASELINES])
        target = Path("reports", f"{name}.md")
        baselines_table(name, scale, seeds, results, target)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def comparison(name: Annotated[str, typer.Argument(help="One of comparison.tables in params.yaml: table10.")]) -> None:
    """Render published methods beside ours: reports/NAME.md, .csv and .tex."""
    from classroom.params import Comparison, select
    from classroom.reporting.comparison import comparison_table
    from classroom.reporting.results import read_comparison

    with _job(f"classroom comparison {name}") as job:
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        settings = select(job.raw, "comparison", Comparison)
        studies = [*settings.classification.studies, *settings.segmentation.studies]
        target = Path("reports", f"{name}.md")
        comparison_table(name, scale, seeds, [read_comparison(study) for study in studies], target)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def tune(study: StudyName) -> None:
    """Choose the best weights of published methods on validation: reports/tune-STUDY.md, .csv and .yaml."""
    from classroom.evaluation.grid import read_factors
    from classroom.params import Tune, select
    from classroom.reporting.tune import tune_report

    with _job(f"classroom tune {study}") as job:
        seeds, settings = select(job.raw, "seeds", list[int]), select(job.raw, "tune", Tune)
        methods = getattr(settings, select(job.raw, f"study.{study}.task", str)).methods
        target = Path("reports", f"tune-{study}.md")
        points = read_factors(Path("tune", study), methods, settings.factors, seeds)
        tune_report(study, points, select(job.raw, "scale", str), seeds, target)
    typer.echo(f"{target}; the chosen weights: {target.with_suffix('.yaml')}")


@app.command()
def methods() -> None:
    """List everything that trains: paper, formula, settings in force, extra parameters in training."""
    from classroom.reporting.methods import listing

    typer.echo(listing(Path("params.yaml")), nl=False)


@app.command()
def exchange() -> None:
    """Render Tables 1 and 5, what each variant shares, from the one table in the code."""
    from classroom.reporting.exchange import exchange_tables

    with _job("classroom exchange"):
        exchange_tables(Path("reports"))
    typer.echo("reports/table1.md, reports/table5.md (.csv and .tex beside them)")


@app.command()
def twin(name: Annotated[str, typer.Argument(help="A key of `twins` in params.yaml.")]) -> None:
    """Render two studies side by side, such as one split by image and one by patient."""
    from classroom.params import select
    from classroom.reporting.twin import twin_table

    with _job(f"classroom twin {name}") as job:
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        first, second = select(job.raw, f"twins.{name}", list[str])
        number = select(job.raw, f"study.{first}.tables.variants", str)
        target = Path("reports", f"{name}.md")
        results = [_variant_results(job.raw, study) for study in (first, second)]
        twin_table(name, scale, seeds, *results, target, number)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def choose(study: StudyName) -> None:
    """Choose the best point of a grid search on validation: reports/grid-STUDY.md, .csv, .png and .yaml."""
    from classroom.evaluation.grid import read_points
    from classroom.params import Grid, select
    from classroom.reporting.grid import grid_report

    with _job(f"classroom choose {study}") as job:
        seeds, grid = select(job.raw, "seeds", list[int]), select(job.raw, "grid", Grid)
        target = Path("reports", f"grid-{study}.md")
        points = read_points(Path("grid", study), grid, seeds)
        grid_report(study, points, select(job.raw, "scale", str), seeds, target)
    typer.echo(f"{target}; the chosen weights: {target.with_suffix('.yaml')}")


@app.command()
def cost() -> None:
    """Add up what the trainings took, per table and technique: reports/cost.md and .csv."""
    from classroom.params import select
    from classroom.reporting.cost import cost_table, read_costs

    with _job("classroom cost") as job:
        tables = {name: study["tables"]["variants"] for name, study in select(job.raw, "study", dict[str, Any]).items()}
        costs = read_costs(Path("results/costs"), tables)
        cost_table(select(job.raw, "scale", str), costs, Path("reports/cost.md"))
    typer.echo("reports/cost.md (.csv beside it)")


@app.command()
def forecast(
    reports: Annotated[list[str], typer.Argument(help="Reports, e.g. table4; all if none is named.")] = (),
    device: Annotated[str, typer.Option(envvar="CLASSROOM_DEVICE", help="Where the steps are measured.")] = "auto",
) -> None:
    """Estimate jobs, hours and disk of reports from the settings, after measuring a few training steps here."""
    from classroom.forecast import forecast as run

    run(reports, device, typer.echo)


@app.command()
def explain(
    report: Annotated[str, typer.Argument(help="A report, e.g. reports/table4.md or table4.")],
    cell: Annotated[
        str,
        typer.Option(
            help="One of its numbers, e.g. kd_ml/v3/ensemble/iou; in tables of several studies STUDY comes first. "
            "All are listed if none is named."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say where a number is from: runs, seeds, settings, code, data, what has changed since, commands to redo it."""
    import json

    from classroom.provenance.explain import explain as run
    from classroom.reporting.explained import text

    explained = run(report, cell)
    typer.echo(json.dumps(explained, indent=1, ensure_ascii=False) + "\n" if as_json else text(explained), nl=False)


@app.command()
def samples(study: StudyName, method: MethodName, seed: Seed) -> None:
    """Draw test images with truth and predictions of one run: reports/samples-STUDY.png."""
    from classroom.params import select
    from classroom.reporting import figures

    with _job(f"classroom samples {study} {method} --seed {seed}", only_planned=False) as job:
        run = _run_folder(study, method, seed)
        target = Path("reports", f"samples-{study}.png")
        figures.samples(run, Path("data/prepared", study), select(job.raw, "scale", str), target)
    typer.echo(f"{target}")


@app.command()
def picture(name: Annotated[str, typer.Argument(help="A key of `pictures` in params.yaml: figure4.")]) -> None:
    """Draw what the variants make of the hardest test images: reports/NAME.png."""
    from classroom.params import Picture, Variants, select
    from classroom.reporting import heatmaps
    from classroom.reporting.pages import write_picture

    with _job(f"classroom picture {name}") as job:
        settings, variants = select(job.raw, f"pictures.{name}", Picture), select(job.raw, "variants", Variants)
        seed = select(job.raw, "seeds", list[int])[0]
        runs = {method: _run_folder(settings.study, method, seed) for method in (*variants.joint, *variants.offline)}
        target = Path("reports", f"{name}.png")
        prepared = Path("data/prepared", settings.study)
        page = heatmaps.picture(name, settings.kind, runs, prepared, select(job.raw, "scale", str))
        write_picture(target, page)
    typer.echo(f"{target}")


@app.command()
def cka(study: StudyName, method: MethodName, seed: Seed) -> None:
    """Compare the layers of a run's teacher and students: results/cka/STUDY/METHOD/seed-N.parquet."""
    import json

    from classroom.params import select

    with _job(f"classroom cka {study} {method} --seed {seed}", only_planned=False) as job:
        from classroom.analysis import cka as alignment
        from classroom.analysis.similarities import write
        from classroom.data.batches import open_splits
        from classroom.networks.reproducible import make_deterministic
        from classroom.networks.restore import restore

        make_deterministic(select(job.raw, "training.threads", int))
        run, teacher = _run_folder(study, method, seed), _run_folder(study, "teacher", seed)
        networks = {name: restore(run, name, teacher) for name in ("T", "S1", "S2")}
        test = open_splits(Path("data/prepared", study), Path("data/splits", f"{study}.parquet"))["test"]
        table = alignment.similarities(networks, alignment.shuffled(test))
        target = Path("results/cka", study, method, f"seed-{seed}.parquet")
        write(target, table, json.loads((run / "metrics.json").read_text()))
    typer.echo(f"{target}: {len(table)} pairs of layers on {table.attrs['images']} images")


@app.command()
def cka_figure(name: Annotated[str, typer.Argument(help="A key of cka.figures in params.yaml: figure6.")]) -> None:
    """Draw how alike the layers are: reports/NAME.png and .svg."""
    from classroom.params import select
    from classroom.reporting import cka as drawn

    with _job(f"classroom cka-figure {name}") as job:
        tables = _similarities(job.raw, select(job.raw, f"cka.figures.{name}", str))
        target = Path("reports", f"{name}.png")
        drawn.cka_figure(name, select(job.raw, "scale", str), tables, target)
    typer.echo(f"{target} (.svg beside it)")


@app.command()
def cka_table(study: StudyName) -> None:
    """Render how alike the last stages of teacher and students are: reports/cka-STUDY.md and .csv."""
    from classroom.params import select
    from classroom.reporting import cka as rendered

    with _job(f"classroom cka-table {study}") as job:
        target = Path("reports", f"cka-{study}.md")
        rendered.cka_table(target.stem, select(job.raw, "scale", str), _similarities(job.raw, study), target)
    typer.echo(f"{target} (.csv beside it)")


@app.command()
def curves(study: StudyName) -> None:
    """Draw validation curves and agreement with teachers: reports/curves-STUDY.png, .csv and agreement-STUDY.png."""
    from classroom.evaluation.metrics import METRICS
    from classroom.params import select
    from classroom.reporting import curves as drawn
    from classroom.reporting.pages import write_picture
    from classroom.reporting.tables import csv

    with _job(f"classroom curves {study}") as job:
        seeds, scale = select(job.raw, "seeds", list[int]), select(job.raw, "scale", str)
        results = _variant_results(job.raw, study)
        runs = {r["method"]: {seed: _run_folder(study, r["method"], seed) for seed in seeds} for r in results}
        table = drawn.read_curves(runs, METRICS[results[0]["data"]["task"]][0])
        target = Path("reports", f"curves-{study}.png")
        write_picture(target, drawn.curves(study, table, results, scale), csv=csv(drawn.ensembles(table)))
        write_picture(Path("reports", f"agreement-{study}.png"), drawn.agreement(study, results, scale))
    typer.echo(f"{target} (.csv beside it), reports/agreement-{study}.png")


@app.command()
def site() -> None:
    """Put every report on one page that works without this repository: reports/index.html."""
    from classroom.params import select
    from classroom.reporting.provenance import read_runs
    from classroom.reporting.site import site as run

    with _job("classroom site") as job:
        target = Path("reports/index.html")
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        count = run(Path("reports/pages"), read_runs(), Path("workflow/report"), scale, seeds, target)
    typer.echo(f"{target}: {count} reports, {target.stat().st_size / 1e6:.1f} MB; open it in a browser, or mail it")


@app.command()
def export(
    study: StudyName,
    method: MethodName,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the run; the first of `seeds` in params.yaml if left out.")
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="T, S1, S2, or ensemble: both students in one graph. Left out: ensemble of a variant, the only "
            "network of all else."
        ),
    ] = "",
) -> None:
    """Write a run's ensemble, or one network, as ONNX with its card: exports/STUDY/METHOD/seed-N/NETWORK/."""
    from classroom.methods import names
    from classroom.params import VARIANTS, Study, load, select

    names.check(method)
    if seed is None:
        seed = select(load(Path("params.yaml")), "seeds", list[int])[0]
    network = network or ("ensemble" if method in VARIANTS else "T" if method == "teacher" else "S1")
    with _job(f"classroom export {study} {method} --seed {seed} --network {network}", only_planned=False) as job:
        from classroom.export.export import export as run
        from classroom.git import code_version

        source, target = _run_folder(study, method, seed), _export_folder(study, method, seed, network)
        if not source.exists():
            select(job.raw, f"study.{study}", Study)  # for the nearest name of a misspelt one
            raise ClassroomError(
                f"{source}: no such run. Run `classroom train {study} {method} --seed {seed}` first, or "
                f"`snakemake --cores all {source}/metrics.json`."
            )
        prepared, splits = Path("data/prepared", study), Path("data/splits", f"{study}.parquet")
        found = run(source, network, prepared, splits, target, code_version())
    typer.echo(
        f"{target}/model.onnx, README.md: on {found.images} test images at most {found.torch:.2g} from PyTorch and "
        f"{found.saved:.2g} from the run's own predictions"
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A model.onnx that `classroom export` wrote, or its folder.")],
    images: Annotated[list[Path], typer.Argument(help="Images (.tif, .png, .jpg; 8-bit RGB) and folders of them.")],
    out: Annotated[Path, typer.Option(help="A folder that is empty or not there yet.")] = Path("predictions"),
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
) -> None:
    """Run an exported model on images: masks and probabilities of their size, and predictions.csv."""
    from rich.console import Console
    from rich.progress import Progress

    from classroom.export.model import Model
    from classroom.export.predict import find
    from classroom.export.predict import predict as run

    opened = Model(model)
    jobs, masks = find(images)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("images", total=len(jobs))
        run(opened, jobs, out, batch_size, lambda: bar.advance(task))
    left_out = f" (files that are named as masks, left out: {masks})" if masks else ""
    typer.echo(f"{out}/predictions.csv: {len(jobs)} image{'s' if len(jobs) != 1 else ''}{left_out}")
    typer.echo(opened.about["use"], err=True)


@app.command()
def measure(study: StudyName, method: MethodName, seed: Seed) -> None:
    """Measure a study's exported teacher, student and ensemble side by side: results/deploy/STUDY.json."""
    from classroom.files import write_json

    with _job(f"classroom measure {study} {method} --seed {seed}", only_planned=False):
        from classroom.export.measure import measure as run

        places = {"T": "teacher", "S1": method, "ensemble": method}
        exports = {part: _export_folder(study, of, seed, part) / "model.onnx" for part, of in places.items()}
        measured = run(exports)
        write_json(Path("results/deploy", f"{study}.json"), measured)
    typer.echo(f"results/deploy/{study}.json: on {measured['cpu']}")


@app.command()
def deploy_table(name: Annotated[str, typer.Argument(help="One of deploy.tables in params.yaml: deploy.")]) -> None:
    """Render what deploying costs: reports/NAME.md, .csv and .tex."""
    from classroom.params import select
    from classroom.reporting import deploy

    with _job(f"classroom deploy-table {name}") as job:
        target = Path("reports", f"{name}.md")
        deploy.deploy_table(select(job.raw, "scale", str), deploy.read_measured(Path("results/deploy")), target)
    typer.echo(f"{target} (.csv and .tex beside it)")


@app.command()
def scale(name: Annotated[str, typer.Argument(help="demo, small or paper: a file of scales/.")]) -> None:
    """Write a scale's settings into params.yaml, keeping its comments."""
    from classroom.engines import scales

    changed = scales.apply(name)
    typer.echo(f"params.yaml: scale {name}, {len(changed)} values changed")
    for key in changed:
        typer.echo(f"  {key}")


@app.command()
def overlay(
    file: Annotated[Path, typer.Argument(help="A YAML file with settings, such as examples/stand-ins.yaml.")],
) -> None:
    """Write the settings of a file into params.yaml: another study, a grid's winning weights; comments stay."""
    from classroom.engines import scales

    changed = scales.write(file)
    typer.echo(f"params.yaml: {len(changed)} values changed")
    for key in changed:
        typer.echo(f"  {key}")


@app.command()
def add_twin(study: StudyName) -> None:
    """Add a study's twin to params.yaml: split by group instead of by image, or the other way round."""
    from classroom.engines import scales

    changed = scales.add_twin(study)
    typer.echo("params.yaml: added " + ", ".join(key for key in changed if "." in key))


@app.command()
def check() -> None:
    """Validate params.yaml completely, encoders included."""
    from classroom.engines.checks import check_all

    params = check_all()
    typer.echo(f"params.yaml: valid, scale {params.scale}")


@app.command()
def reconcile() -> None:
    """Bring Snakemake and DVC to one verdict (Snakemake does this itself at start and end)."""
    from classroom.engines.reconcile import Session
    from classroom.engines.reconcile import reconcile as run

    with Session("classroom reconcile"):
        stale = run()
    typer.echo(f"{len(stale)} jobs to run" if stale else "nothing to do")


@app.command()
def verify() -> None:
    """Read every finished result again, and DVC's copy of it, and bring back what is damaged."""
    from classroom.engines.reconcile import Session
    from classroom.provenance.verify import verify as run

    with Session("classroom verify"):
        damaged = run()
    if damaged:
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml, for editors."""
    import json

    from classroom.params import Params

    typer.echo(json.dumps(Params.model_json_schema(), indent=1, ensure_ascii=False))


def _point(text: str, method: str) -> tuple[float, ...] | None:
    """ALPHA_1,ALPHA_2,TEACHER_SHARE as numbers in [0, 1]; of a published method a positive FACTOR."""
    from classroom.errors import ParamsError
    from classroom.methods import names
    from classroom.params import BASELINES

    if not text:
        return None
    if method in BASELINES:
        raise ParamsError(f"--point {text}: {method} learns from its task alone, so there are no weights to search.")
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if names.is_published(method):
        if len(numbers) != 1 or not 0 < numbers[0] < float("inf"):
            raise ParamsError(f"--point {text}: expected a factor of {method}'s reference weights, such as 0.1 or 10.")
    elif len(numbers) != 3 or not all(0 <= number <= 1 for number in numbers):
        raise ParamsError(f"--point {text}: expected three numbers from 0 to 1, such as 0.1,0.2,0.5.")
    return numbers


def _variant_results(raw: dict[str, Any], study: str) -> list[Result]:
    from classroom.params import Variants, select
    from classroom.reporting.results import read_results

    variants = select(raw, "variants", Variants)
    names = (*variants.joint, *variants.offline)
    return read_results([Path("results/variants", study, f"{name}.json") for name in names])


def _similarities(raw: dict[str, Any], study: str) -> dict[str, Any]:
    """By variant, the similarities of its layers for every seed."""
    from classroom.analysis.similarities import read
    from classroom.params import Variants, select

    variants, seeds = select(raw, "variants", Variants), select(raw, "seeds", list[int])
    names = (*variants.joint, *variants.offline)
    return {name: [read(Path("results/cka", study, name, f"seed-{seed}.parquet")) for seed in seeds] for name in names}


def _run_folder(study: str, method: str, seed: int) -> Path:
    from classroom.methods.names import run_folder

    return run_folder(study, method, seed)


def _export_folder(study: str, method: str, seed: int, network: str) -> Path:
    return Path("exports", study, method, f"seed-{seed}", network)


def _job(command: str, only_planned: bool = True):  # noqa: ANN202 - a context manager of manifest.Job
    """Without `only_planned` also what dvc.yaml does not ask for, such as another seed, tried by hand."""
    from classroom.engines.manifest import job
    from classroom.params import load

    _limit_threads()
    return job(command, load(Path("params.yaml")), only_planned)


def _limit_threads() -> None:
    """To one, in libraries not loaded yet, where the environment says nothing (Snakemake tells its jobs).

    Their default is every core, which many jobs at a time would share. Trainings set torch's own number.
    """
    for name in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM"):
        os.environ.setdefault(f"{name}_THREADS", "1")


def main() -> None:
    """Runs the command; what a user can mend is said in one paragraph, without a traceback."""
    log.configure()
    warnings.showwarning = lambda message, *rest: print(f"Warning: {message}", file=sys.stderr)
    try:
        app(standalone_mode=True)
    except ClassroomError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # a full disk, a missing permission, a folder where a file belongs
        said = ClassroomError(f"{error.filename or 'a file'}: {error.strerror or error}. Fix that and run again.")
        print(f"Error: {said}", file=sys.stderr)
        sys.exit(1)
