"""A run's predictions.parquet: the probabilities of every network for every test image.

Segmentation: the probability of every pixel as ⌊256·p⌋ (at most 255) in one byte. 256·p is exact in floating point, so
"byte ≥ 128" is exactly "p ≥ 0.5" and the metrics of a run can be reproduced from its file to the last digit.
Classification: the probability of every class, in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from classroom.errors import DataError

GROUND_TRUTH = "ground_truth"
"""The file's name for the ground truth, stored like a network: bytes 0 and 255, or 1 for the true class, else 0."""
BUFFER_BYTES = 2**24
"""Bytes that are collected before they are written."""


def quantise(probabilities: np.ndarray) -> np.ndarray:
    """⌊256·p⌋, at most 255, as uint8."""
    return np.minimum(np.floor(probabilities * np.float32(256)), 255).astype(np.uint8)


def write(path: Path, ids: list[str], batches: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Writes one row per network and sample, and holds about BUFFER_BYTES in memory.

    Parameters
    ----------
    path
        the file
    ids : (N,)
        samples
    batches : (B, H, W) uint8, or (B, classes) float32
        by network; all batches together in the order of `ids`
    """
    batches = iter(batches)
    first = next(batches)
    shape = next(iter(first.values())).shape[1:]
    kind = pa.binary() if len(shape) == 2 else pa.list_(pa.float32())
    schema = pa.schema(
        {"network": pa.string(), "id": pa.string(), "probability": kind},
        metadata={"shape": "×".join(map(str, shape))},
    )
    remaining, waiting = iter(ids), []
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["network"]) as writer:
        for batch in itertools.chain([first], batches):
            own = list(itertools.islice(remaining, len(next(iter(batch.values())))))
            images = [image for stack in batch.values() for image in stack]
            column = [image.tobytes() if len(shape) == 2 else list(image) for image in images]
            columns = [[network for network in batch for _ in own], own * len(batch), column]
            waiting.append(pa.table(columns, schema=schema))
            if sum(table.nbytes for table in waiting) > BUFFER_BYTES:
                writer.write_table(pa.concat_tables(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def read(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The sample ids and, by network, what `write` stored, in the order of the ids.

    Raises DataError if the file is missing, truncated, has another layout, or holds a value that is not finite.
    """
    try:
        table = pq.read_table(path)
        shape = [int(side) for side in table.schema.metadata[b"shape"].decode().split("×")]
        networks = np.array(table["network"].to_pylist())
        ids = np.array(table["id"].to_pylist())
        rows = table["probability"].to_pylist()
        values = [
            np.frombuffer(row, np.uint8).reshape(shape)
            if isinstance(row, bytes)
            else np.array(row, np.float32).reshape(shape)
            for row in rows
        ]
        stacks = {
            name: np.stack([values[row] for row in np.flatnonzero(networks == name)])
            for name in dict.fromkeys(networks.tolist())
        }
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as a run's predictions ({' '.join(str(error).split())}). Train this run again."
        ) from None
    if diverged := [name for name, stack in stacks.items() if not np.isfinite(stack).all()]:
        raise DataError(
            f"{path}: NaN or infinite probabilities of {', '.join(diverged)}, which diverged. Lower "
            "training.learning_rate and train this run again."
        )
    return ids[networks == GROUND_TRUTH].tolist(), stacks
