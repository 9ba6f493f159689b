"""The peak rates of this machine: multiply-adds per second in each arithmetic, and bytes per second from its memory.

The peaks are the best values that the installed libraries reach with large square matrix products and with streams of
bytes, measured in a process of their own. A library that reports another arithmetic than the requested one is left out.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.process import isolated
from benchmarks.process.isolated import Failure
from benchmarks.roofline.matmul import Call, Product, finishing, products
from benchmarks.worker.timer import Clock
from runtimes.errors import Reason

ARITHMETICS = ("float32", "tfloat32", "bfloat16", "float16", "int8")
"""The arithmetics, by the names in ``Ran.arithmetic``."""

LIMIT_S: Mapping[str, float] = {"cpu": 3.5, "cuda": 15.0}
"""The approximate duration by device, with the imports of the libraries. The process starts in half a second."""

HUNG_S = 60.0
"""The time beyond the limit after which the process is ended."""


@dataclass(frozen=True)
class CeilingsRequest:
    """The request for a measurement.

    Attributes:
        threads: The number of threads.
        device: The device.
        arithmetics: The arithmetics.
        limit_s: The approximate duration.
    """

    threads: int
    device: str = "cpu"
    arithmetics: tuple[str, ...] = ARITHMETICS
    limit_s: float = LIMIT_S["cpu"]


@dataclass(frozen=True)
class Ceilings:
    """The highest measured rates. Rates that cannot be measured here are absent.

    Attributes:
        device: The device.
        threads: The number of threads.
        multiply_adds_per_s: The multiply-adds per second by arithmetic, as ``Ran.arithmetic`` names it.
        bandwidth_bytes_per_s: The bandwidth of a stream that does not fit into a cache: a copy, whose bytes count twice
            (read and written), or a search for the maximum, which only reads; ``None`` if not measured.
        method: How the highest rate was reached, by arithmetic, as ``openvino, 1024 x 1024``, and under ``bandwidth``.
        missing: The reason why there is no rate at all, or ``None``.
    """

    device: str
    threads: int
    multiply_adds_per_s: Mapping[str, float] = field(default_factory=dict)
    bandwidth_bytes_per_s: float | None = None
    method: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None


def measure_ceilings(
    threads: int,
    device: str = "cpu",
    arithmetics: Sequence[str] = ARITHMETICS,
    limit_s: float | None = None,
    program: Sequence[str] | None = None,
) -> Ceilings:
    """Measure the peak rates in a process of its own.

    If the process fails, all rates are absent and ``missing`` has the reason. Results are still valid then.

    Args:
        threads: The number of threads.
        device: The device.
        arithmetics: The arithmetics.
        limit_s: The approximate duration for which the call blocks; ``None`` for that of ``LIMIT_S``.
        program: The command to start, as for ``benchmarks.process.isolated.call``.
    """
    limit_s = LIMIT_S.get(device, max(LIMIT_S.values())) if limit_s is None else limit_s
    request = CeilingsRequest(threads, device, tuple(arithmetics), limit_s)
    reply = isolated.call(__name__, request, Ceilings, limit_s + HUNG_S, program)
    if isinstance(reply, Failure):
        missing = Reason("ceilings-not-measured", f"not measured: {reply.reason}")
        return Ceilings(device, threads, missing=missing.sentence)
    return reply


@dataclass(frozen=True)
class Rate:
    """A rate and how it was reached.

    Attributes:
        per_s: The multiply-adds or bytes per second.
        method: The library and the size.
    """

    per_s: float
    method: str


def measure(request: CeilingsRequest, clock: Clock = time.perf_counter) -> Ceilings:
    """Measure the peak rates in this process, whose libraries keep the number of threads afterwards.

    The products share the remaining time, so that the others use the part of a library that is not installed.

    Args:
        request: What to measure. The call blocks for about its ``limit_s``.
        clock: The clock.
    """
    threads, device, end = request.threads, request.device, clock() + request.limit_s
    with tempfile.TemporaryDirectory(prefix="rbench-ceilings-") as folder:
        candidates = products(threads, device, request.arithmetics, Path(folder))
        stream, rates = bandwidth(threads, device, clock), dict[str, Rate]()
        for number, product in enumerate(candidates):
            rate = find_best_rate(product, (end - clock()) / (len(candidates) - number), clock)
            known = rates.get(product.arithmetic)
            if rate is not None and (known is None or rate.per_s > known.per_s):
                rates[product.arithmetic] = rate
    rates = without_emulation(rates)
    return Ceilings(
        device=device,
        threads=threads,
        multiply_adds_per_s={name: rate.per_s for name, rate in rates.items()},
        bandwidth_bytes_per_s=None if stream is None else stream.per_s,
        method={name: rate.method for name, rate in rates.items()} | ({BANDWIDTH: stream.method} if stream else {}),
    )


BANDWIDTH = "bandwidth"
"""The key of the bandwidth in ``Ceilings.method``."""

SIZES = tuple(2**power for power in range(8, 14))
"""The sizes of products. Smaller products do not reach the peak, larger ones would need gigabytes."""

RUNS = 3
"""The minimum number of runs of each size, after one that does not count.

Disturbances only prolong a run, so the shortest run counts.
"""

LEAST_S = 0.02
"""The minimum of the total time of all runs of one size."""


def find_best_rate(product: Product, limit_s: float, clock: Clock = time.perf_counter) -> Rate | None:
    """Return the highest rate over all sizes, or ``None`` if the library cannot compute the product.

    Each size is twice the one before, as long as the next one is expected to end in time. The smallest size is always
    tried.

    Args:
        product: The product.
        limit_s: The time limit.
        clock: The clock.
    """
    end, rate = clock() + limit_s, None
    try:
        product.check()
        for size in SIZES:
            begun = clock()
            with product.make(size) as call:
                ready_s, taken_s = clock() - begun, shortest_s(call, clock)
            if rate is None or size**3 / taken_s > rate.per_s:
                rate = Rate(size**3 / taken_s, f"{product.library}, {size} x {size}")
            next_s = 8 * taken_s
            if clock() + 4 * ready_s + max((RUNS + 1) * next_s, LEAST_S + next_s) > end:
                break
    except Exception:  # libraries raise their own exceptions for missing features and for lack of memory
        return rate
    return rate


def shortest_s(call: Call, clock: Clock) -> float:
    """Return the seconds of the shortest run of ``call`` by ``clock``. The first run, which prepares, is not timed."""
    call()
    times_s: list[float] = []
    while len(times_s) < RUNS or sum(times_s) < LEAST_S:
        start = clock()
        call()
        times_s.append(clock() - start)
    return min(times_s)


def without_emulation(rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """Return the rates without narrow floats that are slower than float32.

    A processor emulates types that it does not support, and the rate of an emulation is no peak.
    """
    wide = rates.get("float32")
    return {
        name: rate for name, rate in rates.items() if wide is None or "float" not in name or rate.per_s >= wide.per_s
    }


STREAM_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
"""The size of the source and of the target of a copy. Together they are several times as large as a cache."""


def bandwidth(threads: int, device: str, clock: Clock = time.perf_counter) -> Rate | None:
    """Return the bandwidth of the device's memory, or ``None`` if no library can measure it.

    Args:
        threads: The number of threads.
        device: The device.
        clock: The clock.
    """
    size_bytes = STREAM_BYTES.get(device, max(STREAM_BYTES.values()))
    try:
        with _streams(threads, device, size_bytes) as (copy, read):
            rates = (
                Rate(2 * size_bytes / shortest_s(copy, clock), f"copying {size_bytes >> 20} MiB"),
                Rate(size_bytes / shortest_s(read, clock), f"reading {size_bytes >> 20} MiB"),
            )
    except Exception:  # as in ``find_best_rate``
        return None
    return max(rates, key=lambda rate: rate.per_s)


@contextlib.contextmanager
def _streams(threads: int, device: str, size_bytes: int) -> Iterator[tuple[Call, Call]]:
    """Yield a copy of so many bytes, and a search for the maximum of as many.

    For a processor NumPy works in threads, each on its own part; for a GPU PyTorch is used.
    """
    count = size_bytes // 4
    if device != "cpu":
        import torch

        data = torch.ones(count, device=device)
        other = torch.empty_like(data)
        yield finishing(lambda: other.copy_(data), device), finishing(data.max, device)
        return
    source, target = (np.ones(count, np.float32) for _ in range(2))
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        yield (
            lambda: list(pool.map(lambda part: np.copyto(*part), parts)),
            lambda: list(pool.map(lambda part: part[1].max(), parts)),
        )


def main(arguments: Sequence[str]) -> int:
    """Measure the peak rates in the process of ``measure_ceilings``. ``arguments`` are its request and reply path."""
    return isolated.answer(arguments, CeilingsRequest, measure)
