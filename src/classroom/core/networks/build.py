"""Building a network from its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import segmentation_models_pytorch as smp
import torch
from torch import nn

from classroom.artifacts import NetworkFacts
from classroom.core.networks.classifier import Classifier
from classroom.core.networks.taps import find
from classroom.core.networks.weights import load_encoder, normalisation
from classroom.errors import ParamsError, suggestion
from classroom.params import Network as NetworkSettings

FEATURE_TAP = {"segmentation": "decoder.blocks.0", "classification": "conv6"}
"""What is shared as features, by task. The U-Net's first decoder block: 256×16×16 for a 256×256 image in every network;
the classifier's last map, 512×7×7 or 1024×7×7 for a 224×224 image, after Conv6 where there is one (Sec. 4.2)."""


ONEDNN_BLOCK = 16
"""Channels that it takes at a time with AVX-512; 8 with AVX2."""


class Output(NamedTuple):
    logits: torch.Tensor
    """Segmentation: (B, 1, H, W), before the sigmoid; classification: (B, classes), before the softmax."""
    features: dict[str, torch.Tensor]
    """What passed every tap, by the tap's name."""
    shared: torch.Tensor
    """Of these, the task's feature map that teacher and students compare: see FEATURE_TAP."""

    @property
    def probabilities(self) -> torch.Tensor:
        """Of the lesion, per pixel; of every class. Shaped as the logits, float32."""
        logits = self.logits.float()
        return torch.softmax(logits, dim=1) if logits.ndim == 2 else torch.sigmoid(logits)


class _Enough(Exception):
    """Ends a pass: nothing that follows is asked for."""


class Network(nn.Module):
    """A U-Net or classifier that normalises its own input and hands out the output of tapped modules."""

    facts: NetworkFacts
    """What is recorded of it: encoder, weights, number of parameters, normalisation of images."""
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, body: nn.Module, mean: Sequence[float], std: Sequence[float], shared: str, taps: Sequence[str] = ()
    ) -> None:
        """`taps`: as `classroom.core.networks.taps.find` takes them. Raises ParamsError, with those that exist."""
        super().__init__()
        self.body = body
        self.normalise(mean, std)
        self._features: dict[str, torch.Tensor] = {}
        self._last: str | None = None
        self.shared = shared
        found = {name: find(body, name) for name in dict.fromkeys((shared, *taps))}
        self._hooks = [tap.module.register_forward_hook(self._keep(name, tap.pick)) for name, tap in found.items()]

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and standard deviation per channel that images in [0, 1] are brought from."""
        self.normalisation = (mean, std)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> Output:
        """`images`: (B, 3, H, W) in [0, 1]."""
        logits = self.body((images - self.mean) / self.std)
        features, self._features = self._features, {}
        return Output(logits, features, features[self.shared])

    def features_until(self, tap: str, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What passed the taps up to `tap`, where the pass of `images` (B, 3, H, W) ends; the rest costs nothing."""
        self._last = tap
        try:
            self.body((images - self.mean) / self.std)
        except _Enough:
            pass
        finally:
            self._last = None
        features, self._features = self._features, {}
        return features

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def shapes(self, image_size: int) -> dict[str, tuple[int, int, int]]:
        """Channels, height and width at every tap, for images of `image_size` pixels."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            features = self(torch.zeros(1, 3, image_size, image_size, device=self.mean.device)).features
        self.train(was_training)
        return {name: tuple(feature.shape[1:]) for name, feature in features.items()}

    def untap(self) -> None:
        """Takes the taps off, for a body that goes on in another network."""
        for hook in self._hooks:
            hook.remove()

    def _keep(
        self, name: str, pick: Callable[[Any], torch.Tensor]
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], Any], Any]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
            self._features[name] = pick(output)
            if name == self._last:
                raise _Enough
            # what follows may be an activation in place, which would overwrite what is kept
            return output.clone() if isinstance(output, torch.Tensor) else output

        return hook


def build(settings: NetworkSettings, task: str, classes: int, seed: int, taps: Sequence[str] = ()) -> Network:
    """The network that `settings` describe; `seed` decides its random parts and nothing else does.

    `taps` are handed out with the feature map that the paper's methods share.

    A U-Net with one logit per pixel for segmentation, a classifier with `classes` logits for classification. Raises
    ParamsError for an unknown encoder or an option that it does not take, and TrainingError for weights that cannot
    be had or do not fit.
    """
    check_encoder(settings.encoder, task)
    with seeded(seed):
        body = _body(settings, task, classes)
        load_encoder(body.get_submodule("encoder"), settings, task)
    _pick_pixels_first(body)
    normalised = normalisation(settings, task)
    network = Network(body, *normalised, FEATURE_TAP[task], taps)
    facts = {
        "task": task,
        **settings.model_dump(mode="json", exclude_none=True),
        "parameters": network.parameter_count,
        "normalisation": {name: list(values) for name, values in zip(("mean", "std"), normalised, strict=True)},
    }
    network.facts = cast(NetworkFacts, facts)
    return network.to(memory_format=torch.channels_last)


def check_encoder(name: str, task: str) -> None:
    """Raises ParamsError, with the nearest name, unless `name` is an encoder that can be built for `task`."""
    if task == "classification" or name.startswith("tu-"):
        import timm

        if timm.is_model(name.removeprefix("tu-")):
            return
        prefix = "tu-" if task == "segmentation" else ""
        known = [f"{prefix}{model}" for model in timm.list_models()]
    else:
        known = smp.encoders.get_encoder_names()
        if name in known:
            return
    near = suggestion(name, known)
    which = {
        "classification": "Any convolutional network of timm works.",
        "segmentation": "Any encoder of segmentation-models-pytorch works, and most of timm's with 'tu-' before it.",
    }
    raise ParamsError(f"unknown encoder '{name}'.{near if 'Did' in near else ''} {which[task]}")


def feature_channels(settings: NetworkSettings, task: str, image_size: int) -> int:
    """The width of the feature map that is shared. Takes no memory: the network is built without its tensors.

    Raises ParamsError as `build` does, and for a classifier whose last features are no map of channels first.
    """
    check_encoder(settings.encoder, task)
    if settings.decoder_channels:  # a U-Net
        return settings.decoder_channels[0]
    with torch.device("meta"):
        body = cast(Classifier, _body(settings, task, classes=2)).eval()
        try:
            shape = body.encoder.forward_features(torch.zeros(1, 3, image_size, image_size)).shape
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ParamsError(
                f"encoder '{settings.encoder}' cannot take {image_size}×{image_size} images ({reason})."
            ) from None
        if len(shape) != 4 or shape[1] != body.encoder.num_features:
            raise ParamsError(
                f"encoder '{settings.encoder}' ends in features of shape {tuple(shape[1:])}. Expected a map of "
                "channels × height × width, as of a convolutional network; choose one of those."
            )
    return body.classifier.in_features


def _body(settings: NetworkSettings, task: str, classes: int) -> nn.Module:
    native = task == "segmentation" and not settings.encoder.startswith("tu-")
    if settings.encoder_options and native:  # they would be ignored in silence
        raise ParamsError(
            f"encoder '{settings.encoder}' does not take encoder_options ({', '.join(settings.encoder_options)}). "
            f"Only timm's do: try 'tu-{settings.encoder}'."
        )
    try:
        if task == "classification":
            return Classifier(settings, classes)
        return smp.Unet(
            settings.encoder,
            encoder_weights=None,
            decoder_channels=settings.decoder_channels,
            classes=1,
            **settings.encoder_options,
        )
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:  # whatever timm and smp raise
        options = f" with encoder_options {settings.encoder_options}" if settings.encoder_options else ""
        raise ParamsError(
            f"encoder '{settings.encoder}'{options} cannot be built for {task} ({' '.join(str(error).split())}). "
            "Choose another encoder or other options."
        ) from None


def _pick_pixels_first(body: nn.Module) -> None:
    """Of a strided 1×1 convolution of few channels: it takes the pixels it is meant for, and then each of them.

    The result is the same. As it stands its gradient is written past the end of a buffer by oneDNN, which torch uses
    on CPUs (https://github.com/uxlfoundation/oneDNN/issues/6035): wrong numbers, or a crash.
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.in_channels < ONEDNN_BLOCK:
            rows, columns = module.stride
            if (rows, columns) != (1, 1):
                module.register_forward_pre_hook(partial(_every, rows, columns))
                module.stride = (1, 1)


def _every(rows: int, columns: int, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0][:, :, ::rows, ::columns],)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn inside depends on `seed` alone, and nothing outside on it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
