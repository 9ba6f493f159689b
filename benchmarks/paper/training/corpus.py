"""Labelled images to train, validate and test on, decoded and in memory."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.data.class_folders import Split
from exporter.data.dataset import Dataset
from exporter.data.opening import BUNDLED_NAME, open_dataset
from runtimes.errors import ArtifactError, IntegrityError, ResourceError, UsageError
from runtimes.images.preprocessing import Pixels, Preprocessing

SAMPLE_NAME = f"{BUNDLED_NAME}-sample"
"""1,000 training images and the whole test set, which come with rexport: for a trial."""

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the files."""

SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Digests of the unpacked files: the archives differ from one distribution to the next, their content does not."""

Moments: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, one a channel, as shares of 255."""

_SPLIT_SEED = 0
"""Which images are held out is the same in all runs, whatever their seed."""

_DECODED_AT_A_TIME = 256


@dataclass(frozen=True, eq=False)
class CorpusSplit:
    """Images (n, h, w, c) uint8, c being 1 for greys or 3, and targets (n,) int64."""

    images: Pixels
    targets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, chosen: NDArray[np.int64]) -> CorpusSplit:
        """The images of those indices, as arrays of their own."""
        return CorpusSplit(np.ascontiguousarray(self.images[chosen]), self.targets[chosen])


@dataclass(frozen=True, eq=False)
class Corpus:
    """What a run sees. ``digest`` is the SHA-256 of all images and targets in their order."""

    name: str
    classes: tuple[str, ...]
    train: CorpusSplit
    validation: CorpusSplit
    test: CorpusSplit
    digest: str

    @property
    def counts(self) -> dict[str, int]:
        """Images by part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}

    def moments(self) -> Moments:
        """The moments of the training pixels, rounded to four digits."""
        planes = self.train.images.reshape(-1, self.train.images.shape[3]).T
        shares = np.array([np.bincount(plane, minlength=256) for plane in planes]) / planes.shape[1]  # (c, 256)
        levels = np.arange(256) / 255
        mean = shares @ levels
        std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
        return tuple(float(f"{value:.4f}") for value in mean), tuple(float(f"{max(value, 1e-4):.4f}") for value in std)


@dataclass(frozen=True)
class Source:
    """Where the images are.

    Attributes:
        train: ``BUNDLED_NAME`` for Debian's package, ``SAMPLE_NAME``, or the path of Fashion-MNIST's published files,
            of CIFAR-10, or of one folder a class, in an archive or not.
        test: the same, if the test images lie elsewhere.
        name: what results call the data; ``None`` for the data set's own name.
        limit: takes so many training and so many test images at the most.
        size: pixels of the network's input; encoded images are resized to it.
    """

    train: str
    test: str | None = None
    name: str | None = None
    limit: int | None = None
    size: int = 32


def load(source: Source, held_out: float, batch: int) -> Corpus:
    """The images, of which the share ``held_out`` of the training images validates.

    Raises:
        UsageError: no such data set, or fewer training images than one ``batch``.
        ArtifactError, ResourceError, InputError: the data cannot be read; the file is named.
    """
    name, classes, images = _open_split(source.train, "train", source.size)
    _, test_classes, test = load_test(source)
    if classes != test_classes:
        raise ArtifactError(
            f"the training images have the classes {', '.join(classes)}, the test images {', '.join(test_classes)}",
            code="test-classes-differ",
            path=source.test or source.train,
        )
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(images))[: source.limit]
    held = round(len(order) * held_out)
    train, validation = images.select(order[held:]), images.select(order[:held])
    if len(train) < batch:
        raise UsageError(
            f"{len(train)} training images, fewer than a batch of {batch}",
            code="too-few-training-images",
            hint="a larger --limit",
        )
    digest = hashlib.sha256()
    for part in (train, validation, test):
        digest.update(part.images.data)
        digest.update(part.targets.data)
    return Corpus(source.name or name, classes, train, validation, test, digest.hexdigest())


def load_test(source: Source) -> tuple[str, tuple[str, ...], CorpusSplit]:
    """Name, classes and test images alone, as ``load`` would give them: with a limit, so many in their order, drawn by
    a shuffle that is always the same."""
    name, classes, test = _open_split(source.test or source.train, "test", source.size)
    if source.limit is not None:
        test = test.select(np.sort(np.random.default_rng(_SPLIT_SEED).permutation(len(test))[: source.limit]))
    return source.name or name, classes, test


def _open_split(spec: str, split: Split, size: int) -> tuple[str, tuple[str, ...], CorpusSplit]:
    """Name, classes and images of one split. The published files of Fashion-MNIST are read where they are meant."""
    folder = DEBIAN_FOLDER if spec == BUNDLED_NAME else Path(spec)
    if spec == BUNDLED_NAME or any((folder / f"{name}.gz").is_file() for name in SHA256):
        images, targets = read_fashion_mnist("train" if split == "train" else "t10k", folder)
        return BUNDLED_NAME, open_dataset(BUNDLED_NAME, split=split).classes, CorpusSplit(images[..., None], targets)
    dataset = open_dataset(BUNDLED_NAME if spec == SAMPLE_NAME else spec, split=split)
    if dataset.targets is None:
        hint = "one folder a class"
        raise ArtifactError(
            "its images are not sorted into classes", code="images-without-classes", path=spec, hint=hint
        )
    name = SAMPLE_NAME if spec == SAMPLE_NAME else dataset.name
    return name, dataset.classes, CorpusSplit(_decode_images(dataset, size), dataset.targets)


def _decode_images(dataset: Dataset, size: int) -> Pixels:
    """All images (n, h, w, c); encoded ones as (n, size, size, 3). Raises ``UsageError`` for larger arrays."""
    if isinstance(dataset.images, np.ndarray):
        height, width = dataset.images.shape[1:3]
        if max(height, width) > size:
            hint = f"--size {max(height, width)}"
            raise UsageError(
                f"images of {height}x{width} pixels for a network of {size}",
                code="images-larger-than-network",
                hint=hint,
            )
        return dataset.images if dataset.images.ndim == 4 else dataset.images[..., None]
    unchanged = Preprocessing(resize=size, crop=(size, size), pad=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = np.empty((len(dataset), size, size, 3), np.uint8)
    for indices, pixels in dataset.pixels(unchanged, _DECODED_AT_A_TIME):
        images[indices] = pixels
    return images


def read_fashion_mnist(split: str, folder: Path = DEBIAN_FOLDER) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Fashion-MNIST as its authors publish it, gzipped IDX files (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747).

    Images (n, 28, 28) uint8 and targets (n,) of ``split``, which is ``train`` (60,000) or ``t10k`` (10,000).

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
