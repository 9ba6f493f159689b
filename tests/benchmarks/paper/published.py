"""Small IDX files under the names of Fashion-MNIST's published ones: bright squares whose place tells the class."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.training.corpus import SHA256

IMAGES = {"train": 96, "t10k": 40}


def contents() -> dict[str, bytes]:
    """By name, unpacked."""
    files = {}
    for number, (split, count) in enumerate(IMAGES.items()):
        random = np.random.default_rng(number)
        targets = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for image, target in zip(images, targets, strict=True):
            image[2 * target : 2 * target + 8, 4:20] = 255
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        files[f"{split}-images-idx3-ubyte"] = header + images.tobytes()
        files[f"{split}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, count) + targets.tobytes()
    return files


def write_published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Writes them, with their digests taken for the published ones meanwhile."""
    written = contents()
    for name, content in written.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        monkeypatch.setitem(SHA256, name, hashlib.sha256(content).hexdigest())
    return written
