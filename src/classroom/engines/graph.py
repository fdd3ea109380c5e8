"""The graph: every job of dvc.yaml, resolved with the current settings."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
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


def load() -> dict[str, Stage]:
    """All stages by name, remembered until `SOURCES` change.

    Raises ClassroomError if DVC cannot resolve dvc.yaml, or an output is not in the project: what is remembered may be
    somebody else's, and outputs are moved and removed.
    """
    stages = {entry["name"]: Stage(**entry) for entry in _resolved(_key())["stages"]}
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


def downstream(stages: Mapping[str, Stage], changed: Iterable[str]) -> set[str]:
    """`changed` and every stage that depends on one of them, directly or not."""
    stale = set(changed) & stages.keys()
    depends_on = producers(stages)
    for stage in in_order(stages):
        if not stale.isdisjoint(depends_on[stage.name]):
            stale.add(stage.name)
    return stale


def upstream(stages: Mapping[str, Stage], names: Iterable[str]) -> list[Stage]:
    """The stages `names` and every one that they depend on, directly or not, in an order in which they can run."""
    needed = set(names)
    depends_on = producers(stages)
    order = in_order(stages)
    for stage in reversed(order):
        if stage.name in needed:
            needed |= set(depends_on[stage.name])
    return [stage for stage in order if stage.name in needed]


def producers(stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """By stage, the stages that produce its dependencies (`outputs_at`)."""
    producer = {out: stage.name for stage in stages.values() for out in stage.outputs}
    below = outputs_below(stages)
    return {
        stage.name: list(dict.fromkeys(producer[out] for dep in stage.dependencies for out in outputs_at(dep, below)))
        for stage in stages.values()
    }


def outputs_below(stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """Every output by its own path and by that of each folder above it."""
    below: dict[str, list[str]] = defaultdict(list)
    for stage in stages.values():
        for out in stage.outputs:
            parts = out.split("/")
            for depth in range(1, len(parts) + 1):
                below["/".join(parts[:depth])].append(out)
    return below


def outputs_at(path: str, below: Mapping[str, list[str]]) -> list[str]:
    """The outputs in the folder `path`, or the one that `path` lies in, such as a run's weights; by `outputs_below`."""
    around = (parent.as_posix() for parent in PurePosixPath(path).parents)
    return below.get(path) or next((below[one] for one in around if below.get(one) == [one]), [])


def inputs_of(stage: Stage, below: Mapping[str, list[str]]) -> list[str]:
    """A stage's dependencies, with other stages' outputs in place of what holds or is part of them (`outputs_at`)."""
    return [path for dependency in stage.dependencies for path in outputs_at(dependency, below) or [dependency]]


def in_order(stages: Mapping[str, Stage]) -> list[Stage]:
    """Every stage after those it depends on."""
    return [stages[name] for name in TopologicalSorter(producers(stages)).static_order()]


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
