"""The classes of a dataset and the outputs of a network, matched by name or by position."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from exporter.data.dataset import Dataset
from runtimes.errors import ModelMismatchError, quote


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
    ours, theirs = [plain_name(name) for name in names], [plain_name(name) for name in labels or ()]
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
    return not set(map(plain_name, names)) <= set(map(plain_name, labels))


def position_example(names: Sequence[str], labels: Sequence[str]) -> str:
    """Return an example of classes that are matched by position, for a notice.

    It is the first class of a dataset without a label of its name, as ``lorry is truck``, or ``lorry is output 1`` if
    the labels are unknown.

    Args:
        names: The class names of the dataset, of which one has no label of its name.
        labels: The labels of the network, or none if unknown.
    """
    known = set(map(plain_name, labels))
    position = next(position for position, name in enumerate(names) if plain_name(name) not in known)
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


def plain_name(name: str) -> str:
    """Return the name of a class without what is ignored: case, hyphens, underscores and slashes."""
    return re.sub("[_/-]", " ", name.casefold()).strip()
