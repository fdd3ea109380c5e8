"""`classroom export`: writes a run's network or ensemble as a verified ONNX file, with its model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classroom.artifacts import Metrics
from classroom.core.batches import SplitData, open_splits
from classroom.core.ensemble import STUDENTS
from classroom.errors import ExportError
from classroom.export import card, graph
from classroom.export.compare import Difference, verify_export
from classroom.export.model import FILE, VERSION
from classroom.files import read_json, read_metrics, written_whole
from classroom.params import Dataset, select
from classroom.restore import restore

ENSEMBLE = "ensemble"
CARD = "README.md"
USE = "Research only. No medical device: not for diagnosis, treatment or any decision about a patient."


def export(
    run: Path,
    network: str,
    prepared: Path,
    splits: Path,
    target: Path,
    code_version: str,
    datasets: Mapping[str, Any],
) -> Difference:
    """Writes model.onnx and its card README.md, both or none.

    Before the files get their final names, onnxruntime is compared with PyTorch and with the run's saved predictions.

    Parameters
    ----------
    run
        folder of the run
    network
        T, S1, S2 or `ensemble` (both students in one graph)
    prepared, splits
        folder of the prepared data and splits.parquet, for the test images
    target
        folder to write to
    code_version
        that exports, for the card; the one that trained is in the run's manifest
    datasets
        contents of the files of datasets by name, of which the run's states origin, licence and citation

    Returns
    -------
    The differences of the model from PyTorch and from the saved predictions.

    Raises
    ------
    ExportError
        The network was not trained in `run`, the prepared images are not those of the run, ONNX cannot express the
        network, or a difference is too large.
    TrainingError
        As `restore`.
    DataError
        A file of the run or of the images is missing or damaged.
    """
    about = read_metrics(run)
    module = graph.Exported([restore(run, name) for name in _parts(run, about, network)])
    test = _tested(run, about, prepared, splits)
    trained_at = read_json(run / "manifest.json", (), "Train this run again.").get("code_version")
    image_size = about["data"]["image_size"]
    name = about["data"]["dataset"]
    dataset = select({"dataset": datasets}, f"dataset.{name}", Dataset) if name in datasets else None
    facts = _facts(about, network, module, code_version) | {"licence": card.licence(about["data"], dataset)}
    with written_whole(target / FILE, target / CARD) as (onnx_file, card_file):
        graph.write(module, image_size, facts, onnx_file)
        difference = verify_export(onnx_file, module, network, run, test)
        text = card.text(about, facts, difference, dataset, trained_at)
        card_file.write_text(text, encoding="utf-8")
    return difference


def _parts(run: Path, about: Metrics, network: str) -> tuple[str, ...]:
    """The networks of the run to export."""
    trained = list(about["best"]["epochs"])
    parts = STUDENTS if network == ENSEMBLE else (network,)
    if missing := [name for name in parts if name not in trained]:
        known = trained + ([ENSEMBLE] if set(STUDENTS) <= set(trained) else [])
        teacher = f" Its teacher: `classroom export {about['study']} teacher`." if network == "T" else ""
        raise ExportError(f"{run}: {missing[0]} was not trained in it. Expected one of {', '.join(known)}.{teacher}")
    return parts


def _tested(run: Path, about: Metrics, prepared: Path, splits: Path) -> SplitData:
    test = open_splits(prepared, splits)["test"]
    size = about["data"]["image_size"]
    if test.ids != about["test_images"]["id"] or test.images.shape[1] != size:
        raise ExportError(
            f"{prepared}, {splits}: not the images that {run} was trained and tested on, so it cannot be checked. "
            "Train this run again, or restore the settings of its study and prepare its images again."
        )
    return test


def _facts(about: Metrics, network: str, module: graph.Exported, code_version: str) -> dict[str, Any]:
    data = about["data"]
    segmentation = data["task"] == "segmentation"
    return {
        "classroom": VERSION,
        "use": USE,
        **{key: about[key] for key in ("study", "method", "seed")},
        "network": network,
        "task": data["task"],
        "labels": ["foreground"] if segmentation else list(data["labels"]),
        "image_size": data["image_size"],
        "threshold": 0.5 if segmentation else None,
        "networks": [one.facts for one in module.networks],
        "parameters": module.parameter_count,
        "macs": module.macs(data["image_size"]),
        "data": data,
        "metrics": {name: about["best"][name][network] for name in ("val", "test")},
        "code_version": code_version,
    }
