"""SimKD: the student's features are projected to the teacher's and classified by the teacher's classifier."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn

from classroom.core.losses import feature_loss
from classroom.core.networks.build import Network, Output
from classroom.core.networks.classifier import Classifier
from classroom.method_settings import SimKDClassification
from classroom.methods.shared.comparison import LAST_MAP, Comparison, block, same_size


class SimKD(Comparison):
    """Training uses no labels. The saved student consists of its encoder, the projector, and a copy of the teacher's
    layers after the last map."""

    paper = "Chen et al., CVPR 2022, arXiv 2203.14001"
    equation = "mean (P(f_S) − f_T)²; prediction: T's classifier on P(f_S)"
    options: SimKDClassification
    uses_labels = False

    def build_extras(self, image_size: int) -> None:
        student, teacher = self.networks["S1"], self.networks["T"]
        projector = _projector(*self.channels(LAST_MAP), self.options.reduction)
        body = BorrowedHead(student.body.get_submodule("encoder"), projector, cast(Classifier, teacher.body))
        self.networks["S1"] = borrowed = Network(body, *student.normalisation, shared="projector")
        student.remove_hooks()
        borrowed.facts = student.facts | {"parameters": borrowed.parameter_count}

    @property
    def extra_parameters(self) -> int:
        """The parameters of the projector, which is saved with the student."""
        return sum(p.numel() for p in self.networks["S1"].body.get_submodule("projector").parameters())

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features["projector"], teacher.features[LAST_MAP])
        return {"feature": feature_loss(own, other)}


class BorrowedHead(nn.Module):
    """A student's encoder, a projector, and a frozen copy of the teacher's Conv6 (if any) and classifier."""

    def __init__(self, encoder: Any, projector: nn.Module, teacher: Classifier) -> None:
        """Copies the teacher's layers after its last map.

        Parameters
        ----------
        encoder
            the student's
        projector
            from the student's last map to the teacher's
        teacher
            trained
        """
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.conv6 = copy.deepcopy(teacher.conv6).requires_grad_(False)
        self.classifier = copy.deepcopy(teacher.classifier).requires_grad_(False)

    def train(self, mode: bool = True) -> BorrowedHead:
        """The copied layers keep the teacher's batch statistics."""
        super().train(mode)
        self.conv6.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of normalised images (B, 3, H, W)."""
        projected = self.projector(self.encoder.forward_features(images))
        return self.classifier(self.conv6(projected).mean(dim=(2, 3)))


def _projector(student: int, teacher: int, reduction: int) -> nn.Sequential:
    narrow = max(1, teacher // reduction)
    return nn.Sequential(block(student, narrow), block(narrow, narrow, kernel=3), block(narrow, teacher))


METHOD = SimKD
