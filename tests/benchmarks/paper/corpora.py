"""Small data that a network can learn within a few updates: a bright bar, whose thickness tells the class wherever it
is cut and however it is mirrored."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.training.corpus import Corpus, CorpusSplit
from exporter.models.variants import Variant, customise, variant

CLASSES = ("line", "band", "half", "full")


def part(count: int, seed: int, size: int = 12) -> CorpusSplit:
    """``count`` grey images of ``size`` pixels."""
    random = np.random.default_rng(seed)
    targets: NDArray[np.int64] = (np.arange(count) % len(CLASSES)).astype(np.int64)
    images = random.integers(0, 60, (count, size, size, 1), dtype=np.uint8)
    for image, target in zip(images, targets, strict=True):
        image[1 : 2 + 3 * target, 1:-1] = 255
    return CorpusSplit(images, targets)


def corpus(train: int = 96, test: int = 24) -> Corpus:
    """With a third as many validation images as test images."""
    parts = part(train, 0), part(test // 3, 1), part(test, 2)
    digest = hashlib.sha256(b"".join(one.images.tobytes() for one in parts)).hexdigest()
    return Corpus("squares", CLASSES, *parts, digest)


def network(name: str = "resnet20", blocks: int = 1) -> Variant:
    """A tiny twin of a CIFAR net: few blocks, few channels, the classes of ``corpus``."""
    from dataclasses import replace

    row = customise(variant(name), classes=len(CLASSES), size=(16, 16))
    return replace(row, depths=(blocks,) * 3, widths=(4, 8, 8))
