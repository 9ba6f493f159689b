"""Labelled images to measure and calibrate with, and seeded noise where there are none.

What a data set is called, the forms in which it may lie on the disk, and which of a network's outputs its classes are.
Nothing is decoded before it is asked for.
"""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter import cifar, classfolders, members
from runtimes import files
from runtimes.errors import (
    ArtifactError,
    InputError,
    IntegrityError,
    ModelMismatchError,
    ResourceError,
    UsageError,
    quoted,
)
from runtimes.images import Image, Pixels, Preprocessing, fitted, normalised
from runtimes.processors import usable_processors

BUNDLED_NAME = "fashion-mnist"
"""The data set that comes with rexport: weights made for it are checked and measured on it unasked."""

BUNDLED = Path(__file__).parent / "bundled" / "fashion-mnist-test.npz"

FORMS = f"{BUNDLED_NAME}, cifar10:PATH, or the path of a folder or tar archive with CIFAR-10 or with one folder a class"

_BUNDLED_LIMIT_BYTES = 64 << 20
_MAX_THREADS = 4
_AHEAD = 2
"""Batches that are decoded while the caller works on one."""


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded, and why."""

    index: int
    label: str
    error: InputError | ResourceError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes.

    Attributes:
        name: for tables, as "fashion-mnist" or "photos/val".
        classes: names of the classes, in the order of the targets.
        targets: (n,) int64, indices into ``classes``.
        images: n of them: paths, encoded bytes, or a uint8 array (n, h, w) or (n, h, w, 3).
        labels: n names for messages: an image's path, or its number in the published file.
    """

    name: str
    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    images: Sequence[Image] | Pixels
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Image:
        """The image as it lies there; ``runtimes.images`` decodes it."""
        return self.images[index]

    def label(self, index: int) -> str:
        """What messages call the image."""
        return self.labels[index]

    def batches(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Indices (b,) and prepared images (b, c, h, w) of all images in order, ``size`` at a time.

        A few threads decode ahead. With a list for ``unreadable``, broken images are put into it instead of raised:
        their batch is then smaller, or left out if nothing of it remains.

        Raises:
            InputError: an image is broken; it is named.
            ResourceError: an image file is missing or unreadable.
            BackendUnavailableError: Pillow is needed and missing.
            UsageError: ``size`` below 1.
        """
        if size < 1:
            raise UsageError(f"the batch must be at least 1, not {size}")
        return self._batches(preprocessing, size, unreadable)

    def _batches(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        pool = ThreadPoolExecutor(min(_MAX_THREADS, usable_processors()), thread_name_prefix="decode")
        waiting: deque[list[Future[tuple[int, Pixels] | Unreadable]]] = deque()
        try:
            for start in range(0, len(self), size):
                chunk = range(start, min(start + size, len(self)))
                waiting.append([pool.submit(self._fitted, index, preprocessing) for index in chunk])
                if len(waiting) > _AHEAD:
                    yield from _collected(waiting.popleft(), preprocessing, unreadable)
            while waiting:
                yield from _collected(waiting.popleft(), preprocessing, unreadable)
        finally:
            pool.shutdown(cancel_futures=True)

    def _fitted(self, index: int, preprocessing: Preprocessing) -> tuple[int, Pixels] | Unreadable:
        try:
            return index, fitted(self.image(index), preprocessing)
        except (InputError, ResourceError) as error:
            if error.path is None:
                error = type(error)(error.what, path=self.label(index), hint=error.hint)
            return Unreadable(index, self.label(index), error)


def _collected(
    futures: list[Future[tuple[int, Pixels] | Unreadable]],
    preprocessing: Preprocessing,
    unreadable: list[Unreadable] | None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """One batch of what could be decoded, or none."""
    indices: list[int] = []
    pixels: list[Pixels] = []
    for future in futures:
        result = future.result()
        if not isinstance(result, Unreadable):
            indices.append(result[0])
            pixels.append(result[1])
        elif unreadable is None:
            raise result.error
        else:
            unreadable.append(result)
    if indices:
        yield np.array(indices, np.int64), normalised(np.stack(pixels), preprocessing)


def open_dataset(spec: str, limit: int | None = None) -> Dataset:
    """The data set of that name or at that path.

    ``fashion-mnist`` is the bundled test set. A path is judged by what lies there: CIFAR-10, in its Python or binary
    version, or one folder a class, under ``test`` or ``val`` if there are several parts; as a folder or in a tar
    archive. ``cifar10:PATH`` also requires the classes to be CIFAR-10's.

    With a ``limit`` below the number of images, so many are drawn by a shuffle of seed 0: the same ones each time,
    and not all of the first class.

    Raises:
        UsageError: an unknown name, or a limit below 1.
        ResourceError: nothing there, or not readable.
        ArtifactError: no data set, or a damaged one.
        UnsafeArtifactError: it could run code or reach outside its folder.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1 image, not {limit}")
    return _limited(_opened(spec), limit)


def _opened(spec: str) -> Dataset:
    if spec == BUNDLED_NAME:
        return _bundled()
    name, colon, rest = spec.partition(":")
    if name != "cifar10":
        return _at(spec)
    if not colon or not rest:
        raise UsageError("cifar10 is not bundled", hint="name where it lies: cifar10:PATH")
    dataset = _at(rest)
    if [_plain(name) for name in dataset.classes] != list(cifar.CLASSES):
        raise ArtifactError(f"not CIFAR-10: its classes are {quoted(', '.join(dataset.classes))}", path=rest)
    return dataset


def _at(path: str) -> Dataset:
    place = Path(path)
    if not _exists(place):
        if "/" in path or ".tar" in path:
            raise ResourceError("no such file or folder", path=path, hint=f"data is {FORMS}", errno=errno.ENOENT)
        raise UsageError(f"no data set {quoted(path)!r}", hint=FORMS)
    found = members.read(place)
    name = place.resolve().name.split(".tar")[0].removesuffix(".tgz").removesuffix(".txz") or "data"
    table = cifar.read(found)
    if table is not None:
        images, targets, split = table
        name = "cifar10" if split == "test" else f"cifar10/{split}"
        return Dataset(name, cifar.CLASSES, targets, images, [f"{name}[{i}]" for i in range(len(targets))])
    sorted_ = classfolders.read(found.files)
    if sorted_ is None:
        raise ArtifactError(
            f"no data set: among its {len(found.files):,} files is neither CIFAR-10 nor an image in a class's folder",
            path=place,
            hint="expected CLASS/IMAGE.jpg or test/CLASS/IMAGE.jpg, test_batch or test_batch.bin",
        )
    return Dataset(
        name if sorted_.split is None else f"{name}/{sorted_.split}",
        sorted_.classes,
        np.array(sorted_.targets, np.int64),
        [found.files[file] for file in sorted_.files],
        [str(place / file) for file in sorted_.files],
    )


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError as error:
        raise ResourceError.from_os(error, place, "read") from error


def _bundled() -> Dataset:
    content = files.read_bounded(BUNDLED, _BUNDLED_LIMIT_BYTES)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            images, targets, classes = arrays["images"], arrays["targets"].astype(np.int64), arrays["classes"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(
            f"the bundled test set is damaged: {quoted(error)}",
            path=BUNDLED,
            hint="pip install --force-reinstall rexport",
        ) from error
    labels = [f"fashion-mnist[{i}]" for i in range(len(targets))]
    return Dataset(BUNDLED_NAME, tuple(map(str, classes)), targets, images, labels)


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    if limit is None or limit >= len(dataset):
        return dataset
    chosen = np.random.default_rng(0).permutation(len(dataset))[:limit]
    pixels = dataset.images
    return replace(
        dataset,
        targets=dataset.targets[chosen],
        images=pixels[chosen] if isinstance(pixels, np.ndarray) else [pixels[i] for i in chosen],
        labels=[dataset.labels[i] for i in chosen],
    )


def targets_for(dataset: Dataset, labels: Sequence[str] | None, classes: int) -> NDArray[np.int64]:
    """The data set's targets as indices of a network's outputs, of which there are ``classes``: (n,).

    Raises:
        ModelMismatchError: as ``map_classes``.
    """
    return map_classes(dataset.classes, labels, classes)[dataset.targets]


def map_classes(names: Sequence[str], labels: Sequence[str] | None, classes: int) -> NDArray[np.int64]:
    """The output that each of the data set's classes ``names`` belongs to: (len(names),), for ``names[targets]``.

    Classes are matched by name where the network's ``labels`` are the same names, in whatever order; case, hyphens
    and underscores do not count. Where the names are others, or unknown, class i is output i.

    Raises:
        ModelMismatchError: the numbers of classes differ, or only some names are the same and not in the same places.
    """
    if len(names) != classes:
        raise ModelMismatchError(
            f"data of {len(names)} classes for a network of {classes} classes",
            hint=f"take data of {classes} classes, or export with --num-classes {len(names)}",
        )
    identity = np.arange(classes, dtype=np.int64)
    ours, theirs = [_plain(name) for name in names], [_plain(name) for name in labels or ()]
    if ours == theirs or not set(ours) & set(theirs):
        return identity
    if set(ours) == set(theirs) and len(set(ours)) == classes:
        return np.array([theirs.index(name) for name in ours], np.int64)
    places = zip(names, ours, theirs, strict=True)
    moved = [name for name, mine, other in places if mine != other and mine in theirs]
    if moved:
        raise ModelMismatchError(
            f"the data's classes are not the network's labels, though {quoted(moved[0])!r} is among both, "
            "in different places",
            hint="export with --labels naming the data's classes in the network's order",
        )
    return identity


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Standard normal float32 of that shape, the same for a seed on every machine.

    Raises:
        UsageError: a seed below 0.
    """
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, not {seed}")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
