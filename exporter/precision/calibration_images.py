"""Images for calibration and for the accuracy gate: real images if there are any, otherwise seeded noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exporter.data.class_matching import targets_for
from exporter.data.dataset import Dataset
from exporter.data.noise import noise_inputs
from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.models.outputs import LOGITS
from exporter.network import Network
from runtimes.errors import Reason, UsageError
from runtimes.images.preprocessing import Preprocessing, normalise

NOISE_IMAGES = 16
"""The number of noise images. More noise gives no more information."""

DECODED_AT_ONCE = 32
"""The number of images in a batch for decoding."""

_SEEDS = {"calibration": 7_919, "gate": 104_729}
"""Offsets of the seed, so that calibration, accuracy gate and test vectors use different noise."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Images for a network.

    Attributes:
        description: A description for people.
        real: Whether the images are real, not noise.
        values: Pixels, uint8 (n, h, w, c), or prepared inputs, float32 (n, c, h, w).
        preprocessing: The preprocessing of pixels, or ``None`` for prepared inputs.
        targets: The correct outputs of the network, int64 (n,), or ``None`` without labels.
        notices: As for ``Dataset``.
    """

    description: str
    real: bool
    values: NDArray[np.uint8] | NDArray[np.float32]
    preprocessing: Preprocessing | None
    targets: NDArray[np.int64] | None = None
    notices: tuple[Reason, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.values)

    def floats(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the inputs of the float network for images ``start`` to ``stop``: float32 (stop - start, c, h, w)."""
        chosen = self.values[start:stop]
        if self.preprocessing is None or chosen.dtype != np.uint8:
            return chosen.astype(np.float32, copy=False)
        return normalise(chosen.astype(np.uint8, copy=False), self.preprocessing)

    def feeds(self, start: int, stop: int, raw: bool) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Return the inputs of an artifact. The array may share memory with ``values``.

        Args:
            start: The index of the first image.
            stop: The index after the last image.
            raw: Whether the artifact takes raw pixels.
        """
        return self.values[start:stop] if raw else self.floats(start, stop)


def for_calibration(network: Network, spec: str | None, count: int) -> Examples:
    """Return training images for calibration.

    Args:
        network: The network.
        spec: The dataset, as for ``open_dataset``. ``None`` means the bundled dataset for weights trained on it, and
            noise for untrained weights.
        count: The largest number of images.

    Raises:
        UsageError: The weights are trained, and no training images are known.
        RexportError: The images cannot be read or do not fit the network.
    """
    if spec is None and network.weights.trained:
        if network.dataset != BUNDLED_NAME:
            raise UsageError(
                "int8 with trained weights needs training images for calibration, and rexport has none for these "
                "weights",
                code="calibration-data-missing",
                hint="--calibration DIR names a folder of training images",
            )
        spec = BUNDLED_NAME
    if spec is None:
        return _noise(network, "calibration")
    return _read_images(network, open_dataset(spec, count, split="train"))


def for_gate(network: Network, calibration: str | None, calibration_images: int, count: int) -> Examples:
    """Return images for the accuracy gate of a precision.

    They are the labelled data of the network if it has any. Otherwise they are calibration data without labels, if
    possible images that were not used for calibration. Without any data they are noise.

    Args:
        network: The network.
        calibration: The dataset of the calibration, or ``None``.
        calibration_images: The largest number of images for calibration.
        count: The largest number of images to return.

    Raises:
        RexportError: The images cannot be read or do not fit the network.
    """
    if network.data is not None:
        return _read_images(network, open_dataset(network.data, count), labelled=True)
    if calibration is None:
        return _noise(network, "gate")
    # The first n images of a sample of n + m images are the sample of n images.
    dataset = open_dataset(calibration, calibration_images + count, split="train")
    if len(dataset) > calibration_images:
        return _read_images(network, dataset, first=calibration_images)
    examples = _read_images(network, dataset)
    return replace(examples, description=f"{examples.description} (also used for calibration)")


def _read_images(network: Network, dataset: Dataset, first: int = 0, labelled: bool = False) -> Examples:
    view = network.preprocessing
    if view is None:
        raise UsageError(
            f"images for {network.in_channels} input channels need --mean and --std",
            code="images-need-statistics",
        )
    labelled = labelled and LOGITS in network.outputs
    targets = targets_for(dataset, network.labels, network.classes)[first:] if labelled else None
    return read_examples(dataset, view, first, targets)


def read_examples(
    dataset: Dataset, view: Preprocessing, first: int = 0, targets: NDArray[np.int64] | None = None
) -> Examples:
    """Read and prepare the images of a dataset.

    Args:
        dataset: The dataset.
        view: The preprocessing.
        first: The index of the first image to keep.
        targets: The targets of the images that are kept, or ``None``.

    Raises:
        RexportError: An image cannot be read. The message names the image.
    """
    pixels = np.concatenate([batch for _, batch in dataset.pixels(view, DECODED_AT_ONCE)])[first:]
    return Examples(f"{len(pixels):,} images of {dataset.name}", True, pixels, view, targets, dataset.notices)


def _noise(network: Network, use: str) -> Examples:
    seed = network.seed + _SEEDS[use]
    values = noise_inputs((network.in_channels, *network.size), NOISE_IMAGES, seed, network.raw)
    return Examples(f"seeded noise, seed {seed}", False, values, network.preprocessing)
