"""Building a network from its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import nn

from classroom.errors import ParamsError, suggestion
from classroom.networks.weights import load_encoder, normalisation
from classroom.params import Network as NetworkSettings

FEATURE_TAP = "decoder.blocks.0"
"""The U-Net's first decoder block: 256×16×16 for a 256×256 image in every network (Sec. 4.2)."""


class Output(NamedTuple):
    logits: torch.Tensor
    """(B, 1, H, W), before the sigmoid."""
    features: dict[str, torch.Tensor]
    """The output of every tapped module, by its path."""


class Network(nn.Module):
    """A U-Net that normalises its own input and hands out the output of tapped modules."""

    facts: dict[str, Any]
    """What the tables print of it: encoder, weights, number of parameters."""

    def __init__(
        self,
        body: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        taps: Sequence[str] = (FEATURE_TAP,),
    ) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self._features: dict[str, torch.Tensor] = {}
        for path in taps:
            self._tapped(path).register_forward_hook(self._keep(path))

    def forward(self, images: torch.Tensor) -> Output:
        """`images`: (B, 3, H, W) in [0, 1]."""
        logits = self.body((images - self.mean) / self.std)
        features, self._features = self._features, {}
        return Output(logits, features)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def _tapped(self, path: str) -> nn.Module:
        try:
            return self.body.get_submodule(path)
        except AttributeError:
            known = [name for name, _ in self.body.named_modules() if name.count(".") <= 2 and name]
            raise ParamsError(f"tap '{path}' does not exist in this network.{suggestion(path, known)}") from None

    def _keep(self, path: str):  # noqa: ANN202 - the hook's type is torch's
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self._features[path] = output

        return hook


def build(settings: NetworkSettings, seed: int) -> Network:
    """The U-Net that `settings` describe; `seed` decides its random parts and nothing else does.

    Raises ParamsError for an unknown encoder or an option that it does not take, and TrainingError for
    weights that cannot be had or do not fit.
    """
    check_encoder(settings.encoder)
    with _seeded(seed):
        body = _unet(settings)
        load_encoder(body.encoder, settings)
    network = Network(body, *normalisation(settings))
    network.facts = settings.model_dump(mode="json") | {"parameters": network.parameter_count}
    return network.to(memory_format=torch.channels_last)


def check_encoder(name: str) -> None:
    """Raises ParamsError, with the nearest name, unless `name` is an encoder that can be built."""
    if name.startswith("tu-"):
        import timm

        if timm.is_model(name.removeprefix("tu-")):
            return
        known = [f"tu-{model}" for model in timm.list_models()]
    else:
        known = smp.encoders.get_encoder_names()
        if name in known:
            return
    near = suggestion(name, known)
    raise ParamsError(
        f"unknown encoder '{name}'.{near if 'Did' in near else ''} Any encoder of segmentation-models-pytorch "
        "works, and most of timm's with 'tu-' before the name."
    )


def _unet(settings: NetworkSettings) -> nn.Module:
    if settings.encoder_options and not settings.encoder.startswith("tu-"):  # they would be ignored in silence
        raise ParamsError(
            f"encoder '{settings.encoder}' does not take encoder_options ({', '.join(settings.encoder_options)}). "
            f"Only timm's do: try 'tu-{settings.encoder}'."
        )
    try:
        return smp.Unet(
            settings.encoder,
            encoder_weights=None,
            decoder_channels=settings.decoder_channels,
            classes=1,
            **settings.encoder_options,
        )
    except (TypeError, ValueError, IndexError) as error:  # whatever timm and smp raise for what they cannot build
        options = f" with encoder_options {settings.encoder_options}" if settings.encoder_options else ""
        raise ParamsError(
            f"encoder '{settings.encoder}' does not take encoder_options or cannot be a U-Net's: it was not built"
            f"{options} ({error})."
        ) from None


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
