"""The model card of an exported model: purpose, limits, data, training, metrics, and how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from classroom.artifacts import Data, Metrics, Result
from classroom.core.ensemble import STUDENTS
from classroom.core.metrics import LABELS, METRICS
from classroom.export.compare import Difference
from classroom.export.model import FILE
from classroom.params import Dataset
from classroom.reporting.common import heading
from classroom.reporting.common.tables import GREEK, Part, markdown, number

NETWORK_LABELS = {"T": "teacher", "S1": "student S1", "S2": "student S2", "ensemble": "ensemble of both students"}
SYNTHETIC = (
    "**Trained on synthetic images that a program drew, not on patients: it demonstrates the pipeline and is useless "
    "on real images.**"
)
PAPER = (
    "U. Niyaz, A. S. Sambyal, D. R. Bathula: Leveraging Different Learning Styles for Improved Knowledge Distillation "
    "in Biomedical Imaging."
)
SEGMENTATION_PROGRAM = """\
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
image = Image.open("image.png").convert("RGB")
pixels = np.asarray(image.resize(({size}, {size}), Image.Resampling.BILINEAR))
(probabilities,) = session.run(None, {{"images": pixels[None]}})  # (1, {size}, {size}), from 0 to 1
mask = Image.fromarray((probabilities[0] >= {threshold}).astype(np.uint8) * 255)
mask.resize(image.size, Image.Resampling.NEAREST).save("mask.png")"""
CLASSIFICATION_PROGRAM = """\
import numpy as np, onnxruntime
from PIL import Image

labels = {labels}
session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
image = Image.open("image.png").convert("RGB")
pixels = np.asarray(image.resize(({size}, {size}), Image.Resampling.BILINEAR))
(probabilities,) = session.run(None, {{"images": pixels[None]}})  # (1, {count}), from 0 to 1
print(labels[probabilities[0].argmax()], probabilities[0])"""


NOT_STATED = "not stated"


def text(
    run: Metrics, facts: Mapping[str, Any], difference: Difference, dataset: Dataset | None, trained_at: str | None
) -> str:
    """The card in Markdown, preceded by the metadata for Hugging Face.

    Parameters
    ----------
    run
        its metrics.json
    facts
        the model's metadata
    difference
        between the model and PyTorch
    dataset
        its settings, which state origin, licence and citation; None if they are gone
    trained_at
        the version of the code that trained the run; None in an older manifest
    """
    data = run["data"]
    title = f"{facts['study']}, {facts['method']}: {NETWORK_LABELS[facts['network']]}"
    lines = [
        f"- {_kind(facts)}",
        f"- {facts['parameters'] / 1e6:.2f} M parameters, {facts['macs'] / 1e9:.3g} G multiply-accumulates per image",
        f"- seed {facts['seed']}, trained with Classroom {trained_at or 'of an unrecorded version'}, exported with "
        f"{facts['code_version']}, which implements: {PAPER}",
    ]
    parts = [
        _part("Use", [f"**{facts['use']}**", _limits(data)]),
        _part("Input and output", [_interface(facts)]),
        _part("Running it", [f"```python\n{_program(facts)}\n```", _command()]),
        _part("Data", ["\n".join(_data(run, dataset))]),
        _part("Training", ["\n".join(_training(run, facts))]),
        _metrics(run, facts),
        _part("Numerical accuracy", [_exact(difference)]),
        _part("Licence", [_licence(facts, data)]),
    ]
    return _fields(facts, data) + markdown(title, SYNTHETIC if data["synthetic"] else "", lines, parts)


def _part(title: str, above: Sequence[str]) -> Part:
    return Part([], [], title, above)


def licence(data: Data, dataset: Dataset | None) -> str:
    """The licence of the images, in words."""
    if data["synthetic"]:
        return "MIT, as the program that drew the images"
    return (dataset and dataset.licence) or NOT_STATED


def _fields(facts: Mapping[str, Any], data: Data) -> str:
    kind = {"segmentation": "image-segmentation", "classification": "image-classification"}[facts["task"]]
    tags = ["biology", "medical", "knowledge-distillation", *(["synthetic"] if data["synthetic"] else [])]
    return (
        f"---\nlicense: {_licence_id(facts['licence'])}\nlibrary_name: onnx\npipeline_tag: {kind}\n"
        f"tags: [{', '.join(tags)}]\n---\n\n"
    )


def _licence_id(words: str) -> str:
    """The licence in Hugging Face's notation: `cc-by-nc-4.0` of `CC BY-NC 4.0: no commercial use`."""
    if known := re.match(r"MIT\b|CC0 1\.0|CC BY(-[A-Z]{2})* \d\.\d", words):
        return known[0].lower().replace(" ", "-")
    return "unknown" if words == NOT_STATED else "other"


def _kind(facts: Mapping[str, Any]) -> str:
    described = list(dict.fromkeys(f"{heading.describe(one)} at the start" for one in facts["networks"]))
    if facts["network"] != "ensemble":
        return described[0]
    each = f"each a {described[0]}" if len(described) == 1 else " and ".join(described)
    return f"two networks in one graph, {each}; their output is the elementwise maximum"


def _limits(data: Data) -> str:
    return (
        f"Meant for research on knowledge distillation. It was tested only on {data['test']} images of the source that "
        "it was trained on, not on other scanners, stains, cameras, clinics or patients. It gives an answer for every "
        "image, and its probabilities are not calibrated."
    )


def _interface(facts: Mapping[str, Any]) -> str:
    size = facts["image_size"]
    takes = (
        f"`images`: uint8, (batch, {size}, {size}, 3), RGB as read from a file, any number at a time. Images of "
        "another size are resized to the square with Pillow's bilinear filter, as for training. Scaling and "
        "normalisation are in the graph."
    )
    if facts["task"] == "segmentation":
        gives = (
            f"`probabilities`: float32, (batch, {size}, {size}), of the foreground at every pixel; the mask is "
            f"where it is {facts['threshold']} or more."
        )
    else:
        gives = (
            f"`probabilities`: float32, (batch, {len(facts['labels'])}), of the classes {', '.join(facts['labels'])}; "
            "the prediction is the most probable one."
        )
        if facts["network"] == "ensemble":
            gives += " They are the maximum of both students' for each class, so they may sum to more than 1."
    return f"{takes}\n\n{gives}"


def _program(facts: Mapping[str, Any]) -> str:
    program = SEGMENTATION_PROGRAM if facts["task"] == "segmentation" else CLASSIFICATION_PROGRAM
    labels = facts["labels"]
    return program.format(
        file=FILE,
        size=facts["image_size"],
        threshold=facts["threshold"],
        labels=json.dumps(labels, ensure_ascii=False),
        count=len(labels),
    )


def _command() -> str:
    return (
        f"Needs onnxruntime 1.17 or newer, and Pillow. `classroom predict {FILE} IMAGES…` does the same for files and "
        "folders, and names the images that it cannot use."
    )


def _data(run: Metrics, dataset: Dataset | None) -> list[str]:
    data = run["data"]
    lines = heading.data_lines(cast(Result, {**run, "seeds": {str(run["seed"]): run}}))
    if not data["synthetic"]:
        whole = dataset.full_size if dataset else 0
        part = f"; these are {data['images']} of its {whole} images" if data["images"] < whole else ""
        lines.append(f"- original: {(dataset and dataset.origin) or NOT_STATED}{part}")
        lines.append(f"- cite: {(dataset and dataset.citation) or NOT_STATED}")
    return lines


def _training(run: Metrics, facts: Mapping[str, Any]) -> list[str]:
    settings = run["settings"]
    selection_metric = LABELS[METRICS[run["data"]["task"]][0]]
    parts = STUDENTS if facts["network"] == "ensemble" else (facts["network"],)
    epochs = ", ".join(f"{name} {run['best']['epochs'][name]}" for name in parts)
    lines = [heading.training_line(settings["training"], [selection_metric]), f"- epochs kept: {epochs}"]
    if "weights" in settings:
        of = settings.get("published")
        method = f"{of['label']} ({of['paper']})" if of else run["method"]
        lines.append(f"- method: {method}; weights of its losses: {_weights(settings['weights'])}")
    return [*lines, *(f"- {note}" for note in run["notes"])]


def _weights(weights: Mapping[str, Any]) -> str:
    """The weights of a variant's students, or of a published method's terms."""
    if all(isinstance(value, Mapping) for value in weights.values()):
        return "; ".join(f"{student}: {_weights(own)}" for student, own in weights.items())
    return ", ".join(f"{GREEK.get(name, name)} {value:g}" for name, value in weights.items() if value)


def _metrics(run: Metrics, facts: Mapping[str, Any]) -> Part:
    """The metrics of every network of the run, the exported one in bold."""
    columns = [(split, metric) for split in ("val", "test") for metric in METRICS[run["data"]["task"]]]
    header = ["network", *(f"{heading.SPLIT_LABELS[split]} {LABELS[metric]}" for split, metric in columns)]
    rows = []
    for network in run["best"]["test"]:
        cells = [
            NETWORK_LABELS[network],
            *(number(100 * run["best"][split][network][metric], ".2f") for split, metric in columns),
        ]
        rows.append([f"**{cell}**" if network == facts["network"] else cell for cell in cells])
    return Part(
        header,
        rows,
        "Metrics",
        above=heading.pooling(METRICS[run["data"]["task"]]),
        below=["In percent; this model in bold. Epochs were selected on validation. One run: no standard deviation."],
    )


def _exact(difference: Difference) -> str:
    return (
        f"On {difference.images} test images, probabilities from onnxruntime differ by at most {difference.torch:.2g} "
        f"from PyTorch's, and by at most {difference.saved:.2g} from the predictions that the training saved."
    )


def _licence(facts: Mapping[str, Any], data: Data) -> str:
    words = facts["licence"]
    if data["synthetic"]:
        return f"Images, weights and program: {words}."
    asks = "ask their provider for it" if words == NOT_STATED else "check what it requires"
    return (
        f"Images: {words}. Before you distribute weights trained on them, {asks}; this card grants no further rights. "
        "The program is under the MIT licence."
    )
