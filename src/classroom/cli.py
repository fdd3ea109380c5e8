"""The command line: one thin command per rule, usable by hand and under a debugger.

Imports are lazy, so that `classroom --help` does not wait for torch.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from classroom import log
from classroom.errors import ClassroomError, counted
from classroom.files import advice
from classroom.interrupts import orderly_interrupts

if TYPE_CHECKING:
    from classroom.artifacts import TrainingFacts

GROUPS = {
    "Start here": ("check", "new-study", "forecast", "status"),
    "Settings": ("scale", "use", "overlay", "resplit", "methods"),
    "Results": ("explain", "verify"),
    "Export": ("export", "predict"),
    "Pipeline jobs, run by Snakemake and DVC": (
        "fetch", "prepare", "split", "train", "evaluate", "cka", "report", "measure", "reconcile",
    ),
}  # fmt: skip
"""All commands, as `classroom --help` lists them."""


class GroupedCommands(TyperGroup):
    """Lists commands by group, each with its whole first sentence. Typer groups them only with rich, which is slow."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        width = max(map(len, self.commands))
        for title, names in GROUPS.items():
            with formatter.section(title):
                rows = [(f"{name:{width}}", self.commands[name].get_short_help_str(limit=1000)) for name in names]
                formatter.write_dl(rows)


app = typer.Typer(
    cls=GroupedCommands,
    help="Knowledge distillation with one teacher and two students. Run all commands in the project's root folder, "
    "which holds params.yaml, studies/ and datasets/. `classroom COMMAND --help` describes a command and gives an "
    "example.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(example: str, name: str | None = None):  # noqa: ANN201 - typer's decorator
    """Registers a function as a command whose help ends with an example."""
    return app.command(name, epilog=f"Example: {example}")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from classroom.git import commit_of

        commit = commit_of(Path(__file__))
        typer.echo(f"classroom {version('classroom')}" + (f", commit {commit}" if commit else ""))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and the commit.")
    ] = False,
) -> None:
    """Options before the command's name."""


def _names(folder: str) -> list[str]:
    return sorted(path.stem for path in Path(folder).glob("*.yaml"))


def _complete_study(incomplete: str) -> list[str]:
    return [name for name in _names("studies") if name.startswith(incomplete)]


def _complete_dataset(incomplete: str) -> list[str]:
    return [name for name in _names("datasets") if name.startswith(incomplete)]


def _complete_scale(incomplete: str) -> list[str]:
    return [name for name in _names("scales") if name.startswith(incomplete)]


def _complete_method(incomplete: str) -> list[str]:
    from classroom.methods.registry import ALL

    return [name for name in ALL if name.startswith(incomplete)]


def _complete_variant(incomplete: str) -> list[str]:
    from classroom.params import VARIANTS

    return [name for name in VARIANTS if name.startswith(incomplete)]


def _complete_evaluated(incomplete: str) -> list[str]:
    from classroom.params import BASELINES, VARIANTS

    return [name for name in (*BASELINES, *VARIANTS, "published") if name.startswith(incomplete)]


def _complete_report(incomplete: str) -> list[str]:
    from classroom.reporting.registry import planned

    try:
        names = [*planned(), "index"]
    except ClassroomError:  # no plan here: the command itself says so
        return []
    return [name for name in names if name.startswith(incomplete)]


StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        autocompletion=_complete_study,
        help="Name of a study: a file in studies/ without .yaml, e.g. lgg-resnet18.",
    ),
]
MethodName = Annotated[
    str,
    typer.Argument(
        metavar="METHOD",
        autocompletion=_complete_method,
        help="teacher or student (trained alone), a variant such as kd_ml-v3, or a published method such as fitnet.",
    ),
]
VariantName = Annotated[
    str,
    typer.Argument(
        metavar="VARIANT",
        autocompletion=_complete_variant,
        help="One of the twelve variants, as TECHNIQUE-STRATEGY, e.g. kd_ml-v3.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(min=0, max=999_999_999, help="Random seed for initial weights, image order and augmentation."),
]
RunSeed = Annotated[int, typer.Option(min=0, max=999_999_999, help="Seed of the trained run.")]


@command("classroom fetch lgg")
def fetch(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            autocompletion=_complete_dataset,
            help="Name of a dataset: a file in datasets/ without .yaml, e.g. lgg.",
        ),
    ],
) -> None:
    """Download, copy or generate the files of a dataset into data/raw/DATASET, and validate all of them.

    `source` in datasets/DATASET.yaml decides where they come from.
    """
    from classroom.artifacts import conversions
    from classroom.data.fetching import sources
    from classroom.files import read_json
    from classroom.params import Dataset, select

    with _job(f"classroom fetch {dataset}") as job:
        settings = select(job.raw, f"dataset.{dataset}", Dataset)
        count = sources.fetch(dataset, settings, Path("data/raw", dataset))
    typer.echo(f"data/raw/{dataset}: {counted(count, 'image')}, all valid ({settings.source})")
    about = read_json(Path("data/raw", dataset, "about.json"), (), "")
    if about["converted"]:
        typer.echo(f"converted: {conversions(about['converted'])}")
    if about["foreground"]:
        typer.echo(f"masks: foreground {', '.join(map(str, about['foreground']))}, all other values are background")


@command("classroom prepare lgg-resnet18")
def prepare(study: StudyName) -> None:
    """Resize a study's images and store them as memory-mapped arrays, with an index, in data/prepared/STUDY."""
    from classroom.data.prepare import prepare as run
    from classroom.params import select

    with _job(f"classroom prepare {study}") as job:
        name = select(job.raw, f"study.{study}.dataset", str)
        task = select(job.raw, f"study.{study}.task", str)
        size = select(job.raw, f"study.{study}.image_size", int)
        count = run(task, size, Path("data/raw", name), Path("data/prepared", study))
    typer.echo(f"data/prepared/{study}: {counted(count, 'image')} at {size}×{size}")


@command("classroom split lgg-resnet18")
def split(study: StudyName) -> None:
    """Assign a study's images to training, validation and test, in data/splits/STUDY.parquet."""
    from classroom.data.split import write
    from classroom.params import Split, select

    with _job(f"classroom split {study}") as job:
        settings = select(job.raw, f"study.{study}.split", Split)
        sizes = write(Path("data/prepared", study), settings, Path("data/splits", f"{study}.parquet"))
    typer.echo(f"data/splits/{study}.parquet: " + ", ".join(f"{count} {name}" for name, count in sizes.items()))


@command("classroom train lgg-resnet18 kd_ml-v3 --seed 0")
def train(
    study: StudyName,
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD",
            autocompletion=_complete_method,
            help="teacher or student (trained alone), a variant such as kd_ml-v3, or a published method such as "
            "fitnet. Several are trained in one process, which is faster: a network that several of them share is "
            "trained once. The results are bit-identical to training each by itself.",
        ),
    ],
    seed: Seed,
    point: Annotated[
        str,
        typer.Option(
            help="Loss weights to try instead of those in studies/STUDY.yaml. For a variant (written to grid/): "
            "ALPHA_1,ALPHA_2,TEACHER_SHARE, each from 0 to 1: alpha of S1, alpha of S2, and the share of 1 - alpha "
            "that goes to beta (the rest goes to gamma). For a published method (written to tune/): FACTOR, which "
            "multiplies its reference weights."
        ),
    ] = "",
    device: Annotated[
        str,
        typer.Option(
            envvar="CLASSROOM_DEVICE", help="auto (the first accelerator, or the CPU if there is none), cpu, cuda:1, …"
        ),
    ] = "auto",
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            envvar="CLASSROOM_CHECKPOINT_MINUTES",
            help="Minutes between checkpoints within an epoch. The end of an epoch always writes one.",
        ),
    ] = 10.0,
) -> None:
    """Train one or more runs, each into runs/STUDY/METHOD/seed-N. Run the same command again to resume a training.

    Published methods are trained in compared/, and `--point` trains in grid/ or tune/.
    """
    from classroom.engines.manifest import begun
    from classroom.methods import registry as methods_registry
    from classroom.params import load

    for method in methods:
        methods_registry.check(method)
    if point and len(methods) > 1:
        raise ClassroomError(
            f"--point {point}: applies to one method, but several are named: {', '.join(methods)}. Train them one at "
            "a time."
        )
    if len(methods) > 1:
        _check_group(methods)
    weights = _point(point, methods[0])
    _limit_threads()
    _check_plan()
    raw = load(Path("params.yaml"))
    finished: list[Path] = []
    with ExitStack() as claims:
        jobs = {}
        for method in sorted(methods):  # in one order, so that two processes cannot wait for each other
            command = f"classroom train {study} {method} --seed {seed}" + (f" --point {point}" if point else "")
            if job := claims.enter_context(begun(command, raw, only_planned=False)):
                jobs[method] = job
        if not jobs:
            return
        from classroom.progress import CHECKPOINTS, Show
        from classroom.training.run import Request
        from classroom.training.run import train as run

        requests = []
        for method in filter(jobs.get, methods):
            target = _run_folder(study, method, seed)
            if weights:
                search = "tune" if methods_registry.is_published(method) else "grid"
                target = Path(search, study, method, "-".join(point.split(",")), f"seed-{seed}")
            requests.append(Request(method, target, CHECKPOINTS / target, jobs[method].identity, weights))

        def finish(request: Request, facts: TrainingFacts) -> None:
            job = jobs[request.method]
            job.facts = facts
            if job.finish():  # else the checkpoint saves training again; `reconcile` removes it
                finished.append(request.checkpoint_folder)
            epochs = ", ".join(f"{name} {epoch}" for name, epoch in facts["best_epoch"].items())
            noted = (
                "" if job.stage else "; this run is not part of the settings, so dvc.lock and the reports leave it out"
            )
            typer.echo(f"{request.target}: best epochs {epochs}, {facts['seconds']} s{noted}")

        title = " ".join(requests[0].target.parts[1:]) if len(requests) == 1 else f"{study} seed-{seed}"
        with Show(title) as show:
            run(
                study, requests, seed, raw,
                prepared=Path("data/prepared", study),
                splits=Path("data/splits", f"{study}.parquet"),
                teacher_weights=_run_folder(study, "teacher", seed) / "weights.safetensors",
                device=device,
                checkpoint_minutes=checkpoint_minutes,
                show=show,
                finish=finish,
            )  # fmt: skip
    for folder in finished:  # now that all runs and their manifests are on disk
        shutil.rmtree(folder, ignore_errors=True)


@command("classroom evaluate lgg-resnet18 kd_ml-v3")
def evaluate(
    study: StudyName,
    method: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            autocompletion=_complete_evaluated,
            help="teacher, student, a variant such as kd_ml-v3, or `published`: all published methods of the study.",
        ),
    ],
) -> None:
    """Compute the test metrics of a method's networks and ensemble for all seeds, from the runs' saved predictions.

    The results go to results/variants, results/baselines or results/comparison.
    """
    from classroom.evaluation.costs import costs
    from classroom.evaluation.evaluate import evaluate as run
    from classroom.files import write_json
    from classroom.methods import registry as methods_registry
    from classroom.params import BASELINES, select

    if method == "published":
        return _evaluate_published(study)
    methods_registry.check(method)
    if methods_registry.is_published(method):
        raise ClassroomError(
            f"{method} is a published method, and these are evaluated together: run `classroom evaluate {study} "
            "published`."
        )
    with _job(f"classroom evaluate {study} {method}") as job:
        runs = {seed: _run_folder(study, method, seed) for seed in select(job.raw, "seeds", list[int])}
        table = select(job.raw, f"study.{study}.reports.variants", str)
        results, cost = run(runs), {"study": study, "table": table, "method": method, "seeds": costs(runs)}
        place = Path("variants", study, f"{method}.json")
        if method in BASELINES:
            place = Path("baselines", select(job.raw, f"study.{study}.reports.baselines", str), study, f"{method}.json")
        write_json("results" / place, results)
        write_json("results/costs" / place, cost)
    for seed, result in results["seeds"].items():
        metric = next(iter(next(iter(result["test"].values()))))
        scores = ", ".join(f"{name} {100 * scores[metric]:.2f}" for name, scores in result["test"].items())
        typer.echo(f"{study} {method} seed {seed}: test {metric} {scores}")


def _evaluate_published(study: str) -> None:
    """Evaluates a study's published methods, its student alone and our variant, in one file for the comparison."""
    from classroom.evaluation.evaluate import evaluate_groups as run
    from classroom.files import write_json
    from classroom.params import Comparison, PublishedMethod, select

    with _job(f"classroom evaluate {study} published") as job:
        settings, task = select(job.raw, "comparison", Comparison), select(job.raw, f"study.{study}.task", str)
        of_study = select(job.raw, f"study.{study}.methods", dict[str, PublishedMethod])
        place = Path(select(job.raw, f"study.{study}.reports.comparison", str), f"{study}.json")
        seeds = select(job.raw, "seeds", list[int])
        methods = {"published": getattr(settings, task), "beside": ("student", select(job.raw, "ours", str))}
        results, costs = run(
            {
                group: {name: {seed: _run_folder(study, name, seed) for seed in seeds} for name in of}
                for group, of in methods.items()
            }
        )
        for result in results["published"]:
            result["tuned"] = of_study[result["method"]].weights.tuned
        for cost in costs["published"]:
            cost["table"] = place.parts[0]
        write_json("results/comparison" / place, results)
        write_json("results/costs/comparison" / place, costs)
    typer.echo(f"results/comparison/{place}: {', '.join(name for of in methods.values() for name in of)}")


@command("classroom report table4")
def report(
    name: Annotated[
        str,
        typer.Argument(
            metavar="REPORT",
            autocompletion=_complete_report,
            help="Name of a report, e.g. table4, figure6 or cost; index is the web page with all reports.",
        ),
    ],
) -> None:
    """Make a table or figure from existing results: reports/REPORT.md, .csv, .png, …"""
    from classroom.reporting import registry

    _check_plan()
    name = Path(name).stem
    if name == "index":
        return _site()
    kind, item = registry.find(name)
    with _job(f"classroom report {name}") as job:
        registry.make(kind, name, item, job.raw)
    typer.echo(", ".join(registry.report(kind).outputs(name)[:-1]))


def _site() -> None:
    """Makes reports/index.html: every report on one page that works without this repository."""
    from classroom.params import select
    from classroom.reporting.common.provenance import read_runs
    from classroom.reporting.site import site as run

    with _job("classroom report index") as job:
        target = Path("reports/index.html")
        scale, seeds = select(job.raw, "scale", str), select(job.raw, "seeds", list[int])
        count = run(Path("reports/pages"), read_runs(), Path("workflow/report"), scale, seeds, target)
    typer.echo(
        f"{target}: {counted(count, 'report')}, {target.stat().st_size / 1e6:.1f} MB; open it in a browser, or mail it"
    )


@command("classroom methods")
def methods() -> None:
    """List all methods with paper, loss, current weights and options, and additional parameters during training."""
    from classroom.reporting.methods import listing

    typer.echo(listing(Path("params.yaml")), nl=False)


@command("classroom forecast table4")
def forecast(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="REPORT", autocompletion=_complete_report, help="Names of reports, e.g. table4. Default: all."
        ),
    ] = (),
    device: Annotated[
        str, typer.Option(envvar="CLASSROOM_DEVICE", help="Device to time training steps on: auto, cpu, cuda:1, …")
    ] = "auto",
) -> None:
    """Estimate the jobs, hours and disk space that reports need, from a few training steps timed on this machine."""
    from classroom.forecast import forecast as run

    _check_plan()
    typer.echo(run(reports, device))


@command("classroom status --watch")
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every few seconds until Ctrl-C.")] = False,
) -> None:
    """Show running trainings, here or on a cluster, with loss, validation metric and time left, and remaining jobs."""
    from classroom.status import status as run
    from classroom.status import watch as run_again

    _check_plan()
    if watch:
        run_again()
    else:
        typer.echo(run())


@command("classroom explain table4 --cell kd_ml/v3/ensemble/iou")
def explain(
    report: Annotated[
        str,
        typer.Argument(
            metavar="REPORT", autocompletion=_complete_report, help="A report, e.g. table4 or reports/table4.md."
        ),
    ],
    cell: Annotated[
        str,
        typer.Option(
            help="Number to explain, e.g. kd_ml/v3/ensemble/iou, with STUDY/ in front in a table of several studies. "
            "Without it, list the names of all numbers, or the runs behind a figure."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where a number comes from: runs, seeds, settings, code and data, changes since, commands to reproduce it."""
    import json

    from classroom.provenance.explain import explain as run
    from classroom.reporting.explained import text

    _check_plan()
    explained = run(report, cell)
    typer.echo(json.dumps(explained, indent=1, ensure_ascii=False) + "\n" if as_json else text(explained), nl=False)


@command("classroom cka lgg-resnet18 kd_ml-v3 --seed 0")
def cka(study: StudyName, method: VariantName, seed: RunSeed) -> None:
    """Compute the CKA similarity of the layers of a run's three networks: results/cka/STUDY/VARIANT/seed-N.parquet."""
    from classroom.files import read_metrics
    from classroom.params import select

    with _job(f"classroom cka {study} {method} --seed {seed}", only_planned=False) as job:
        from classroom.analysis import cka as alignment
        from classroom.analysis.similarities import write
        from classroom.core.batches import open_splits
        from classroom.core.networks.reproducible import make_deterministic
        from classroom.restore import restore

        make_deterministic(select(job.raw, "training.threads", int))
        run, teacher = _trained(job.raw, study, method, seed), _run_folder(study, "teacher", seed)
        networks = {name: restore(run, name, teacher) for name in ("T", "S1", "S2")}
        test = open_splits(Path("data/prepared", study), Path("data/splits", f"{study}.parquet"))["test"]
        table = alignment.similarities(networks, alignment.shuffled(test))
        target = Path("results/cka", study, method, f"seed-{seed}.parquet")
        write(target, table, read_metrics(run))
    typer.echo(f"{target}: {len(table)} pairs of layers on {table.attrs['images']} images")


@command("classroom export lgg-resnet18 kd_ml-v3")
def export(
    study: StudyName,
    method: MethodName,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the trained run. Default: the first of `seeds` in params.yaml.")
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="T (teacher), S1 or S2 (students), or ensemble (both students in one graph, the maximum of their "
            "probabilities). Default: ensemble for a variant, otherwise the only network."
        ),
    ] = "",
) -> None:
    """Export a run's ensemble or one network as ONNX, with a model card: exports/STUDY/METHOD/seed-N/NETWORK/."""
    from classroom.methods import registry as methods_registry
    from classroom.params import VARIANTS, load, select

    methods_registry.check(method)
    if seed is None:
        seed = select(load(Path("params.yaml")), "seeds", list[int])[0]
    network = network or ("ensemble" if method in VARIANTS else "T" if method == "teacher" else "S1")
    with _job(f"classroom export {study} {method} --seed {seed} --network {network}", only_planned=False) as job:
        from classroom.export.export import export as run
        from classroom.git import code_version

        source, target = _trained(job.raw, study, method, seed), _export_folder(study, method, seed, network)
        prepared, splits = Path("data/prepared", study), Path("data/splits", f"{study}.parquet")
        found = run(source, network, prepared, splits, target, code_version(), job.raw["dataset"])
    typer.echo(
        f"{target}/model.onnx, README.md: probabilities of {found.images} test images differ by at most "
        f"{found.torch:.2g} from PyTorch's and {found.saved:.2g} from the run's saved predictions"
    )


@command("classroom predict exports/lgg-resnet18/kd_ml-v3/seed-0/ensemble scans --out predicted")
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model.onnx written by `classroom export`, or its folder.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES", help="Image files (.tif, .png, .jpg, .bmp), or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="Output folder; must be empty or not exist yet.")] = Path("predictions"),
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images per batch.")] = 8,
) -> None:
    """Run an exported model on images: predictions.csv and, for segmentation, a mask and probabilities per image.

    These have the size of the image. Files in folders that look like masks or probabilities (…_mask.png) are skipped.
    """
    from classroom.artifacts import conversions
    from classroom.errors import printable, raise_for
    from classroom.export.model import Model
    from classroom.export.predict import FAILED, find
    from classroom.export.predict import predict as run
    from classroom.progress import progress_bar

    opened = Model(model)
    jobs, left_out = find(images)
    with progress_bar() as bar:
        task = bar.add_task("images", total=len(jobs))
        done = run(opened, jobs, out, batch_size, lambda: bar.advance(task))
    said = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    typer.echo(
        printable(f"{out}/predictions.csv: {done.count} image{'s' if done.count != 1 else ''}")
        + (f" (files left out: {said})" if said else "")
    )
    if done.converted:
        typer.echo(f"converted: {conversions({'images': done.converted})}")
    typer.echo(opened.about["use"], err=True)
    raise_for(
        done.failed,
        f"They are listed in {out}/{FAILED}. Fix them, then predict only these with another --out.",
    )


@command("classroom measure lgg-resnet18 kd_ml-v3 --seed 0")
def measure(study: StudyName, method: VariantName, seed: RunSeed) -> None:
    """Measure latency and memory of exported teacher, student and ensemble on a CPU: results/deploy/STUDY.json."""
    from classroom.files import write_json

    with _job(f"classroom measure {study} {method} --seed {seed}", only_planned=False):
        from classroom.export.measure import measure as run

        places = {"T": "teacher", "S1": method, "ensemble": method}
        exports = {part: _export_folder(study, of, seed, part) / "model.onnx" for part, of in places.items()}
        measured = run(exports)
        write_json(Path("results/deploy", f"{study}.json"), measured)
    typer.echo(f"results/deploy/{study}.json: measured on {measured['cpu']}")


@command("classroom scale small")
def scale(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SCALE",
            autocompletion=_complete_scale,
            help="Name of a preset, a file in scales/ without .yaml: demo, small or paper.",
        ),
    ],
) -> None:
    """Load a preset of image sizes, networks and training from scales/ into params.yaml, studies/ and datasets/."""
    from classroom.settings.overlays import apply_scale

    _print_changes(f"scale {name}", apply_scale(name))


@command("classroom overlay examples/plus-kl.yaml")
def overlay(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="YAML file of settings, such as examples/plus-kl.yaml or reports/grid-STUDY.yaml."
        ),
    ],
) -> None:
    """Merge a YAML file into params.yaml, studies/ and datasets/, such as a new study or the winner of a search."""
    from classroom.settings.overlays import apply_overlay

    _print_changes(str(file), apply_overlay(file))


@command("classroom use lgg-resnet18 ham10000-segmentation")
def use(
    studies: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY", autocompletion=_complete_study, help="Names of studies: files in studies/ without .yaml."
        ),
    ],
) -> None:
    """Choose the active studies: Snakemake and DVC make reports of these only."""
    from classroom.settings.overlays import use as run

    _print_changes(f"studies {' '.join(studies)}", run(studies))
    _stash_reports("classroom use")


def _stash_reports(command: str) -> None:
    """Else reports of studies that are no longer active would stay among those that DVC puts on the site."""
    if Path(".dvc").exists():
        from classroom.engines.reconcile import dry_run

        dry_run(command)


@command("classroom new-study liver --images scans --masks outlines", name="new-study")
def new_study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the new dataset and study, e.g. liver: lower-case letters, digits, - and _."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images. Without --masks, it has one subfolder per class (classification)."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks. A mask has its image's name, with or without _mask, _seg, …")
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            help="CSV or Parquet file with the columns image, label or mask (or both), and optionally group and split "
            "(train, val or test)."
        ),
    ] = None,
    reader: Annotated[
        str,
        typer.Option(help="Layout of --images if it is a known download: histopathologic, lgg, ham10000 or isic2017."),
    ] = "",
    task: Annotated[
        str, typer.Option(help="segmentation or classification. Needed only if the images have both masks and labels.")
    ] = "",
    group: Annotated[
        str,
        typer.Option(
            help="Regular expression that finds the patient in an image's path, e.g. '^[^_]+' or 'P(\\d+)_'. All "
            "images of a patient then stay in the same split."
        ),
    ] = "",
    foreground: Annotated[
        str,
        typer.Option(
            help="Mask values that are foreground, e.g. 1,2 or 128-255 or #ff0000. Default: the brighter of two values."
        ),
    ] = "",
    missing_masks: Annotated[
        str, typer.Option(help="What to do with an image without a mask: refuse (an error), or empty (all background).")
    ] = "refuse",
    ignore: Annotated[list[str], typer.Option(help="Pattern of files to ignore, e.g. '*.txt'; may be repeated.")] = (),
    like: Annotated[
        str,
        typer.Option(
            autocompletion=_complete_study,
            help="Study to copy networks and loss weights from. Default: one of the paper's.",
        ),
    ] = "",
    teacher: Annotated[str, typer.Option(help="Encoder of the teacher, e.g. resnet50. Default: as in --like.")] = "",
    student: Annotated[str, typer.Option(help="Encoder of the students, e.g. resnet18. Default: as in --like.")] = "",
    size: Annotated[
        int | None, typer.Option(help="Height and width to which images are resized, in pixels. Default: as in --like.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="Percentages of training, validation and test images; or the word image, to split 75:10:15 by image "
            "even if patients are known. Not used if --table has a column split."
        ),
    ] = "75:10:15",
    add: Annotated[
        bool, typer.Option("--add", help="Keep the other studies active. By default only the new one is.")
    ] = False,
    device: Annotated[
        str, typer.Option(envvar="CLASSROOM_DEVICE", help="Device to time training steps on: auto, cpu, cuda:1, …")
    ] = "auto",
) -> None:
    """Check your own images, write datasets/NAME.yaml and studies/NAME.yaml for them, and estimate training hours."""
    from classroom import progress

    progress.log(f"reading {table or images or 'the options'} …")  # the libraries take seconds to load
    from classroom.params import check, load
    from classroom.settings.new_study import Wanted, numbers, percentages
    from classroom.settings.new_study import new_study as run
    from classroom.settings.plan import write_plan

    _limit_threads()
    wanted = Wanted(
        name, images, masks, table, reader, task, group, numbers(foreground), missing_masks, tuple(ignore), like,
        teacher, student, size, percentages("75:10:15" if split == "image" else split), split == "image", add,
    )  # fmt: skip
    for line in run(wanted):
        typer.echo(line)
    write_plan(check(load()))
    _stash_reports("classroom new-study")
    from classroom.forecast import forecast as estimate

    progress.log("timing training steps for the forecast (the study is complete: Ctrl-C skips only the forecast) …")
    typer.echo(estimate([name], device))
    typer.echo(
        "before `dvc exp run --temp` or `--queue`, which see only what git tracks: "
        f"git add datasets/{name}.yaml studies/{name}.yaml\n"
        f"next: snakemake --cores all reports/{name}.md"
    )


@command("classroom resplit lgg-resnet18")
def resplit(study: StudyName) -> None:
    """Add STUDY-resplit, a copy of a study that is split by patient instead of by image, or vice versa.

    Then reports/TABLE-splits.md compares both, where reports/TABLE.md is the study's table of variants.
    """
    from classroom.settings.overlays import resplit as run

    _print_changes(f"studies/{study}-resplit.yaml", run(study))


def _print_changes(what: str, changed: list[str]) -> None:
    from classroom.params import check, load
    from classroom.settings.plan import write_plan

    write_plan(check(load()))
    typer.echo(f"{what}: {counted(len(changed), 'value')} changed")
    for key in changed:
        typer.echo(f"  {key}")


@command("classroom check")
def check(
    planned: Annotated[
        bool,
        typer.Option(
            "--planned", help="Exit with an error if workflow/plan.yaml was out of date. DVC's stage `plan` uses this."
        ),
    ] = False,
) -> None:
    """Validate all settings, check that every method fits its networks, and update the list of jobs for DVC.

    This list is workflow/plan.yaml.
    """
    from classroom.settings.checks import check_all
    from classroom.settings.plan import PLAN, write_plan

    params = check_all()
    if write_plan(params) and planned:
        raise ClassroomError(
            f"{PLAN} was out of date and has been rewritten. Start DVC again; it will then run the right jobs."
        )
    typer.echo(f"settings valid: scale {params.scale}, studies {', '.join(params.studies)}")


@command("classroom reconcile")
def reconcile() -> None:
    """Record finished jobs in dvc.lock, restore cached results, and sync mtimes so that Snakemake agrees with DVC.

    Snakemake does this itself when it starts and ends.
    """
    from classroom.engines.reconcile import Session
    from classroom.engines.reconcile import reconcile as run

    _check_plan()
    with Session("classroom reconcile"):
        stale = run()
    typer.echo(f"{counted(len(stale), 'job')} to run" if stale else "nothing to do")


@command("classroom verify")
def verify(
    remote: Annotated[
        bool, typer.Option("--remote", help="Check DVC's remote instead, and upload missing files.")
    ] = False,
) -> None:
    """Check the hash of every finished result and of its copy in DVC's cache, and restore damaged ones."""
    from classroom.engines.reconcile import Session
    from classroom.engines.store import complete_remote
    from classroom.provenance.verify import verify as run

    _check_plan()
    if remote:
        damaged = complete_remote()
    else:
        with Session("classroom verify"):
            damaged = run()
    if damaged:
        raise typer.Exit(1)


def _point(text: str, method: str) -> tuple[float, ...] | None:
    """ALPHA_1,ALPHA_2,TEACHER_SHARE as numbers in [0, 1]; of a published method a positive FACTOR."""
    from classroom.errors import ParamsError
    from classroom.methods import registry as methods_registry
    from classroom.params import BASELINES

    if not text:
        return None
    if method in BASELINES:
        raise ParamsError(
            f"--point {text}: {method} learns from its task loss only, so it has no weights to search. Leave "
            "--point out."
        )
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if methods_registry.is_published(method):
        if len(numbers) != 1 or not 0 < numbers[0] < float("inf"):
            raise ParamsError(f"--point {text}: expected a factor of {method}'s reference weights, such as 0.1 or 10.")
    elif len(numbers) != 3 or not all(0 <= number <= 1 for number in numbers):
        raise ParamsError(f"--point {text}: expected three numbers from 0 to 1, such as 0.1,0.2,0.5.")
    return numbers


def _check_group(methods: list[str]) -> None:
    """Raises ClassroomError if the methods cannot be trained in one process."""
    from classroom.training import equality

    if twice := sorted({method for method in methods if methods.count(method) > 1}):
        raise ClassroomError(f"{', '.join(twice)}: named more than once. Name each method once.")
    if "teacher" in methods and (after := [method for method in methods if equality.waits_for_teacher(method)]):
        raise ClassroomError(
            f"{', '.join(after)}: need the finished teacher, so they cannot be trained together with it. Train the "
            "teacher first, then these."
        )


def _run_folder(study: str, method: str, seed: int) -> Path:
    from classroom.methods.registry import run_folder

    return run_folder(study, method, seed)


def _trained(raw: dict[str, Any], study: str, method: str, seed: int) -> Path:
    """The folder of a run. Raises ClassroomError if it has not been trained."""
    from classroom.params import Study, select

    if not (run := _run_folder(study, method, seed)).exists():
        select(raw, f"study.{study}", Study)  # for the nearest name of a misspelt one
        raise ClassroomError(
            f"{run}: this run has not been trained. Run `classroom train {study} {method} --seed {seed}` first, or "
            f"`snakemake --cores all {run}`."
        )
    return run


def _export_folder(study: str, method: str, seed: int, network: str) -> Path:
    return Path("exports", study, method, f"seed-{seed}", network)


def _job(command: str, only_planned: bool = True):  # noqa: ANN202 - a context manager of manifest.Job
    """Without `only_planned`, commands that are no stage of dvc.yaml may run too, such as another seed's training."""
    from classroom.engines.manifest import job
    from classroom.params import load

    _limit_threads()
    _check_plan()
    return job(command, load(Path("params.yaml")), only_planned)


def _check_plan() -> None:
    """Raises ParamsError if workflow/plan.yaml is out of date; by it, jobs and reports are known."""
    from classroom.params import load
    from classroom.settings.plan import check_plan

    if Path("dvc.yaml").exists():
        check_plan(load())


def _limit_threads() -> None:
    """Sets the threads of libraries to one, unless the environment sets them, as Snakemake does for its jobs.

    Their default is all cores, for each of many parallel jobs. Trainings set torch's threads themselves.
    """
    for name in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM"):
        os.environ.setdefault(f"{name}_THREADS", "1")


def main() -> None:
    """Runs the command; what a user can fix is said in one paragraph, without a traceback."""
    log.configure()
    if "_CLASSROOM_COMPLETE" in os.environ:  # else typer breaks descriptions into lines, which fish offers as words
        os.environ["TERMINAL_WIDTH"] = "10000"
    warnings.showwarning = lambda message, *rest: print(f"Warning: {message}", file=sys.stderr)
    try:
        command = " ".join(["classroom", *itertools.takewhile(lambda word: word[:1] != "-", sys.argv[1:4])])
        with orderly_interrupts("Run the same command again."), log.heartbeat(command):
            app(prog_name="classroom")
    except ClassroomError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("classroom"):
            raise
        print(
            f"Error: {error.name}: no such module. `git status` shows what was removed or renamed in src/.",
            file=sys.stderr,
        )
        sys.exit(1)
    except OSError as error:  # a full disk, a missing permission, a folder where a file belongs
        said = ClassroomError(f"{error.filename or 'a file'}: {error.strerror or error}. {advice(error)}")
        print(f"Error: {said}", file=sys.stderr)
        sys.exit(1)
