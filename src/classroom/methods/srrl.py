"""SRRL, softmax regression representation learning: the teacher's classifier is applied to the student's features."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from classroom.core.networks.build import Output
from classroom.core.networks.classifier import Classifier
from classroom.method_settings import SRRLClassification
from classroom.methods.shared.comparison import LAST_MAP, Comparison, block, same_size


class SoftmaxRegression(Comparison):
    """As in the authors' code, the connector comes before the pooling. The gradient passes through the teacher's frozen
    classifier. The student predicts with its own classifier."""

    paper = "Yang et al., ICLR 2021"
    equation = "mean (g_S − g_T)² + mean (h_T(c(f_S)) − z_T)², g pooled features, h_T the teacher's classifier"
    options: SRRLClassification

    def build_extras(self, image_size: int) -> None:
        self.connector = block(*self.channels(LAST_MAP))
        convolution = self.connector[0]
        assert isinstance(convolution, nn.Conv2d)
        nn.init.normal_(convolution.weight, std=math.sqrt(2 / convolution.out_channels))

    def distances(self, student: Output, teacher: Output, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        own, other = same_size(student.features[LAST_MAP], teacher.features[LAST_MAP])
        own = self.connector(own)
        teacher_body = cast(Classifier, self.networks["T"].body)
        return {
            "feature": F.mse_loss(own.mean(dim=(2, 3)), other.mean(dim=(2, 3))),
            "regression": F.mse_loss(teacher_body.head(own), teacher.logits),
        }


METHOD = SoftmaxRegression
