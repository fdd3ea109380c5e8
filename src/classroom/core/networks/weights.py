"""Pre-trained encoder weights: from the hub, from a local file, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from classroom.core.networks.classifier import timm_encoder
from classroom.errors import ParamsError, TrainingError
from classroom.params import Network


def load_encoder(encoder: nn.Module, settings: Network, task: str) -> None:
    """Loads the weights of `settings.weights` into a new encoder, in place.

    Parameters
    ----------
    encoder
        of a network that was just built
    settings
        of the network
    task
        segmentation or classification

    Raises
    ------
    TrainingError
        The hub cannot be reached; or the file is missing, damaged, of another network, or holds values that are not
        finite.
    """
    if settings.weights == "hub":
        encoder.load_state_dict(_from_hub(settings, task))
    if (path := settings.file) is None:
        return
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: cannot be read as safetensors ({' '.join(str(error).split())}). Expected the weights of "
            f"encoder '{settings.encoder}'; set weights to that file, to 'hub' or to 'random'."
        ) from None
    _load(encoder, state, path, settings.encoder)


def check_hub(settings: Network, task: str) -> None:
    """Raises ParamsError if `settings` ask for ImageNet weights of the hub, and the encoder has none there."""
    if settings.weights != "hub":
        return
    if task == "segmentation" and not settings.encoder.startswith("tu-"):
        import segmentation_models_pytorch as smp

        there = "imagenet" in (smp.encoders.encoders[settings.encoder]["pretrained_settings"] or {})
    else:
        there = timm.is_model_pretrained(settings.encoder.removeprefix("tu-"))
    if not there:
        raise ParamsError(
            f"there are no ImageNet weights of encoder '{settings.encoder}'. Set weights to a .safetensors file or to "
            "'random', or choose another encoder."
        )


def not_finite(state: Mapping[str, Any]) -> list[str]:
    """The names of the tensors in `state` that hold NaN or an infinite value."""
    return [name for name, value in state.items() if isinstance(value, torch.Tensor) and not value.isfinite().all()]


def _from_hub(settings: Network, task: str) -> dict[str, torch.Tensor]:
    try:
        if task == "classification":
            trained = timm_encoder(settings, pretrained=True)
        else:
            import segmentation_models_pytorch as smp

            trained = smp.encoders.get_encoder(settings.encoder, weights="imagenet", **settings.encoder_options)
    except Exception as error:  # the hub's client and requests have no common base
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainingError(
            f"weights 'hub' of encoder '{settings.encoder}' cannot be downloaded ({reason}). Check the network, or set "
            "weights to a local .safetensors file or to 'random'."
        ) from None
    return trained.state_dict()


def normalisation(settings: Network, task: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation per channel that the network's weights expect, for images in [0, 1].

    ImageNet's if the weights are random or a local file and the encoder publishes none. Contacts the hub only if the
    weights come from there too.
    """
    if task == "classification" or settings.encoder.startswith("tu-"):
        if published := timm.get_pretrained_cfg(settings.encoder.removeprefix("tu-")):
            return published.mean, published.std
    elif settings.weights == "hub":
        import segmentation_models_pytorch as smp

        expected = smp.encoders.get_preprocessing_params(settings.encoder)
        return expected["mean"], expected["std"]
    return timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD


def _load(encoder: nn.Module, state: dict[str, torch.Tensor], path: Path, name: str) -> None:
    """Accepts files of an encoder, a timm model, a whole U-Net, or a run of this project (its teacher or S1)."""
    own = encoder.state_dict()
    candidates = [
        {onto + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        for prefix, onto in (
            ("", ""),
            ("encoder.", ""),
            ("body.encoder.", ""),
            ("T.body.encoder.", ""),
            ("S1.body.encoder.", ""),
            ("", "model."),
        )
    ]
    nearest = max(candidates, key=lambda candidate: len(own.keys() & candidate.keys()))
    # Older files lack the batch counters, which are not used.
    nearest = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | nearest
    if missing := [key for key in own if key not in nearest]:
        raise TrainingError(
            f"{path}: not the weights of encoder '{name}': it lacks {len(missing)} of {len(own)} tensors, "
            f"'{missing[0]}' first. "
            "Set weights to a file of this encoder."
        )
    if unfit := [key for key in own if own[key].shape != nearest[key].shape]:
        raise TrainingError(
            f"{path}: '{unfit[0]}' has shape {tuple(nearest[unfit[0]].shape)}, encoder '{name}' needs "
            f"{tuple(own[unfit[0]].shape)}. Set weights to a file of this encoder with the same options."
        )
    chosen = {key: nearest[key] for key in own}
    if wrong := not_finite(chosen):
        raise TrainingError(
            f"{path}: {len(wrong)} of the {len(own)} tensors of encoder '{name}' hold NaN or infinite values, "
            f"'{wrong[0]}' first. Set weights to another file of this encoder, to 'hub' or to 'random'."
        )
    encoder.load_state_dict(chosen)
