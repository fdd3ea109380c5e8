"""The commands of README, in the order and the state in which a reader types them: after `make table4`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from support.project import Project
from support.studies import ROOT, STUDY

HERE = {
    # by what README types, what stands for it in the tiny project, which has one study, three variants and two cores
    "--cores all": "--cores 2",
    "reports/all": "-n --quiet=rules reports/all",  # every kind of report is made for `finished`
    "table3": "table4",
    "kd_off-v3": "kd_off-v1",
    "reports/liver.md": "-n --quiet=rules reports/liver.md",
    "demo|small|paper": "demo",
}
ELSEWHERE = {
    "make": "sets up an environment",
    ". .venv/bin/activate": "is active",
    "$EDITOR": "waits for a user",
    "classroom new-study polyps": "an alternative: tests/unit/settings/test_new_study.py",
    "classroom new-study wounds": "an alternative: tests/unit/settings/test_new_study.py",
    "classroom scale small": "real images",
    "snakemake --cores all reports/table4.md reports/samples": "real images",
    "classroom scale paper": "a GPU",
    "snakemake --cores 8 --resources gpu=1": "a GPU",
    "snakemake --workflow-profile": "a cluster",
    "snakemake --cores all reports/deploy.md": "asked for by the settings of `finished`, as are searches",
    "snakemake --cores all reports/grid": "a search",
    "snakemake --cores all tune": "a search",
    "classroom overlay reports/": "a search",
    "git add dvc.lock": "was done, as was the next one",
    "dvc remote add": "was done",
}
"""By how commands begin that are not run, why."""


def commands() -> dict[str, list[str]]:
    """By heading, what README types in blocks and in text: commands with a verb and something to do."""
    found = {}
    for section in re.split(r"^## ", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, text = section.split("\n", 1)
        typed = re.finditer(r"```sh\n(.*?)```|`((?:snakemake|classroom|dvc) [a-z-][^`\n]*)`", text, re.DOTALL)
        lines = [line for block in typed for line in (block[1] or block[2]).splitlines()]
        found[title] = list(dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in lines))
    return {title: lines for title, lines in found.items() if any(map(is_run, lines))}


def is_run(command: str) -> bool:
    complete = len(command.split()) > 2 or command in ("classroom methods", "classroom check")
    return complete and not command.startswith(tuple(ELSEWHERE))


def own_images(project: Project) -> Path:
    """A home folder with liver/images and liver/masks."""
    home = project.root.parent / "home"
    for path in sorted((project.root / "data/raw/lgg").rglob("*.tif")):
        folder = home / "liver" / ("masks" if path.stem.endswith("_mask") else "images")
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(folder / f"{path.stem.removesuffix('_mask')}.png")
    return home


@pytest.mark.parametrize("section", commands())
def test_every_command_of_readme_runs(section: str, table: Project, tmp_path: Path) -> None:
    project = table.copy(tmp_path / "project")
    project.environment |= {"HOME": str(own_images(project))}
    for command in filter(is_run, commands()[section]):
        typed = command
        for before, after in HERE.items():
            typed = typed.replace(before, after)
        project.run("bash", "-c", typed)
        if "dvc plots show" in command:
            assert f"curves-{STUDY}" in (project.root / "dvc_plots/index.html").read_text()
        if "--report" in command:
            assert "table4.csv" in (project.root / "reports/report.html").read_text()
    shutil.rmtree(tmp_path)


def test_readme_types_what_is_said_to_be_tried_elsewhere() -> None:
    """Or the list would hide commands that were renamed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [start for start in (*ELSEWHERE, *HERE) if start not in readme] == []
