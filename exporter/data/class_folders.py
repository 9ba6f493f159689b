"""Images sorted into folders that are named after their classes: ``cat/1.jpg``, or ``test/cat/1.jpg``; or unsorted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

Split: TypeAlias = Literal["test", "train"]
"""What images are for: to judge a network by, or to make one with."""

SPLITS = ("test", "val", "valid", "validation", "train")
"""Names of folders that hold one part of a data set each. To test, the first that is there is taken; to train, the
last."""

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"]
)
"""Of images, in either case. Other files in a class's folder are no images: notes, thumbnails' indices, tables."""

_Inner: TypeAlias = dict[str, tuple[str, ...]]
"""Names with their parts, from which folders around everything are gone."""


@dataclass(frozen=True)
class ClassFolders:
    """Image files and their classes.

    ``classes`` is in the order of the names, over all splits, so that a class without test images keeps its place.
    ``targets`` is one index a file, or ``None`` where the images are not sorted; there are no classes then. ``split``
    is the folder that was chosen, or ``None`` where there was no choice.
    """

    files: tuple[str, ...]
    targets: tuple[int, ...] | None
    classes: tuple[str, ...]
    split: str | None


def read(names: Iterable[str], wanted: Split = "test") -> ClassFolders | None:
    """The images among the names, which are relative; ``None`` if there are none.

    To train, images need no classes: those of one class, or in no class's folder, are then given without targets. To
    test, there are none unless they lie in class folders.
    """
    images = [path for path in map(PurePosixPath, names) if path.suffix.lower() in SUFFIXES]
    order = SPLITS if wanted == "test" else SPLITS[::-1]
    found = _find_sorted(images, order)
    if wanted == "train" and (found is None or len(found.classes) == 1):
        return _find_unsorted(images, order)
    return found


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
    """Without the folders that lie around everything, as long as ``depth`` parts are left of each name."""
    while parts and min(map(len, parts.values())) > depth and len({inner[0] for inner in parts.values()}) == 1:
        parts = {name: inner[1:] for name, inner in parts.items()}
    return parts


def _choose_split(there: set[str], order: tuple[str, ...]) -> str | None:
    return next((split for split in order if split in there), None)
