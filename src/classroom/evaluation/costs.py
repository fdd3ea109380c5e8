"""What runs took, and what they were made from, as their receipts say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from classroom.errors import DataError
from classroom.files import content_hash

TAKEN = ("seconds", "seconds_per_epoch", "peak_memory_mb", "device", "threads")
MADE_FROM = ("identity", "code_version", "command", "best_epoch")
"""The digest of all that decided the run, and what helps to find it again. A receipt may be older than one of these."""


def costs(folders: dict[int, Path]) -> dict[str, Any]:
    """Of each run what it took, its bytes on disk, what it was made from, and the MD5 of its predictions; by seed.

    Raises DataError if a receipt is missing or damaged.
    """
    return {str(seed): _cost(folder) for seed, folder in folders.items()}


def _cost(folder: Path) -> dict[str, Any]:
    path = folder / "receipt.json"
    try:
        receipt = json.loads(path.read_text())
        taken = {key: receipt[key] for key in TAKEN}
        float(taken["seconds"]), float(taken["peak_memory_mb"]["process"]), float(taken["threads"])
        made_from = {key: receipt.get(key) for key in MADE_FROM}
        predictions = content_hash(folder / "predictions.parquet")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as a run's receipt ({error}). Train this run again.") from None
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return {"run": folder.as_posix(), **taken, "bytes": size, **made_from, "predictions": predictions}
