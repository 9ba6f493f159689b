"""Whether rbench tells a disturbed machine from a quiet one: real processes, with and without a busy loop beside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.machine.disturbances import disturbances
from benchmarks.machine.monitor import Conditions
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import codec
from runtimes.errors import CheckFailedError
from scripts.figures.setting import SILENT, Figure, FigureSettings

BUSY = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
print(flush=True)
while True:
    pass
"""

WATCHED = """
import os, sys, time
artifact, threads, processors = sys.argv[1], int(sys.argv[2]), {int(word) for word in sys.argv[3].split(",")}
os.sched_setaffinity(0, processors)
import numpy
import runtimes
from benchmarks.machine.monitor import MachineMonitor
from runtimes import codec
watcher = MachineMonitor()
feeds = {"input": numpy.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(numpy.float32)}
with runtimes.open(artifact, "onnxruntime", threads=threads) as runtime:
    for _ in range(200):
        runtime.infer(feeds)
    for _ in range(6):
        time.sleep(0.03)
        with watcher.turn():
            end = time.perf_counter() + 0.1
            while time.perf_counter() < end:
                runtime.infer(feeds)
print(codec.dumps(watcher.conditions()))
"""
"""A worker as rbench's are: it waits, and has a turn, and waits."""

TIMES = 5


@dataclass(frozen=True)
class Case:
    """A worker of some threads on some processors, and where the busy loop runs; ``None``: nowhere."""

    title: str
    threads: int
    processors: tuple[int, ...]
    busy: int | None


def measure_disturbed(setting: FigureSettings) -> Iterator[Figure]:
    """ResNet-20 on ONNX Runtime, in one thread, in one thread on one processor, and in two threads: five times each
    beside a busy loop on the same processor, and five times alone. The machine must be quiet for the latter."""
    artifact = onnx_file.export(
        ExportRequest(VARIANTS["resnet20"], f"{setting.folder}/resnet20.onnx", force=True), SILENT
    )
    for case in _cases(tuple(sorted(os.sched_getaffinity(0)))):
        seen = [watch_worker(str(artifact.path), case) for _ in range(TIMES)]
        marked = sum(bool(disturbances([conditions], case.threads)) for conditions in seen)
        wanted = 0 if case.busy is None else TIMES
        value = f"{marked} of {TIMES} marked as disturbed"
        yield Figure(case.title, value, f"{wanted} of {TIMES}", marked == wanted, tuple(map(_figures, seen)))


def _cases(processors: tuple[int, ...]) -> Iterator[Case]:
    """What the machine's processors allow."""
    first = processors[0]
    shapes = [(1, processors, "1 thread"), (1, (first,), "1 thread on one processor")]
    if len(processors) > 1:
        shapes.append((2, processors[:2], "2 threads on two processors"))
    for threads, allowed, title in shapes:
        yield Case(f"{title}, alone", threads, allowed, None)
        yield Case(f"{title}, beside a busy loop", threads, allowed, first)


def watch_worker(artifact: str, case: Case) -> Conditions:
    """What a worker on that artifact sees.

    Raises:
        CheckFailedError: the worker or the busy loop ended early.
    """
    with contextlib.ExitStack() as stack:
        if case.busy is not None:
            stack.enter_context(busy(case.busy))
        command = (sys.executable, "-c", WATCHED, artifact, str(case.threads), ",".join(map(str, case.processors)))
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise CheckFailedError(
            f"the watched process ended with {done.returncode}: {last}", code="watched-process-failed"
        )
    return codec.loads(Conditions, done.stdout)


@contextlib.contextmanager
def busy(processor: int) -> Iterator[None]:
    """A process that never rests, on that processor alone, until the context is left."""
    with subprocess.Popen((sys.executable, "-c", BUSY, str(processor)), stdout=subprocess.PIPE) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise CheckFailedError("the busy loop did not start", code="busy-loop-failed")
            yield
        finally:
            process.kill()


def _figures(seen: Conditions) -> str:
    waited = "?" if seen.waited_s is None else f"{seen.waited_s / seen.wall_s:.1%}"
    return (
        f"foreign {seen.foreign_cores} ± {seen.foreign_error_cores}, sentinel {seen.sentinel}, waited {waited}, "
        f"{seen.involuntary_switches / seen.wall_s:.0f} switches/s, cpu/wall {seen.cpu_s / seen.wall_s:.2f}, "
        f"steal {seen.steal_share}, pressure {seen.pressure_share}, {seen.mhz} MHz"
    )
