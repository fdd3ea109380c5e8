"""Exported models made by hand, whose answers anyone can work out, and runs that were never trained."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from classroom.cli import main
from classroom.core.batches import open_splits, read_splits
from classroom.params import Training, select
from classroom.training import loop
from classroom.training import run as training
from classroom.training.checkpoint import Progress
from classroom.training.make import make
from support.studies import CLASSES_STUDY, STUDY

SIZE = 32


def facts(task: str = "segmentation", **changes: Any) -> dict[str, Any]:
    """The metadata of a model."""
    masks = task == "segmentation"
    labels = ["foreground"] if masks else ["dark", "bright"]
    metrics = {"iou": 0.5, "f_score": 0.6} if masks else {"accuracy": 0.5, "precision": 0.4, "recall": 0.3}
    return {
        "classroom": 1,
        "use": "Research only.",
        "study": "lgg-resnet18",
        "method": "kd_ml-v3",
        "seed": 0,
        "network": "ensemble",
        "task": task,
        "labels": labels,
        "image_size": SIZE,
        "threshold": 0.5 if masks else None,
        "networks": [{"encoder": "tu-resnet18"}],
        "parameters": 10_000_000,
        "macs": 2_000_000_000,
        "data": {"task": task, "dataset": "lgg", "synthetic": True, "image_size": SIZE, "labels": {}},
        "metrics": {"val": metrics, "test": metrics},
        "licence": "none",
        "code_version": "abc",
    } | changes


def brightness(path: Path, task: str = "segmentation", weights: int = 0, **changes: Any) -> Path:
    """Writes a model that answers with how bright a pixel or, of classes dark and bright, the image is, from 0 to 1.

    `weights`: number of additional weights, which do not change its output.
    """
    about = facts(task, **changes)
    size = about["image_size"]
    constants = {
        "scale": np.array([255], np.float32),
        "channels": np.array([3], np.int64),
        "pixels": np.array([1, 2], np.int64),
        "one": np.array([1], np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"]),
        helper.make_node("ReduceMean", ["unit", "channels"], ["bright"], keepdims=0),
    ]
    shape: list[Any] = ["batch", size, size]
    if task == "classification":
        constants["axis"] = np.array([1], np.int64)
        nodes += [
            helper.make_node("ReduceMean", ["bright", "pixels"], ["mean"], keepdims=0),
            helper.make_node("Sub", ["one", "mean"], ["rest"]),
            helper.make_node("Unsqueeze", ["mean", "axis"], ["second"]),
            helper.make_node("Unsqueeze", ["rest", "axis"], ["first"]),
            helper.make_node("Concat", ["first", "second"], ["answer"], axis=1),
        ]
        shape = ["batch", 2]
    else:
        nodes.append(helper.make_node("Identity", ["bright"], ["answer"]))
    if weights:
        constants |= {"weights": np.zeros((size, weights // size), np.float32), "last": np.array([-1], np.int64)}
        nodes += [
            helper.make_node("MatMul", ["bright", "weights"], ["product"]),
            helper.make_node("ReduceMax", ["product", "last"], ["nothing"], keepdims=1),
            helper.make_node("Add", ["answer", "nothing"], ["probabilities"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["answer"], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in about.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def finished_run(raw: dict[str, Any], data: Path, method_name: str, folder: Path) -> Path:
    """A folder as a run on the CPU leaves it, of networks as they were before their first step."""
    prepared, splits = data / "prepared", data / "splits.parquet"
    about = {**json.loads((prepared / "dataset.json").read_text()), **read_splits(splits)}
    study = {"segmentation": STUDY, "classification": CLASSES_STUDY}[about["task"]]
    method = make(
        method_name, study, raw, 0, None, about["task"],
        classes=len(about["labels"]), image_size=about["image_size"],
    )  # fmt: skip
    state = {key: value for name in method.trained for key, value in method.state_of(name).items()}
    progress = Progress(
        epoch=1, best_state=state, best_epoch=dict.fromkeys(method.trained, 1), history=[{"weighted/S1/task": 1.0}]
    )
    settings = select(raw, "training", Training)
    record = {
        "study": study,
        "method": method_name,
        "seed": 0,
        "data": about,
        "extra_parameters": 0,
        "notes": [],
        "settings": method.settings
        | {"training": settings.model_dump(mode="json", exclude_defaults=True), "balance": "none"},
    }
    run = loop.Run("run", method, None, None, progress, folder, record)
    training.save([run], open_splits(prepared, splits), settings, torch.device("cpu"))
    (folder / "manifest.json").write_text('{"device": "cpu", "code_version": "v0"}')
    return folder


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and error of `classroom` with these arguments, in this process."""
    monkeypatch.setattr("sys.argv", ["classroom", *arguments])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return ended.value.code or 0, printed.out, printed.err
