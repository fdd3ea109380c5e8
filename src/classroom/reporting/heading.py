"""What a table or figure says of its own origin, so that a demo cannot pass for a reproduction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SOURCES = {
    "phantom": "synthetic phantoms drawn by this program",
    "directory": "images from a local folder",
    "kaggle": "the Kaggle download",
}
SPLITS = {
    "group": "by patient (no patient is in two splits)",
    "image": "by image, as in the paper (slices of one patient fall into different splits)",
}
ROLES = {"T": "teacher", "S1": "students", "S2": "students"}


def caution(scale: str, synthetic: bool) -> str:
    """One bold sentence: what these numbers are not. Empty at paper scale on real images."""
    if synthetic:
        return (
            "**Synthetic images, not patients: nothing here reproduces the paper.** Differences from the paper's "
            "values are printed only to show where they will stand."
        )
    if scale != "paper":
        return (
            f"**Real images at scale '{scale}', with smaller images, fewer epochs or fewer images than the paper: "
            "not a reproduction.**"
        )
    return ""


def lines(scale: str, seeds: Sequence[int], results: Sequence[dict[str, Any]]) -> list[str]:
    """The facts behind a table, one a line, taken from what the runs recorded."""
    data, training = results[0]["data"], results[0]["settings"]["training"]
    split = data["split"]
    return [
        f"- scale: {scale}",
        f"- source: {SOURCES[data['source']]}, {data['images']} images of {data['groups']} patients, "
        f"{data['with_lesion']} with a lesion; {data['image_size']}×{data['image_size']} pixels",
        f"- split: {':'.join(map(str, split['percent']))} {SPLITS[split['by']]}, seed {split['seed']}: "
        f"{data['train']} training, {data['val']} validation, **{data['test']} test images**",
        f"- seeds: {', '.join(map(str, seeds))}" + ("" if len(seeds) > 1 else " (one run, so no standard deviation)"),
        f"- training: {training['epochs']} epochs, batch {training['batch_size']}, Adam at "
        f"{training['learning_rate']:g}, {training['precision']}; each network's epoch is the best on validation (IoU)",
    ]


def networks(results: Sequence[dict[str, Any]]) -> str:
    """Each role's network once: encoder, options, parameters, where its weights come from."""
    described: dict[str, str] = {}
    for result in results:
        for name, facts in result["networks"].items():
            described.setdefault(ROLES[name], describe(facts))
    return "- networks: " + "; ".join(f"{role} {text}" for role, text in sorted(described.items(), reverse=True))


def describe(facts: dict[str, Any]) -> str:
    """`resnet50 U-Net, 32.5 M parameters, ImageNet weights`."""
    options = "".join(f" with {name} {value}" for name, value in facts["encoder_options"].items())
    weights = {"hub": "ImageNet weights", "random": "random weights"}.get(facts["weights"], "weights of a local file")
    return f"{facts['encoder']} U-Net{options}, {facts['parameters'] / 1e6:.1f} M parameters, {weights}"
