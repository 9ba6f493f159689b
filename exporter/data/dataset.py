"""Labelled images to measure and calibrate with, and seeded noise where there are none.

What a data set is called, the forms in which it may lie on the disk, and which of a network's outputs its classes are.
Nothing is decoded before it is asked for.
"""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.data import archives, cifar, class_folders
from exporter.data.class_folders import Split
from runtimes import files
from runtimes.errors import (
    ArtifactError,
    InputError,
    IntegrityError,
    ModelMismatchError,
    ResourceError,
    UsageError,
    nearest,
    quote,
)
from runtimes.images import prefetch
from runtimes.images.preprocessing import Image, Pixels, Preprocessing, fit_image, normalise

BUNDLED_NAME = "fashion-mnist"
"""The data set that comes with rexport: weights made for it are checked and measured on it unasked."""

CIFAR_NAME = "cifar10"
"""The data set that is named together with where it lies: ``cifar10:PATH``."""

BUNDLED: dict[Split, Path] = {
    "test": Path(__file__).parents[1] / "bundled" / f"{BUNDLED_NAME}-test.npz",
    "train": Path(__file__).parents[1] / "bundled" / f"{BUNDLED_NAME}-train-sample.npz",
}
"""The whole test set, and 1,000 images of the training set."""

FORMS = f"{BUNDLED_NAME}, {CIFAR_NAME}:PATH, or a folder or tar archive with CIFAR-10 or with one folder a class"

_BUNDLED_LIMIT_BYTES = 64 << 20


_Batches: TypeAlias = Generator[tuple[NDArray[np.int64], Pixels], None, None]


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be decoded, and why."""

    index: int
    label: str
    error: InputError | ResourceError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their classes, or without.

    Attributes:
        name: for tables, as "fashion-mnist" or "photos/val".
        classes: names of the classes, in the order of the targets; none where the images are not sorted.
        targets: (n,) int64, indices into ``classes``; ``None`` where the images are not sorted.
        images: n of them: paths, encoded bytes, or a uint8 array (n, h, w) or (n, h, w, 3).
        labels: n names for messages: an image's path, or its number in the published or bundled file.
    """

    name: str
    classes: tuple[str, ...]
    targets: NDArray[np.int64] | None
    images: Sequence[Image] | Pixels
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Image:
        """The image as it lies there; ``runtimes.images.preprocessing`` decodes it."""
        return self.images[index]

    def label(self, index: int) -> str:
        """What messages call the image."""
        return self.labels[index]

    def batches(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
        """Indices (b,) and prepared images (b, c, h, w) of all images in order, ``size`` at a time.

        A few threads decode ahead; they end with the batches, or when the generator is closed. Of images that are one
        array a batch is prepared as a whole. With a list for ``unreadable``, broken images are put into it instead of
        raised: their batch is then smaller, or left out if nothing of it remains.

        Raises:
            InputError: an image is broken; it is named.
            ResourceError: an image file is missing or unreadable.
            BackendUnavailableError: Pillow is needed and missing.
            UsageError: ``size`` below 1.
        """
        return _normalise_batches(self._batches(preprocessing, size, unreadable), preprocessing)

    def pixels(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], Pixels], None, None]:
        """As ``batches``, with the images as a network of raw pixels takes them: uint8 (b, h, w, c), not normalised.

        Raises:
            RexportError: as ``batches``.
        """
        return _in_memory(self._batches(preprocessing, size, unreadable))

    def _batches(self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None) -> _Batches:
        """As ``pixels``; an array may be read-only and hold a grey once for three colours."""
        if size < 1:
            raise UsageError(f"the batch must be at least 1, not {size}", code="batch-below-one")
        if isinstance(self.images, np.ndarray) and _fit_together(self.images, preprocessing):
            return _together(self.images, preprocessing, size)
        return self._read_batches(preprocessing, size, unreadable)

    def _read_batches(self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None) -> _Batches:
        with closing(prefetch.prefetch(self.images, size, partial(self._fit_image, preprocessing))) as batches:
            for results in batches:
                read = [result for result in results if not isinstance(result, Unreadable)]
                broken = [result for result in results if isinstance(result, Unreadable)]
                if unreadable is not None:
                    unreadable.extend(broken)
                elif broken:
                    raise broken[0].error
                if read:
                    yield np.array([index for index, _ in read], np.int64), np.stack([pixels for _, pixels in read])

    def _fit_image(self, preprocessing: Preprocessing, index: int, image: Image) -> tuple[int, Pixels] | Unreadable:
        try:
            return index, fit_image(image, preprocessing)
        except (InputError, ResourceError) as error:
            if error.path is None:
                error = type(error)(error.what, code=error.code, path=self.label(index), hint=error.hint)
            return Unreadable(index, self.label(index), error)


def _fit_together(images: Pixels, preprocessing: Preprocessing) -> bool:
    """Whether a batch of these images is fitted as one: where they have their size, and grey at most becomes colour."""
    channels = images.shape[3] if images.ndim == 4 else 1
    sized = preprocessing.resize in (None, min(images.shape[1:3]))
    return sized and (channels, preprocessing.channels) in ((1, 1), (1, 3), (3, 3))


def _together(images: Pixels, preprocessing: Preprocessing, size: int) -> _Batches:
    """The images of a batch are fitted as the channels of one: what fitting costs is then paid once a batch."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        count, height, width, *rest = batch.shape
        channels = rest[0] if rest else 1
        planes = batch.reshape(count, height, width, channels).transpose(1, 2, 0, 3).reshape(height, width, -1)
        blank = replace(preprocessing, mean=(0.0,) * planes.shape[2], std=(1.0,) * planes.shape[2])
        pixels = fit_image(planes, blank).reshape(*preprocessing.size, count, channels).transpose(2, 0, 1, 3)
        shape = (count, *preprocessing.size, preprocessing.channels)
        yield np.arange(start, start + count), np.broadcast_to(np.ascontiguousarray(pixels), shape)


def _in_memory(batches: _Batches) -> _Batches:
    """The same in arrays of their own."""
    with closing(batches):
        for indices, pixels in batches:
            yield indices, np.array(pixels, order="C")


def _normalise_batches(
    batches: _Batches, preprocessing: Preprocessing
) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
    with closing(batches):
        for indices, pixels in batches:
            yield indices, normalise(pixels, preprocessing)


def open_dataset(spec: str, limit: int | None = None, split: Split = "test") -> Dataset:
    """The data set of that name or at that path.

    ``fashion-mnist`` is the bundled test set, or the bundled sample of its training set. A path is judged by what lies
    there: CIFAR-10, in its Python or binary version, or one folder a class; as a folder or in a tar archive. Where it
    has several parts, that of the ``split`` is taken, else what comes nearest. To ``train``, which calibrating also
    is, images need no classes and may lie in the folder itself. ``cifar10:PATH`` also requires the classes to be
    CIFAR-10's.

    With a ``limit`` the images are drawn by a shuffle of seed 0: the same ones each time, not all of the first class,
    and those of a smaller limit are the first of a larger one's.

    Raises:
        UsageError: an unknown name, or a limit below 1.
        ResourceError: nothing there, or not readable.
        ArtifactError: no data set, or a damaged one.
        UnsafeArtifactError: it could run code or reach outside its folder.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1 image, not {limit}", code="limit-below-one")
    dataset = _open_spec(spec, split)
    return dataset if limit is None else _draw_subset(dataset, limit)


def _open_spec(spec: str, split: Split) -> Dataset:
    exists = _exists(Path(spec))
    if spec == BUNDLED_NAME or (spec.lower() == BUNDLED_NAME and not exists):
        return _open_bundled(split)
    name, colon, rest = spec.partition(":")
    if name.lower() != CIFAR_NAME or exists:
        return _open_path(spec, split)
    if not colon or not rest:
        raise UsageError("cifar10 is not bundled", code="cifar10-not-bundled", hint="name where it lies: cifar10:PATH")
    dataset = _open_path(rest, split)
    if [_plain(name) for name in dataset.classes] != list(cifar.CLASSES):
        classes = quote(", ".join(dataset.classes)) or "not told"
        raise ArtifactError(f"not CIFAR-10: its classes are {classes}", code="cifar10-classes-differ", path=rest)
    return dataset


def _open_path(path: str, split: Split) -> Dataset:
    place = Path(path)
    if not _exists(place):
        if "/" in path or ".tar" in path:
            raise ResourceError(
                "no such file or folder", code="dataset-missing", path=path, hint=f"data is {FORMS}", errno=errno.ENOENT
            )
        meant = nearest(path, (BUNDLED_NAME, CIFAR_NAME))
        hint = FORMS if meant is None else f"did you mean {meant}?"
        raise UsageError(f"no data set {quote(path)!r}", code="dataset-unknown", hint=hint)
    found = archives.read(place)
    name = place.resolve().name.split(".tar")[0].removesuffix(".tgz").removesuffix(".txz") or "data"
    table = cifar.read(found, split)
    if table is not None:
        images, targets, part = table
        return _table("cifar10", part, cifar.CLASSES, targets, images)
    sorted_ = class_folders.read(found.files, split)
    if sorted_ is None:
        where, hint = _EXPECTED[split]
        raise ArtifactError(
            f"no data set: among its {len(found.files):,} files is neither CIFAR-10 nor an image{where}",
            code="dataset-empty",
            path=place,
            hint=hint,
        )
    return Dataset(
        name if sorted_.split is None else f"{name}/{sorted_.split}",
        sorted_.classes,
        None if sorted_.targets is None else np.array(sorted_.targets, np.int64),
        [found.files[file] for file in sorted_.files],
        [str(place / file) for file in sorted_.files],
    )


_EXPECTED: dict[Split, tuple[str, str]] = {
    "test": (" in a class's folder", "expected CLASS/IMAGE.jpg or test/CLASS/IMAGE.jpg, test_batch or test_batch.bin"),
    "train": ("", "expected IMAGE.jpg, CLASS/IMAGE.jpg or train/CLASS/IMAGE.jpg, data_batch_1 or data_batch_1.bin"),
}


def _table(name: str, split: Split, classes: tuple[str, ...], targets: NDArray[np.int64], images: Pixels) -> Dataset:
    name = name if split == "test" else f"{name}/{split}"
    return Dataset(name, classes, targets, images, [f"{name}[{i}]" for i in range(len(targets))])


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError as error:
        raise ResourceError.from_os(error, place, "read") from error


def _open_bundled(split: Split) -> Dataset:
    path = BUNDLED[split]
    content = files.read_bounded(path, _BUNDLED_LIMIT_BYTES)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            images, targets, classes = arrays["images"], arrays["targets"].astype(np.int64), arrays["classes"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(
            f"the bundled images are damaged: {quote(error)}",
            code="bundled-data-damaged",
            path=path,
            hint="pip install --force-reinstall rexport",
        ) from error
    return _table(BUNDLED_NAME, split, tuple(map(str, classes)), targets, images)


def _draw_subset(dataset: Dataset, limit: int) -> Dataset:
    chosen = np.random.default_rng(0).permutation(len(dataset))[:limit]
    pixels = dataset.images
    return replace(
        dataset,
        targets=None if dataset.targets is None else dataset.targets[chosen],
        images=pixels[chosen] if isinstance(pixels, np.ndarray) else [pixels[i] for i in chosen],
        labels=[dataset.labels[i] for i in chosen],
    )


def targets_for(dataset: Dataset, labels: Sequence[str] | None, classes: int) -> NDArray[np.int64]:
    """The data set's targets as indices of a network's outputs, of which there are ``classes``: (n,).

    Raises:
        ModelMismatchError: as ``map_classes``; or the images are not sorted into classes.
    """
    if dataset.targets is None:
        raise ModelMismatchError(
            f"the images of {dataset.name} have no classes",
            code="classes-missing",
            hint="sort them into one folder a class",
        )
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
            code="class-count-mismatch",
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
            f"the data's classes are not the network's labels, though {quote(moved[0])!r} is among both, "
            "in different places",
            code="class-order-unclear",
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
    return _generator(seed).standard_normal(shape).astype(np.float32)


def noise_pixels(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Evenly distributed uint8 of that shape, the same for a seed on every machine.

    Raises:
        UsageError: a seed below 0.
    """
    return _generator(seed).integers(0, 256, shape, np.uint8)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, not {seed}", code="seed-negative")
    return np.random.default_rng(seed)
