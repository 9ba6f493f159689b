"""The state of the machine as the kernel reports it: accounts of processors and threads, frequency, throttling.

The sources are ``/proc/stat`` for the processors that this process may use, the scheduler's accounts of its threads,
and ``/sys``. Missing data, as in some containers, is ``None``. A reading takes a fraction of a millisecond.
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
"""The unit of the counters in ``/proc/stat``, in seconds."""

_FIRST_PROCESSOR_BYTES = 4096


@dataclass(frozen=True)
class Ticks:
    """The account of a processor.

    Attributes:
        total_s: All of its time.
        idle_s: Its idle time.
        steal_s: The time that the hypervisor gave to others.
    """

    total_s: float
    idle_s: float
    steal_s: float

    def __sub__(self, other: Ticks) -> Ticks:
        return Ticks(self.total_s - other.total_s, self.idle_s - other.idle_s, self.steal_s - other.steal_s)


@dataclass(frozen=True)
class Account:
    """The accounts of the processors that this process may use.

    Attributes:
        wall_s: The clock of this process at the reading.
        cpu_s: The processor time of this process at the reading.
        processors: The accounts by number of the processor.
    """

    wall_s: float
    cpu_s: float
    processors: Mapping[int, Ticks]


@dataclass(frozen=True)
class Snapshot:
    """The machine at one moment, as growing counters and a frequency. ``None`` stands for unreported values.

    Attributes:
        account: The accounts of the processors.
        waited_s: For each thread of this process, the time that it waited for a processor.
        pressure_s: The time in which some task of the system waited for a processor.
        throttled: For each processor, the number of times that it was throttled.
        mhz: The frequency of the processor that this thread used last, or of the first one if only that is reported.
    """

    account: Account | None
    waited_s: Mapping[str, float] | None
    pressure_s: float | None
    throttled: Mapping[str, int] | None
    mhz: float | None


@dataclass(frozen=True)
class SnapshotDelta:
    """The changes between two snapshots. ``None`` if one of them has no value.

    Attributes:
        account: The changes of the accounts.
        waited_s: The time that threads of this process waited for a processor, of all threads together.
        pressure_s: The time in which some task of the system waited for a processor.
        throttled: The number of times that a processor was throttled, of the processor with the most.
        mhz: The frequency in the later snapshot.
    """

    account: Account | None
    waited_s: float | None
    pressure_s: float | None
    throttled: int | None
    mhz: float | None


def change(before: Snapshot, after: Snapshot) -> SnapshotDelta:
    """Return the changes from ``before`` to ``after``. The counters of a new thread start at 0."""
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
    """Return a snapshot of the machine.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        usable: The processors that this process may use.
    """
    words = read_text(root / "proc/thread-self/stat").rpartition(")")[2].split()
    return Snapshot(
        account=_account(root, usable),
        waited_s=_read_waits_s(root / "proc/self/task"),
        pressure_s=_pressure_s(root / "proc/pressure/cpu"),
        throttled=_read_throttle_counts(root, usable),
        mhz=frequency_mhz(root, words[36] if len(words) > 36 else None),
    )


def _account(root: Path, usable: Sequence[int]) -> Account | None:
    """Return the accounts, or ``None`` if the file lacks a processor of the affinity."""
    text = read_text(root / "proc/stat")
    moment = time.perf_counter(), time.process_time()
    lines = (line.split() for line in text.splitlines() if line.startswith("cpu") and line[3:4].isdigit())
    accounts = {}
    for name, *words in lines:
        # user nice system idle iowait irq softirq steal; the following times of guests are included in user and nice
        counts = [int(word) * TICK_S for word in (*words, *["0"] * 8)[:8]]
        accounts[int(name[3:])] = Ticks(math.fsum(counts), counts[3] + counts[4], counts[7])
    if any(number not in accounts for number in usable):
        return None
    return Account(*moment, {number: accounts[number] for number in usable})


def _read_waits_s(tasks: Path) -> dict[str, float] | None:
    """Return the waiting time by thread, from the second number of ``schedstat`` in nanoseconds."""
    try:
        threads = os.listdir(tasks)
    except OSError:
        return None
    accounts = ((thread, read_text(tasks / thread / "schedstat").split()) for thread in threads)
    waits = {thread: int(words[1]) / 1e9 for thread, words in accounts if len(words) == 3}
    return waits or None


def _pressure_s(path: Path) -> float | None:
    """Return the total of the line ``some``, which is in microseconds."""
    for line in read_text(path).splitlines():
        kind, *words = line.split()
        if kind == "some" and words and words[-1].startswith("total="):
            return int(words[-1].removeprefix("total=")) / 1e6
    return None


def _read_throttle_counts(root: Path, usable: Sequence[int]) -> dict[str, int] | None:
    """Return the throttle counts by processor, of its core and of its package. Each processor counts both."""
    counts: dict[str, int] = {}
    for number in usable:
        folder = root / f"sys/devices/system/cpu/cpu{number}/thermal_throttle"
        for name in ("core_throttle_count", "package_throttle_count"):
            count = read_text(folder / name).strip()
            if count.isdigit():
                counts[f"{number} {name}"] = int(count)
    return counts or None


def frequency_mhz(root: Path, processor: str | None) -> float | None:
    """Return the current frequency of a processor, or of the first one if only that is reported.

    In a virtual machine this may be the nominal frequency, which never changes.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
        processor: The number of the processor.
    """
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
    """Return the text of a system file, or an empty text if it cannot be read, as in containers or of ended threads.

    Args:
        path: The file.
        most_bytes: The number of bytes to read; -1 for all.
    """
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read(most_bytes) or b"").decode("utf-8", "replace")
    except OSError:
        return ""
