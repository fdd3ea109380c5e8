"""workflow/plan.yaml: the list of jobs for both engines.

DVC takes its matrices and the paths of outputs from lists in one file, and cannot look into the files of the studies
that another list names. So this file holds what decides jobs and paths, computed from the settings alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from classroom.errors import ParamsError
from classroom.files import write_text
from classroom.params import TASKS, Params

PLAN = Path("workflow/plan.yaml")

HEAD = "# Which jobs there are. Written from the settings by `classroom check` and Snakemake: do not edit.\n"


def plan(params: Params) -> dict[str, Any]:
    """The contents of the plan, which dvc.yaml and the rules turn into jobs. It names active studies only."""
    from classroom.reporting.registry import asked_for  # slow

    reports = {name: study.reports for name, study in params.study.items()}
    deployed = [name for name, of in reports.items() if of.deploy]
    return {
        "datasets": {name: dataset.reader for name, dataset in params.dataset.items()},
        "studies": {
            name: {"dataset": study.dataset, "baselines": study.reports.baselines}
            for name, study in params.study.items()
        },
        "compared": {
            task: {name: reports[name].comparison for name in params.compared_studies(task)} for task in TASKS
        },
        "methods": _by_stage(params.comparison.segmentation),
        "grid": list(params.searched_studies),
        "tune": {task: list(params.tuned_studies(task)) for task in TASKS},
        "tuned": _by_stage(params.tune.segmentation.methods),
        "cka": [name for name, of in reports.items() if of.cka is not None],
        "deploy": {name: {"dataset": params.study[name].dataset} for name in deployed},
        "exported": {
            f"{name}-{network}": {"study": name, "network": network, "dataset": params.study[name].dataset}
            for name in deployed
            for network in ("S1", "ensemble")
        },
        "reports": asked_for(params),
    }


def _by_stage(methods: Sequence[str]) -> dict[str, list[str]]:
    """Published methods of segmentation by the stage that trains them.

    A stage has the same code for all its methods, and only some have an adversary.
    """
    from classroom.methods import registry
    from classroom.methods.adversarial.method import Adversarial

    kinds = {name: registry.load(name)["segmentation"] for name in methods}
    adversarial = [name for name, kind in kinds.items() if issubclass(kind, Adversarial)]
    return {"segmentation": [name for name in methods if name not in adversarial], "adversarial": adversarial}


UNSET: tuple[Any, ...] = (None, False, {})
"""Values of reports that are not made; an empty list under `cka` asks for its table alone."""


def write_plan(params: Params, root: Path = Path()) -> bool:
    """Writes workflow/plan.yaml if it differs from the settings; returns whether it did."""
    content = {"settings": digest(params.model_dump(mode="json")), "plan": plan(params)}
    text = HEAD + yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False, width=120)
    path = root / PLAN
    if path.exists() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def digest(settings: Mapping[str, Any]) -> str:
    """The digest of the settings (`classroom.params.load`) that decide the plan."""
    studies = {name: settings["study"][name] for name in settings["studies"]}
    deciding = [
        [settings["studies"], settings["grid"]["studies"], settings["tune"], settings["comparison"]["segmentation"]],
        {name: [study.get(key) for key in ("task", "dataset", "resplit")] for name, study in studies.items()},
        {
            name: {kind: of for kind, of in study["reports"].items() if of not in UNSET}
            for name, study in studies.items()
        },
        {name: settings["dataset"][name]["reader"] for name in sorted({of["dataset"] for of in studies.values()})},
    ]
    return hashlib.md5(json.dumps(deciding, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def check_plan(settings: Mapping[str, Any]) -> None:
    """Raises ParamsError if workflow/plan.yaml is not of these settings, as after an edit of `studies`.

    Mistakes in the settings are left to the jobs that read them, as one study may be edited while another one runs.
    """
    try:
        now = digest(settings)
    except (LookupError, TypeError, AttributeError):
        return
    try:
        written = PLAN.read_text(encoding="utf-8", errors="replace")
    except OSError:
        written = ""
    if f"\nsettings: {now}\n" not in written:
        raise ParamsError(
            f"{PLAN}: out of date: studies, methods or reports have changed since it was written. Run `classroom "
            "check`, which writes it; Snakemake does so itself."
        )
