# Checked settings, the verdict on what is fresh, and the few functions that the rules share.
# There are no benchmark files: Snakemake counts their times among the outputs', which `reconcile` cannot know of;
# duration and memory are in each job's manifest.
import atexit
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import yaml

from classroom.distill.exchange import EXCHANGE
from classroom.engines.checks import check_all, check_source
from classroom.engines.reconcile import NESTED, Session, dry_run
from classroom.errors import ClassroomError
from classroom.log import configure
from classroom.method_settings import COMPARISON_METHODS
from classroom.slurm import jobs_of as slurm_jobs_of
from snakemake.exceptions import WorkflowError

# Jobs and cluster nodes read this file too; only the main process checks settings and reconciles, once.
MAIN_PROCESS = workflow.exec_mode.name == "DEFAULT" and NESTED not in os.environ


def check_profile() -> None:
    """File times decide alone only under these settings, which a profile named by hand has to repeat."""
    settings = workflow.dag_settings
    if {trigger.name for trigger in settings.rerun_triggers} != {"MTIME"} or settings.max_checksum_file_size != 0:
        raise WorkflowError(
            "Snakemake runs without the settings that it needs to agree with DVC. Expected in the workflow profile: "
            "rerun-triggers: [mtime] and max-checksum-file-size: 0, as in profiles/default/config.yaml. "
            "Add them to your profile, or leave --workflow-profile out."
        )


def check_queue() -> None:
    """Jobs that a killed Snakemake submitted are still running: submitting them again would run each twice."""
    if workflow.executor_plugin.name == "slurm" and (jobs := slurm_jobs_of(Path.cwd())):
        raise WorkflowError(
            f"{len(jobs)} SLURM jobs of an earlier Snakemake are still queued or running for this folder: "
            f"{' '.join(jobs)}. Start again when they have ended (squeue --me): what they finish is kept. Or end them "
            f"now: `scancel {' '.join(jobs)}`; trainings then go on from their checkpoints."
        )


# `classroom` is found next to the Python that runs Snakemake, in an activated environment or not. SLURM sends SIGTERM to
# every process of a job: the shell outlives it by the trap, so that a training has the time to write its checkpoint.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; trap : TERM; ")


def reconcile_at_the_end() -> None:
    """Commits what finished. It must never spoil the outcome of the jobs themselves."""
    if MAIN_PROCESS:
        try:
            session.stop()
        except Exception as error:
            messages.warning("the results are not committed to dvc.lock yet (%s); the next start tries again.", error)


configure()
messages = logging.getLogger("classroom.workflow")
until_exit = ExitStack()
atexit.register(until_exit.close)
try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        params = check_all()
        if MAIN_PROCESS:
            for warning in caught:
                messages.warning("%s", warning.message)
            command = " ".join(["snakemake", *sys.argv[1:]])
            if any(re.fullmatch("--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in sys.argv):
                dry_run(command)
            else:
                session = until_exit.enter_context(Session(command))
                session.start()
except ClassroomError as error:
    messages.error("%s", error)
    sys.exit(1)

STAGES = yaml.load(Path("dvc.yaml").read_text(), yaml.CSafeLoader)["stages"]


def code(stage: str) -> list[str]:
    """The source files that a stage depends on, as dvc.yaml lists them."""
    definition = STAGES[stage].get("do", STAGES[stage])
    return [path for path in definition["deps"] if path.startswith("src/")]


def source_code(dataset: str) -> list[str]:
    """What fetching depends on. Only datasets that a target needs come here, before any job: the place to look for
    a folder of the user's."""
    try:
        check_source(dataset, params.dataset[dataset])
    except ClassroomError as error:
        messages.error("%s", error)
        os._exit(1)  # nothing has started; whatever an input function raises, Snakemake prints with a traceback
    reader = params.dataset[dataset].reader
    return [path.replace("${item.reader}", reader) for path in code("fetch")]


def kind_of_targets(study: str) -> str:
    """What the names of stages that go by task end with."""
    return {"classification": "classes", "segmentation": "masks"}[params.study[study].task]


def method_code(study: str, method: str) -> list[str]:
    """What training a published method depends on."""
    return [path.replace("${item.method}", method) for path in code(f"method_{kind_of_targets(study)}")]


def compared_runs_of(study: str) -> list[str]:
    """The files of all runs that a study's comparison shows."""
    methods = getattr(params.comparison, params.study[study].task).methods
    folders = expand("compared/{study}/{method}/seed-{seed}", study=study, method=methods, seed=params.seeds)
    beside = [path for method in ("student", params.comparison.ours) for path in runs_of(study, method)]
    return [path for folder in folders for path in run_files(folder)] + beside


def tuned_runs_of(study: str) -> list[str]:
    """The files of all runs of a study's search of weights."""
    folders = expand(
        "tune/{study}/{method}/{factor}/seed-{seed}",
        study=study,
        method=getattr(params.tune, params.study[study].task).methods,
        factor=params.tune.factors,
        seed=params.seeds,
    )
    return [path for folder in folders for path in run_files(folder)]


def run_files(folder: str) -> list[str]:
    """What a training leaves in its run's folder."""
    names = ["weights.safetensors", "predictions.parquet", "metrics.json", "history.csv", "manifest.json"]
    return [f"{folder}/{name}" for name in names]


def runs_of(study: str, method: str) -> list[str]:
    """The files of all of a method's runs."""
    return [path for seed in params.seeds for path in run_files(f"runs/{study}/{method}/seed-{seed}")]


def all_runs_of(study: str) -> list[str]:
    """The files of all runs of a study, alone and as variants."""
    return [path for method in ("teacher", "student", *params.trained_variants) for path in runs_of(study, method)]


def similarities_of(study: str) -> list[str]:
    """CKA of all of a study's variants and seeds."""
    return expand(
        "results/cka/{study}/{variant}/seed-{seed}.parquet",
        study=study,
        variant=params.trained_variants,
        seed=params.seeds,
    )


def grid_runs_of(study: str) -> list[str]:
    """The files of all runs of a study's grid search."""
    grid = params.grid
    folders = expand(
        "grid/{study}/{variant}/{alpha_1}-{alpha_2}-{share}/seed-{seed}",
        study=study,
        variant=(*grid.joint, *grid.offline),
        alpha_1=grid.alpha_1,
        alpha_2=grid.alpha_2,
        share=grid.teacher_share,
        seed=params.seeds,
    )
    return [path for folder in folders for path in run_files(folder)]


def prepared_files(study: str) -> list[str]:
    """What preparing a study's images leaves."""
    return [f"data/prepared/{study}/{name}" for name in ("images.npy", "targets.npy", "index.parquet", "dataset.json")]


def results_of(study: str) -> list[str]:
    """The results of a study's variants."""
    return [f"results/variants/{study}/{variant}.json" for variant in params.trained_variants]


def baseline_results_of(study: str, networks: list[str]) -> list[str]:
    """The results of a study's teacher, student or both."""
    table = params.study[study].tables.baselines
    return [f"results/baselines/{table}/{study}/{network}.json" for network in networks]


def all_results() -> list[str]:
    """The results of everything."""
    baselines = [path for study in params.studies for path in baseline_results_of(study, ["teacher", "student"])]
    return baselines + [path for study in params.studies for path in results_of(study)]


def all_costs() -> list[str]:
    """What the runs behind all results took."""
    alone = [path.replace("results/", "results/costs/", 1) for path in all_results()]
    return alone + expand("results/costs/comparison/{study}.json", study=compared_studies())


def all_tables() -> list[str]:
    """The names of all reports that are tables."""
    by_study = [name for kind in ("variants", "fidelity", "architecture") for name in report_names(kind)]
    together = [*params.baseline_tables, *params.twins, *params.comparison.tables, *params.deploy.tables]
    searches = [*(f"grid-{study}" for study in params.grid.studies), *(f"tune-{study}" for study in tuned_studies())]
    return [
        "table1",
        "table5",
        "cost",
        *by_study,
        *together,
        *searches,
        *(f"cka-{study}" for study in params.cka.studies),
    ]


def all_figures() -> list[str]:
    """The names of all reports that are pictures alone."""
    by_study = [f"{kind}-{study}" for kind in ("curves", "agreement") for study in params.studies]
    return [*(f"samples-{study}" for study in params.samples), *params.pictures, *params.cka.figures, *by_study]


def compared_studies() -> list[str]:
    """The studies in which published methods stand beside ours."""
    return [*params.comparison.classification.studies, *params.comparison.segmentation.studies]


def tuned_studies() -> list[str]:
    """The studies in which published methods' weights are searched."""
    return [*params.tune.classification.studies, *params.tune.segmentation.studies]


def report_names(kind: str) -> list[str]:
    """The names of one kind of report, a study each."""
    return [getattr(params.study[study].tables, kind) for study in params.studies]


def study_of(kind: str, table: str) -> str:
    """The study whose report of this kind is called `table`."""
    return params.studies[report_names(kind).index(table)]


def labels(study: str, shows: str, variant: str = "") -> dict[str, str]:
    """How a result is found in Snakemake's report."""
    of, known = params.study[study], EXCHANGE.get(variant)
    return {
        "dataset": of.dataset,
        "architecture": f"{of.teacher.encoder.removeprefix('tu-')} to {of.student.encoder.removeprefix('tu-')}",
        "technique": known.technique if known else "all",
        "strategy": known.strategy if known else "all",
        "shows": shows,
    }


def export_of(study: str, method: str, network: str) -> str:
    """The exported model of the first seed's run."""
    return f"exports/{study}/{method}/seed-{params.seeds[0]}/{network}/model.onnx"


def names(known: Iterable[str]) -> str:
    """A regular expression for one of the `known` names; one that matches nothing if there are none."""
    return "|".join(map(re.escape, known)) or "(?!)"


wildcard_constraints:
    dataset="[a-z0-9_-]*",
    study="[a-z0-9_-]*",
    seed=r"\d{1,9}",
    alpha_1=r"0\.\d+",
    alpha_2=r"0\.\d+",
    share=r"0\.\d+",
    network="teacher|student",
    method=names(COMPARISON_METHODS),
    factor=r"[0-9.e+-]+",
    joint=names({*params.variants.joint, *params.grid.joint}),
    offline=names({*params.variants.offline, *params.grid.offline}),
    variant=names(params.trained_variants),
