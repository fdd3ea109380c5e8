"""The heading of a table or figure: data, split, training, disclaimer. A demo cannot pass for a reproduction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from classroom.artifacts import Data, NetworkFacts, Result, TrainingSettings, conversions
from classroom.core.metrics import LABELS, METRICS, all_masks_empty

SOURCES = {
    "synthetic": "synthetic images drawn by this program",
    "directory": "images from a local folder",
    "kaggle": "the Kaggle download",
    "download": "the published download",
}
PAPER_DATASETS = ("histopathologic", "lgg", "ham10000")
OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD with momentum 0.9"}
ROLES = {"T": "teacher", "S1": "students", "S2": "students"}
POOLING = {
    ("iou", "f_score"): "of the pixels of all images of the split together, not averaged over images",
    ("precision", "recall"): "averaged over classes",
}
SPLIT_LABELS = {"train": "training", "val": "validation", "test": "test"}


def disclaimer(scale: str, data: Iterable[Data], shows_paper: bool = True) -> str:
    """Sentences in bold on what these numbers do not show. Empty at paper scale on the paper's images.

    `shows_paper`: the paper's values are printed too.
    """
    described = list(data)
    sentences = []
    if any(one["synthetic"] for one in described):
        sentences.append(
            "**Synthetic images, not patients: nothing here reproduces the paper.**"
            + (" Differences from the paper's values are printed only to show the layout." if shows_paper else "")
        )
    own = sorted({one["dataset"] for one in described} - set(PAPER_DATASETS))
    if own:
        at_scale = "" if scale == "paper" else f" Trained at scale '{scale}', which is for trying things out."
        sentences.append(f"**Your dataset{'s' if len(own) > 1 else ''} {', '.join(own)}.{at_scale}**")
    if scale != "paper" and not sentences:
        sentences.append(
            f"**Real images at scale '{scale}', with smaller images, fewer epochs or fewer images than the paper: "
            "not a reproduction.**"
        )
    return " ".join(sentences)


def lines(scale: str, seeds: Sequence[int], results: Sequence[Result]) -> list[str]:
    """The facts behind a table, one a line, as the runs recorded them; each dataset's once."""
    facts = [f"- scale: {scale}"]
    distinct = {json.dumps([r["data"], r["settings"]["balance"]], sort_keys=True): r for r in reversed(results)}
    for result in reversed(list(distinct.values())):
        facts += data_lines(result)
    choosing = dict.fromkeys(LABELS[METRICS[result["data"]["task"]][0]] for result in results)
    return [
        *facts,
        f"- seeds: {', '.join(map(str, seeds))}" + ("" if len(seeds) > 1 else " (one run, so no standard deviation)"),
        training_line(results[0]["settings"]["training"], list(choosing)),
    ]


def training_line(training: TrainingSettings, chosen_by: Sequence[str]) -> str:
    """The training settings, and the metrics that chose each network's epoch."""
    epochs, most = training["epochs"], "at most " if "early_stopping" in training else ""
    optimiser = OPTIMISERS[training.get("optimiser", "adam")]
    return (
        f"- training: {most}{epochs} epoch{'s' if epochs != 1 else ''}, batch {training['batch_size']}, {optimiser} at "
        f"{training['learning_rate']:g}, {training['precision']}{_non_default(training)}; each network's epoch is the "
        f"best on validation ({', '.join(chosen_by)})"
    )


def _non_default(training: TrainingSettings) -> str:
    """The optional training settings, where they are not the paper's."""
    said = {
        "weight_decay": "weight decay {:g}",
        "schedule": "{} schedule",
        "warmup_epochs": "warm-up of {} epochs",
        "clip_gradients": "gradients of each network clipped to norm {:g}",
        "early_stopping": "ended after {} epochs in which no network got better on validation",
    }
    return "".join(f", {text.format(training[key])}" for key, text in said.items() if key in training)  # type: ignore[literal-required]


def data_lines(result: Result) -> list[str]:
    """The source, labels and split of a result's images."""
    data = result["data"]
    size, group = data["image_size"], data["group"]
    labels = ", ".join(f"{name} {n}" for name, n in sorted(data["labels"].items(), key=lambda item: -item[1]))
    tested = next(iter(result["seeds"].values()))["test_images"]["group"]
    facts = [
        f"- data: {data['dataset']} ({data['task']}), {SOURCES[data['source']]}: "
        f"{_of_groups(data['images'], data['groups'], group)}"
        + (f"; {labels}" if labels else "")
        + f"; {size}×{size} pixels",
        f"- split: {split_of(data)}: "
        f"{data['train']} training, {data['val']} validation, "
        f"**{_of_groups(data['test'], len(set(tested)), group, 'test ')}**",
    ]
    if grouping := data.get("grouping"):
        facts.append(f"- groups: {grouping}")
    if converted := conversions(data.get("converted", {})):
        facts.append(f"- converted: {converted}")
    facts += [
        f"- missing from {SPLIT_LABELS[name]}, too few in the data: {', '.join(missing)}"
        for name, missing in data["lacking"].items()
    ]
    if data["task"] == "segmentation" and not _has_foreground(result):
        facts.append(
            "- **nothing to segment: the mask of every test image is empty.** "
            f"{on_empty_masks(METRICS['segmentation'])} Use data with foreground in every split"
        )
    if result["settings"]["balance"] == "mean":
        facts.append(
            "- class balancing: training draws as many images of each class as an average class has, by under- and "
            "over-sampling; validation and test are as they are"
        )
    return facts


def pooling(metrics: Iterable[str]) -> list[str]:
    """A line on each kind of these metrics that is known in several ways of taking it over images or classes."""
    shown = set(metrics)
    found = [(" and ".join(LABELS[name] for name in names if name in shown), how) for names, how in POOLING.items()]
    return [f"- {of}: {how}" for of, how in found if of]


def on_empty_masks(metrics: Sequence[str]) -> str:
    """The meaning of mask metrics if the ground truth is empty."""
    names = " and ".join(LABELS[metric] for metric in metrics)
    return f"There {names} are 0 for a network that marks a pixel and 100 for one that marks none."


def _has_foreground(result: Result) -> bool:
    """Whether the true mask of any test image has a pixel, by the counts of any network."""
    tested = next(iter(result["seeds"].values()))["test_images"]
    counts: Any = next((of for key, of in tested.items() if key not in ("id", "group")), {})
    return not all_masks_empty(counts)


def split_of(data: Data) -> str:
    """How the images were split: percentages, unit and seed, unless the dataset says it."""
    group, split = data["group"], data["split"]
    by = {
        "group": f"by {group} (no {group} is in two splits)",
        "image": f"by image, as in the paper (images of one {group} fall into different splits)",
        "given": f"as the dataset gives it (no {group} is in two splits)",
    }[split["by"]]
    if group == "image":
        by = "as the dataset gives it" if split["by"] == "given" else "by image"
    return by if split["by"] == "given" else f"{':'.join(map(str, split['percent']))} {by}, seed {split['seed']}"


def networks(results: Sequence[Result]) -> str:
    """Each role's network once: encoder, options, parameters, where its weights come from."""
    described: dict[str, str] = {}
    for result in results:
        for name, facts in result["networks"].items():
            described.setdefault(ROLES[name], describe(facts))
    return "- networks: " + "; ".join(f"{role} {text}" for role, text in sorted(described.items(), reverse=True))


def describe(facts: NetworkFacts) -> str:
    """`resnet50 U-Net, 32.5 M parameters, ImageNet weights`."""
    kind = " U-Net" if facts["task"] == "segmentation" else ""
    options = "".join(f" with {name} {value}" for name, value in facts["encoder_options"].items())
    if facts.get("conv6_channels"):
        options += f", Conv6 to {facts['conv6_channels']} channels"
    weights = {"hub": "ImageNet weights", "random": "random weights"}.get(facts["weights"], "weights of a local file")
    millions = facts["parameters"] / 1e6
    size = f"{millions:.1f}" if millions >= 1 else f"{millions:.2g}"
    return f"{facts['encoder']}{kind}{options}, {size} M parameters, {weights}"


def _of_groups(images: int, groups: int, group: str, kind: str = "") -> str:
    """`45 test images of 9 patients`; images that are groups of their own are not counted twice."""
    of = "" if group == "image" else f" of {groups} {group}{'s' if groups != 1 else ''}"
    return f"{images} {kind}image{'s' if images != 1 else ''}{of}"
