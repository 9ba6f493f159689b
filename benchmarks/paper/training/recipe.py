"""How a network is trained: the paper's recipe, and the one that the bundled weights were trained by."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.records.findings import PAPER_ITERATIONS
from exporter.models.layers import layers
from exporter.models.variants import Variant
from runtimes.errors import UsageError

Schedule = Literal["steps", "cosine"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights but network, data, seed and arithmetic. The defaults are the paper's.

    Sections are those of He et al. 2015, arXiv 1512.03385.

    Attributes:
        name: what commands and tables call it.
        iterations: parameter updates; 4.2: "64k".
        batch: images of an update; 4.2: 128.
        schedule: ``steps``: ``learning_rate``, times ``decay`` from each of ``milestones`` on (4.2: 0.1, divided by 10
            at 32k and 48k); ``cosine``: a straight line up to ``learning_rate`` within ``ramp`` iterations, then half a
            cosine down to zero.
        warmup_rate: 4.2: the 110-layer net begins at 0.01, until the training error is below ``warmup_error`` (80 %):
            here that of the latest ten updates.
        warmup_layers: networks of at least so many weighted layers begin like that.
        momentum: 4.2: 0.9.
        nesterov: the paper does not say so, and Caffe's solver of the time does not do so.
        weight_decay: 4.2: 1e-4; on every parameter, as in the Caffe of the time.
        padding: 4.2: 4 pixels on each side, of which a random crop of the network's size is taken, mirrored or not.
            The padding is black, as in the manifests of rexport; the paper does not say which value.
        held_out: share of the training images that only validate; 4.2: 5k of 50k.
        mean, std: moments of the pixels as shares of 255; ``None`` takes those of the training images. 4.1 and
            3.4 subtract a mean by pixel and do not divide; one by channel is what a manifest can carry, and dividing
            changes the scale that the first batch-norm takes out.
        scale: share of the whole schedule; 1.0 is all of it. Iterations and milestones are already scaled.
    """

    name: str = "paper"
    iterations: int = PAPER_ITERATIONS
    batch: int = 128
    schedule: Schedule = "steps"
    learning_rate: float = 0.1
    milestones: tuple[int, ...] = (32_000, 48_000)
    decay: float = 0.1
    ramp: int = 0
    warmup_rate: float = 0.01
    warmup_error: float = 0.8
    warmup_layers: int = 110
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    padding: int = 4
    held_out: float = 0.1
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = 1.0

    def rate(self, iteration: int, warm: bool) -> float:
        """The learning rate of an update, counted from 0; ``warm`` while the network ``begins_warm`` and its error is
        still high."""
        if warm:
            return self.warmup_rate
        if self.schedule == "steps":
            return self.learning_rate * self.decay ** sum(iteration >= milestone for milestone in self.milestones)
        if iteration < self.ramp:
            return self.learning_rate * iteration / self.ramp
        progress = (iteration - self.ramp) / (self.iterations - self.ramp)
        return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2

    def begins_warm(self, variant: Variant) -> bool:
        """Whether the network is so deep that it begins at ``warmup_rate``."""
        return count_layers(variant) >= self.warmup_layers

    def stretch(self, factor: float) -> Recipe:
        """The whole schedule shortened, or stretched, in proportion. Raises ``UsageError`` if nothing is left of it."""
        iterations = round(self.iterations * factor)
        if iterations < 1:
            raise UsageError(
                f"a scale of {factor:g} leaves none of {self.iterations:,} iterations", code="scale-leaves-nothing"
            )
        milestones = tuple(round(milestone * factor) for milestone in self.milestones)
        ramp = round(self.ramp * factor)
        return replace(self, iterations=iterations, milestones=milestones, ramp=ramp, scale=self.scale * factor)

    def describe(self) -> str:
        """The recipe for people, in one line."""
        if self.schedule == "steps":
            drops = " and ".join(f"{milestone:,}" for milestone in self.milestones)
            rate = f"learning rate {self.learning_rate:g}, times {self.decay:g} at {drops}"
        else:
            rate = f"learning rate up to {self.learning_rate:g} within {self.ramp:,}, then half a cosine to 0"
        momentum = f"{'Nesterov ' if self.nesterov else ''}momentum {self.momentum:g}"
        whose = "the paper's" if self.name == "paper" else "all of it"
        part = "" if self.scale == 1.0 else f" ({self.scale:.3g} of {whose})"
        return (
            f"{self.iterations:,} iterations{part} of {self.batch} images, SGD, {momentum}, weight decay "
            f"{self.weight_decay:g}, {rate}; {self.padding} pixels of padding, random crop and flip"
        )


PAPER = Recipe()

BUNDLED = Recipe(
    name="bundled",
    iterations=18 * 468,
    schedule="cosine",
    learning_rate=0.2,
    milestones=(),
    ramp=2 * 468,
    nesterov=True,
    weight_decay=5e-4,
    held_out=0.0,
    mean=(0.286,),
    std=(0.353,),
)
"""18 passes over Fashion-MNIST: 28 pixels in a crop of 32 from 36, so that nothing of an image is cut off."""

RECIPES = {recipe.name: recipe for recipe in (PAPER, BUNDLED)}


def count_layers(variant: Variant) -> int:
    """The paper's count: convolutions and classifier, without those of shortcuts and attention: 110 of resnet110."""
    return sum(not re.search(r"\.(downsample|se|blur)\b", layer.name) for layer in layers(variant))
