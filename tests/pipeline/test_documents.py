"""The commands of README and docs/, in the order and the state in which a reader types them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from support.documents import pages
from support.project import Project
from support.studies import ROOT, STUDY

HERE = {
    # by what is typed, what stands for it in the tiny project, which has one study, three variants and two cores
    "--cores all": "--cores 2",
    "reports/all": "-n --quiet=rules reports/all",  # every kind of report is made for `finished`
    "table3": "table4",
    "kd_off-v3": "kd_off-v1",
    "reports/liver.md": "-n --quiet=rules reports/liver.md",
    "reports/liver-per-patient.md": "-n --quiet=rules reports/table4-per-patient.md",  # README makes the study liver
    "reports/table4-splits.md": "-n --quiet=rules reports/table4-splits.md",  # made for `finished_studies`
}
ELSEWHERE = {
    "make": "sets up an environment",
    ". .venv/bin/activate": "is active",
    "$EDITOR": "waits for a user",
    "export": "of a shell that has ended before the next command",
    "classroom new-study polyps": "an alternative: tests/unit/settings/test_new_study.py",
    "classroom new-study wounds": "an alternative: tests/unit/settings/test_new_study.py",
    "classroom scale small": "real images",
    "snakemake --cores all reports/table4.md reports/samples": "real images",
    "snakemake --cores all reports/isic2017": "real images",
    "classroom scale paper": "a GPU",
    "snakemake --cores 8 --resources gpu=1": "a GPU",
    "snakemake --workflow-profile": "a cluster",
    "python -c": "loads weights from the web",
    "git clone": "tests/pipeline/test_remotes.py",
    "dvc pull --run-cache": "tests/pipeline/test_remotes.py",
    "dvc repro --pull": "tests/pipeline/test_remotes.py",
    "snakemake --cores all reports/deploy.md": "asked for by the settings of `finished`, as are searches",
    "snakemake --cores all reports/grid": "a search",
    "snakemake --cores all tune": "a search",
    "classroom overlay reports/": "a search",
    "snakemake --cores all reports/table10.md": "tests/pipeline/test_add_a_method.py",
    "snakemake --cores 1 --forcerun fetch": "makes all images again",
    "snakemake -n reports/all": "the same with --quiet=rules",
    "classroom train lgg-resnet18 teacher kd_on": "variants that are not here: tests/unit/training/test_together.py",
    "git add": "was done",
    "git merge": "a conflict: tests/pipeline/test_contradictions.py",
    "git checkout --theirs": "a conflict: tests/pipeline/test_contradictions.py",
    "dvc remote": "was done",
    "dvc config cache.type": "tests/pipeline/test_freshness.py",
    "dvc gc": "tests/pipeline/test_experiments.py",
    "dvc fetch --all-commits": "after that",
    "dvc exp run --queue": "tests/pipeline/test_experiments.py",
    "dvc exp run --temp -S 'studies/lgg-resnet18.yaml:weights.kd_ml-v3.S1.alpha=": "tests/pipeline/test_experiments.py",
    "dvc queue": "tests/pipeline/test_experiments.py",
    "dvc exp apply": "tests/pipeline/test_experiments.py",
}
"""By how commands begin that are not run, why."""
ALONE = ("check", "methods", "status", "verify", "reconcile")
"""Commands of `classroom` that need nothing to do."""
NAMES_ONLY = ("dvc exp run --temp", "dvc exp run", "dvc exp show", "dvc cache dir", "dvc plots diff")
"""What text calls a command by, without what it takes."""


def typed(text: str) -> list[str]:
    """What blocks and text type: commands with a verb and something to do."""
    found = re.finditer(r"```sh\n(.*?)```|`((?:snakemake|classroom|dvc) [a-z-][^`\n]*)`", text, re.DOTALL)
    lines = [line for block in found for line in (block[1] or block[2]).splitlines()]
    return list(dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in lines if line))


def commands() -> dict[str, list[str]]:
    """By heading of README and by page of docs/, what is run there; what README types is not run again for a page."""
    found = {}
    for section in re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, text = section.split("\n", 1)
        found[title] = list(filter(is_run, typed(text)))
    run = {line for lines in found.values() for line in lines}
    for path in pages():
        lines = [line for line in typed(path.read_text(encoding="utf-8")) if is_run(line) and line not in run]
        found[path.relative_to(ROOT).as_posix()] = lines
        run |= set(lines)
    return {title: lines for title, lines in found.items() if lines}


def is_run(command: str) -> bool:
    complete = len(command.split()) > 2 or command in {f"classroom {name}" for name in ALONE}
    pattern = re.search(r"…|\b[A-Z]{3,}\b", command) or command in NAMES_ONLY
    return complete and not pattern and not command.startswith(tuple(ELSEWHERE))


def own_images(project: Project) -> Path:
    """A home folder with liver/images and liver/masks."""
    home = project.root.parent / "home"
    for path in sorted((project.root / "data/raw/lgg").rglob("*.tif")):
        folder = home / "liver" / ("masks" if path.stem.endswith("_mask") else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(folder / f"{path.stem.removesuffix('_mask')}.png")
    return home


@pytest.mark.parametrize("section", commands())
def test_every_command_of_the_documents_runs(section: str, table: Project, tmp_path: Path) -> None:
    project = table.copy(tmp_path / "project")
    project.environment |= {"HOME": str(own_images(project))}
    for command in commands()[section]:
        here = command
        for before, after in HERE.items():
            here = here.replace(before, after)
        project.run("bash", "-c", here)
        if "dvc plots show" in command:
            assert f"curves-{STUDY}" in (project.root / "dvc_plots/index.html").read_text()
        if "--report" in command:
            assert "table4.csv" in (project.root / "reports/report.html").read_text()
    shutil.rmtree(tmp_path)


def test_the_documents_type_what_is_said_to_be_tried_elsewhere() -> None:
    """Or the list would hide commands that were renamed."""
    lines = [line for path in (ROOT / "README.md", *pages()) for line in typed(path.read_text(encoding="utf-8"))]
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []
    assert [part for part in HERE if not any(part in line for line in lines)] == []
    assert [name for name in NAMES_ONLY if name not in lines] == []
