"""CKA of all pairs of layers, against the networks' forward passes alone and torch_cka."""

from __future__ import annotations

import contextlib
import copy
import io
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from bench import studies
from bench.timing import Point, alternate, ratio
from classroom.analysis.cka import layers_of, similarities
from classroom.core.networks.build import Network, build
from classroom.core.networks.reproducible import make_deterministic
from classroom.params import Network as NetworkSettings

SIDE, BATCH, IMAGES = studies.SIDES[studies.CLASSIFICATION], 32, 256
PAIR = "ResNet50 × ResNet18"


def measure(turns: int = 2) -> Point:
    point = Point("CKA")
    make_deterministic(1)
    pictures = batches(IMAGES)
    for what, layers in (("blocks", None), ("convolutions", convolutions(networks()))):
        ours, alone, theirs = networks(), networks(), networks()
        chosen = layers or {name: list(layers_of(network.body).values()) for name, network in ours.items()}
        tables: dict[str, Any] = {}
        actions = {
            "ours": lambda: tables.update(ours=similarities(ours, pictures, chosen)),  # noqa: B023 - called here
            "forward": lambda: forward(alone, pictures),  # noqa: B023
            "torch_cka": lambda: tables.update(theirs=torch_cka(theirs, pictures, chosen)),  # noqa: B023
        }
        seconds = alternate(actions, turns)
        pairs = " × ".join(str(len(of_network)) for of_network in chosen.values())
        name = f"{PAIR}, {pairs} {what}, {IMAGES} images at {SIDE}²"
        point.at_most(f"CKA ÷ forward passes, {name}", ratio(seconds["ours"], seconds["forward"]), 1.3)
        point.note(f"torch_cka ÷ CKA, {name}", ratio(seconds["torch_cka"], seconds["ours"]))
        mine = tables["ours"].pivot(index="first_layer", columns="second_layer", values="cka")
        mine = mine.loc[chosen["T"], chosen["S1"]].to_numpy()
        point.note(f"largest difference of values, {name}", float(np.abs(mine - tables["theirs"]).max()))
    small, large = (_peak(images) for images in (2 * BATCH, 20 * BATCH))
    point.at_most(f"peak memory with {20 * BATCH} images ÷ with {2 * BATCH}", large / small, 1.05)
    return point


def networks() -> dict[str, Network]:
    """The paper's classifiers, drawn at random."""
    study = studies.settings("paper")["study"][studies.CLASSIFICATION]
    return {
        name: build(NetworkSettings(**study[role]), "classification", studies.CLASSES, seed).eval()
        for seed, (name, role) in enumerate({"T": "teacher", "S1": "student"}.items())
    }


def convolutions(of: dict[str, Network]) -> dict[str, list[str]]:
    return {
        name: [path for path, module in network.body.named_modules() if isinstance(module, nn.Conv2d)]
        for name, network in of.items()
    }


def batches(images: int) -> list[torch.Tensor]:
    return [picture.contiguous(memory_format=torch.channels_last) for picture in drawn(images)]


def drawn(images: int) -> Iterator[torch.Tensor]:
    """Random images, a batch at a time."""
    random = torch.Generator().manual_seed(0)
    for _ in range(images // BATCH):
        coarse = torch.rand(BATCH, 3, SIDE // 8, SIDE // 8, generator=random)
        yield coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def forward(of: dict[str, Network], pictures: list[torch.Tensor]) -> None:
    with torch.inference_mode():
        for picture in pictures:
            for network in of.values():
                network(picture)


def torch_cka(of: dict[str, Network], pictures: list[torch.Tensor], layers: dict[str, list[str]]) -> np.ndarray:
    """Its values, a row per layer of the first network."""
    import torch_cka

    class Loader(list):
        dataset = "images"

    bodies = [copy.deepcopy(_Normalised(network)) for network in of.values()]
    names = [[f"body.{path}" for path in paths] for paths in layers.values()]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        compared = torch_cka.CKA(*bodies, "T", "S1", *names)
        compared.compare(Loader([picture] for picture in pictures))
    return compared.export()["CKA"].numpy()


class _Normalised(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        network.remove_hooks()
        self.body, self.mean, self.std = network.body, network.mean, network.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body((images - self.mean) / self.std)


def _peak(images: int) -> float:
    """Peak memory in MB of a process that compares the networks on so many images, which come a batch at a time."""
    code = (
        "import resource; from bench import cka; from classroom.core.networks.reproducible import make_deterministic; "
        f"make_deterministic(1); cka.similarities(cka.networks(), cka.drawn({images})); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=studies.ROOT, encoding="utf-8"
    )
    return int(done.stdout.split()[-1]) / 1024
