"""Finished trees of the tiny configuration, made once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.finished import run_all
from support.project import Project, checkout, compare, once, only, publish
from support.studies import CLASSES_STUDY, STUDY, shrink


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny configuration of a segmentation study, committed, nothing run yet. Not to be changed: copy it."""

    def make(folder: Path) -> None:
        project = checkout(folder / "project")
        params = only(shrink(project.params()), STUDY)
        params["samples"] = {STUDY: "ml-v3"}
        params["grid"] |= {"studies": [STUDY], "joint": ["ml-v3"], "offline": [], "alpha_1": [0.2], "alpha_2": [0.3]}
        params["cka"] = {"studies": [STUDY], "figures": {"figure6": STUDY}}
        params["deploy"] |= {"tables": ["deploy"], "studies": [STUDY]}
        params["pictures"] = {"figure9": {"study": STUDY, "kind": "kd_ml"}}
        compare(params, STUDY, "emkd", "at")
        project.set(**params)
        project.commit("tiny")

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
    """All studies, a classification one with its twin and a grid search over an offline variant: everything made,
    recorded, committed and pushed. Not to be changed: copy it."""

    def make(folder: Path) -> None:
        project = checkout(folder / "project")
        params = shrink(project.params())
        params = only(params, *params["studies"])
        params["variants"] = {"joint": ["ml-v3"], "offline": ["kd_off-v1"]}
        params["grid"] |= {
            "studies": [CLASSES_STUDY], "joint": [], "offline": ["kd_off-v1"], "alpha_1": [0.2, 0.4], "alpha_2": [0.3],
        }  # fmt: skip
        compare(params, CLASSES_STUDY, "simkd", "sp")
        params["comparison"]["ours"] = "ml-v3"
        project.set(**params)
        project.run("classroom", "add-twin", CLASSES_STUDY)
        project.commit("tiny")
        run_all(project.root)
        publish(project)

    return once(tmp_path_factory, "studies", make)
