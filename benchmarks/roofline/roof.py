"""Comparison of a measured time with the limits of the machine, and of the executed with the requested precision.

The model is the roofline of Williams, Waterman and Patterson 2009 (doi 10.1145/1498765.1498785): no call can end before
the machine can make its multiply-adds, or before it can move the bytes that must be moved.
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
"""The significant bits of a TensorFloat-32 number, which is stored in 32 bits."""

PLAUSIBLE = 1.05
"""The largest plausible share of the roofline. The measured peaks have an error of a few percent."""


def roof_inputs(cost: Cost | None, ceilings: Ceilings | None, arithmetic: str | None) -> RoofInputs | None:
    """Return the roofline of a result, or ``None`` if a part of it is unknown. Missing peaks are not guessed.

    Args:
        cost: The cost of one call of the whole batch.
        ceilings: The peak rates.
        arithmetic: The executed arithmetic, as ``Ran.arithmetic``; see ``peak``.
    """
    if cost is None or ceilings is None:
        return None
    peak_per_s, bandwidth = peak(ceilings, arithmetic), ceilings.bandwidth_bytes_per_s
    if peak_per_s is None or bandwidth is None or not cost.multiply_adds:
        return None
    return RoofInputs(cost.multiply_adds, cost.traffic_bytes, peak_per_s, bandwidth)


def peak(ceilings: Ceilings, arithmetic: str | None) -> float | None:
    """Return the peak multiply-adds per second of an arithmetic, or ``None`` if a part of it was not measured.

    If the layers of a mixture are counted, as in ``int8 (53 of 54), float32 (1 of 54)``, each arithmetic has the same
    share of the work as of the layers, and the times add up: the convolutions of a residual network are designed to
    cost the same (He et al. 2015, section 3.3). If they are not counted, as in ``float32 int8``, all work is assumed to
    run in the fastest arithmetic. The share of the roofline is then too low rather than too high.

    Args:
        ceilings: The peak rates.
        arithmetic: The arithmetic, as ``Ran.arithmetic``.
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
    """Return a warning if a call of ``compute_s`` is faster than the ``roof`` allows, otherwise ``None``."""
    if roof.least_s / compute_s <= PLAUSIBLE:
        return None
    least_s = roof.least_s
    if roof.bound == "compute":
        work, rate = roof.multiply_adds / 1e9, roof.peak_multiply_adds_per_s / 1e9
        return Reason(
            "faster-than-peak",
            f"a call takes {1e3 * compute_s:.3g} ms, less than the {1e3 * least_s:.3g} ms of {work:.3g} G "
            f"multiply-adds at the peak of {rate:.3g} G/s: a measurement is wrong, or the library saves "
            "multiplications",
        )
    work, rate = roof.traffic_bytes / 1e6, roof.bandwidth_bytes_per_s / 1e9
    return Reason(
        "faster-than-bandwidth",
        f"a call takes {1e3 * compute_s:.3g} ms, less than the {1e3 * least_s:.3g} ms of {work:.3g} MB at the "
        f"bandwidth of {rate:.3g} GB/s: a measurement is wrong, or a cache holds the data from call to call",
    )


def count_layers(arithmetic: str | None) -> dict[str, int]:
    """Return the number of layers by arithmetic; empty if they are not counted, as in ``float32 int8``."""
    return {name: int(count) for name, count in _COUNTED.findall(arithmetic or "")}


def narrower(precision: str | None, arithmetic: str | None) -> Reason | None:
    """Return a warning if layers were executed in a lower ``precision`` than requested, otherwise ``None``.

    Args:
        precision: The precision of the graph.
        arithmetic: The executed arithmetic, as ``Ran.arithmetic``.
    """
    below, _, _ = _layers(precision, arithmetic)
    if not below:
        return None
    return Reason("ran-narrower", f"the graph has precision {precision}, but was executed as {arithmetic}")


def wider(precision: str | None, arithmetic: str | None) -> Reason | None:
    """Return a note if most layers were executed in a higher ``precision`` than requested, otherwise ``None``.

    Args:
        precision: The precision of the graph.
        arithmetic: The executed arithmetic, as ``Ran.arithmetic``.
    """
    below, same, above = _layers(precision, arithmetic)
    if above <= below + same:
        return None
    return Reason("ran-wider", f"the graph has precision {precision}, but was executed as {arithmetic}")


def _layers(precision: str | None, arithmetic: str | None) -> tuple[int, int, int]:
    """Return the numbers of layers in lower, equal and higher precision than the graph; 0 if they are not counted."""
    counts = count_layers(arithmetic)
    if not counts and arithmetic is not None and _NUMBER.fullmatch(arithmetic):
        counts = {arithmetic: 1}
    if precision is None:
        return 0, 0, 0
    own, *widths = (TF32_BITS if name.startswith("tf") else bits(name) for name in (precision, *counts))
    numbers = [0, 0, 0]
    for width, count in zip(widths, counts.values(), strict=True):
        numbers[(width >= own) + (width > own)] += count
    return numbers[0], numbers[1], numbers[2]
