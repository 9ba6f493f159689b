"""How near a measured time is to what the machine can do at all: its ceilings, a graph's work, and the share reached.

The roofline of Williams, Waterman and Patterson 2009 (doi 10.1145/1498765.1498785): no call ends before the machine
could have made its multiply-adds, nor before it could have moved the bytes that must be moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.roofline.executed_precision import count_layers

if TYPE_CHECKING:
    from benchmarks.roofline.ceilings import Ceilings
    from benchmarks.roofline.graph_cost import Cost
from benchmarks.records.roof import Roof

PLAUSIBLE = 1.05
"""The largest share of the roof that is believed. The ceilings are measured too, within some percent."""


def roof(cost: Cost, ceilings: Ceilings, arithmetic: str | None, compute_p50_s: float | None) -> Roof | None:
    """The roof over a row; ``None`` where a part of it is not known: a ceiling that was not measured is not guessed.

    Args:
        cost: of one call, the whole batch.
        arithmetic: as ``Row.arithmetic``; see ``peak``.
        compute_p50_s: median seconds of one call, the inputs on the device.
    """
    peak_per_s, bandwidth = peak(ceilings, arithmetic), ceilings.bandwidth_bytes_per_s
    if peak_per_s is None or bandwidth is None or not compute_p50_s or not cost.multiply_adds:
        return None
    compute_s, moving_s = cost.multiply_adds / peak_per_s, cost.traffic_bytes / bandwidth
    least_s = max(compute_s, moving_s)
    return Roof(
        multiply_adds=cost.multiply_adds,
        traffic_bytes=cost.traffic_bytes,
        peak_multiply_adds_per_s=peak_per_s,
        bandwidth_bytes_per_s=bandwidth,
        least_s=least_s,
        share=least_s / compute_p50_s,
        bound="compute" if compute_s >= moving_s else "bandwidth",
    )


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


def implausible(roof: Roof) -> str | None:
    """Why a row under this roof is doubtful, in one line; ``None`` if it is not."""
    if roof.share <= PLAUSIBLE:
        return None
    told = f"{1e3 * roof.least_s / roof.share:.3g} ms a call is less than the {1e3 * roof.least_s:.3g} ms"
    if roof.bound == "compute":
        work, rate = roof.multiply_adds / 1e9, roof.peak_multiply_adds_per_s / 1e9
        return (
            f"{told} that {work:.3g} G multiply-adds take at the {rate:.3g} G/s of the fastest matrix product here: "
            "one of these is wrong, or the library saves multiplications"
        )
    work, rate = roof.traffic_bytes / 1e6, roof.bandwidth_bytes_per_s / 1e9
    return (
        f"{told} that {work:.3g} MB take at the {rate:.3g} GB/s of the memory here: one of these is wrong, or a "
        "cache holds them from call to call"
    )
