"""What this machine can do at all: multiply-adds a second in each arithmetic, and bytes a second from its memory.

They are the best that the libraries here reach with large square matrix products and with streams of bytes, measured
in a process of its own. A library that computes in another arithmetic than it was asked for, by its own word, is left
out.
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
"""By the names of ``Row.arithmetic``."""

LIMIT_S: Mapping[str, float] = {"cpu": 3.5, "cuda": 15.0}
"""By device: how long it takes about, with the libraries' imports; the process starts in half a second."""

HUNG_S = 60.0
"""Past the limit: a process that takes longer is ended."""


@dataclass(frozen=True)
class CeilingsRequest:
    """What to measure: ``arithmetics`` on ``device``, with ``threads``, in about ``limit_s``."""

    threads: int
    device: str = "cpu"
    arithmetics: tuple[str, ...] = ARITHMETICS
    limit_s: float = LIMIT_S["cpu"]


@dataclass(frozen=True)
class Ceilings:
    """The most that was reached. What could not be measured here is not among it.

    Attributes:
        device, threads: that it was measured on and with.
        multiply_adds_per_s: by arithmetic, as ``Row.arithmetic`` names it.
        bandwidth_bytes_per_s: of a stream that is too long for a cache: a copy, whose bytes count twice, once read and
            once written, or a search for the largest number, which only reads; ``None`` where it was not measured.
        method: how the best was reached: by arithmetic, as ``openvino, 1024 x 1024``, and under ``bandwidth``.
        missing: why there is nothing at all, in one line, or ``None``.
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
    """This machine's ceilings, from a process of its own. Blocks for about ``limit_s``, by default ``LIMIT_S``.

    A process that fails leaves every ceiling out, and says why: no row is worse for it. ``program`` as for
    ``benchmarks.process.isolated.call``.
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
    """``per_s`` multiply-adds or bytes a second, and how."""

    per_s: float
    method: str


def measure(request: CeilingsRequest, clock: Clock = time.perf_counter) -> Ceilings:
    """The ceilings, measured in this process, whose libraries then have their threads. Blocks for about ``limit_s``.

    The products share what is left of the time: a library that is not installed leaves its part to the others.
    """
    threads, device, end = request.threads, request.device, clock() + request.limit_s
    with tempfile.TemporaryDirectory(prefix="rbench-ceilings-") as folder:
        found = products(threads, device, request.arithmetics, Path(folder))
        stream, rates = bandwidth(threads, device, clock), dict[str, Rate]()
        for number, product in enumerate(found):
            rate = find_best_rate(product, (end - clock()) / (len(found) - number), clock)
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

SIZES = tuple(2**power for power in range(8, 14))
"""Of a product: below, no library is at its best; above, it would take gigabytes."""

RUNS = 3
"""Of each size at least, after one that is not counted. The shortest counts: what disturbs only makes it longer."""

LEAST_S = 0.02
"""Of the runs of one size together."""


def find_best_rate(product: Product, limit_s: float, clock: Clock = time.perf_counter) -> Rate | None:
    """The rate of the size that does best, or ``None`` if the library cannot.

    Each size is twice the one before, for as long as the next can be expected to end within ``limit_s``; the smallest
    is always tried.
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
    except Exception:  # libraries raise their own kinds for what they do not have, or have no memory for
        return rate
    return rate


def shortest_s(call: Call, clock: Clock) -> float:
    """Seconds of the shortest run. The first one, which packs and finds memory, is not timed."""
    call()
    taken: list[float] = []
    while len(taken) < RUNS or sum(taken) < LEAST_S:
        start = clock()
        call()
        taken.append(clock() - start)
    return min(taken)


def without_emulation(rates: Mapping[str, Rate]) -> dict[str, Rate]:
    """Without the narrow floats that are slower than float32: what a processor has not is computed by way of what it
    has, in one library faster than in the other, and in none at a ceiling."""
    wide = rates.get("float32")
    return {
        name: rate for name, rate in rates.items() if wide is None or "float" not in name or rate.per_s >= wide.per_s
    }


STREAM_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
"""Of each of the two ends of a copy: together several times a cache."""


def bandwidth(threads: int, device: str, clock: Clock = time.perf_counter) -> Rate | None:
    """Of the device's memory; ``None`` where there is no library to try it with."""
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
    """A copy of so many bytes, and a search for the largest number in as many: on a processor by NumPy in threads, each
    in its own part, on a GPU by PyTorch."""
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
    """Writes the ceilings that the request names, as ``benchmarks.process.isolated.answer`` does."""
    return isolated.answer(arguments, CeilingsRequest, measure)
