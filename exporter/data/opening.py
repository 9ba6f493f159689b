"""The datasets by their names and paths: the bundled one, CIFAR-10, and folders or archives of images."""

from __future__ import annotations

import errno
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from exporter.data import archives, cifar, class_folders
from exporter.data.class_folders import READINGS, Reading, Split
from exporter.data.class_matching import plain_name
from exporter.data.dataset import Dataset
from runtimes import files
from runtimes.errors import (
    ArtifactError,
    IntegrityError,
    Reason,
    ResourceError,
    RexportError,
    UsageError,
    nearest,
    quote,
)
from runtimes.escaping import shell_word
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import Pixels

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

_EXPECTED: dict[Split, tuple[str, str]] = {
    "test": (" in class folders", "expected CLASS/IMAGE.jpg or test/CLASS/IMAGE.jpg, test_batch or test_batch.bin"),
    "train": ("", "expected IMAGE.jpg, CLASS/IMAGE.jpg or train/CLASS/IMAGE.jpg, data_batch_1 or data_batch_1.bin"),
}
"""The end of the message and the hint of an empty dataset, for each split."""


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
    if [plain_name(name) for name in dataset.classes] != list(cifar.CLASSES):
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
