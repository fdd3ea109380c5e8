"""The file that a run leaves of its test split: what every network thinks of every image.

Segmentation: the probability of every pixel as ⌊256·p⌋ (at most 255) in one byte. 256·p is exact in floating point, so
"byte ≥ 128" is exactly "p ≥ 0.5" and the metrics of a run can be reproduced from its file to the last digit.
Classification: the probability of every class as it was, in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classroom.errors import DataError

TRUTH = "truth"
"""The name under which the file keeps the ground truth: bytes 0 and 255, or 1 for the true class and 0 for others."""


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """⌊256·p⌋, at most 255, as uint8."""
    return np.minimum(np.floor(probabilities * np.float32(256)), 255).astype(np.uint8)


def write(path: Path, ids: list[str], probabilities: dict[str, np.ndarray]) -> None:
    """Writes one row per network and sample; `probabilities`: by network, (N, H, W) uint8 or (N, classes) float32."""
    first = next(iter(probabilities.values()))
    kind = pa.binary() if first.ndim == 3 else pa.list_(pa.float32())
    schema = pa.schema(
        {"network": pa.string(), "id": pa.string(), "probability": kind},
        metadata={"shape": "×".join(map(str, first.shape[1:]))},
    )
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["network"]) as writer:
        for network, stack in probabilities.items():  # one after the other, as each is copied
            column = [image.tobytes() if first.ndim == 3 else list(image) for image in stack]
            writer.write_table(pa.table([[network] * len(ids), ids, column], schema=schema))


def read(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Sample ids and, by network, what `write` was given; the networks' rows are in the order of the ids.

    Raises DataError if the file is missing, truncated or not one of ours.
    """
    try:
        table = pq.read_table(path)
        shape = [int(side) for side in table.schema.metadata[b"shape"].decode().split("×")]
        networks = np.array(table["network"].to_pylist())
        ids = np.array(table["id"].to_pylist())
        rows = table["probability"].to_pylist()
        kept = [
            np.frombuffer(row, np.uint8).reshape(shape)
            if isinstance(row, bytes)
            else np.array(row, np.float32).reshape(shape)
            for row in rows
        ]
        stacks = {
            name: np.stack([kept[row] for row in np.flatnonzero(networks == name)])
            for name in dict.fromkeys(networks.tolist())
        }
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a run's predictions ({' '.join(str(error).split())}). Train this run again."
        ) from None
    return ids[networks == TRUTH].tolist(), stacks
