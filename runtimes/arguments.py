"""Checks of arguments from Python, which a type checker would refuse but a caller without one may pass."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from runtimes.errors import UsageError, quote


def is_count(value: Any) -> bool:
    """Return whether a value is an integer of at least 1, of Python or of NumPy."""
    try:
        return operator.index(value) >= 1
    except TypeError:
        return False


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
