# Checked settings, the verdict on what is fresh, and the few functions that the rules share.
# There are no benchmark files: Snakemake counts their times among the outputs', which `reconcile` cannot know of;
# duration and memory are in each job's receipt.
import os
import sys
import warnings
from pathlib import Path

import yaml

from classroom.engines.checks import check_all
from classroom.engines.reconcile import NESTED, reconcile
from classroom.errors import ClassroomError
from snakemake.exceptions import WorkflowError

# Jobs and cluster nodes read this file too; checking and judging is the main process's, once.
MAIN_PROCESS = workflow.exec_mode.name == "DEFAULT" and NESTED not in os.environ


def check_profile() -> None:
    """File times decide alone only under these settings, which a profile named by hand has to repeat."""
    settings = workflow.dag_settings
    if {trigger.name for trigger in settings.rerun_triggers} != {"MTIME"} or settings.max_checksum_file_size != 0:
        raise WorkflowError(
            "Snakemake runs without the settings that it needs to agree with DVC. Expected in the workflow profile: "
            "rerun-triggers: [mtime] and max-checksum-file-size: 0, as in workflow/profiles/default/config.yaml. "
            "Add them to your profile, or leave --workflow-profile out."
        )


# `classroom` is found beside the Python that runs Snakemake, in an activated environment or not.
shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def reconcile_at_the_end() -> None:
    """Records what finished. It must never spoil the outcome of the jobs themselves."""
    if MAIN_PROCESS:
        try:
            reconcile(say)
        except Exception as error:
            say(f"Warning: the results are not recorded in dvc.lock yet ({error}); the next start tries again.")


try:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        params = check_all()
        if MAIN_PROCESS:
            for warning in caught:
                say(f"Warning: {warning.message}")
            reconcile(say)
except ClassroomError as error:
    say(f"Error: {error}")
    sys.exit(1)

STAGES = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]


def code(stage: str, **replacements: str) -> list[str]:
    """The source files that a stage depends on, as dvc.yaml lists them."""
    definition = STAGES[stage].get("do", STAGES[stage])
    paths = [path for path in definition["deps"] if path.startswith("src/")]
    for placeholder, value in replacements.items():
        paths = [path.replace(f"${{item.{placeholder}}}", value) for path in paths]
    return paths


def run_files(folder: str) -> list[str]:
    """What a training leaves in its run's folder."""
    names = ["weights.safetensors", "predictions.parquet", "metrics.json", "history.csv", "receipt.json"]
    return [f"{folder}/{name}" for name in names]


def runs_of(study: str, method: str) -> list[str]:
    """The files of all of a method's runs."""
    return [path for seed in params.seeds for path in run_files(f"runs/{study}/{method}/seed-{seed}")]


def prepared_files(study: str) -> list[str]:
    """What preparing a study's images leaves."""
    return [f"data/prepared/{study}/{name}" for name in ("images.npy", "masks.npy", "index.parquet", "dataset.json")]


wildcard_constraints:
    dataset="[a-z0-9_-]*",
    study="[a-z0-9_-]*",
    seed=r"\d{1,9}",
    network="teacher|student",
    joint="|".join(params.variants.joint) or "none",
    offline="|".join(params.variants.offline) or "none",
    variant="|".join((*params.variants.joint, *params.variants.offline)) or "none",
