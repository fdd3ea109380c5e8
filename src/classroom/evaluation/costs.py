"""What runs took, and what they were made from, as their manifests say."""

from __future__ import annotations

import json
from pathlib import Path

from classroom.artifacts import Cost
from classroom.errors import DataError
from classroom.files import content_hash


def costs(folders: dict[int, Path]) -> dict[str, Cost]:
    """Of each run what it took, its bytes on disk, what it was made from, and the MD5 of its predictions; by seed.

    Raises DataError if a manifest is missing or damaged.
    """
    return {str(seed): _cost(folder) for seed, folder in folders.items()}


def _cost(folder: Path) -> Cost:
    path = folder / "manifest.json"
    try:
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as a run's manifest ({error}). Train this run again.") from None
