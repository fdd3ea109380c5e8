"""The interface that the training loop knows, and nothing more."""

from __future__ import annotations

import functools
import operator
import zlib
from abc import ABC, abstractmethod
from collections.abc import ItemsView, Iterable, Sequence, ValuesView
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from classroom.artifacts import LossSettings
from classroom.core.networks.build import Network


class Term(NamedTuple):
    """One loss component of one network: it adds weight · value to what is minimised."""

    network: str
    name: str
    weight: float
    value: torch.Tensor


class Networks(nn.ModuleDict):
    """Networks by name."""

    if TYPE_CHECKING:  # torch's own types forget of what class the modules are

        def __getitem__(self, key: str) -> Network: ...
        def items(self) -> ItemsView[str, Network]: ...
        def values(self) -> ValuesView[Network]: ...


class Method(nn.Module, ABC):
    """Networks that are trained together, with whatever modules the method needs besides.

    `networks` holds all of them by name (T, S1, S2), `frozen` names those that only teach. Every other submodule is an
    extra of the training: in the resume checkpoint, not in what a run leaves.
    """

    frozen: Sequence[str] = ()
    settings: LossSettings
    """What the method was told, for the record: losses and weights."""

    def __init__(self, networks: dict[str, Network]) -> None:
        super().__init__()
        self.networks = Networks(networks)
        for name in self.frozen:
            self.networks[name].requires_grad_(False)

    @abstractmethod
    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        """Every loss component for one batch: images (B, 3, H, W) in [0, 1], masks (B, 1, H, W) or classes (B,)."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before the first step of every epoch (from 0), and when a training goes on within it."""

    def after_step(self) -> None:
        """Called after the optimiser's step, for what a method trains by itself."""

    def notes(self, targets: torch.Tensor) -> list[str]:
        """What a reader of the result should know of these training targets (a sample), in sentences."""
        return []

    def compile_networks(self) -> None:
        """From now on every network's passes go through torch.compile."""
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # two networks of one kind may have different taps
        for network in self.networks.values():
            network.compile()

    def train(self, mode: bool = True) -> Method:
        """A frozen network stays in eval mode: its batch statistics are part of what it learnt."""
        super().train(mode)
        for name in self.frozen:
            self.networks[name].eval()
        return self

    @torch.no_grad()
    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities (B, 1, H, W) or (B, classes) of every network."""
        return {name: network(images).probabilities for name, network in self.networks.items()}

    @property
    def trained(self) -> list[str]:
        """The networks that learn, and whose weights a run leaves behind."""
        return [name for name in self.networks if name not in self.frozen]

    @property
    def extra_parameters(self) -> int:
        """Parameters that train and are not part of a network that the run leaves."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("networks."))

    def state_of(self, name: str) -> dict[str, torch.Tensor]:
        """One network's weights as `<network>.<tensor>`."""
        return {f"{name}.{key}": value for key, value in self.networks[name].state_dict().items()}

    def load_states(self, state: dict[str, torch.Tensor]) -> None:
        """Sets every trained network to the weights that `state_of` returned."""
        for name in self.trained:
            own = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
            self.networks[name].load_state_dict(own)


def total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of one value or more."""
    return functools.reduce(operator.add, values)


def network_seed(seed: int, network: str) -> int:
    """Each network's own seed, so that two students of one architecture differ in their random parts."""
    return zlib.crc32(f"{seed}/{network}".encode())
