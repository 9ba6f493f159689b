"""Images in one folder for each class, ``cat/1.jpg`` or ``test/cat/1.jpg``, or images without classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from exporter.data.splits import PREFERENCE, Part, parts_of
from runtimes.errors import ArtifactError, Reason, UsageError, quote
from runtimes.escaping import shell_word
from runtimes.images.left_out import UNREAD_SUFFIXES
from runtimes.images.preprocessing import SUFFIXES as SUFFIXES

Split: TypeAlias = Literal["test", "train"]
"""The part of a dataset: images for testing, or for training and calibration."""

Reading: TypeAlias = Literal["classes", "splits"]
"""The meaning of the outermost folders, where the user says it: classes, or parts of the dataset."""

READINGS: tuple[Reading, ...] = ("classes", "splits")
"""All values of ``Reading``, which stand before a path and a colon: ``classes:PATH``."""

MAX_NAMED = 5
"""The largest number of folders in a message."""

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
        notices: The guesses about the folders.
        outside: The names of the image files that belong to no class and to no split.
    """

    files: tuple[str, ...]
    targets: tuple[int, ...] | None
    classes: tuple[str, ...]
    split: str | None
    notices: tuple[Reason, ...] = ()
    outside: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sorting:
    """Images in class folders.

    Attributes:
        images: The path of each image from its split on, or from its class on without splits.
        split: The folder of the chosen split.
        notices: The guesses about the folders.
    """

    images: _Inner
    split: str | None = None
    notices: tuple[Reason, ...] = ()


def read(names: Iterable[str], wanted: Split = "test", reading: Reading | None = None) -> ClassFolders | None:
    """Find the images among relative names. Return ``None`` if there are none.

    For training, images need no classes. If there is only one class, or no folder of a class, the result has no
    targets. For testing, only images in class folders count.

    Args:
        names: The relative names of files.
        wanted: The preferred split.
        reading: The meaning of the outermost folders, or ``None`` to find it.

    Raises:
        ArtifactError: The folders may be classes or splits, two folders are the same part of the dataset, or the
            folders of the classes hold its parts.
        UsageError: ``reading`` is ``splits``, and no folder has the name of a split.
    """
    paths = list(map(PurePosixPath, names))
    images = [path for path in paths if path.suffix.lower() in SUFFIXES]
    unread = [path for path in paths if path.suffix.lower() in UNREAD_SUFFIXES]
    sorted_images = _find_sorted(images, unread, wanted, reading)
    if wanted == "train" and (sorted_images is None or len(sorted_images.classes) == 1):
        return _find_unsorted(images, wanted, reading)
    return sorted_images


def _find_sorted(
    images: Collection[PurePosixPath], unread: Iterable[PurePosixPath], wanted: Split, reading: Reading | None
) -> ClassFolders | None:
    readable = {str(path) for path in images if len(path.parts) > 1}
    parts = {str(path): path.parts for path in (*images, *unread) if len(path.parts) > 1}
    if reading is None:
        parts = _strip_outer_folders(parts, depth=2)
    sorting = _find_splits(parts, wanted, reading)
    if sorting is None or not readable & set(sorting.images):
        return None
    depth = 0 if sorting.split is None else 1
    inner = {name: path[depth:] for name, path in sorting.images.items()}
    classes = tuple(sorted({path[0] for path in inner.values()}))
    index = {name: number for number, name in enumerate(classes)}
    chosen = [
        name
        for name, path in sorting.images.items()
        if name in readable and (sorting.split is None or path[0] == sorting.split)
    ]
    if reading is None:
        _check_parts_inside(inner.values())
        if sorting.split is None:
            _check_folds(inner.values())
    nested = _inner_folders_notice(inner.values(), classes)
    return ClassFolders(
        tuple(chosen),
        tuple(index[inner[name][0]] for name in chosen),
        classes,
        sorting.split,
        sorting.notices + nested,
        tuple(str(path) for path in images if str(path) not in sorting.images),
    )


def _find_splits(parts: _Inner, wanted: Split, reading: Reading | None) -> _Sorting | None:
    """Return the images in class folders, or ``None`` if the folders are splits without class folders.

    A folder with the name of a split is one if it holds class folders, and no other folder speaks against it.
    """
    if reading == "classes":
        return _Sorting(parts)
    top = {path[0] for path in parts.values()}
    named = parts_of(top)
    deep = {path[0] for path in parts.values() if len(path) > 2 and path[0] in named}
    others = sorted(top - set(named))
    if reading == "splits":
        if not named:
            raise UsageError(
                f"no folder has the name of a split, only {first_names(others) or 'none'}",
                code="dataset-splits-absent",
                hint="name the folders train, validation or test",
            )
        others = []
    if not deep:
        if reading == "splits" or set(named) == top:
            return None
        return _Sorting(parts, None, _class_notice(named, top))
    inside = _folders_inside(parts.values())
    inside = {name: inside[name] for name in deep}
    if others and not _agree(inside):
        raise _unclear_error(sorted(named), others)
    split = _choose_split({name: named[name] for name in deep}, wanted)
    images = {name: path for name, path in parts.items() if path[0] in deep and len(path) > 2}
    return _Sorting(
        {name: _without_twin(path) for name, path in images.items()},
        split,
        _split_notices(named, split, wanted, reading),
    )


def _folders_inside(paths: Iterable[tuple[str, ...]]) -> dict[str, set[str]]:
    """Return the folders that lie in each outer folder, by its name."""
    inside: dict[str, set[str]] = {}
    for path in paths:
        inside.setdefault(path[0], set()).update(path[1:2] if len(path) > 2 else ())
    return inside


def _check_folds(paths: Collection[tuple[str, ...]]) -> None:
    """Check that the outer folders do not all hold the same folders, two or more, and no images themselves.

    The folders of a cross-validation do.

    Raises:
        ArtifactError: They do, so they may be parts of the dataset, and the inner folders its classes.
    """
    inside = _folders_inside(paths)
    shared = set[str]() if len(inside) < 2 else set.intersection(*inside.values())
    if len(shared) > 1 and all(len(path) > 2 for path in paths):
        outer = sorted(inside)
        raise ArtifactError(
            f"{first_names(outer)} may each be a class, or a part of the dataset with the classes "
            f"{first_names(sorted(shared))}",
            code="dataset-folds-unclear",
            hint=f"classes:PATH takes every folder as a class; PATH/{shell_word(outer[0])} takes that part",
        )


def _check_parts_inside(paths: Iterable[tuple[str, ...]]) -> None:
    """Check that no class folder holds several parts of the dataset, whose images would be taken together.

    Raises:
        ArtifactError: One does.
    """
    for name, folders in sorted(_folders_inside(paths).items()):
        parts = parts_of(folders)
        if len(set(parts.values())) > 1:
            raise ArtifactError(
                f"the folder of the class {quote(name)} holds parts of the dataset: {first_names(sorted(parts))}",
                code="dataset-parts-inside-classes",
                hint=f"move the parts outside, as {shell_word(sorted(parts)[0])}/{shell_word(name)}/IMAGE.jpg, or "
                "classes:PATH takes the images of all parts together",
            )


def _agree(inside: Mapping[str, set[str]]) -> bool:
    """Return whether several folders hold folders of the same names, as the splits of one dataset do."""
    first, *rest = inside.values()
    return bool(rest) and bool(first.intersection(*rest))


def _without_twin(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path in a split without a second folder of the same name, as in ``seg_train/seg_train/cat/1.jpg``."""
    return path[1:] if len(path) > 3 and path[0] == path[1] else path


def _find_unsorted(
    images: Iterable[PurePosixPath], wanted: Split, reading: Reading | None = None
) -> ClassFolders | None:
    parts = {str(path): path.parts for path in images}
    if reading is None:
        parts = _strip_outer_folders(parts, depth=1)
    named = parts_of({path[0] for path in parts.values() if len(path) > 1}) if reading != "classes" else {}
    split = _choose_split(named, wanted) if named else None
    chosen = [name for name, path in parts.items() if split is None or path[0] == split]
    notices = () if split is None else _split_notices(named, split, wanted, reading)
    outside = () if split is None else tuple(name for name, path in parts.items() if path[0] not in named)
    return ClassFolders(tuple(chosen), None, (), split, notices, outside) if chosen else None


def _strip_outer_folders(parts: _Inner, depth: int) -> _Inner:
    """Remove the folders that all names share, but keep splits, and at least ``depth`` components of each name."""
    while parts and min(map(len, parts.values())) > depth and len({path[0] for path in parts.values()}) == 1:
        outer = next(iter(parts.values()))[0]
        if parts_of([outer]) and not _holds_splits(parts):
            break
        parts = {name: path[1:] for name, path in parts.items()}
    return parts


def _holds_splits(parts: _Inner) -> bool:
    """Return whether the folders inside the only outer folder have names of splits."""
    inside = {path[1] for path in parts.values() if len(path) > 2}
    return bool(inside) and set(parts_of(inside)) == inside


def _choose_split(named: Mapping[str, Part], wanted: Split) -> str:
    """Return the folder of the wanted part, or of the one that comes nearest to it.

    Raises:
        ArtifactError: Several folders are that part.
    """
    part = next(part for part in PREFERENCE[wanted] if part in named.values())
    folders = sorted(name for name, value in named.items() if value == part)
    if len(folders) > 1:
        raise ArtifactError(
            f"{first_names(folders)} may each be the {part} part of the dataset",
            code="dataset-splits-ambiguous",
            hint=" or ".join(f"use PATH/{shell_word(folder)}" for folder in folders[:MAX_NAMED]),
        )
    return folders[0]


def _unclear_error(named: list[str], others: list[str]) -> ArtifactError:
    return ArtifactError(
        f"{first_names(named)} may be a class like {first_names(others)}, or a part of the dataset",
        code="dataset-layout-unclear",
        hint="classes:PATH takes every folder as a class; splits:PATH takes train, validation and test as parts",
    )


def _class_notice(named: Collection[str], top: Collection[str]) -> tuple[Reason, ...]:
    if not named:
        return ()
    others = sorted(set(top) - set(named))
    sentence = f"{first_names(sorted(named))} is taken as a class, like {first_names(others)}"
    return (Reason("dataset-split-is-class", f"{sentence}; a part of the dataset would hold folders of classes"),)


def _split_notices(named: Mapping[str, Part], split: str, wanted: Split, reading: Reading | None) -> tuple[Reason, ...]:
    """Return the notice about the chosen part.

    Where the user says that the folders are parts, only the choice between them is a guess.
    """
    part, parts = named[split], first_names(sorted(named))
    others = [f"PATH/{shell_word(name)}" for name in sorted(named) if name != split][:MAX_NAMED]
    if reading is None:
        beginning, end = f"{parts}: taken as parts of the dataset", "classes:PATH takes every folder as a class"
    elif others:
        beginning, end = f"the parts of the dataset are {parts}", f"{' or '.join(others)} takes others"
    elif part != wanted:
        beginning, end = f"the only part of the dataset is {parts}", f"a folder {wanted} would be taken first"
    else:
        return ()
    absent = "" if part == wanted else f" ({part} images, because there is no {wanted} part)"
    return (Reason("dataset-split-chosen", f"{beginning}; the images are those of {quote(split)}{absent}; {end}"),)


def _inner_folders_notice(paths: Collection[tuple[str, ...]], classes: Collection[str]) -> tuple[Reason, ...]:
    """Return the notice that folders inside the class folders are no classes."""
    inside = {path[:2] for path in paths if len(path) > 2}
    if not inside:
        return ()
    return (
        Reason(
            "dataset-folders-inside-classes",
            f"the {len(classes)} classes are the outer folders ({first_names(sorted(classes))}); the {len(inside)} "
            "folders inside them are no classes",
        ),
    )


def first_names(names: Collection[str]) -> str:
    """Return the first names as text, made safe for a message.

    Args:
        names: The names of folders.
    """
    more = ", ..." if len(names) > MAX_NAMED else ""
    return ", ".join(quote(name) for name in list(names)[:MAX_NAMED]) + more
