"""Tables 6 and 7: the layers of teacher and student, read from the built networks."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from classroom.data.readers import classes_of
from classroom.params import Dataset, Network
from classroom.reporting.common import heading, paper
from classroom.reporting.common.pages import Page
from classroom.reporting.common.tables import Part, number
from classroom.reporting.registry import Report, Request

IMAGENET_CLASSES = 1000


def architecture_table(
    name: str,
    study: str,
    dataset: str,
    networks: Mapping[str, Network],
    task: str,
    image_size: int,
    classes: int,
    scale: str,
) -> Page:
    """Layers, output shapes, parameters and compression of teacher and student, with the paper's for its datasets.

    The networks are built without their weights, so that nothing is downloaded and no memory taken. Raises ParamsError
    as `build` does.
    """
    import torch

    from classroom.core.networks.build import build
    from classroom.reporting.layers import layers

    of_paper = dataset in heading.PAPER_DATASETS
    stages: dict[str, dict[str, str]] = {}
    counts = {}
    for role, settings in networks.items():
        with torch.device("meta"):
            network = build(settings.model_copy(update={"weights": "random"}), task, classes, seed=0)
            counts[role] = _parameters(network, of_paper and task == "classification")
            for layer in layers(network, image_size):
                shape = "×".join(map(str, layer.shape))
                stages.setdefault(layer.stage, {}).update({f"{role}_output": shape, role: layer.blocks})
    table = pd.DataFrame([{"layer": stage, **columns} for stage, columns in stages.items()])
    printed = paper.architecture(name)
    columns = ["teacher_output", "teacher", "student_output", "student"]
    if len(printed):
        table = table.merge(printed.set_index("layer").add_prefix("paper_"), how="outer", on="layer")
        columns += ["paper_output", "paper_teacher", "paper_student"]
    table = table.sort_values("layer", key=lambda names: names.map(_order), ignore_index=True)
    table = table.reindex(columns=["layer", *columns]).fillna("–")

    header = ["layer", *(column.replace("paper_", "paper: ").replace("_", " ") for column in columns)]
    title = f"{paper.title(name)}: networks of {study}" + ("" if len(printed) else " (not in the paper)")
    facts = [
        f"- scale: {scale}",
        f"- {', '.join(f'{role} {of.encoder}' for role, of in networks.items())}, for {task} of "
        f"{image_size}×{image_size} pixels" + (f" into {classes} classes" if task == "classification" else ""),
        "- read from the networks' modules during a forward pass; shortcuts, normalisation and heads left out",
    ]
    names = {role: paper.network_name(of.encoder) for role, of in networks.items()}
    known = {role: paper.parameters(task, of) for role, of in names.items()}
    of_paper = of_paper and not pd.isna(list(known.values())).any()
    disclaimer = ""
    if scale != "paper" and of_paper:
        disclaimer = f"**Networks and image size are those of scale '{scale}', not the paper's.**"
    below = ["The paper's columns are as printed, misprints included."] if len(printed) else []
    sizes = _sizes(counts, names, known if of_paper else {})
    parts = [Part(header, table.to_numpy().tolist(), below=below), sizes]
    table = table.assign(**{f"{role}_parameters": of["as trained"] for role, of in counts.items()})
    return Page(title, disclaimer, facts, parts, study=study, table=table)


def _parameters(network, for_imagenet: bool) -> dict[str, int]:
    """Parameters of the network as trained and, if asked, with ImageNet's classes, as the paper counts classifiers."""
    sizes = {"as trained": network.parameter_count}
    if for_imagenet:
        encoder = sum(parameter.numel() for parameter in network.body.encoder.parameters())
        sizes["for ImageNet"] = encoder + (network.body.encoder.num_features + 1) * IMAGENET_CLASSES
    return sizes


def _sizes(counts: Mapping[str, Mapping[str, int]], names: Mapping[str, str], of_paper: Mapping[str, float]) -> Part:
    """Parameters of both networks, and what two students instead of the teacher save (Sec. 4.2).

    `of_paper`: its millions; empty where it has not both of these networks.
    """
    rows = [
        [f"{role}, {name}: M parameters", *(number(of / 1e6, ".2f") for of in counts[role].values())]
        for role, name in names.items()
    ]
    saved = [100 * (1 - 2 * counts["student"][kind] / big) for kind, big in counts["teacher"].items()]
    rows.append(["saved by two students: 1 − 2·student/teacher", *(f"{number(of, '.1f')} %" for of in saved)])
    header, below = ["", *counts["teacher"]], []
    if of_paper:
        header.append("paper")
        printed = paper.compression(*names.values())
        shares = number(printed, "g") + (" %" if printed == printed else "")
        for row, text in zip(rows, [*(number(of, "g") for of in of_paper.values()), shares], strict=True):
            row.append(text)
        below = ["The paper's percentage is of the classification networks (Sec. 4.2); it prints none for U-Nets."]
    if "for ImageNet" in header:
        below = [
            "For ImageNet: with 1000 classes and without Conv6. These counts (25.6, 11.7 and 4.2 million) are the "
            "closest to the paper's 26, 11 and 4.8 million, from which its percentages follow."
        ]
    return Part(header, rows, "Parameters", below=below)


def _order(stage: str) -> tuple[bool, int]:
    """Encoder before decoder, each by its number."""
    return stage.startswith("DeConv"), int("".join(filter(str.isdigit, stage)))


def draw(request: Request) -> Page:
    networks = {role: request.setting(f"study.{{study}}.{role}", Network) for role in ("teacher", "student")}
    task, size = request.setting("study.{study}.task", str), request.setting("study.{study}.image_size", int)
    classes = len(classes_of(request.setting("dataset.{dataset}", Dataset)))
    return architecture_table(
        request.name, request.study, request.item["dataset"], networks, task, size, classes, request.scale
    )


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
    settings=(
        "scale", "study.{study}.task", "study.{study}.image_size", "study.{study}.teacher", "study.{study}.student",
        "dataset.{dataset}",
    ),
    draw=draw,
    category="Tables",
    shows="layers and sizes",
    asked_by=("study.{study}.reports.architecture",),
)  # fmt: skip
