"""The file that a run leaves of its test split: every network's probability of every pixel.

Probabilities are stored as ⌊256·p⌋ (at most 255) in one byte. 256·p is exact in floating point, so "byte ≥
128" is exactly "p ≥ 0.5" and the metrics of a run can be reproduced from its file to the last digit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classroom.errors import DataError

TRUTH = "truth"
"""The name under which the file keeps the ground truth (bytes 0 and 255)."""


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """⌊256·p⌋, at most 255, as uint8."""
    return np.minimum(np.floor(probabilities * np.float32(256)), 255).astype(np.uint8)


def mask(quantised: np.ndarray) -> np.ndarray:
    """True where p ≥ 0.5."""
    return quantised >= 128


def write(path: Path, ids: list[str], probabilities: dict[str, np.ndarray]) -> None:
    """Writes one row per network and sample; `probabilities`: by network, (N, H, W) uint8."""
    networks, names, pixels = [], [], []
    for network, stack in probabilities.items():
        networks += [network] * len(ids)
        names += ids
        pixels += [image.tobytes() for image in stack]
    height, width = next(iter(probabilities.values())).shape[1:]
    table = pa.table({"network": networks, "id": names, "probability": pa.array(pixels, pa.binary())})
    table = table.replace_schema_metadata({"height": str(height), "width": str(width)})
    pq.write_table(table, path, compression="zstd", use_dictionary=["network"])


def read(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Sample ids and, by network, (N, H, W) uint8; the networks' rows are in the order of the ids.

    Raises DataError if the file is missing, truncated or not one of ours.
    """
    try:
        table = pq.read_table(path)
        height, width = (int(table.schema.metadata[key]) for key in (b"height", b"width"))
        networks = np.array(table["network"].to_pylist())
        ids = np.array(table["id"].to_pylist())
        pixels = table["probability"].to_pylist()
        stacks = {
            name: np.stack(
                [
                    np.frombuffer(pixels[row], np.uint8).reshape(height, width)
                    for row in np.flatnonzero(networks == name)
                ]
            )
            for name in dict.fromkeys(networks.tolist())
        }
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a run's predictions ({' '.join(str(error).split())}). Train this run again."
        ) from None
    return ids[networks == TRUTH].tolist(), stacks
