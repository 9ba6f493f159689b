"""How near a measured time is to what the machine can do at all: its ceilings, and a graph's work; and in what
arithmetic the graph ran, and whether that is what it is typed in. Both are words of a row.

The roofline of Williams, Waterman and Patterson 2009 (doi 10.1145/1498765.1498785): no call ends before the machine
could have made its multiply-adds, nor before it could have moved the bytes that must be moved.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks.records.result import RoofInputs
from exporter.explain.profile_summary import bits
from runtimes.errors import Reason

if TYPE_CHECKING:
    from benchmarks.roofline.ceilings import Ceilings
    from benchmarks.roofline.graph_cost import Cost

_COUNTED = re.compile(r"(\w+) \((\d+) of \d+\)")
_NUMBER = re.compile(r"t?b?float\d+|u?int\d+")

TF32_BITS = 19
"""That tell of a number; it is stored in 32."""

PLAUSIBLE = 1.05
"""The largest share of the roof that is believed. The ceilings are measured too, within some percent."""


def roof_inputs(cost: Cost | None, ceilings: Ceilings | None, arithmetic: str | None) -> RoofInputs | None:
    """The roof over a result; ``None`` where a part of it is not known: a ceiling that was not measured is not guessed.

    Args:
        cost: of one call, the whole batch.
        arithmetic: as ``Ran.arithmetic``; see ``peak``.
    """
    if cost is None or ceilings is None:
        return None
    peak_per_s, bandwidth = peak(ceilings, arithmetic), ceilings.bandwidth_bytes_per_s
    if peak_per_s is None or bandwidth is None or not cost.multiply_adds:
        return None
    return RoofInputs(cost.multiply_adds, cost.traffic_bytes, peak_per_s, bandwidth)


def peak(ceilings: Ceilings, arithmetic: str | None) -> float | None:
    """Multiply-adds a second that the machine reaches in that arithmetic, or ``None`` if one of it was not measured.

    Of a mixture whose layers are counted, ``int8 (53 of 54), float32 (1 of 54)``, each arithmetic has as large a part
    of the work as of the layers, and the times add up: a residual network's convolutions were designed to cost the
    same (He et al. 2015, section 3.3). Of one that is not, ``float32 int8``, all is taken to run in the fastest: the
    roof is then higher than it need be, and the share never too good.
    """
    counts = count_layers(arithmetic)
    names = list(counts) or (arithmetic or "").split()
    known = [ceilings.multiply_adds_per_s.get(name) for name in names]
    peaks = [value for value in known if value is not None]
    if not peaks or len(peaks) < len(names):
        return None
    if not counts:
        return max(peaks)
    return sum(counts.values()) / sum(count / value for count, value in zip(counts.values(), peaks, strict=True))


def implausible(roof: RoofInputs, compute_s: float) -> Reason | None:
    """Why a result whose call takes ``compute_s`` under this roof is doubtful; ``None`` if it is not."""
    if roof.least_s / compute_s <= PLAUSIBLE:
        return None
    least_s = roof.least_s
    if roof.bound == "compute":
        work, rate = roof.multiply_adds / 1e9, roof.peak_multiply_adds_per_s / 1e9
        return Reason(
            "faster-than-peak",
            f"{1e3 * compute_s:.3g} ms a call is less than the {1e3 * least_s:.3g} ms that {work:.3g} G multiply-adds "
            f"take at the {rate:.3g} G/s of the fastest matrix product here: one of these is wrong, or the library "
            "saves multiplications",
        )
    work, rate = roof.traffic_bytes / 1e6, roof.bandwidth_bytes_per_s / 1e9
    return Reason(
        "faster-than-bandwidth",
        f"{1e3 * compute_s:.3g} ms a call is less than the {1e3 * least_s:.3g} ms that {work:.3g} MB take at the "
        f"{rate:.3g} GB/s of the memory here: one of these is wrong, or a cache holds them from call to call",
    )


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
    own, *widths = (TF32_BITS if name.startswith("tf") else bits(name) for name in (precision, *counts))
    found = [0, 0, 0]
    for width, count in zip(widths, counts.values(), strict=True):
        found[(width >= own) + (width > own)] += count
    return found[0], found[1], found[2]
