"""How strongly each layer responds: the standard deviation behind its batch-norm (He et al. 2015, Figure 7).

In a residual network this is taken before the addition as well, so it is the strength of the residual function. Hooks
are put on from outside and taken off again; the network knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.paper.training.step import evaluation_mode
from exporter.models.resnet import ResNet
from exporter.models.variants import Variant, layers
from runtimes.errors import ArtifactError, UsageError


@dataclass(frozen=True)
class Responses:
    """One network's responses: ``std`` holds one for each of ``layers``, in the order of the forward pass.

    Attributes:
        name: the network's, for people.
        images: how many they were taken over.
        layers: the convolutions' names, as ``exporter.models.variants.layers`` has them.
        std: over all images, channels and pixels of the batch-norm's output.
    """

    name: str
    variant: Variant
    images: int
    layers: tuple[str, ...]
    std: tuple[float, ...]


class RunningSpread:
    """Spread of numbers that come in parts: each part's float64 mean and variance are merged (Chan et al. 1979).

    Exact but for float64's rounding, however many parts there are and however far their mean lies from zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, values: Tensor) -> None:
        """Takes the numbers of a tensor of any shape and any float type."""
        variance, mean = map(float, torch.var_mean(values.double(), correction=0))
        count = self.count + values.numel()
        step = mean - self.mean
        self.squares += variance * values.numel() + step * step * self.count * values.numel() / count
        self.mean += step * values.numel() / count
        self.count = count

    @property
    def std(self) -> float:
        """The standard deviation of all numbers so far, of which there is at least one."""
        return math.sqrt(self.squares / self.count)


def spatial_layers(variant: Variant) -> tuple[str, ...]:
    """Names of the convolutions that see a neighbourhood, in order: the stem and every 3x3, no 1x1."""
    return tuple(layer.name for layer in layers(variant) if layer.kernel > 1)


def layer_responses(name: str, model: ResNet, batches: Iterable[Tensor]) -> Responses:
    """The network's responses to all images of the ``batches``, each (n, c, h, w), in evaluation mode.

    The network and its mode are afterwards what they were, also after an exception.

    Raises:
        UsageError: a layer has no batch-norm behind it, or there are no images.
        ArtifactError: a response is not finite.
    """
    spreads = {layer: RunningSpread() for layer in spatial_layers(model.variant)}
    modules = dict(model.named_modules())
    images = 0
    with ExitStack() as stack:
        for layer, spread in spreads.items():
            bn = layer.replace("conv", "bn")
            norm = modules.get(bn)
            if not isinstance(norm, nn.BatchNorm2d):
                hint = "take the unfolded network"
                raise UsageError(
                    f"no batch-norm {bn!r} behind the convolution {layer!r}", code="no-batch-norm", hint=hint
                )
            hook = norm.register_forward_hook(lambda _module, _inputs, output, spread=spread: spread.add(output))
            stack.callback(hook.remove)
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(torch.inference_mode())
        for batch in batches:
            model(batch.to(model.fc.weight.device))
            images += len(batch)
    if not images:
        raise UsageError("responses need at least one image", code="responses-without-images")
    for layer, spread in spreads.items():
        if not math.isfinite(spread.std):
            raise ArtifactError(
                f"{name}: the response of {layer} is not finite with these weights", code="response-not-finite"
            )
    std = tuple(spread.std for spread in spreads.values())
    return Responses(name, model.variant, images, tuple(spreads), std)
