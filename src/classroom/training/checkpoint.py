"""The resume checkpoint: everything that a killed training needs to finish bit-identically."""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from classroom.core.method import Method
from classroom.core.networks.weights import not_finite
from classroom.errors import TrainingError


class DivergedError(TrainingError):
    """What is not finite, and in which epoch; `train` adds the run and what to change."""


@dataclass
class Progress:
    """The progress of a training. `step` counts the finished steps of the current epoch."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Sum over the finished steps of the current epoch, by loss component."""
    weighted: dict[str, float] = field(default_factory=dict)
    """The same, each component times its weight."""
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: dict[str, int] = field(default_factory=dict)
    """By trained network: the epoch of its highest validation IoU or accuracy; the first of equals."""
    best_score: dict[str, float] = field(default_factory=dict)
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    """What earlier sessions took, up to the checkpoint of each that was resumed."""


Position = tuple[int, int]
"""Finished epochs, and finished steps of the next one."""


def positions(folder: Path, identity: str) -> list[Position]:
    """Where a training of this `identity` can be resumed from its checkpoints in `folder`, the furthest first."""
    found = []
    for path in (folder / "newest.pt", folder / "previous.pt"):
        with contextlib.suppress(Exception):  # as in `restore`, which names damaged files
            if (content := _read(path))["identity"] == identity:
                found.append(_position(content))
    return found


class Checkpoints:
    """Saves to and restores from a folder of one run, which is removed when the run is complete.

    A checkpoint of another `identity`, a digest of everything that decides the result, is not resumed. The previous
    checkpoint is kept in case the newest is damaged.
    """

    def __init__(
        self, folder: Path, identity: str, minutes: float, method: Method, optimiser: torch.optim.Optimizer
    ) -> None:
        """Reads and writes nothing yet.

        Parameters
        ----------
        folder
            of the run's checkpoints
        identity
            digest of everything that decides the result
        minutes
            after which `due` is true
        method, optimiser
            what is saved and restored, on their device
        """
        self.folder = folder
        self.newest = folder / "newest.pt"
        self.previous = folder / "previous.pt"
        self.identity = identity
        self.seconds = minutes * 60
        self.method = method
        self.optimiser = optimiser
        self.device = next(method.parameters()).device
        self.saved_at = time.monotonic()
        self.session_seconds: Callable[[], float] = lambda: 0.0
        """What this session has taken, to be added to those before."""

    def due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.seconds

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint to a temporary file, then replaces the newest one.

        Raises DivergedError if a weight is not finite, TrainingError if the file cannot be written; the newest
        checkpoint then stays as it was.
        """
        if wrong := not_finite(state := self._unfrozen()):
            when = f"epoch {progress.epoch + 1}, step {progress.step}" if progress.step else f"epoch {progress.epoch}"
            raise DivergedError(f"the weights {wrong[0].removeprefix('networks.')} are not finite after {when}")
        # A unique name: on a node that the cluster believes dead, the training may still run next to its successor.
        temporary = self.folder / f"newest.pt.{os.uname().nodename}-{os.getpid()}.tmp"
        content = {
            "identity": self.identity,
            "method": state,
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "progress": vars(progress) | {"seconds": progress.seconds + self.session_seconds()},
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            if self.newest.exists():
                self.newest.replace(self.previous)
            temporary.replace(self.newest)
        except (OSError, RuntimeError) as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            # torch reports a problem of its file format, whatever the cause.
            failed = f"the disk is full or has failed: {str(error).splitlines()[0]}"
            reason = error.strerror if isinstance(error, OSError) else failed
            raise TrainingError(
                f"{self.newest}: the checkpoint cannot be written ({reason}). The last good one is kept; free space "
                "or fix permissions and run the same command again: it resumes from there."
            ) from None
        self.saved_at = time.monotonic()

    def restore(self, log: Callable[[str], None], at: Position | None = None) -> Progress:
        """Restores method, optimiser and random state; returns the saved progress, or a new one if there is none.

        With `at`, only a checkpoint of that position is restored.
        """
        found = [path for path in (self.newest, self.previous) if path.exists()]
        for path in found:
            try:
                content = _read(path)
                identity = content["identity"]
            except Exception as error:  # decoders raise anything for a damaged file
                then = "starting from the beginning" if path == found[-1] else "trying the one before it"
                log(f"{path} is damaged or no checkpoint, and ignored ({type(error).__name__}); {then}")
                continue
            if identity != self.identity:
                log(f"{path} was made with other settings, data or code, so it is ignored")
                continue
            if at not in (None, _position(content)):
                continue
            self.method.load_state_dict(content["method"], strict=False)
            self.optimiser.load_state_dict(content["optimiser"])
            torch.set_rng_state(content["random"])
            if content["random_cuda"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(content["random_cuda"], self.device)
            progress = Progress(**content["progress"])
            log(f"resumed from {path}: epoch {progress.epoch + 1}, after step {progress.step}")
            return progress
        return Progress()

    def _unfrozen(self) -> dict[str, torch.Tensor]:
        frozen = tuple(f"networks.{name}." for name in self.method.frozen)
        return {key: value for key, value in self.method.state_dict().items() if not key.startswith(frozen or "\0")}


def _position(content: dict[str, Any]) -> Position:
    return content["progress"]["epoch"], content["progress"]["step"]


def _read(path: Path) -> dict[str, Any]:
    """The content of a file that torch saved; raises if any of it is damaged.

    The file is a zip archive; torch writes a checksum of every tensor but never verifies it.
    """
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(damaged)
    return torch.load(path, map_location="cpu", weights_only=True)
