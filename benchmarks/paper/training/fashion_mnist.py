"""Fashion-MNIST as its authors publish it: gzipped IDX files (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747)."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtimes.errors import ArtifactError, IntegrityError, ResourceError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the files."""

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Digests of the unpacked files: the archives differ from one distribution to the next, their content does not."""


def read(split: str, folder: Path = DEBIAN_FOLDER) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) uint8 and targets (n,) of ``split``, which is ``train`` (60,000) or ``t10k`` (10,000).

    Raises ``ResourceError``, ``ArtifactError``, ``IntegrityError`` if a file is not there, not whole, not the published
    one.
    """
    images = _unpack(folder, f"{split}-images-idx3-ubyte", offset=16).reshape(-1, 28, 28)
    targets = _unpack(folder, f"{split}-labels-idx1-ubyte", offset=8)
    return images, targets.astype(np.int64)


def _unpack(folder: Path, name: str, offset: int) -> NDArray[np.uint8]:
    path = folder / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ArtifactError(f"not a whole gzip file: {error}", code="gzip-damaged", path=path) from error
    except OSError as error:
        raise ResourceError(
            f"cannot read: {error.strerror}",
            code="fashion-mnist-unreadable",
            path=path,
            hint="apt-get install dataset-fashion-mnist, or name the folder with --data",
            errno=error.errno,
        ) from error
    if hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise IntegrityError(
            "its unpacked content is not the published Fashion-MNIST file", code="fashion-mnist-changed", path=path
        )
    return np.frombuffer(content, np.uint8, offset=offset)
