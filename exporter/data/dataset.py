"""Labelled images for accuracy and calibration, and seeded noise.

This module knows the names of datasets, their forms on disk, and how their classes map to the outputs of a network. No
image is decoded before it is needed.
"""

from __future__ import annotations

import errno
import io
import re
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporter.data import archives, cifar, class_folders
from exporter.data.class_folders import READINGS, Reading, Split
from runtimes import files
from runtimes.errors import (
    ArtifactError,
    InputError,
    IntegrityError,
    ModelMismatchError,
    Reason,
    ResourceError,
    RexportError,
    UsageError,
    nearest,
    quote,
)
from runtimes.escaping import shell_word
from runtimes.images import prefetch
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import Image, Pixels, Preprocessing, fit_image, normalise

BUNDLED_NAME = "fashion-mnist"
"""The dataset that comes with rexport. Weights trained on it are checked and measured on it by default."""

CIFAR_NAME = "cifar10"
"""The name of CIFAR-10, which is used with its path: ``cifar10:PATH``."""

BUNDLED: dict[Split, Path] = {
    "test": Path(__file__).parents[1] / "bundled" / f"{BUNDLED_NAME}-test.npz",
    "train": Path(__file__).parents[1] / "bundled" / f"{BUNDLED_NAME}-train-sample.npz",
}
"""The files of the bundled dataset: the whole test set, and 1,000 images of the training set."""

FORMS = (
    f"{BUNDLED_NAME}, {CIFAR_NAME}:PATH, or a folder or tar archive with CIFAR-10 or with one folder for each class, "
    "also as classes:PATH or splits:PATH"
)
"""The accepted forms of a dataset, for messages and help texts."""

_BUNDLED_LIMIT_BYTES = 64 << 20


_Batches: TypeAlias = Generator[tuple[NDArray[np.int64], Pixels], None, None]


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded.

    Attributes:
        index: The index of the image in the dataset.
        label: The label of the image.
        error: The error that names the image.
    """

    index: int
    label: str
    error: InputError | ResourceError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with or without classes.

    Attributes:
        name: The name for tables, for example "fashion-mnist" or "photos/val".
        classes: The class names in the order of the targets. Empty without classes.
        targets: The indices into ``classes``, int64 (n,), or ``None`` without classes.
        images: The n images: paths, encoded bytes, or a uint8 array (n, h, w) or (n, h, w, 3).
        labels: The n names of images for messages: a path, or the number in the published or bundled file.
        notices: What was guessed about the files, and which files were left out.
    """

    name: str
    classes: tuple[str, ...]
    targets: NDArray[np.int64] | None
    images: Sequence[Image] | Pixels
    labels: Sequence[str]
    notices: tuple[Reason, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def image(self, index: int) -> Image:
        """Return the image as it is stored. ``runtimes.images.preprocessing`` decodes it."""
        return self.images[index]

    def label(self, index: int) -> str:
        """Return the name of the image for messages."""
        return self.labels[index]

    def batches(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], NDArray[np.float32]], None, None]:
        """Yield the indices and the prepared images of all images in order.

        Threads decode images ahead. They end with the last batch, or when the generator is closed. Images that are one
        array are prepared as whole batches if possible.

        Args:
            preprocessing: The preparation of the images.
            size: The largest number of images in a batch.
            unreadable: A list that receives the broken images. Their batches are smaller, or left out if they are
                empty. Without a list, a broken image raises an error.

        Yields:
            The indices, int64 (b,), and the images, float32 (b, c, h, w). The arrays belong to the caller.

        Raises:
            InputError: An image is broken. The message names the image.
            ResourceError: An image file is missing or unreadable.
            BackendUnavailableError: Pillow is needed but not installed.
            UsageError: ``size`` is below 1.
        """
        return _normalise_batches(self._batches(preprocessing, size, unreadable), preprocessing)

    def pixels(
        self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None = None
    ) -> Generator[tuple[NDArray[np.int64], Pixels], None, None]:
        """Yield the indices and the images as a network of raw pixels takes them, without normalisation.

        Args:
            preprocessing: As for ``batches``.
            size: As for ``batches``.
            unreadable: As for ``batches``.

        Yields:
            The indices, int64 (b,), and the images, uint8 (b, h, w, c). The arrays belong to the caller.

        Raises:
            RexportError: As for ``batches``.
        """
        return _copy_batches(self._batches(preprocessing, size, unreadable))

    def _batches(self, preprocessing: Preprocessing, size: int, unreadable: list[Unreadable] | None) -> _Batches:
        """Return the batches of ``pixels``. The arrays may be read-only and share memory between channels."""
        if size < 1:
            raise UsageError(f"the batch size must be at least 1, not {size}", code="batch-below-one")
        if isinstance(self.images, np.ndarray) and _fit_together(self.images, preprocessing):
            return _prepare_batches(self.images, preprocessing, size)
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
    """Return whether batches can be prepared whole: images need no resizing, and their channels fit or are grey."""
    channels = images.shape[3] if images.ndim == 4 else 1
    height, width = images.shape[1:3]
    keeps_size = preprocessing.target_size(height, width) == (height, width)
    return keeps_size and (channels, preprocessing.channels) in ((1, 1), (1, 3), (3, 3))


def _prepare_batches(images: Pixels, preprocessing: Preprocessing, size: int) -> _Batches:
    """Prepare the images of a batch as the channels of one image, so that the cost arises once for each batch."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        count, height, width, *rest = batch.shape
        channels = rest[0] if rest else 1
        planes = batch.reshape(count, height, width, channels).transpose(1, 2, 0, 3).reshape(height, width, -1)
        neutral = (0.0,) * planes.shape[2], (1.0,) * planes.shape[2]
        blank = replace(preprocessing, mean=neutral[0], std=neutral[1], channel_order="RGB")
        pixels = fit_image(planes, blank).reshape(*preprocessing.size, count, channels).transpose(2, 0, 1, 3)
        shape = (count, *preprocessing.size, preprocessing.channels)
        yield np.arange(start, start + count), np.broadcast_to(np.ascontiguousarray(pixels), shape)


def _copy_batches(batches: _Batches) -> _Batches:
    """Copy the images of each batch into a new array."""
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
    """Open the dataset with a name, or at a path.

    ``fashion-mnist`` is the bundled test set, or the bundled sample of its training set. At a path, the content
    determines the form: CIFAR-10 in its Python or binary version, or one folder for each class, in a folder or a tar
    archive. ``cifar10:PATH`` also requires the classes of CIFAR-10. ``classes:PATH`` takes each folder in PATH as a
    class, and ``splits:PATH`` takes them as parts of the dataset; without these words the names of the folders decide,
    and ``Dataset.notices`` says how. For the split ``train``, images need no classes and may lie in the folder itself.

    Args:
        spec: The name or the path.
        limit: The largest number of images, drawn by a shuffle with seed 0. Each call draws the same images, and a
            smaller limit draws the first images of a larger one. ``None`` keeps all images in order.
        split: The preferred part. If the dataset does not have it, another part is opened.

    Raises:
        UsageError: The name is unknown, or the limit is below 1.
        ResourceError: The path is missing or unreadable.
        ArtifactError: There is no dataset at the path, or it is damaged.
        UnsafeArtifactError: The dataset could run code or reach outside its folder.

    Example:
        Read at most 1,000 images::

            dataset = open_dataset("photos/", limit=1000)
            for indices, images in dataset.batches(preprocessing, size=32):
                ...
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
    reading = next((reading for reading in READINGS if reading == name.lower() and rest), None)
    if reading is not None and not exists:
        return _open_path(rest, split, reading)
    if name.lower() != CIFAR_NAME or exists:
        return _open_path(spec, split)
    if not colon or not rest:
        raise UsageError(
            "CIFAR-10 is not bundled with rexport", code="cifar10-not-bundled", hint="download it and use cifar10:PATH"
        )
    dataset = _open_path(rest, split)
    if [_plain(name) for name in dataset.classes] != list(cifar.CLASSES):
        classes = quote(", ".join(dataset.classes)) or "unknown"
        raise ArtifactError(
            f"the dataset is not CIFAR-10: its classes are {classes}", code="cifar10-classes-differ", path=rest
        )
    return dataset


def _open_path(path: str, split: Split, reading: Reading | None = None) -> Dataset:
    root = Path(path)
    if not _exists(root):
        if "/" in path or ".tar" in path:
            raise ResourceError(
                "no such file or folder",
                code="dataset-missing",
                path=path,
                hint=f"datasets are {FORMS}",
                errno=errno.ENOENT,
            )
        similar = nearest(path, (BUNDLED_NAME, CIFAR_NAME))
        hint = f"datasets are {FORMS}" if similar is None else f"did you mean {similar}?"
        raise UsageError(f"unknown dataset {quote(path)!r}", code="dataset-unknown", hint=hint)
    members = archives.read(root)
    name = root.resolve().name.split(".tar")[0].removesuffix(".tgz").removesuffix(".txz") or "data"
    published = None if reading is not None else cifar.read(members, split)
    if published is not None:
        images, targets, part = published
        return _array_dataset("cifar10", part, cifar.CLASSES, targets, images)
    folders = _find_images(members, split, reading)
    return Dataset(
        name if folders.split is None else f"{name}/{folders.split}",
        folders.classes,
        None if folders.targets is None else np.array(folders.targets, np.int64),
        [members.files[file] for file in folders.files],
        [str(root / file) for file in folders.files],
        tuple(_notices(members, name, folders)),
    )


def _find_images(members: archives.Members, split: Split, reading: Reading | None) -> class_folders.ClassFolders:
    """Return the images of a folder or an archive.

    Raises:
        ArtifactError: There are none, or the meaning of the folders is unclear.
        UsageError: As for ``class_folders.read``.
    """
    try:
        folders = class_folders.read(members.files, split, reading)
    except RexportError as error:
        hint = error.hint and error.hint.replace("PATH", shell_word(members.place))
        raise type(error)(error.what, code=error.code, path=members.place, hint=hint) from error
    if folders is not None:
        return folders
    location, hint = _EXPECTED[split]
    others = LeftOutFiles(members.files).counts()
    raise ArtifactError(
        f"there is no dataset here: the {len(members.files):,} files contain neither CIFAR-10 nor images{location}"
        + (f"; other files: {others}" if others else ""),
        code="dataset-empty",
        path=members.place,
        hint=hint,
    )


def _notices(members: archives.Members, name: str, folders: class_folders.ClassFolders) -> Iterator[Reason]:
    """Yield what was guessed about a folder, and the files that were left out."""
    for reason in folders.notices:
        yield Reason(reason.code, f"{quote(name)}: {reason.sentence.replace('PATH', shell_word(members.place))}")
    yield from _empty_classes(members, name, folders.classes)
    left_out = LeftOutFiles(members.files).notice(name)
    if left_out is not None:
        yield left_out
    if folders.outside:
        place = "classes" if folders.classes else "parts"
        yield Reason(
            "images-outside-classes",
            f"{quote(name)}: left out {len(folders.outside):,} images outside the {place}, as "
            f"{quote(folders.outside[0])}",
        )


def _empty_classes(members: archives.Members, name: str, classes: Sequence[str]) -> Iterator[Reason]:
    """Yield a notice if empty folders lie beside those of the classes, and are no classes themselves."""
    beside = {PurePosixPath(file).parent.parent for file in members.files if PurePosixPath(file).parent.name in classes}
    places = [place for folder in members.empty if (place := PurePosixPath(folder)).parent in beside]
    names = sorted({place.name for place in places} - set(classes))
    if names:
        yield Reason(
            "class-folders-empty",
            f"{quote(name)}: {class_folders.first_names(names)}: taken as no class, because there are no files inside",
        )


_EXPECTED: dict[Split, tuple[str, str]] = {
    "test": (" in class folders", "expected CLASS/IMAGE.jpg or test/CLASS/IMAGE.jpg, test_batch or test_batch.bin"),
    "train": ("", "expected IMAGE.jpg, CLASS/IMAGE.jpg or train/CLASS/IMAGE.jpg, data_batch_1 or data_batch_1.bin"),
}
"""The end of the message and the hint of an empty dataset, for each split."""


def _array_dataset(
    name: str, split: Split, classes: tuple[str, ...], targets: NDArray[np.int64], images: Pixels
) -> Dataset:
    name = name if split == "test" else f"{name}/{split}"
    return Dataset(name, classes, targets, images, [f"{name}[{i}]" for i in range(len(targets))])


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ResourceError.from_os(error, path, "read") from error


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
    return _array_dataset(BUNDLED_NAME, split, tuple(map(str, classes)), targets, images)


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
    """Return the targets of a dataset as indices of a network's outputs, int64 (n,).

    Args:
        dataset: The dataset.
        labels: The labels of the network, or ``None`` if unknown.
        classes: The number of outputs of the network.

    Raises:
        ModelMismatchError: As for ``map_classes``, or the images have no classes.
    """
    if dataset.targets is None:
        raise ModelMismatchError(
            f"the images of {dataset.name} have no classes",
            code="classes-missing",
            hint="put the images of each class into a folder of its own",
        )
    return map_classes(dataset.classes, labels, classes)[dataset.targets]


def map_classes(names: Sequence[str], labels: Sequence[str] | None, classes: int) -> NDArray[np.int64]:
    """Return the output of a network for each class of a dataset, int64 (len(names),).

    If the labels are the same names in any order, classes are matched by name. Case, hyphens, underscores and slashes
    are ignored. Otherwise class i belongs to output i, which ``are_foreign`` tells.

    Args:
        names: The class names of the dataset.
        labels: The labels of the network, or ``None`` if unknown.
        classes: The number of outputs of the network.

    Raises:
        ModelMismatchError: The numbers of classes differ, or only some names are the same and one of them has another
            position.
    """
    if len(names) != classes or classes == 1:
        raise ModelMismatchError(
            f"the dataset has {len(names)} classes, but the network has {classes}",
            code="class-count-mismatch",
            hint=f"use images of its {classes} classes, with a folder for each"
            if classes > 1
            else "the accuracy of a network with one output is not measured",
        )
    identity = np.arange(classes, dtype=np.int64)
    ours, theirs = [_plain(name) for name in names], [_plain(name) for name in labels or ()]
    if ours == theirs:
        return identity
    if not set(ours) & set(theirs):
        check_class_order(names)
        return identity
    if set(ours) == set(theirs) and len(set(ours)) == classes:
        return np.array([theirs.index(name) for name in ours], np.int64)
    pairs = list(zip(names, ours, theirs, strict=True))
    moved = [name for name, mine, other in pairs if mine != other and mine in theirs]
    if moved:
        foreign = next((f"{quote(name)!r} is no label, and " for name, mine, _ in pairs if mine not in theirs), "")
        raise ModelMismatchError(
            f"the classes of the dataset cannot be matched to the labels of the network: {foreign}{quote(moved[0])!r} "
            "is in both, at different positions",
            code="class-order-unclear",
            hint="export with --labels FILE, with the class names of the dataset in the order of the outputs",
        )
    return identity


def are_foreign(names: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether any class of a dataset has no label of its name, so that classes are matched by position.

    Args:
        names: The class names of the dataset.
        labels: The labels of the network.
    """
    return not set(map(_plain, names)) <= set(map(_plain, labels))


def position_example(names: Sequence[str], labels: Sequence[str]) -> str:
    """Return an example of classes that are matched by position, for a notice.

    It is the first class of a dataset without a label of its name, as ``lorry is truck``, or ``lorry is output 1`` if
    the labels are unknown.

    Args:
        names: The class names of the dataset, of which one has no label of its name.
        labels: The labels of the network, or none if unknown.
    """
    known = set(map(_plain, labels))
    position = next(position for position, name in enumerate(names) if _plain(name) not in known)
    output = quote(labels[position]) if position < len(labels) else f"output {position}"
    return f"{quote(names[position])} is {output}"


_NUMBER = re.compile(r"(\D*)(\d+)(\D*)")


def check_class_order(names: Sequence[str]) -> None:
    """Check that the names of class folders have only one order: as text and as numbers.

    Args:
        names: The class names, sorted as text.

    Raises:
        ModelMismatchError: The names are numbers, and those have another order.
    """
    matches = [match for match in map(_NUMBER.fullmatch, names) if match is not None]
    if len(matches) != len(names) or len({(match[1], match[3]) for match in matches}) != 1:
        return
    order = sorted(names, key=lambda name: int(_NUMBER.fullmatch(name)[2]))  # type: ignore[index]
    if order == list(names):
        return
    first = next(number for number, (mine, other) in enumerate(zip(names, order, strict=True)) if mine != other)
    raise ModelMismatchError(
        f"the class folders are numbers, whose order is unclear: output {first} of the network may be "
        f"{quote(order[first])}, as numbers are sorted, or {quote(names[first])}, as torchvision's ImageFolder sorts",
        code="class-order-numeric",
        hint="in the folder of the classes, ls | sort -V > ../labels.txt writes the order of the numbers, and "
        "ls | LC_ALL=C sort > ../labels.txt that of ImageFolder; export with --labels labels.txt",
    )


def _plain(name: str) -> str:
    return re.sub("[_/-]", " ", name.casefold()).strip()


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return standard normal noise, float32 of the given shape. One seed gives the same numbers on all machines.

    Args:
        shape: The shape.
        seed: The seed, at least 0.

    Raises:
        UsageError: The seed is negative.
    """
    return _generator(seed).standard_normal(shape).astype(np.float32)


def noise_pixels(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Return uniformly distributed pixels, uint8 of the given shape. One seed gives the same numbers on all machines.

    Args:
        shape: The shape.
        seed: The seed, at least 0.

    Raises:
        UsageError: The seed is negative.
    """
    return _generator(seed).integers(0, 256, shape, np.uint8)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise UsageError(f"the seed must be at least 0, not {seed}", code="seed-negative")
    return np.random.default_rng(seed)
