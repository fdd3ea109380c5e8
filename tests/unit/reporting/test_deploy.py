"""What deploying costs: measured side by side, and rendered as it was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classroom.errors import DataError, ExportError
from classroom.export import measure as module
from classroom.export.measure import measure
from classroom.reporting.deploy import deploy_table, read_measured
from support.exported import SIZE, brightness, facts
from support.rendered import check_tex, markdown_tables, one, page_of, save


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    return {
        "T": brightness(tmp_path / "T/model.onnx", weights=SIZE * 20_000, method="teacher", network="T"),
        "S1": brightness(tmp_path / "S1/model.onnx", network="S1"),
        "ensemble": brightness(tmp_path / "ensemble/model.onnx"),
    }


def test_what_is_measured_is_of_each_model(models: dict[str, Path]) -> None:
    measured = measure(models)
    assert measured["study"] == "lgg-resnet18"
    assert measured["cpu"]
    assert list(measured["networks"]) == ["T", "S1", "ensemble"]
    for name, of in measured["networks"].items():
        assert of["bytes"] == models[name].stat().st_size
        assert of["parameters"] == 10_000_000
        assert of["metrics"]["test"]["iou"] == 0.5
        assert len(of["seconds"]) == module.ROUNDS
        assert min(of["seconds"]) > 0
        assert of["images_per_second"] > 0
    assert measured["networks"]["T"]["memory"] > measured["networks"]["S1"]["memory"]
    json.dumps(measured)


def test_every_round_asks_every_model_once(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the machine does then, it does to all of them."""
    healthy, asked = module.Model.probabilities, []

    def probabilities(self: Any, images: np.ndarray) -> np.ndarray:
        asked.append((self.about["network"], len(images)))
        return healthy(self, images)

    monkeypatch.setattr(module.Model, "probabilities", probabilities)
    monkeypatch.setattr(module, "_memory", lambda path: 1)
    measure(models)
    rounds = [asked[start : start + 3] for start in range(0, len(asked), 3)]
    assert all([name for name, _ in of_round] == ["T", "S1", "ensemble"] for of_round in rounds)
    assert [of_round[0][1] for of_round in rounds] == [1] * (module.ROUNDS + 1) + [8] * (module.ROUNDS // 8 + 1)


def test_memory_is_the_model_s_and_not_that_of_the_process_that_asks(tmp_path: Path) -> None:
    """The most memory of a child, as the system says it, is that of its parent if that was larger."""
    size = 4 * SIZE * 200_000  # bytes of its weights
    path = brightness(tmp_path / "model.onnx", weights=SIZE * 200_000)
    ballast = np.ones(300 * 2**20, np.uint8)
    grown = module._memory(path)
    assert ballast.any()
    assert size < grown < 6 * size


def test_models_of_other_data_are_not_compared(models: dict[str, Path], tmp_path: Path) -> None:
    data = facts()["data"] | {"dataset": "another"}
    with pytest.raises(ExportError, match=r"S1/model\.onnx: differs from .*T/model\.onnx in study or seed or data"):
        measure(models | {"S1": brightness(tmp_path / "S1/model.onnx", network="S1", data=data)})


def test_a_model_that_breaks_in_its_own_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no\.onnx: its memory cannot be measured"):
        module._memory(tmp_path / "no.onnx")


# The table


def measured(study: str, encoder: str, **changes: Any) -> dict[str, Any]:
    """As `measure` returns it, with numbers that are easy to divide."""

    def network(method: str, factor: float, iou: float) -> dict[str, Any]:
        return {
            "method": method,
            "networks": [{"encoder": encoder}],
            "metrics": {"test": {"iou": iou, "f_score": 0.9}},
            "parameters": int(40_000_000 * factor),
            "macs": int(10e9 * factor),
            "bytes": int(160_000_000 * factor),
            "seconds": [0.2 * factor, 0.1 * factor, 0.6 * factor],
            "images_per_second": 10 / factor,
            "memory": int(300e6 * factor),
            "path": f"exports/{study}/{method}.onnx",
            "content": "abc",
        }

    data = {"task": "segmentation", "dataset": "lgg", "synthetic": False, "image_size": 256}
    networks = {
        "T": network("teacher", 1, 0.8),
        "S1": network("kd_ml-v3", 0.375, 0.7),
        "ensemble": network("kd_ml-v3", 0.75, 0.9),
    }
    about = {"study": study, "seed": 0, "data": data, "cpu": "A Processor", "onnxruntime": "1.32.0"}
    return about | {"threads": 1, "batch": 8, "networks": networks} | changes


def test_the_table_has_every_model_and_what_the_ensemble_saves(tmp_path: Path) -> None:
    save(
        "deploy",
        deploy_table("paper", [measured("first", "resnet18"), measured("second", "mobilenet")]),
        tmp_path / "deploy.md",
    )
    models, saved = markdown_tables(tmp_path / "deploy.md")
    assert [row[:3] for row in models[1:4]] == [
        ["first", "teacher alone", "resnet18"], ["", "one student", "resnet18"],
        ["", "ensemble of two students", "resnet18"],
    ]  # fmt: skip
    assert models[1][3:] == ["40.00", "10.000", "160.00", "200.00 [100.00–600.00]", "10.0", "300.0", "IoU 80.00"]
    assert models[3][3] == "30.00"
    assert models[4][0] == "second"
    runs = page_of(tmp_path / "deploy.md")["made_from"]
    assert runs == [
        f"runs/{study}/{method}/seed-0" for study in ("first", "second") for method in ("teacher", "kd_ml-v3")
    ]
    assert saved[1:] == [["first", *["25.0"] * 5], ["second", *["25.0"] * 5]]
    text = (tmp_path / "deploy.md").read_text()
    for said in ("A Processor, 1 thread, onnxruntime 1.32.0", "students of kd_ml-v3, seed 0", "of 3 rounds or more"):
        assert said in text, said
    assert "**" not in text
    check_tex(tmp_path / "deploy.tex")
    table = pd.read_csv(tmp_path / "deploy.csv")
    row = one(table, study="first", network="ensemble")
    assert (row.latency_ms, row.macs, row.test, row.scale) == (150, 7.5e9, 90, "paper")


def test_what_costs_more_is_below_zero_and_synthetic_images_are_said(tmp_path: Path) -> None:
    study = measured("first", "mobilenet")
    study["data"]["synthetic"] = True
    study["networks"]["ensemble"]["memory"] = 330_000_000
    save("deploy", deploy_table("demo", [study]), tmp_path / "deploy.md")
    assert markdown_tables(tmp_path / "deploy.md")[1][1][-1] == "−10.0"
    assert "**Synthetic images, not patients" in (tmp_path / "deploy.md").read_text()


def test_a_measurement_of_another_model_is_not_rendered(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_memory", lambda path: 1)
    folder = tmp_path / "results"
    folder.mkdir()
    found = measure(models)
    (folder / "lgg.json").write_text(json.dumps(found))
    assert read_measured(folder) == [found]
    models["S1"].unlink()
    assert len(read_measured(folder)) == 1, "results pulled alone"
    brightness(models["S1"], network="S1", seed=5)
    with pytest.raises(DataError, match=r"lgg\.json: was measured with another version of .*S1/model\.onnx"):
        read_measured(folder)


def test_a_damaged_or_missing_measurement_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing was measured yet\. Run `classroom measure`"):
        read_measured(tmp_path)
    for content in ("", "[]", '{"networks": 1}'):
        (tmp_path / "lgg.json").write_text(content)
        with pytest.raises(DataError, match=r"lgg\.json: cannot be read"):
            read_measured(tmp_path)
