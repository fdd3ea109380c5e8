"""All that can be checked before any job starts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from classroom.engines.plan import HIDDEN
from classroom.errors import ParamsError
from classroom.files import write_json
from classroom.params import Params, check, load


def check_all(path: Path = Path("params.yaml")) -> Params:
    """Validates params.yaml, its encoders and the folders it names. Raises ParamsError."""
    params = check(load(path), path)
    _check_encoders(params, path)
    for name in {params.study[study].dataset for study in (*params.studies, *params.baseline_studies)}:
        dataset = params.dataset[name]
        fetched = Path("data/raw", name).exists()
        if dataset.source == "directory" and not fetched and not Path(dataset.directory).expanduser().is_dir():
            raise ParamsError(
                f"{path}: dataset.{name}.directory: no such folder: {dataset.directory}. Expected the folder of the "
                "download, or set source to 'phantom' or 'kaggle'."
            )
    return params


def _check_encoders(params: Params, path: Path) -> None:
    """Asks the libraries for each new encoder name; known ones are remembered, as asking takes seconds."""
    remembered = HIDDEN / "encoders.json"
    versions = [version("timm"), version("segmentation-models-pytorch")]
    try:
        content = json.loads(remembered.read_text())
        known = set(content["encoders"]) if content["versions"] == versions else set()
    except (OSError, ValueError, KeyError, TypeError):
        known = set()
    wanted = {
        (network.encoder, f"study.{study}.{role}.encoder")
        for study in dict.fromkeys((*params.studies, *params.baseline_studies))
        for role in ("teacher", "student")
        for network in [getattr(params.study[study], role)]
    }
    new = sorted((encoder, key) for encoder, key in wanted if encoder not in known)
    if not new:
        return
    from classroom.networks.build import check_encoder

    for encoder, key in new:
        try:
            check_encoder(encoder)
        except ParamsError as error:
            raise ParamsError(f"{path}: {key}: {error}") from None
    write_json(remembered, {"versions": versions, "encoders": sorted({encoder for encoder, _ in wanted} | known)})
