"""Images sorted into folders that are named after their classes: ``cat/1.jpg``, or ``test/cat/1.jpg``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

SPLITS = ("test", "val", "valid", "validation", "train")
"""Names of folders that hold one part of a data set each; the first that is there is taken."""

SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"]
)
"""Of images, in either case. Other files in a class's folder are no images: notes, thumbnails' indices, tables."""


@dataclass(frozen=True)
class Sorted:
    """Image files and their classes.

    ``classes`` is in the order of the names, over all splits, so that a class without test images keeps its place.
    ``targets`` is one index a file. ``split`` is what was chosen, or ``None`` where there was no choice.
    """

    files: tuple[str, ...]
    targets: tuple[int, ...]
    classes: tuple[str, ...]
    split: str | None


def read(names: Iterable[str]) -> Sorted | None:
    """The class folders among the names, which are relative; ``None`` if there are none."""
    paths = [path for path in map(PurePosixPath, names) if path.suffix.lower() in SUFFIXES]
    parts = {str(path): path.parts for path in paths if len(path.parts) > 1}
    while parts and min(map(len, parts.values())) > 2 and len({inner[0] for inner in parts.values()}) == 1:
        parts = {name: inner[1:] for name, inner in parts.items()}  # one folder around everything
    if not parts:
        return None
    there = {inner[0] for inner in parts.values() if len(inner) > 2}
    split = next((split for split in SPLITS if split in there), None)
    if split is not None:
        parts = {name: inner for name, inner in parts.items() if inner[0] in SPLITS and len(inner) > 2}
    depth = 0 if split is None else 1
    classes = tuple(sorted({inner[depth] for inner in parts.values()}))
    index = {name: number for number, name in enumerate(classes)}
    chosen = {name: inner for name, inner in parts.items() if split is None or inner[0] == split}
    return Sorted(tuple(chosen), tuple(index[inner[depth]] for inner in chosen.values()), classes, split)
