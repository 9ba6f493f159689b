"""What limits the throughput of a GPU besides its own work, and whether ``trtexec`` measures the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.format import milliseconds, number
from runtimes.errors import Reason

ENQUEUE_SHARE = 0.8
"""The time to queue a run, as a share of its time on the device, above which the host may be the limit.

``trtexec`` warns above the same share."""

PARITY = (0.97, 1.03)
"""The range in which the time of ``trtexec`` over that of rbench is taken for the same."""


@dataclass(frozen=True)
class DeviceTimes:
    """The medians of a GPU's row in seconds; ``None`` if not measured.

    Attributes:
        device_s: One run on the device.
        enqueue_s: What the host needs to queue a run.
        to_device_s: The copies of the inputs.
        to_host_s: The copies of the outputs.
    """

    device_s: float
    enqueue_s: float | None = None
    to_device_s: float | None = None
    to_host_s: float | None = None


def list_limits(times: DeviceTimes | None, idle_share: float | None, trtexec_ratio: float | None) -> Iterator[Reason]:
    """The warnings about a row of a GPU.

    Args:
        times: The medians of the row; ``None`` for a row of a processor.
        idle_share: The share of a run in which no kernel ran.
        trtexec_ratio: The time of ``trtexec`` over that of rbench.
    """
    if times is None:
        return
    if times.enqueue_s is not None and times.enqueue_s > ENQUEUE_SHARE * times.device_s:
        idle = "" if not idle_share else f", device idle {number(idle_share, scale=100)} % of a run"
        yield Reason(
            "enqueue-bound",
            "the host may limit the throughput: queueing a run takes about as long as the run "
            f"(enqueue {milliseconds(times.enqueue_s)} ms, device {milliseconds(times.device_s)} ms{idle})",
        )
    copies_s = (times.to_device_s or 0.0) + (times.to_host_s or 0.0)
    if copies_s > times.device_s:
        yield Reason(
            "transfer-bound",
            "copies may limit the throughput: they take longer than the run "
            f"(to the device {milliseconds(times.to_device_s)} ms, to the host {milliseconds(times.to_host_s)} ms, "
            f"device {milliseconds(times.device_s)} ms)",
        )
    if trtexec_ratio is not None and not PARITY[0] <= trtexec_ratio <= PARITY[1]:
        yield Reason(
            "trtexec-differs",
            f"trtexec measures another time for the same engine ({trtexec_ratio:.2f} times the device time, expected "
            f"{PARITY[0]} to {PARITY[1]})",
        )
