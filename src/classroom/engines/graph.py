"""The graph: every job of dvc.yaml, resolved with the current settings."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from classroom.engines import lockfile
from classroom.errors import ClassroomError
from classroom.params import dotted
from classroom.state import CACHE, MANIFESTS, OBSOLETE, REPLACED, Cache

SOURCES = ("dvc.yaml", "params.yaml", "workflow/plan.yaml", ".dvc/config", ".dvc/config.local")
"""What decides the stages and the place of DVC's cache. Other files of settings only hold values."""


@dataclass(frozen=True)
class Stage:
    """One DVC stage, which is one Snakemake job."""

    name: str
    command: str
    settings: Sequence[tuple[str, Sequence[str]]]
    """By file, the dotted keys in it that the stage depends on; no keys mean the whole file."""
    dependencies: Sequence[str]
    outputs: Sequence[str]
    uncached: Sequence[str] = ()
    """The outputs that DVC leaves to git."""
    frozen: bool = False
    always_changed: bool = False

    @property
    def params(self) -> tuple[str, ...]:
        """Dotted keys of all settings, as `classroom.params.load` returns them."""
        return tuple(dotted(file, key) for file, keys in self.settings for key in keys or ("",))

    @property
    def manifest(self) -> Path:
        """Where the job writes its manifest: a training into its run's folder, so that it goes with the run."""
        return Path(self.outputs[0], "manifest.json") if self.is_training else MANIFESTS / f"{self.name}.json"

    @property
    def is_training(self) -> bool:
        return self.command.startswith("classroom train ")


class Graph(dict[str, Stage]):
    """The stages by name, and how they depend on each other."""

    @functools.cached_property
    def below(self) -> dict[str, list[str]]:
        """Every output by its own path and by that of each folder above it."""
        below: dict[str, list[str]] = defaultdict(list)
        for out in self.producer:
            for path in (out, *map(str, PurePosixPath(out).parents)):
                below[path].append(out)
        return below

    @functools.cached_property
    def producer(self) -> dict[str, Stage]:
        """By output, the stage that makes it."""
        return {out: stage for stage in self.values() for out in stage.outputs}

    @functools.cached_property
    def depends_on(self) -> dict[str, list[str]]:
        """By stage, the stages that make its dependencies."""
        made = {name: (out for path in of.dependencies for out in self.outputs_at(path)) for name, of in self.items()}
        return {name: list(dict.fromkeys(self.producer[out].name for out in of)) for name, of in made.items()}

    @functools.cached_property
    def in_order(self) -> list[Stage]:
        """Every stage after those it depends on."""
        return [self[name] for name in TopologicalSorter(self.depends_on).static_order()]

    def outputs_at(self, path: str) -> list[str]:
        """The outputs in the folder `path`, or the one that `path` lies in, such as a run's weights."""
        around = (parent for parent in map(str, PurePosixPath(path).parents) if parent in self.producer)
        return self.below.get(path) or [*around]

    def inputs_of(self, stage: Stage) -> list[str]:
        """A stage's dependencies, with other stages' outputs in place of what holds or is part of them."""
        return [path for dependency in stage.dependencies for path in self.outputs_at(dependency) or [dependency]]

    def downstream(self, changed: Iterable[str]) -> set[str]:
        """`changed` and every stage that depends on one of them, directly or not."""
        stale = set(changed) & self.keys()
        for stage in self.in_order:
            if not stale.isdisjoint(self.depends_on[stage.name]):
                stale.add(stage.name)
        return stale

    def upstream(self, names: Iterable[str]) -> list[Stage]:
        """The stages `names` and every one that they depend on, directly or not, in an order in which they can run."""
        needed = set(names)
        for stage in reversed(self.in_order):
            if stage.name in needed:
                needed.update(self.depends_on[stage.name])
        return [stage for stage in self.in_order if stage.name in needed]


def load() -> Graph:
    """All stages by name, remembered until `SOURCES` change.

    Raises ClassroomError if DVC cannot resolve dvc.yaml, or an output is not in the project: what is remembered may be
    somebody else's, and outputs are moved and removed.
    """
    stages = Graph({entry["name"]: Stage(**entry) for entry in _resolved(_key())["stages"]})
    check_inside(path for stage in stages.values() for path in (*stage.outputs, stage.manifest.as_posix()))
    return stages


def check_inside(outputs: Iterable[str]) -> None:
    """Raises ClassroomError if an output is not in the project, the current folder, or is behind a link out of it."""
    root, paths = os.path.realpath("."), [*outputs, f"{OBSOLETE}/any", f"{REPLACED}/any"]
    real = {folder: os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    for path in paths:
        folder, name = os.path.split(path)
        if name in ("", ".", "..") or os.path.commonpath([root, real[folder]]) != root:
            raise ClassroomError(
                f"{path}: lies outside the project, in {real[folder]}. Results are moved, replaced and removed, which "
                f"must not happen there. Replace the link by a folder; if there is none, remove the folder {CACHE}."
            )


def check_repository() -> None:
    """Raises ClassroomError if git's or DVC's folder is missing here and in all folders above."""
    here = Path.cwd()
    for name, advice in (
        (".git", "Work in a clone, as `git clone` makes it: archives of a project have no .git."),
        (".dvc", "Restore it: `git checkout -- .dvc`."),
    ):
        if not any((folder / name).exists() for folder in (here, *here.parents)):
            raise ClassroomError(
                f"{here}: no {name} here or above, and DVC, which records the results, needs it. {advice}"
            )


def cache_folder() -> Path:
    """Where DVC's cache keeps files by their MD5. Raises ClassroomError if dvc.yaml cannot be resolved."""
    return Path(_resolved(_key())["cache"])


def _key() -> str:
    """Digest of `SOURCES`. Only dvc.yaml and params.yaml must exist."""
    try:
        files = [Path(name).read_bytes() if name in SOURCES[:2] or Path(name).exists() else b"" for name in SOURCES]
    except FileNotFoundError as error:
        raise ClassroomError(f"{error.filename}: no such file. Run this in the project's root.") from None
    except OSError as error:
        raise ClassroomError(f"{error.filename}: cannot be read ({error.strerror}). Restore the file.") from None
    return hashlib.sha256(b"\0".join(files)).hexdigest()


@functools.lru_cache(maxsize=1)
def _resolved(key: str) -> dict[str, Any]:
    """The stages, and the folder of DVC's cache, under the digest `key` of `SOURCES`."""
    cache = Cache("graph")
    if (known := cache.get("graph", key)) is None:
        known = _resolve()
        cache.put("graph", key, known)
        cache.save()
    return known


def _resolve() -> dict[str, Any]:
    lockfile.stages()  # DVC reads dvc.lock too: what is wrong with it is said by its name
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.utils import split_params_deps
    from scmrepo.exceptions import SCMError

    try:
        with Repo() as repo:
            root, stages = Path(repo.root_dir), []
            for stage in repo.index.stages:
                if not stage.cmd or ":" in stage.addressing:
                    continue  # a file under `dvc add`; a stage of another folder's dvc.yaml
                params, files = split_params_deps(stage)
                found = Stage(
                    stage.addressing,
                    stage.cmd,
                    settings=[(dep.def_path, dep.params) for dep in params],
                    dependencies=[dep.def_path for dep in files],
                    outputs=[out.def_path for out in stage.outs],
                    uncached=[out.def_path for out in stage.outs if not out.use_cache],
                    frozen=stage.frozen,
                    always_changed=bool(stage.always_changed or stage.is_callback),
                )
                stages.append(asdict(found))
            cache = Path(repo.cache.local.path)
            return {"stages": stages, "cache": str(cache.relative_to(root) if cache.is_relative_to(root) else cache)}
    except (DvcException, SCMError) as error:
        if "repository" in str(error):  # which git's or DVC's folder makes this one
            check_repository()
        hint = "Fix it, or restore it with `git checkout dvc.yaml`."
        if "plan.yaml" in str(error):
            hint = "Run `classroom check`, which writes workflow/plan.yaml."
        raise ClassroomError(
            f"dvc.yaml cannot be resolved: {' '.join(str(error).split()).rstrip('.')}. {hint}"
        ) from None
