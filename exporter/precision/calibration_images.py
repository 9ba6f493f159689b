"""The images that a network is calibrated and judged on: real ones where there are any, else seeded noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter.data.dataset import BUNDLED_NAME, Dataset, open_dataset, targets_for
from exporter.network import Network, noise_inputs
from runtimes.errors import UsageError
from runtimes.images.preprocessing import Preprocessing, normalise

NOISE_IMAGES = 16
"""Noise is all alike: more of it tells nothing new."""

DECODED_AT_ONCE = 32

_SEEDS = {"calibration": 7_919, "gate": 104_729}
"""Added to the network's own seed, so that neither sees the other's noise nor that of the test vectors."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images as pixels (n, h, w, c) uint8 with the preprocessing that makes inputs of them, or inputs (n, c, h, w)
    float32 themselves.

    Attributes:
        description: what they are, for people.
        real: whether they show something.
        targets: (n,) int64, as the network's outputs, or ``None``.
    """

    description: str
    real: bool
    values: NDArray[np.uint8] | NDArray[np.float32]
    preprocessing: Preprocessing | None
    targets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def floats(self, start: int, stop: int) -> NDArray[np.float32]:
        """Inputs of the float network: (stop - start, c, h, w)."""
        chosen = self.values[start:stop]
        if self.preprocessing is None or chosen.dtype != np.uint8:
            return chosen.astype(np.float32, copy=False)
        return normalise(chosen.astype(np.uint8, copy=False), self.preprocessing)

    def feeds(self, start: int, stop: int, raw: bool) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Inputs of an artifact: pixels where it takes raw ones, else as ``floats``."""
        return self.values[start:stop] if raw else self.floats(start, stop)


def for_calibration(network: Network, spec: str | None, count: int) -> Examples:
    """Training images: of ``spec``, or of the data set that the weights were made with; noise for untrained weights.

    Raises:
        UsageError: trained weights, and no images are named or at hand.
        RexportError: the images cannot be read or do not fit.
    """
    if spec is None and network.weights.trained:
        if network.dataset != BUNDLED_NAME:
            raise UsageError(
                "int8 needs training images to calibrate trained weights with, and none are at hand",
                code="calibration-data-missing",
                hint="--calibration DIR names a folder of them",
            )
        spec = BUNDLED_NAME
    if spec is None:
        return _noise(network, "calibration")
    return _read_images(network, open_dataset(spec, count, split="train"))


def for_gate(network: Network, calibration: str | None, calibration_images: int, count: int) -> Examples:
    """Images to judge a precision on: the network's labelled data if there are any, else those that lie beside the
    calibration's, without labels.

    Raises:
        RexportError: they cannot be read or do not fit.
    """
    if network.data is not None:
        return _read_images(network, open_dataset(network.data, count), labelled=True)
    if calibration is None:
        return _noise(network, "gate")
    # A data set's sample of n images is the beginning of its sample of n + m images.
    dataset = open_dataset(calibration, calibration_images + count, split="train")
    if len(dataset) > calibration_images:
        return _read_images(network, dataset, first=calibration_images)
    found = _read_images(network, dataset)
    return replace(found, description=f"{found.description} that it was calibrated on")


def _read_images(network: Network, dataset: Dataset, first: int = 0, labelled: bool = False) -> Examples:
    view = network.preprocessing
    if view is None:
        raise UsageError(
            f"images need --mean and --std for {network.variant.in_channels} input channels",
            code="images-need-statistics",
        )
    targets = targets_for(dataset, network.labels, network.variant.classes)[first:] if labelled else None
    return read_examples(dataset, view, first, targets)


def read_examples(
    dataset: Dataset, view: Preprocessing, first: int = 0, targets: NDArray[np.int64] | None = None
) -> Examples:
    """The data set's images from the ``first`` on, decoded and fitted.

    Raises:
        RexportError: one cannot be read; it is named.
    """
    pixels = np.concatenate([batch for _, batch in dataset.pixels(view, DECODED_AT_ONCE)])[first:]
    return Examples(f"{len(pixels):,} images of {dataset.name}", True, pixels, view, targets)


def _noise(network: Network, use: str) -> Examples:
    seed = network.seed + _SEEDS[use]
    values = noise_inputs(network.variant, NOISE_IMAGES, seed, network.raw)
    return Examples(f"seeded noise, seed {seed}", False, values, network.preprocessing)
