"""What the kernel tells of the machine at one moment: the accounts of processors and threads, frequency, throttling.

``/proc/stat`` is read for the processors that this process may use, the scheduler's account of its threads, and what
``/sys`` says of the processors. What is not there, as in some containers, is ``None``, never guessed. A look takes a
fraction of a millisecond.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
"""What ``/proc/stat`` counts in."""

_FIRST_PROCESSOR_BYTES = 4096


@dataclass(frozen=True)
class Ticks:
    """A processor's account in seconds: all of its time, and what of it was idle, or stolen by the hypervisor."""

    total_s: float
    idle_s: float
    steal_s: float

    def __sub__(self, other: Ticks) -> Ticks:
        return Ticks(self.total_s - other.total_s, self.idle_s - other.idle_s, self.steal_s - other.steal_s)


@dataclass(frozen=True)
class Account:
    """The processors that this process may use, when its clock stood at ``wall_s`` and it had used ``cpu_s``."""

    wall_s: float
    cpu_s: float
    processors: Mapping[int, Ticks]


@dataclass(frozen=True)
class Snapshot:
    """The machine at one moment, as counters that only grow; ``mhz`` alone is a state. ``None``: it is not told.

    Attributes:
        account: of the processors.
        waited_s: for each thread of this process, how long it waited for a processor.
        pressure_s: in which some task of the system waited for a processor.
        throttled: for each processor, how often it was.
        mhz: of the processor that this thread was last on, or of the first one where only that is told.
    """

    account: Account | None
    waited_s: Mapping[str, float] | None
    pressure_s: float | None
    throttled: Mapping[str, int] | None
    mhz: float | None


@dataclass(frozen=True)
class SnapshotDelta:
    """What two looks tell of the time between them; ``None``: one of them was not told.

    ``waited_s`` is of all threads together, ``throttled`` of the processor where it was most, ``mhz`` the later one.
    """

    account: Account | None
    waited_s: float | None
    pressure_s: float | None
    throttled: int | None
    mhz: float | None


def change(before: Snapshot, after: Snapshot) -> SnapshotDelta:
    """What happened between the two. A thread that was not there before began from nothing."""
    account = waited = throttled = pressure_s = None
    if (old := before.account) is not None and (new := after.account) is not None:
        processors = {number: ticks - old.processors[number] for number, ticks in new.processors.items()}
        account = Account(new.wall_s - old.wall_s, new.cpu_s - old.cpu_s, processors)
    if before.waited_s is not None and after.waited_s is not None:
        waited = math.fsum(value - before.waited_s.get(thread, 0.0) for thread, value in after.waited_s.items())
    if before.pressure_s is not None and after.pressure_s is not None:
        pressure_s = after.pressure_s - before.pressure_s
    if before.throttled is not None and after.throttled is not None:
        throttled = max(count - before.throttled.get(name, count) for name, count in after.throttled.items())
    return SnapshotDelta(account, waited, pressure_s, throttled, after.mhz)


def take_snapshot(root: Path, usable: Sequence[int]) -> Snapshot:
    """The machine now; ``usable`` are the processors that this process may use."""
    words = read_text(root / "proc/thread-self/stat").rpartition(")")[2].split()
    return Snapshot(
        account=_account(root, usable),
        waited_s=_read_waits_s(root / "proc/self/task"),
        pressure_s=_pressure_s(root / "proc/pressure/cpu"),
        throttled=_read_throttle_counts(root, usable),
        mhz=frequency_mhz(root, words[36] if len(words) > 36 else None),
    )


def _account(root: Path, usable: Sequence[int]) -> Account | None:
    """``None`` also where the file numbers the processors otherwise than the affinity does."""
    text = read_text(root / "proc/stat")
    moment = time.perf_counter(), time.process_time()
    lines = (line.split() for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    accounts = {}
    for name, *words in lines:
        # user nice system idle iowait irq softirq steal; guests' time, which follows, is among user and nice
        counts = [int(word) * TICK_S for word in (*words, *["0"] * 8)[:8]]
        accounts[int(name[3:])] = Ticks(math.fsum(counts), counts[3] + counts[4], counts[7])
    if any(number not in accounts for number in usable):
        return None
    return Account(*moment, {number: accounts[number] for number in usable})


def _read_waits_s(tasks: Path) -> dict[str, float] | None:
    """By thread: the second number of ``schedstat``, which is in nanoseconds."""
    try:
        threads = os.listdir(tasks)
    except OSError:
        return None
    accounts = ((thread, read_text(tasks / thread / "schedstat").split()) for thread in threads)
    waited = {thread: int(words[1]) / 1e9 for thread, words in accounts if len(words) == 3}
    return waited or None


def _pressure_s(path: Path) -> float | None:
    """Of the line of ``some`` tasks, its total in microseconds."""
    for line in read_text(path).splitlines():
        kind, *words = line.split()
        if kind == "some" and words and words[-1].startswith("total="):
            return int(words[-1].removeprefix("total=")) / 1e6
    return None


def _read_throttle_counts(root: Path, usable: Sequence[int]) -> dict[str, int] | None:
    """By processor: of its core and of its package, which each of them counts for itself."""
    found: dict[str, int] = {}
    for number in usable:
        folder = root / f"sys/devices/system/cpu/cpu{number}/thermal_throttle"
        for name in ("core_throttle_count", "package_throttle_count"):
            count = read_text(folder / name).strip()
            if count.isdigit():
                found[f"{number} {name}"] = int(count)
    return found or None


def frequency_mhz(root: Path, processor: str | None) -> float | None:
    """That of the processor of this number now, or the first one's where only that is told, as in a virtual machine,
    where it may be the nominal one and never change."""
    scaled = read_text(root / f"sys/devices/system/cpu/cpu{processor}/cpufreq/scaling_cur_freq").strip()
    if scaled.isdigit():
        return int(scaled) / 1000
    for line in read_text(root / "proc/cpuinfo", _FIRST_PROCESSOR_BYTES).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "cpu MHz":
            with suppress(ValueError):
                return float(value)
            return None
    return None


def read_text(path: Path, most_bytes: int = -1) -> str:
    """The text of a file of the system; empty where it cannot be read: threads end, and containers hide files."""
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(most_bytes) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
