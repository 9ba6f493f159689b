"""In what arithmetic a graph ran, and whether that is what it is typed in. Both are words of a row."""

from __future__ import annotations

import re

from exporter.explain.profile_summary import bits
from runtimes.errors import Reason

_COUNTED = re.compile(r"(\w+) \((\d+) of \d+\)")
_NUMBER = re.compile(r"t?b?float\d+|u?int\d+")

TF32_BITS = 19
"""That tell of a number; it is stored in 32."""


def count_layers(arithmetic: str | None) -> dict[str, int]:
    """How many layers ran in each, where the words count them, as ``int8 (53 of 54), float32 (1 of 54)`` does."""
    return {name: int(count) for name, count in _COUNTED.findall(arithmetic or "")}


def narrower(precision: str | None, arithmetic: str | None) -> Reason | None:
    """What a graph gave away beside what it is typed in, in words; ``None`` if it is nothing, or not known."""
    below, _, _ = _layers(precision, arithmetic)
    if not below:
        return None
    return Reason("ran-narrower", f"the graph is typed in {precision}, and it ran in {arithmetic}")


def wider(precision: str | None, arithmetic: str | None) -> Reason | None:
    """That most of a graph ran wider than it is typed, in words; ``None`` if it did not, or that is not known."""
    below, same, above = _layers(precision, arithmetic)
    return Reason("ran-wider", f"typed in {precision}, it ran in {arithmetic}") if above > below + same else None


def _layers(precision: str | None, arithmetic: str | None) -> tuple[int, int, int]:
    """How many ran in narrower, in the same, and in wider numbers than the graph's; 0 of what is not counted."""
    counts = count_layers(arithmetic)
    if not counts and arithmetic is not None and _NUMBER.fullmatch(arithmetic):
        counts = {arithmetic: 1}
    if precision is None:
        return 0, 0, 0
    own, found = _bits(precision), [0, 0, 0]
    for name, count in counts.items():
        width = _bits(name)
        found[(width >= own) + (width > own)] += count
    return found[0], found[1], found[2]


def _bits(name: str) -> int:
    return TF32_BITS if name.startswith("tf") else bits(name)
