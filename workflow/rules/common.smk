# Checks the settings, reconciles, and defines the functions that the rules share.
# No `benchmark:` files: Snakemake compares their mtimes too, which `reconcile` does not set; each job's manifest has its
# duration and memory.
import atexit
import compileall
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import yaml

from classroom import places
from classroom.engines import graph, together
from classroom.engines.reconcile import NESTED, Session, dry_run
from classroom.errors import ClassroomError, listed
from classroom.files import not_writable
from classroom.interrupts import orderly_interrupts
from classroom.log import configure, heartbeat
from classroom.methods import registry as methods
from classroom.methods.learning_styles.exchange import EXCHANGE
from classroom.params import BASELINES, load
from classroom.reporting import registry
from classroom.settings.checks import check_all, check_source
from classroom.settings.plan import plan, write_plan
from classroom.slurm import jobs_of as slurm_jobs_of
from classroom.training.equality import waits_for_teacher
from snakemake.cli import parse_args
from snakemake.exceptions import WorkflowError

# Jobs and cluster nodes read this file too; only the main process checks settings and reconciles, once.
MAIN_PROCESS = workflow.exec_mode.name == "DEFAULT" and NESTED not in os.environ


def check_profile() -> None:
    """Reconciling needs these settings, which every profile has to repeat."""
    settings = workflow.dag_settings
    if {trigger.name for trigger in settings.rerun_triggers} != {"MTIME"} or settings.max_checksum_file_size != 0:
        raise WorkflowError(
            "Snakemake runs without the settings that it needs to agree with DVC. Expected in the workflow profile: "
            "rerun-triggers: [mtime] and max-checksum-file-size: 0, as in profiles/default/config.yaml. "
            "Add them to your profile, or leave --workflow-profile out."
        )


def check_no_overrides() -> None:
    """Jobs and DVC read the settings from their files, so what Snakemake alone is told would change nothing."""
    given = workflow.config_settings
    if MAIN_PROCESS and (given.config or given.configfiles):
        option = "--config" if given.config else "--configfile"
        raise ClassroomError(
            f"{option} has no effect on jobs, which read params.yaml, studies/ and datasets/: edit these, write a file "
            "of settings into them with `classroom overlay FILE`, or try a value with `dvc exp run -S KEY=VALUE`."
        )


def check_queue() -> None:
    """Refuses to start while SLURM jobs of a killed Snakemake are left: submitting them again would run each twice."""
    if workflow.executor_plugin.name == "slurm" and (jobs := slurm_jobs_of(Path.cwd())):
        raise WorkflowError(
            f"{len(jobs)} SLURM jobs of an earlier Snakemake are still queued or running for this folder: "
            f"{' '.join(jobs)}. Start again after they have ended (squeue --me); their results are kept. Or end them "
            f"now: `scancel {' '.join(jobs)}`; trainings then resume from their checkpoints."
        )


def check_writable() -> None:
    """Snakemake itself would say so at the first job that needs the folder, perhaps after hours."""
    if folders := not_writable(Path(path) for job in workflow.dag.needrun_jobs() for path in (*job.output, *job.log)):
        raise WorkflowError(
            f"{listed(folders)}: not a writable folder, but results go there. Nothing was started. Give yourself access"
            " (`ls -ld` shows the owner, `chmod u+rwx` opens your own), or move what is in the way."
        )


def trained_together(stale: set[str]) -> list[together.Group]:
    """The groups of stale runs, needed for the targets, that train in one process each."""
    given = parse_args(sys.argv[1:])[1]
    if given.forceall or given.forcerun or given.until or given.omit_from or given.allowed_rules or given.batch:
        return []  # options for single jobs
    stages = graph.load()
    due = [stage for stage in together.needed_for(given.targets, stages) if stage.name in stale]
    settings = workflow.resource_settings
    gpu = settings.resources.get("gpu")
    slots = together.slots(
        settings.cores,
        params.training.threads,
        gpu and gpu.value,
        None if given.executor in (None, "local", "dryrun") else settings.nodes,
    )
    groups = together.choose(together.runs_in(due), load(Path("params.yaml")), slots).groups
    return [group for group in groups if len(group.methods) > 1]


# `classroom` is found next to the Python that runs Snakemake, in an activated environment or not. SLURM sends SIGTERM to
# every process of a job; the trap keeps the shell alive, so that a training has time to write its checkpoint.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; trap : TERM; ")


def reconcile_at_the_end() -> None:
    """Commits the finished jobs. An error here must not fail the workflow."""
    if MAIN_PROCESS:
        try:
            with heartbeat("Committing the results"):
                session.stop()
        except Exception as error:
            messages.warning("the results are not committed to dvc.lock yet (%s); the next start tries again.", error)


configure()
messages = logging.getLogger("classroom.workflow")
until_exit = ExitStack()
atexit.register(until_exit.close)
if MAIN_PROCESS:
    until_exit.enter_context(orderly_interrupts("Run the same command again to continue."))
try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        check_no_overrides()
        params = check_all()
        if MAIN_PROCESS:
            for warning in caught:
                messages.warning("%s", warning.message)
            write_plan(params)
            # Snakemake knows its targets only once it has read all rules.
            registry.check_targets(argument for argument in sys.argv[1:] if "/" in argument)
            # Otherwise jobs would compile it, and code folders would be newer than outputs.
            compileall.compile_dir("src/classroom", quiet=2)
            command = " ".join(["snakemake", *sys.argv[1:]])
            with heartbeat("Checking which results are up to date"):
                if any(re.fullmatch("--dry-?run|-[a-zA-Z]*n[a-zA-Z]*", argument) for argument in sys.argv):
                    GROUPS = trained_together(dry_run(command))
                else:
                    session = until_exit.enter_context(Session(command))
                    GROUPS = trained_together(session.start())
                    together.record(GROUPS)
        else:
            GROUPS = together.recorded()
except ClassroomError as error:
    messages.error("%s", error)
    sys.exit(1)

# What a profile sets for the rule `train` holds for groups too. Snakemake looks at it when it meets the first rule.
set_resources = workflow.resource_settings.overwrite_resources
if "train" in set_resources:
    set_resources.update({f"together_{number}": set_resources["train"] for number, _ in enumerate(GROUPS, 1)})

# The jobs, as dvc.yaml lists them.
PLAN = plan(params)

STAGES = yaml.load(Path("dvc.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)["stages"]


def code(stage: str) -> list[str]:
    """The source code that a stage depends on, as dvc.yaml lists it."""
    definition = STAGES[stage].get("do", STAGES[stage])
    return [path for path in definition["deps"] if path.startswith("src/")]


def training_stage(method: str) -> str:
    """The stage of dvc.yaml that trains a baseline or variant."""
    return "baseline" if method in BASELINES else "train_offline" if waits_for_teacher(method) else "train"


def report_code(kind: str, item: dict[str, str]) -> list[str]:
    """The source code that a report depends on."""
    return [path.replace("${item.reader}", item.get("reader", "")) for path in code(kind)]


def source_code(dataset: str) -> list[str]:
    """The source code that fetching depends on. Called only for datasets that a target needs, before any job starts,
    so a missing source folder is an error here."""
    try:
        check_source(dataset, params.dataset[dataset])
    except ClassroomError as error:
        messages.error("%s", error)
        os._exit(1)  # no job has started, and Snakemake would print an exception with a traceback
    reader = params.dataset[dataset].reader
    return [path.replace("${item}", reader) for path in code("fetch")]


def method_code(study: str, method: str) -> list[str]:
    """The source code that training a published method depends on."""
    kind = params.study[study].task
    if kind == "segmentation" and method in PLAN["methods"]["adversarial"] + PLAN["tuned"]["adversarial"]:
        kind = "adversarial"
    return [path.replace("${item.method}", method) for path in code(f"method_{kind}")]


def labels(item: dict[str, str], shows: str, variant: str = "") -> dict[str, str]:
    """The labels of a report in Snakemake's own report; `variant`: the one that it shows, if only one."""
    if "study" not in item:
        return {"shows": shows}
    of = params.study[item["study"]]
    return {
        "dataset": of.dataset,
        "architecture": f"{of.teacher.encoder.removeprefix('tu-')} to {of.student.encoder.removeprefix('tu-')}",
        "technique": EXCHANGE[variant].technique if variant else "all",
        "strategy": EXCHANGE[variant].strategy if variant else "all",
        "shows": shows,
    }


def shown(kind, of_kind):
    """A report's outputs. Snakemake's own report shows one of them: of a table the .csv, which can be sorted there."""
    outputs = of_kind.outputs("{report}")
    suffix = ".csv" if of_kind.suffixes[0] == ".md" else of_kind.suffixes[0]
    main = next(path for path in outputs if path.endswith(suffix))
    flagged = report(
        main,
        caption=f"../report/{kind}.rst",
        category=of_kind.category,
        labels=lambda wildcards: labels(
            PLAN["reports"][kind][wildcards.report], of_kind.shows, params.ours if kind == "samples" else ""
        ),
    )
    return [flagged, *(path for path in outputs if path != main)]


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
    method=names(methods.PUBLISHED),
    factor=r"[0-9.e+-]+",
    joint=names({*params.variants.joint, *params.grid.joint}),
    offline=names({*params.variants.offline, *params.grid.offline}),
    variant=names(params.trained_variants),
