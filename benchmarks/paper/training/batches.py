"""Batches for training and evaluation, made on the device that computes: order, crop, flip and normalisation.

What is random follows from seed and epoch alone, drawn on the host in one order: every device sees the same batches,
and a run that goes on needs no state of a generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.paper.training.corpus import Corpus, CorpusSplit, Moments
from benchmarks.paper.training.recipe import Recipe
from exporter.models.variants import Variant

EVALUATED_AT_A_TIME = 1000


@dataclass(frozen=True, eq=False)
class DeviceImages:
    """Padded images on a device.

    Attributes:
        padded: (n, h + 2 padding, w + 2 padding, c) uint8.
        targets: (n,) int64.
        size: pixels of a crop.
        mean, scale: (c,) or, for greys, (channels,) float32: a pixel's value less ``mean``, times ``scale``, is what
            the network sees.
        channels: channels of the network's input; a grey stands in each of them.
    """

    padded: Tensor
    targets: Tensor
    size: int
    mean: Tensor
    scale: Tensor
    channels: int

    def __len__(self) -> int:
        return len(self.targets)

    def crops(self, chosen: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
        """Normalised crops (b, channels, size, size) float32, channels last in memory.

        Crop i begins at row ``top[i]`` and column ``left[i]`` of image ``chosen[i]``; all are (b,), ``mirrored`` bool.
        """
        count, height, width, channels = self.padded.shape
        along = torch.arange(self.size, device=self.padded.device)
        rows = top[:, None] + along  # (b, size)
        columns = left[:, None] + torch.where(mirrored[:, None], self.size - 1 - along, along)
        pixels_at = (chosen[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]  # (b, size, size)
        pixels = self.padded.view(count * height * width, channels).index_select(0, pixels_at.flatten())
        normal = (pixels.float() - self.mean) * self.scale  # (b size size, c)
        images = normal.view(len(chosen), self.size, self.size, -1).permute(0, 3, 1, 2)
        return images.expand(-1, self.channels, -1, -1).contiguous(memory_format=torch.channels_last)

    def crop_centre(self, chosen: Tensor) -> Tensor:
        """The chosen images as the test sees them, cut from the middle."""
        height, width = self.padded.shape[1:3]
        top = torch.full_like(chosen, (height - self.size) // 2)
        left = torch.full_like(chosen, (width - self.size) // 2)
        return self.crops(chosen, top, left, torch.zeros_like(chosen, dtype=torch.bool))

    def crop_centres(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All images as the test sees them, with their targets, some at a time."""
        for chosen in torch.split(torch.arange(len(self), device=self.padded.device), EVALUATED_AT_A_TIME):
            yield self.crop_centre(chosen), self.targets[chosen]


def place_on_device(
    part: CorpusSplit, device: torch.device, *, size: int, padding: int, moments: Moments, channels: int
) -> DeviceImages:
    """The images on the device, with black around them: at least ``padding`` pixels, and what ``size`` needs."""
    images = torch.from_numpy(part.images).to(device)
    height, width = part.images.shape[1:3]
    down, across = (max(padding, -(-(size - length) // 2)) for length in (height, width))
    padded = torch.nn.functional.pad(images, (0, 0, across, across, down, down))
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in moments)
    targets = torch.from_numpy(part.targets).to(device)
    return DeviceImages(padded.contiguous(), targets, size, 255 * mean, 1 / (255 * std), channels)


@dataclass(frozen=True, eq=False)
class Data:
    """A corpus on the device, and the moments that its images are normalised with."""

    corpus: Corpus
    moments: Moments
    train: DeviceImages
    validation: DeviceImages
    test: DeviceImages


def on_device(corpus: Corpus, recipe: Recipe, variant: Variant, device: str) -> Data:
    """The corpus's images where they are computed with, for networks of the variant's size and channels; normalised
    with the recipe's moments, or with those of the training images."""
    moments = corpus.moments() if recipe.mean is None or recipe.std is None else (recipe.mean, recipe.std)
    target, size, channels = torch.device(device), variant.size[0], variant.in_channels
    train, validation, test = (
        place_on_device(part, target, size=size, padding=recipe.padding, moments=moments, channels=channels)
        for part in (corpus.train, corpus.validation, corpus.test)
    )
    return Data(corpus, moments, train, validation, test)


class Feed:
    """The training batches of one epoch after the other. The place in the epoch lies on the device too, so that a step
    which takes the next batch can be recorded and replayed as it is."""

    def __init__(self, images: DeviceImages, batch: int, seed: int) -> None:
        self.images = images
        self.batch = batch
        self.steps = len(images) // batch
        self._seed = seed
        device = images.padded.device
        self._place = torch.zeros(1, dtype=torch.int64, device=device)
        self._crops = torch.zeros((4, self.steps, batch), dtype=torch.int64, device=device)

    def begin(self, epoch: int, step: int = 0) -> None:
        """Draws the epoch's order, crops and flips, and goes to a step of it."""
        generator = torch.Generator().manual_seed(self._seed * 100_003 + epoch)
        shape = (self.steps, self.batch)
        height, width = self.images.padded.shape[1:3]
        order = torch.randperm(len(self.images), generator=generator)[: self.steps * self.batch]
        top = torch.randint(height - self.images.size + 1, shape, generator=generator)
        left = torch.randint(width - self.images.size + 1, shape, generator=generator)
        mirrored = torch.rand(shape, generator=generator) < 0.5
        self._crops.copy_(torch.stack((order.view(shape), top, left, mirrored.long())))
        self._place.fill_(step)

    def rewind(self) -> None:
        """Goes to the epoch's first step."""
        self._place.zero_()

    def next(self) -> tuple[Tensor, Tensor]:
        """The next batch of the epoch, (b, channels, size, size) float32, and its targets (b,)."""
        chosen, top, left, mirrored = self._crops.index_select(1, self._place)[:, 0]
        self._place += 1
        return self.images.crops(chosen, top, left, mirrored.bool()), self.images.targets.index_select(0, chosen)
