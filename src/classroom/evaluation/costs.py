"""What runs took, and what they were made from, as their receipts say."""

from __future__ import annotations

import json
from pathlib import Path

from classroom.artifacts import Cost
from classroom.errors import DataError
from classroom.files import content_hash


def costs(folders: dict[int, Path]) -> dict[str, Cost]:
    """Of each run what it took, its bytes on disk, what it was made from, and the MD5 of its predictions; by seed.

    Raises DataError if a receipt is missing or damaged.
    """
    return {str(seed): _cost(folder) for seed, folder in folders.items()}


def _cost(folder: Path) -> Cost:
    path = folder / "receipt.json"
    try:
        receipt = json.loads(path.read_text())
        float(receipt["seconds"]), float(receipt["peak_memory_mb"]["process"]), float(receipt["threads"])
        return {
            "run": folder.as_posix(),
            "seconds": receipt["seconds"],
            "seconds_per_epoch": receipt["seconds_per_epoch"],
            "peak_memory_mb": receipt["peak_memory_mb"],
            "device": receipt["device"],
            "threads": receipt["threads"],
            "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
            "identity": receipt.get("identity"),
            "code_version": receipt.get("code_version"),
            "command": receipt.get("command"),
            "best_epoch": receipt.get("best_epoch"),
            "predictions": content_hash(folder / "predictions.parquet"),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as a run's receipt ({error}). Train this run again.") from None
