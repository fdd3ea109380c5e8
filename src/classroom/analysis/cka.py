"""Linear CKA between the layers of networks (Figures 6, 10, 11).

Kornblith et al. (2019), arXiv 1905.00414, with the unbiased HSIC_1 of Song et al. (2012). It is summed over minibatches
before dividing (Nguyen et al. 2020, arXiv 2010.15327, Eqs. 2, 3), so that batches may be small.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from classroom.core.batches import SplitData
from classroom.core.networks.build import Network
from classroom.core.networks.taps import STRIDES, blocks_of, find, stages_of
from classroom.errors import ParamsError, TrainingError
from classroom.progress import track

MIN_BATCH = 4
"""HSIC_1 divides by n − 3."""
RESOLUTION = 1e-12
"""Times the features' sum of squares: a centred Gram matrix with a smaller norm is float32 rounding error."""
CHUNK_FEATURES = 2**12
"""Features per image that are summed in float32 before the sums in float64; a batch of them fits in the cache."""
HEADS = ("classifier", "segmentation_head")
NO_STEM = (
    nn.Identity,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.Dropout,
    nn.Dropout2d,
)
"""Modules that do not count as a stem."""


def layers_of(body: nn.Module) -> dict[str, str]:
    """The layers to compare, from image to logits: readable name → module path.

    The rule: `stem`, the encoder's last module before its first block, pooling aside; every block (`blocks_of`);
    `conv6`, where it is there; `logits`. A block's name is its path without `encoder.`. An encoder without blocks
    gives its stages.
    """
    modules = dict(body.named_modules())
    blocks = blocks_of(body)
    stem = _stem(modules, blocks)
    layers = {"stem": stem} if stem else {name: name for name in stages_of(body.get_submodule("encoder"))}
    layers |= {path.removeprefix("encoder.").removeprefix("model."): path for path in blocks}
    if "conv6" in modules and not isinstance(modules["conv6"], nn.Identity):
        layers["conv6"] = "conv6"
    return layers | {"logits": next(path for path in HEADS if path in modules)}


def similarities(
    networks: Mapping[str, Network], batches: Iterable[torch.Tensor], layers: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """CKA of every layer of one network with every layer of another, for all pairs, in one pass over `batches`.

    Batches are weighted by their number of images. Networks run in eval mode and get their previous mode back.

    Parameters
    ----------
    networks
        by name (T, S1, S2), at least two
    batches : (B, 3, H, W) in [0, 1]
        on the networks' device, in random order (`shuffled`): HSIC_1 is unbiased only for randomly drawn images
    layers
        by network, names of `layers_of` or paths of modules; by default all of `layers_of`

    Returns
    -------
    A row per pair of layers: first, second (networks), first_layer, second_layer, cka in [−1, 1]. In `attrs`: images
    (used), batches, dropped (images of a last batch that was too small), layers (path and stage by network and layer)
    and last (each encoder's last layer). A layer whose features are constant over the images of a batch, up to float32
    rounding, adds nothing; if that holds for every batch, its CKA is NaN.

    Raises
    ------
    TrainingError
        A layer does not exist or does not run, its features are not finite, a batch that is not the last has fewer
        than 4 images, or there are no images.

    References
    ----------
    Nguyen et al. 2020, arXiv 2010.15327, Eqs. 2, 3
    """
    chosen = {name: _chosen(name, network.body, (layers or {}).get(name)) for name, network in networks.items()}
    keys = [(name, layer) for name, of_network in chosen.items() for layer in of_network]
    sums = torch.zeros(len(keys), len(keys), dtype=torch.float64)
    images = count = dropped = 0
    with torch.inference_mode(), _observed(networks, chosen) as seen:
        for batch in batches:
            if dropped:
                raise TrainingError(f"CKA: a batch of {dropped} images came before the last. {_minimum()}")
            if len(batch) < MIN_BATCH:
                dropped = len(batch)
                continue
            seen.grams.clear()
            for network in networks.values():
                network(batch)
            if idle := [f"{layer} of {name}" for name, layer in keys if (name, layer) not in seen.grams]:
                raise TrainingError(f"CKA: {', '.join(idle)} did not run for an image. Choose other layers.")
            grams = torch.stack([seen.grams[key] for key in keys]).flatten(1)
            # HSIC_1 · n, which weights batches by their images
            sums += grams @ grams.T / (len(batch) - 3)
            images, count = images + len(batch), count + 1
    if not images:
        raise TrainingError(f"CKA: {dropped or 'no'} images are too few. {_minimum()}")
    own = sums.diagonal()
    cka = (sums / (own[:, None] * own[None, :]).sqrt()).clamp(-1, 1).numpy()  # 0 / 0 is NaN
    place = {key: number for number, key in enumerate(keys)}
    table = pd.DataFrame(
        [
            (first, second, a, b, cka[place[first, a], place[second, b]])
            for first, second in itertools.combinations(networks, 2)
            for a, b in itertools.product(chosen[first], chosen[second])
        ],
        columns=["first", "second", "first_layer", "second_layer", "cka"],
    )
    table.attrs = {"images": images, "batches": count, "dropped": dropped} | _described(chosen, seen.stages)
    return table


def shuffled(split: SplitData, batch_size: int = 32) -> Iterator[torch.Tensor]:
    """The images of a split, each once, in a fixed random order.

    Batches have at most `batch_size` images and nearly equal sizes, so that the last one is not too small.
    """
    order = np.random.default_rng(0).permutation(len(split))
    for positions in track(np.array_split(order, max(1, math.ceil(len(split) / batch_size))), "batches"):
        yield split.batch(positions, torch.device("cpu"))[0]


def centred_gram(features: torch.Tensor) -> torch.Tensor:
    """The Gram matrix (B, B) of `features` (B, …), float64 on the CPU, U-centred: Σ A ∘ B = n (n − 3) HSIC_1.

    U-centring (Székely and Rizzo 2014) removes row and column effects from the matrix without its diagonal. All zero
    for features that are constant over the images.
    """
    count = len(features)
    maps = features.detach()
    flat = (maps.movedim(1, -1) if maps.ndim == 4 else maps).flatten(1)  # in memory order; any order will do
    if flat.device.type == "mps":  # no float64 there
        flat = flat.cpu()
    gram = torch.zeros(count, count, dtype=torch.float64, device=flat.device)
    common = torch.zeros((), dtype=torch.float64, device=flat.device)
    for part in flat.split(CHUNK_FEATURES, dim=1):
        mean = part.mean(dim=0)
        common += mean.double().square().sum()
        shifted = part - mean  # the same shift for all images only improves the rounding
        gram += shifted @ shifted.T  # float32 is precise enough for so few features without their mean
    gram = gram.cpu()
    size = gram.trace() + count * common.cpu()  # the features' sum of squares
    gram.fill_diagonal_(0)
    rows = gram.sum(dim=1, keepdim=True) / (count - 2)
    centred = gram - rows - rows.T + gram.sum() / ((count - 1) * (count - 2))
    centred.fill_diagonal_(0)
    return centred if centred.norm() > RESOLUTION * size else torch.zeros_like(centred)


@dataclass
class _Seen:
    """The hooks' results for the last batch."""

    grams: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    stages: dict[tuple[str, str], str] = field(default_factory=dict)


@contextlib.contextmanager
def _observed(networks: Mapping[str, Network], chosen: Mapping[str, Mapping[str, str]]) -> Iterator[_Seen]:
    """Networks in eval mode, with a hook on every layer that computes its Gram matrix before it can be overwritten."""
    seen, hooks = _Seen(), []
    modes = [(module, module.training) for network in networks.values() for module in network.modules()]

    def observe(name: str, layer: str, path: str) -> None:
        tap = find(networks[name].body, path)

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            features = tap.pick(output)
            if not isinstance(features, torch.Tensor):
                raise TrainingError(f"CKA: {layer} of {name} returns no features. Choose other layers.")
            if not features.isfinite().all():
                raise TrainingError(
                    f"CKA: {layer} of {name} gives NaN or infinite features for a test image: {name} diverged. Lower "
                    "training.learning_rate and train it again."
                )
            seen.grams[name, layer] = centred_gram(features)
            seen.stages[name, layer] = _stage(path, features, sizes[name])

        hooks.append(tap.module.register_forward_hook(hook))

    sizes: dict[str, int] = {}
    try:
        for name, network in networks.items():
            network.eval()

            def note(module: nn.Module, inputs: Any, name: str = name) -> None:
                sizes[name] = inputs[0].shape[-1]

            hooks.append(network.register_forward_pre_hook(note))
            for layer, path in chosen[name].items():
                observe(name, layer, path)
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training


def _chosen(name: str, body: nn.Module, asked: Sequence[str] | None) -> dict[str, str]:
    """Name → path of the requested layers."""
    known = layers_of(body)
    if asked is None:
        return known
    for layer in asked:
        try:
            find(body, known.get(layer, layer))
        except ParamsError:
            raise TrainingError(
                f"CKA: layer '{layer}' does not exist in {name}. Layers: {', '.join(known)}, or the path of any module."
            ) from None
    return {layer: known.get(layer, layer) for layer in asked}


def _stem(modules: Mapping[str, nn.Module], blocks: Sequence[str]) -> str | None:
    """The path of the encoder's last module before its first block; None without blocks."""
    first = next((path for path in blocks if path.startswith("encoder.")), None)
    before = itertools.takewhile(lambda item: item[0] != first, modules.items()) if first else ()
    candidates = [
        path
        for path, module in before
        if path.startswith("encoder.") and not any(module.children()) and not isinstance(module, NO_STEM)
    ]
    return candidates[-1] if candidates else None


def _stage(path: str, features: torch.Tensor, image_size: int) -> str:
    """`decoder`, `conv6`, `logits`, or the encoder's stage by the size of its maps (taps.STRIDES)."""
    part = path.split(".")[0]
    if part in HEADS:
        return "logits"
    if part in ("decoder", "conv6"):
        return part
    names = {stride: name for name, stride in STRIDES.items()}
    return names.get(round(image_size / features.shape[-1]), "encoder") if features.ndim == 4 else "encoder"


def _described(
    chosen: Mapping[str, Mapping[str, str]], stages: Mapping[tuple[str, str], str]
) -> dict[str, dict[str, Any]]:
    layers = {
        name: {layer: {"path": path, "stage": stages[name, layer]} for layer, path in of_network.items()}
        for name, of_network in chosen.items()
    }
    encoders = {
        name: [layer for layer, about in of_network.items() if about["stage"] in (*STRIDES, "encoder")]
        for name, of_network in layers.items()
    }
    return {"layers": layers, "last": {name: found[-1] for name, found in encoders.items() if found}}


def _minimum() -> str:
    return f"HSIC needs {MIN_BATCH} or more at a time: use larger batches or more images."
