"""The baselines of Tables 2 and 13: one network with its task loss only. Also the teacher of KD (off)."""

from __future__ import annotations

import torch

from classroom.core.losses import task_loss
from classroom.core.method import Method, Term
from classroom.core.networks.build import Network
from classroom.params import TaskLoss


class SingleNetwork(Method):
    """One network, `T` for a study's teacher and `S1` for its student."""

    def __init__(self, name: str, network: Network, settings: TaskLoss) -> None:
        """Trains `network` with its task loss.

        Parameters
        ----------
        name
            T or S1
        network
            to train
        settings
            `losses.task`
        """
        super().__init__({name: network})
        self.name = name
        self.task = settings
        self.settings = {"losses": {"task": settings.model_dump(mode="json")}}

    def losses(self, images: torch.Tensor, targets: torch.Tensor) -> list[Term]:
        """The task loss of the network."""
        logits = self.networks[self.name](images).logits
        return [Term(self.name, "task", 1.0, task_loss(logits, targets, self.task))]
