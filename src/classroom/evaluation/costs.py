"""The costs and inputs of runs, from their manifests."""

from __future__ import annotations

import json
from pathlib import Path

from classroom.artifacts import Cost
from classroom.errors import reading
from classroom.files import content_hash


def costs(folders: dict[int, Path]) -> dict[str, Cost]:
    """By seed: a run's time and memory, its size on disk, its inputs, and the MD5 of its predictions.

    Raises DataError if a manifest is missing or damaged.
    """
    return {str(seed): cost_of(folder) for seed, folder in folders.items()}


def cost_of(folder: Path) -> Cost:
    """As `costs`, of one run."""
    path = folder / "manifest.json"
    with reading(path, "Train this run again.", what="as a run's manifest"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        float(manifest["seconds"]), float(manifest["peak_memory_mb"]["process"]), float(manifest["threads"])
        return {
            "run": folder.as_posix(),
            "seconds": manifest["seconds"],
            "seconds_per_epoch": manifest["seconds_per_epoch"],
            "peak_memory_mb": manifest["peak_memory_mb"],
            "device": manifest["device"],
            "threads": manifest["threads"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
            "identity": manifest.get("identity"),
            "code_version": manifest.get("code_version"),
            "command": manifest.get("command"),
            "best_epoch": manifest.get("best_epoch"),
            "content": content_hash(folder),
            "predictions": content_hash(folder / "predictions.parquet"),
        }
