"""Tables 6 and 7: the layers of teacher and student, read from the networks as they are built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from classroom.data.readers import classes_of
from classroom.params import Dataset, Network, select
from classroom.reporting.common import paper
from classroom.reporting.common.pages import Page, write_table
from classroom.reporting.common.tables import Part, number
from classroom.reporting.registry import Item, Report

IMAGENET_CLASSES = 1000


def architecture_table(
    name: str, study: str, teacher: Network, student: Network, task: str, image_size: int, classes: int, scale: str,
    target: Path,
) -> None:  # fmt: skip
    """Writes `target`.md, .csv and .tex: layers, output shapes, parameters, compression, next to the paper's.

    The networks are built without their weights, so that nothing is downloaded and no memory taken. Raises ParamsError
    as `build` does.
    """
    import torch

    from classroom.core.networks.build import build
    from classroom.reporting.layers import layers

    stages: dict[str, dict[str, str]] = {}
    counts = {}
    for role, settings in (("teacher", teacher), ("student", student)):
        with torch.device("meta"):
            network = build(settings.model_copy(update={"weights": "random"}), task, classes, seed=0)
            counts[role] = _parameters(network, task)
            for layer in layers(network, image_size):
                height, width, channels = layer.shape
                stages.setdefault(layer.stage, {}).update(
                    {f"{role}_output": f"{height}×{width}×{channels}", role: layer.blocks}
                )
    table = pd.DataFrame([{"layer": stage, **columns} for stage, columns in stages.items()])
    table = table.sort_values("layer", key=lambda names: names.map(_order), ignore_index=True)
    printed = paper.architecture(name)
    columns = ["teacher_output", "teacher", "student_output", "student"]
    if len(printed):
        of_paper = printed.rename(columns=lambda column: column if column == "layer" else f"paper_{column}")
        table = table.merge(of_paper, how="outer", on="layer", sort=False)
        table = table.sort_values("layer", key=lambda names: names.map(_order), ignore_index=True)
        columns += ["paper_output", "paper_teacher", "paper_student"]
    table = table.reindex(columns=["layer", *columns]).fillna("–")

    header = ["layer", *(column.replace("_", ": ", 1) if column.startswith("paper") else column.replace("_", " ")
                         for column in columns)]  # fmt: skip
    names = {"teacher": paper.network_name(teacher.encoder), "student": paper.network_name(student.encoder)}
    title = f"{paper.title(name)}: networks of {study}" + ("" if len(printed) else " (not in the paper)")
    facts = [
        f"- scale: {scale}",
        f"- teacher {teacher.encoder}, student {student.encoder}, for {task} of {image_size}×{image_size} pixels"
        + (f" into {classes} classes" if task == "classification" else ""),
        "- read from the networks' modules during a forward pass; shortcuts, normalisation and heads left out",
    ]
    disclaimer = (
        "" if scale == "paper" else f"**Networks and image size are those of scale '{scale}', not the paper's.**"
    )
    below = []
    if len(printed):
        below = ["The paper's columns are as printed, misprints included."]
    parts = [Part(header, table.to_numpy().tolist(), below=below), _sizes(counts, names, task)]
    for role, sizes in counts.items():
        table[f"{role}_parameters"] = sizes["as trained"]
    write_table(target, Page("architecture", title, disclaimer, facts, parts, study=study), table)


def _parameters(network, task: str) -> dict[str, int]:
    """Parameters of the network as trained and, for classification, with ImageNet's classes, as the paper counts."""
    sizes = {"as trained": network.parameter_count}
    if task == "classification":
        encoder = sum(parameter.numel() for parameter in network.body.encoder.parameters())
        sizes["for ImageNet"] = encoder + (network.body.encoder.num_features + 1) * IMAGENET_CLASSES
    return sizes


def _sizes(counts: dict[str, dict[str, int]], names: dict[str, str], task: str) -> Part:
    """Parameters of both networks, and what two students instead of the teacher save (Sec. 4.2)."""
    rows = [
        [f"teacher, {names['teacher']}: M parameters"], [f"student, {names['student']}: M parameters"],
        ["saved by two students: 1 − 2·student/teacher"],
    ]  # fmt: skip
    kinds = list(counts["teacher"])
    for kind in kinds:
        big, small = counts["teacher"][kind], counts["student"][kind]
        rows[0].append(number(big / 1e6, ".2f"))
        rows[1].append(number(small / 1e6, ".2f"))
        rows[2].append(number(100 * (1 - 2 * small / big), ".1f") + " %")
    saved = paper.compression(names["teacher"], names["student"])
    rows[0].append(number(paper.parameters(task, names["teacher"]), "g"))
    rows[1].append(number(paper.parameters(task, names["student"]), "g"))
    rows[2].append(number(saved, "g") + (" %" if saved == saved else ""))
    below = []
    if task == "classification":
        below = [
            "For ImageNet: with 1000 classes and without Conv6, which comes nearest to the paper's 26, 11 and 4.8 "
            "million (25.6, 11.7 and 4.2). Its percentages follow from its millions."
        ]
    else:
        below = ["The paper's percentage is of the classification networks (Sec. 4.2); it prints none for U-Nets."]
    return Part(["", *kinds, "paper"], rows, "Parameters", below=below)


def _order(stage: str) -> tuple[bool, int]:
    """Encoder before decoder, each by its number."""
    return stage.startswith("DeConv"), int("".join(filter(str.isdigit, stage)))


def make(name: str, item: Item, settings: dict[str, Any]) -> None:
    study = item["study"]
    networks = [select(settings, f"study.{study}.{role}", Network) for role in ("teacher", "student")]
    task, size = select(settings, f"study.{study}.task", str), select(settings, f"study.{study}.image_size", int)
    classes = len(classes_of(select(settings, f"dataset.{item['dataset']}", Dataset)))
    scale = select(settings, "scale", str)
    architecture_table(name, study, *networks, task, size, classes, scale, Path("reports", f"{name}.md"))


REPORT = Report(
    names=lambda params: {
        study.reports.architecture: {
            "study": name,
            "dataset": study.dataset,
            "reader": params.dataset[study.dataset].reader,
        }
        for name, study in params.study.items()
    },
    inputs=lambda params, item: [],
    make=make,
    category="Tables",
    shows="layers and sizes",
)
