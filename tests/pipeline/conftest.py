"""Finished trees of the tiny configuration, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.finished import commit_tiny, run_all
from support.project import Project, add_comparison, checkout, once, only, publish
from support.studies import CLASSES_STUDY, STUDY, shrink

LONGEST = ("slurm", "freshness", "documents", "commands", "experiments", "faults", "failures", "add_a_method")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes come first: a process that begins one when the others are done makes all wait."""
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny configuration of a segmentation study, committed, nothing run yet. Not to be changed: copy it."""

    def make(folder: Path) -> None:
        project = checkout(folder / "project")
        settings = only(shrink(project.settings()), STUDY)
        settings["grid"] |= {"studies": [STUDY], "joint": ["ml-v3"], "offline": [], "alpha_1": [0.2], "alpha_2": [0.3]}
        settings["study"][STUDY]["reports"] |= {
            "samples": True, "cka": ["figure6"], "deploy": True, "pictures": {"figure9": "kd_ml"},
        }  # fmt: skip
        add_comparison(settings, STUDY, "emkd", "skd")
        commit_tiny(project, settings)

    return once(tmp_path_factory, "pristine", make)


@pytest.fixture(scope="session")
def finished_once(pristine: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything made, recorded, committed and pushed to a DVC remote. Not to be changed: use `finished`."""

    def make(folder: Path) -> None:
        project = pristine.copy(folder / "project")
        run_all(project.root)
        publish(project)

    return once(tmp_path_factory, "finished", make)


@pytest.fixture
def finished(finished_once: Project, tmp_path: Path) -> Project:
    return finished_once.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def cloned_once(finished_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone after `dvc pull`, in which no engine has run. Not to be changed: copy it."""
    return once(tmp_path_factory, "cloned", lambda folder: finished_once.clone(folder / "project"))


@pytest.fixture
def clone(cloned_once: Project, tmp_path: Path) -> Project:
    return cloned_once.copy(tmp_path / "clone")


@pytest.fixture(scope="session")
def finished_studies(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The studies with other networks or images than `finished` has, a classification one that is resplit and a grid
    search over an offline variant: everything made, recorded, committed and pushed. Not to be changed: copy it."""

    def make(folder: Path) -> None:
        project = checkout(folder / "project")
        settings = shrink(project.settings())
        settings = only(settings, *(study for study in settings["studies"] if not study.endswith("resnet18")))
        settings |= {"variants": {"joint": ["ml-v3"], "offline": ["kd_off-v1"]}, "ours": "ml-v3"}
        settings["grid"] |= {
            "studies": [CLASSES_STUDY], "joint": [], "offline": ["kd_off-v1"], "alpha_1": [0.2, 0.4], "alpha_2": [0.3],
        }  # fmt: skip
        add_comparison(settings, CLASSES_STUDY, "simkd", "sp")
        project.set(**settings)
        project.run("classroom", "resplit", CLASSES_STUDY)
        project.commit("tiny")
        run_all(project.root)
        publish(project)

    return once(tmp_path_factory, "studies", make)


@pytest.fixture(scope="session")
def table(three_variants: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Table 4 made by Snakemake, committed and pushed. Not to be changed: copy it."""

    def make(folder: Path) -> None:
        project = three_variants.copy(folder / "project")
        project.snakemake("reports/table4.md")
        publish(project)

    return once(tmp_path_factory, "smoke-table", make)
