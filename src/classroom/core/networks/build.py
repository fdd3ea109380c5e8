"""Builds a network from its settings."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from classroom.artifacts import NetworkFacts
from classroom.core.networks.classifier import Classifier
from classroom.core.networks.taps import find
from classroom.core.networks.weights import load_encoder, normalisation
from classroom.errors import ParamsError, suggestion
from classroom.params import Network as NetworkSettings

FEATURE_TAP = {"segmentation": "decoder.blocks.0", "classification": "conv6"}
"""The feature map that networks share, by task (Sec. 4.2). The U-Net's first decoder block: 256×16×16 for a 256×256
image in every network. The classifier's last map, after Conv6 if any: 512×7×7 or 1024×7×7 for a 224×224 image."""
FIXED = {"num_classes", "in_chans", "global_pool"}
"""Options of timm's that follow from the task."""
ONEDNN_BLOCK = 16
"""Channels that oneDNN processes at a time with AVX-512; 8 with AVX2."""


class Output(NamedTuple):
    """What a network makes of a batch."""

    logits: torch.Tensor
    """Segmentation: (B, 1, H, W), before the sigmoid; classification: (B, classes), before the softmax."""
    features: dict[str, torch.Tensor]
    """The output of every tap, by the tap's name."""
    shared: torch.Tensor
    """The feature map that teacher and students compare: see FEATURE_TAP."""

    @property
    def probabilities(self) -> torch.Tensor:
        """Of the foreground per pixel, or of every class; float32, in the shape of the logits."""
        logits = self.logits.float()
        return torch.softmax(logits, dim=1) if logits.ndim == 2 else torch.sigmoid(logits)


class StopForward(Exception):
    """Ends a forward pass at the last tap that is needed."""


class Network(nn.Module):
    """A U-Net or classifier that normalises its input and also returns the output of tapped modules."""

    facts: NetworkFacts
    """For metrics.json: encoder, weights, number of parameters, normalisation of images."""
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, body: nn.Module, mean: Sequence[float], std: Sequence[float], shared: str, taps: Sequence[str] = ()
    ) -> None:
        """Hooks the taps of a network.

        Parameters
        ----------
        body
            the network without normalisation
        mean, std : (3,)
            as in `normalise`
        shared
            the tap that teacher and students compare
        taps
            further taps, named as in `taps.find`

        Raises
        ------
        ParamsError
            A tap does not exist; the message lists those that do.
        """
        super().__init__()
        self.body = body
        self.normalise(mean, std)
        self._features: dict[str, torch.Tensor] = {}
        self._last: str | None = None
        self.shared_by_runs = False
        self._remembered: tuple[torch.Tensor, Output] | None = None
        self.shared = shared
        self._hooks: dict[str, RemovableHandle] = {}
        self.tap((shared, *taps))

    def tap(self, names: Sequence[str]) -> None:
        """Hooks further taps, by names as in `taps.find`. Raises ParamsError as the constructor does."""
        for name in names:
            if name not in self._hooks:
                tap = find(self.body, name)
                self._hooks[name] = tap.module.register_forward_hook(self._keep(name, tap.pick))

    def normalise(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and standard deviation per channel by which images in [0, 1] are normalised."""
        self.normalisation = (mean, std)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def __call__(self, images: torch.Tensor) -> Output:
        """As `forward`. A network of several runs computes a batch once: the next run is given the same output."""
        if not self.shared_by_runs:
            return super().__call__(images)
        if self._remembered is None or self._remembered[0] is not images:
            self._remembered = (images, super().__call__(images))
        return self._remembered[1]

    def forward(self, images: torch.Tensor) -> Output:
        """`images`: (B, 3, H, W) in [0, 1]."""
        logits = self.body((images - self.mean) / self.std)
        features, self._features = self._features, {}
        return Output(logits, features, features[self.shared])

    def features_until(self, tap: str, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The output of the taps up to `tap` for `images` (B, 3, H, W); the forward pass ends there."""
        self._last = tap
        try:
            self.body((images - self.mean) / self.std)
        except StopForward:
            pass
        finally:
            self._last = None
        features, self._features = self._features, {}
        return features

    @property
    def parameter_count(self) -> int:
        """The number of all parameters, trained or not."""
        return sum(parameter.numel() for parameter in self.parameters())

    def shapes(self, image_size: int) -> dict[str, tuple[int, int, int]]:
        """Channels, height and width at every tap, for images of `image_size` pixels."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            features = self(torch.zeros(1, 3, image_size, image_size, device=self.mean.device)).features
        self.train(was_training)
        return {name: cast(tuple[int, int, int], tuple(feature.shape[1:])) for name, feature in features.items()}

    def remove_hooks(self) -> None:
        """Removes all taps, for a body that becomes part of another network."""
        for hook in self._hooks.values():
            hook.remove()

    def _keep(
        self, name: str, pick: Callable[[Any], torch.Tensor]
    ) -> Callable[[nn.Module, tuple[torch.Tensor, ...], Any], Any]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
            self._features[name] = pick(output)
            if name == self._last:
                raise StopForward
            # The next module may be an in-place activation, which would overwrite the feature.
            return output.clone() if isinstance(output, torch.Tensor) else output

        return hook


def build(settings: NetworkSettings, task: str, classes: int, seed: int, taps: Sequence[str] = ()) -> Network:
    """Builds a U-Net with one logit per pixel for segmentation, or a classifier with `classes` logits.

    Parameters
    ----------
    settings
        `teacher` or `student` of a study
    task
        segmentation or classification
    classes
        number of classes; ignored for segmentation
    seed
        alone decides the random weights
    taps
        returned in addition to the feature map that the paper's methods share

    Raises
    ------
    ParamsError
        The encoder is unknown or does not accept an option.
    TrainingError
        The weights cannot be loaded.
    """
    check_encoder(settings.encoder, task)
    with seeded(seed):
        body = _body(settings, task, classes)
        load_encoder(body.get_submodule("encoder"), settings, task)
    _subsample_first(body)
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
    """The channels of the shared feature map, from a network on the meta device, which takes no memory.

    Parameters
    ----------
    settings
        `teacher` or `student` of a study
    task
        segmentation or classification
    image_size
        pixels along a side

    Raises
    ------
    ParamsError
        As `build`, and for a classifier whose last features are not (channels, height, width).
    """
    check_encoder(settings.encoder, task)
    if settings.decoder_channels:
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
    if settings.encoder_options and native:  # smp would ignore them silently
        raise ParamsError(
            f"encoder_options: encoder '{settings.encoder}' takes none ({', '.join(settings.encoder_options)}). "
            f"Only timm's do: try 'tu-{settings.encoder}'."
        )
    of_unet = settings.encoder_options.keys() & inspect.signature(smp.Unet).parameters
    if of_unet and task == "segmentation":
        raise ParamsError(
            f"encoder_options: {', '.join(sorted(of_unet))}: of the U-Net, not of encoder '{settings.encoder}'. Remove "
            "it."
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
    except (
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
    ) as error:  # of timm and smp
        named = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(error))
        if named and named[1] in settings.encoder_options:
            raise ParamsError(
                f"encoder_options: encoder '{settings.encoder}' takes no '{named[1]}'."
                f"{suggestion(named[1], _options_of(settings.encoder))}"
            ) from None
        options = f" with encoder_options {settings.encoder_options}" if settings.encoder_options else ""
        raise ParamsError(
            f"encoder '{settings.encoder}'{options} cannot be built for {task} ({' '.join(str(error).split())}). "
            "Choose another encoder or other options."
        ) from None


def _options_of(encoder: str) -> list[str]:
    """The options that the class of a timm encoder takes, without what the network decides."""
    import timm

    with torch.device("meta"):
        model = timm.create_model(encoder.removeprefix("tu-"), pretrained=False)
    return [name for name in inspect.signature(type(model)).parameters if name not in FIXED]


def _subsample_first(body: nn.Module) -> None:
    """Replaces the stride of 1×1 convolutions with few channels by subsampling their input; the result is the same.

    Otherwise oneDNN, which torch uses on CPUs, writes their gradient past the end of a buffer
    (https://github.com/uxlfoundation/oneDNN/issues/6035): wrong numbers or a crash.
    """
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.in_channels < ONEDNN_BLOCK:
            rows, columns = module.stride
            if (rows, columns) != (1, 1):
                module.register_forward_pre_hook(partial(_subsample, rows, columns))
                module.stride = (1, 1)


def _subsample(rows: int, columns: int, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (inputs[0][:, :, ::rows, ::columns],)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers inside depend on `seed` only; those outside are unaffected."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
