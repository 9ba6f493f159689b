"""Images in one folder for each class, ``cat/1.jpg`` or ``test/cat/1.jpg``, or images without classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from runtimes.images.preprocessing import SUFFIXES as SUFFIXES

Split: TypeAlias = Literal["test", "train"]
"""The part of a dataset: images for testing, or for training and calibration."""

SPLITS = ("test", "val", "valid", "validation", "train")
"""The names of folders that hold one part of a dataset each.

For testing, the first existing name is used; for training, the last.
"""

_Inner: TypeAlias = dict[str, tuple[str, ...]]
"""Names with their path components, without the outer folders that all names share."""


@dataclass(frozen=True)
class ClassFolders:
    """Image files and their classes.

    Attributes:
        files: The names of the image files.
        targets: The class index of each file, or ``None`` if the images have no classes.
        classes: The sorted class names of all splits, so a class without test images keeps its index. Empty without
            classes.
        split: The folder of the chosen split, or ``None`` if there are no splits.
    """

    files: tuple[str, ...]
    targets: tuple[int, ...] | None
    classes: tuple[str, ...]
    split: str | None


def read(names: Iterable[str], wanted: Split = "test") -> ClassFolders | None:
    """Find the images among relative names. Return ``None`` if there are none.

    For training, images need no classes. If there is only one class, or no folder of a class, the result has no
    targets. For testing, only images in class folders count.

    Args:
        names: The relative names of files.
        wanted: The preferred split.
    """
    images = [path for path in map(PurePosixPath, names) if path.suffix.lower() in SUFFIXES]
    order = SPLITS if wanted == "test" else SPLITS[::-1]
    sorted_images = _find_sorted(images, order)
    if wanted == "train" and (sorted_images is None or len(sorted_images.classes) == 1):
        return _find_unsorted(images, order)
    return sorted_images


def _find_sorted(images: Iterable[PurePosixPath], order: tuple[str, ...]) -> ClassFolders | None:
    parts = _strip_outer_folders({str(path): path.parts for path in images if len(path.parts) > 1}, depth=2)
    split = _choose_split({inner[0] for inner in parts.values() if len(inner) > 2}, order)
    if split is not None:
        parts = {name: inner for name, inner in parts.items() if inner[0] in SPLITS and len(inner) > 2}
    elif all(inner[0] in SPLITS for inner in parts.values()):
        return None
    depth = 0 if split is None else 1
    classes = tuple(sorted({inner[depth] for inner in parts.values()}))
    index = {name: number for number, name in enumerate(classes)}
    chosen = {name: inner for name, inner in parts.items() if split is None or inner[0] == split}
    return ClassFolders(tuple(chosen), tuple(index[inner[depth]] for inner in chosen.values()), classes, split)


def _find_unsorted(images: Iterable[PurePosixPath], order: tuple[str, ...]) -> ClassFolders | None:
    parts = _strip_outer_folders({str(path): path.parts for path in images}, depth=1)
    split = _choose_split({inner[0] for inner in parts.values() if len(inner) > 1}, order)
    chosen = [name for name, inner in parts.items() if split is None or inner[0] == split]
    return ClassFolders(tuple(chosen), None, (), split) if chosen else None


def _strip_outer_folders(parts: _Inner, depth: int) -> _Inner:
    """Remove the folders that all names share, but keep at least ``depth`` components of each name."""
    while parts and min(map(len, parts.values())) > depth and len({inner[0] for inner in parts.values()}) == 1:
        parts = {name: inner[1:] for name, inner in parts.items()}
    return parts


def _choose_split(names: set[str], order: tuple[str, ...]) -> str | None:
    return next((split for split in order if split in names), None)
