"""Which jobs there are: workflow/plan.yaml, from which both engines take their lists.

DVC takes its matrices and the paths of outputs from lists in one file, and cannot look into the files of the studies
that another list names. So what decides jobs and paths is written down for it, from the settings and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from classroom.errors import ParamsError
from classroom.files import write_text
from classroom.method_settings import METHODS
from classroom.params import Params, check

PLAN = Path("workflow/plan.yaml")

HEAD = "# Which jobs there are. Written from the settings by `classroom check` and Snakemake: do not edit.\n"


def plan(params: Params) -> dict[str, Any]:
    """What dvc.yaml and the rules make jobs of: the studies in force, and of each what is made of it.

    Lists and mappings that name studies hold those in force, so nothing is asked of another one.
    """
    studies = params.study
    reports = {name: study.reports for name, study in studies.items()}
    return {
        "datasets": {name: dataset.reader for name, dataset in params.dataset.items()},
        "studies": {
            name: {"dataset": study.dataset, **study.reports.model_dump(include=set(BY_STUDY))}
            for name, study in studies.items()
        },
        "baselines": list(dict.fromkeys(of.baselines for of in reports.values())),
        "comparison": {
            "tables": list(dict.fromkeys(of.comparison for of in reports.values() if of.comparison)),
            **{task: {name: reports[name].comparison for name in params.compared_studies(task)} for task in METHODS},
        },
        "cka": {
            "studies": [name for name, of in reports.items() if of.cka is not None],
            "figures": {figure: name for name, of in reports.items() for figure in of.cka or ()},
        },
        "samples": [name for name, of in reports.items() if of.samples],
        "pictures": {picture: name for name, of in reports.items() for picture in of.pictures},
        "deploy": {
            "studies": [name for name, of in reports.items() if of.deploy],
            "tables": ["deploy"] if any(of.deploy for of in reports.values()) else [],
        },
        "resplits": {
            name: {"of": study.resplit.of, "report": study.resplit.report, "table": reports[study.resplit.of].variants}
            for name, study in studies.items()
            if study.resplit and study.resplit.of in studies
        },
        "grid": list(params.searched_studies),
        "tune": {task: list(params.tuned_studies(task)) for task in METHODS},
    }


BY_STUDY = ("variants", "baselines", "fidelity", "architecture")
"""The reports that every study has."""


def write_plan(params: Params, root: Path = Path()) -> bool:
    """Writes workflow/plan.yaml if it is not as the settings ask; returns whether it was changed."""
    text = HEAD + yaml.dump({"plan": plan(params)}, Dumper=yaml.CSafeDumper, sort_keys=False, width=120)
    path = root / PLAN
    if path.exists() and path.read_text() == text:
        return False
    write_text(path, text)
    return True


def check_plan(raw: Mapping[str, Any]) -> None:
    """Raises ParamsError if workflow/plan.yaml is not what the settings ask for, as after an edit of `studies`.

    Settings (`classroom.params.load`) that are not valid are left to the jobs that need them: one study may be edited
    while another one runs.
    """
    try:
        params = check(raw)
    except ParamsError:
        return
    try:
        written = yaml.load(PLAN.read_text(), yaml.CSafeLoader)
    except (OSError, yaml.YAMLError):
        written = None
    if written != {"plan": plan(params)}:
        raise ParamsError(
            f"{PLAN}: not what the settings ask for, as their studies or reports were changed. Run `classroom check`, "
            "which writes it; Snakemake does so itself."
        )
