"""Checks of arguments from Python, which a type checker would refuse but a caller without one may pass."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from typing import Any

from runtimes.errors import UsageError, quote

LARGEST_COUNT = 2**31 - 1
"""The largest count that an argument or option takes: libraries and file formats hold counts in 32 bits."""

LARGEST_SEED = 2**63 - 1
"""The largest seed that an argument or option takes."""


def is_count(value: Any) -> bool:
    """Return whether a value is an integer of at least 1, of Python or of NumPy."""
    number = _read_integer(value)
    return number is not None and number >= 1


def require_not_too_large(largest: int = LARGEST_COUNT, **values: object) -> None:
    """Check that no integer among the arguments of a caller is above the largest one.

    Args:
        largest: The largest value.
        values: The arguments by name. What is no integer is left to other checks.

    Raises:
        UsageError: An integer is too large. The message names its argument.
    """
    for name, value in values.items():
        number = _read_integer(value)
        if number is not None and number > largest:
            raise UsageError(f"{name} is {number}, expected at most {largest}", code="number-too-large")


def require_not_empty(**values: object) -> None:
    """Check that no path or name among the arguments of a caller is an empty text, which would mean the current folder.

    Args:
        values: The arguments by name. A list is looked into, and what is no text or path is left to other checks.

    Raises:
        UsageError: A text is empty. The message names its argument.
    """
    for name, value in values.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, str | bytes | os.PathLike) and not os.fspath(each):
                raise UsageError(f"{name} is an empty text, expected a path or a name", code="argument-empty")


def require_truth_value(**values: object) -> None:
    """Check that arguments of a caller are truth values, of Python or NumPy: the text ``no`` counts as true.

    Args:
        values: The arguments by name.

    Raises:
        UsageError: A value is something else. The message names its argument.
    """
    for name, value in values.items():
        if type(value).__name__ not in ("bool", "bool_"):
            raise UsageError(f"{name} must be True or False, not {quote(repr(value))}", code="truth-value-invalid")


def _read_integer(value: Any) -> int | None:
    """Return the integer of Python or NumPy as Python's, or ``None`` for any other value."""
    try:
        return operator.index(value)
    except TypeError:
        return None


def require_names(labels: object) -> tuple[str, ...]:
    """Return the names of classes, which have an order.

    Args:
        labels: The argument ``labels`` of a caller.

    Raises:
        UsageError: It is no sequence, as a set, or one text; or it holds something else than texts.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence):
        raise UsageError(
            f"labels is of type {quote(type(labels).__name__)}; expected a list of names in the order of the outputs",
            code="labels-not-a-list",
            hint='labels=["red", "green"]',
        )
    for position, label in enumerate(labels):
        if not isinstance(label, str):
            raise UsageError(
                f"labels[{position}] is of type {quote(type(label).__name__)}; expected a string",
                code="labels-not-strings",
            )
    return tuple(labels)
