"""All that can be checked before any job starts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from classroom.engines.plan import HIDDEN
from classroom.errors import ParamsError
from classroom.files import write_json
from classroom.params import Dataset, Network, Params, check, load, warn_of_sum


def check_all(path: Path = Path("params.yaml")) -> Params:
    """Validates params.yaml and that its networks can be built and compared. Raises ParamsError.

    Warns of students' weights that do not sum to 1.
    """
    params = check(load(path), path)
    _check_networks(params, path)
    for study in params.studies:
        for variant in params.trained_variants:
            warn_of_sum(params.weights[study][variant], f"weights.{study}.{variant}", path)
    return params


def check_source(name: str, dataset: Dataset, path: Path = Path("params.yaml")) -> None:
    """Raises ParamsError if the folder of a dataset that is still to be fetched is not there."""
    fetched = Path("data/raw", name).exists()
    if dataset.source == "directory" and not fetched and not Path(dataset.directory).expanduser().is_dir():
        raise ParamsError(
            f"{path}: dataset.{name}.directory: no such folder: {dataset.directory}. Expected the folder of the "
            "download, or set source to 'phantom', 'kaggle' or 'download'."
        )


def _check_networks(params: Params, path: Path) -> None:
    """Asks the libraries about each new network; known ones are remembered, as asking takes seconds."""
    remembered = HIDDEN / "networks.json"
    versions = [version("timm"), version("segmentation-models-pytorch")]
    try:
        content = json.loads(remembered.read_text())
        known: dict[str, int] = content["channels"] if content["versions"] == versions else {}
    except (OSError, ValueError, KeyError, TypeError):
        known = {}
    before = dict(known)
    for name in params.studies:
        study = params.study[name]
        channels = {}
        for role in ("teacher", "student"):
            network: Network = getattr(study, role)
            key = json.dumps(
                [study.task, study.image_size, network.model_dump(mode="json", exclude={"weights"})], sort_keys=True
            )
            if key not in known:
                from classroom.networks.build import feature_channels

                try:
                    known[key] = feature_channels(network, study.task, study.image_size)
                except ParamsError as error:
                    raise ParamsError(f"{path}: study.{name}.{role}.encoder: {error}") from None
            channels[role] = known[key]
        if channels["teacher"] != channels["student"]:
            raise ParamsError(
                f"{path}: study.{name}: teacher and student share feature maps, which have {channels['teacher']} and "
                f"{channels['student']} channels. Set teacher.conv6_channels to {channels['student']}."
            )
    if known != before:
        write_json(remembered, {"versions": versions, "channels": known})
