"""Batches that are larger than one run may be: they are run in parts."""

from __future__ import annotations

import numpy as np

from runtimes.tensors.spec import Arrays


def bounds(images: int, most: int | None) -> list[tuple[int, int]]:
    """Return the first row and the row after the last of each part of ``images`` rows, at most ``most`` rows each."""
    step = most or images
    return [(start, min(start + step, images)) for start in range(0, images, step)]


def split(arrays: Arrays, images: int, most: int | None) -> list[Arrays]:
    """Return the parts of ``arrays`` with ``images`` rows as views, ``most`` rows each; ``None`` means no limit."""
    if most is None or images <= most:
        return [arrays]
    return [{name: array[start:stop] for name, array in arrays.items()} for start, stop in bounds(images, most)]


def join(parts: list[Arrays]) -> Arrays:
    """Return the outputs of all parts as one batch."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
