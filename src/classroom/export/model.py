"""An exported model, run by onnxruntime; torch is not needed.

`images`: (B, size, size, 3) uint8 RGB, any B. `probabilities`: float32 in [0, 1], (B, size, size) of the foreground or
(B, classes). Scaling and normalisation are in the graph. The model's metadata hold its facts, each value as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from classroom.errors import ExportError

FILE = "model.onnx"
INPUT, OUTPUT = "images", "probabilities"
VERSION = 1
"""Of the metadata, under the key `classroom`, which identifies models of this program."""
FACTS = {
    "classroom", "use", "study", "method", "seed", "network", "task", "labels", "image_size", "threshold",
    "networks", "parameters", "macs", "data", "metrics", "licence", "code_version",
}  # fmt: skip
"""Keys of the metadata; see `classroom.export.export`."""


class Model:
    """An exported model, ready to run on the CPU."""

    about: dict[str, Any]
    """Its FACTS."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """`path`: the file, or the folder of the export; `threads`: 0 for all cores.

        Raises ExportError if there is no such file, or if it is damaged or no model of `classroom export`.
        """
        self.path = path / FILE if path.is_dir() else path
        if not self.path.is_file():
            raise ExportError(f"{self.path}: no such file. Expected a model that `classroom export` wrote.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # problems are raised as well
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common base
            raise ExportError(
                f"{self.path}: cannot be read as an ONNX model ({' '.join(str(error).split())[:300]}). The file is "
                "damaged, or of another format; export the model again."
            ) from None
        self.about = self._facts()

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (B, size, size) or (B, classes) float32 of images (B, size, size, 3) uint8."""
        return self._session.run([OUTPUT], {INPUT: images})[0]

    def _facts(self) -> dict[str, Any]:
        written = self._session.get_modelmeta().custom_metadata_map
        try:
            facts = {key: json.loads(value) for key, value in written.items() if key in FACTS}
        except ValueError:
            facts = {}
        if facts.keys() != FACTS or facts["classroom"] != VERSION:
            raise ExportError(
                f"{self.path}: was not exported by this version of Classroom: its metadata do not say how to prepare "
                "images. Export the model again with `classroom export`."
            )
        return facts
