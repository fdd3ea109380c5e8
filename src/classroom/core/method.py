"""The interface between methods and the training loop."""

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
    """One component of the loss: weight · value is added to the loss of a network."""

    network: str
    name: str
    weight: float
    value: torch.Tensor


class Networks(nn.ModuleDict):
    """Networks by name."""

    if TYPE_CHECKING:  # torch's types do not include the class of the modules

        def __getitem__(self, key: str) -> Network: ...
        def items(self) -> ItemsView[str, Network]: ...  # noqa: D102
        def values(self) -> ValuesView[Network]: ...  # noqa: D102


class Method(nn.Module, ABC):
    """Networks that are trained together, and the method's extra modules.

    `networks` holds all networks by name (T, S1, S2); those in `frozen` are not trained. Extra modules are part of the
    resume checkpoint but not of the run's weights.
    """

    frozen: Sequence[str] = ()
    settings: LossSettings
    """Losses and weights, for metrics.json."""

    def __init__(self, networks: dict[str, Network]) -> None:
        super().__init__()
        self.networks = Networks(networks)
        for name in self.frozen:
            self.networks[name].requires_grad_(False)

    @abstractmethod
    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        """The loss components of one batch: images (B, 3, H, W) in [0, 1], masks (B, 1, H, W) or classes (B,)."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before the first step of every epoch (from 0), and when a training resumes within one."""

    def after_step(self) -> None:
        """Called after the optimiser's step, for modules with their own optimiser."""

    def first_stage(self, epochs: int) -> int:
        """Of `epochs`, how many at the start leave the student untrained, so that validation says nothing yet."""
        return 0

    def notes(self, targets: torch.Tensor) -> list[str]:
        """Sentences about limitations on these training targets (a sample), for reports."""
        return []

    def compile_networks(self) -> None:
        """Compiles every network with torch.compile."""
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # networks of one architecture may have different taps
        for network in self.networks.values():
            network.compile()

    def train(self, mode: bool = True) -> Method:
        """A frozen network stays in eval mode, to keep its batch statistics."""
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
        """The networks that are trained and saved."""
        return [name for name in self.networks if name not in self.frozen]

    @property
    def learning(self) -> list[list[nn.Parameter]]:
        """What the optimiser trains: the parameters of each network, and of the extra modules together."""
        extras = [parameter for name, parameter in self.named_parameters() if not name.startswith("networks.")]
        parts = [*(self.networks[name].parameters() for name in self.trained), extras]
        return [[parameter for parameter in part if parameter.requires_grad] for part in parts]

    @property
    def extra_parameters(self) -> int:
        """Number of trained parameters that are not part of a saved network."""
        return sum(p.numel() for name, p in self.named_parameters() if not name.startswith("networks."))

    def state_of(self, name: str) -> dict[str, torch.Tensor]:
        """The weights of one network, named `<network>.<tensor>`."""
        return {f"{name}.{key}": value for key, value in self.networks[name].state_dict().items()}

    def load_states(self, state: dict[str, torch.Tensor]) -> None:
        """Loads the weights of `state_of` into every trained network."""
        for name in self.trained:
            own = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
            self.networks[name].load_state_dict(own)


def total(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of one or more values."""
    return functools.reduce(operator.add, values)


def network_seed(seed: int, network: str) -> int:
    """A different seed for each network, so that two students of one architecture start differently."""
    return zlib.crc32(f"{seed}/{network}".encode())
