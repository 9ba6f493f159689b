"""Whether rbench can tell a difference from none, and what its own clock adds."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

import runtimes
from benchmarks.harness import scheduler
from benchmarks.harness.scheduler import ScheduledJob
from benchmarks.process import worker_process
from benchmarks.process.job import Job, ProcessOutcomes, TurnPlan
from benchmarks.records.plan import MOST_PROCESSES, Plan
from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.store import FILE_NAME, read
from benchmarks.stats.comparison import NO_DIFFERENCE, LatencyComparison, compare_paired
from benchmarks.stats.intervals import Rounds, quantile, together
from benchmarks.worker.timer import TimedCall
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import Artifact, codec
from runtimes.backends import fake
from runtimes.backends.fake import Script
from runtimes.errors import CheckFailedError
from runtimes.processors import usable_processors
from runtimes.protocol import TensorSpec
from scripts.figures.noise import USUAL, Clockwork
from scripts.figures.setting import SILENT, Figure, FigureSettings, console_script

GAP = 0.05
SIMULATED, REAL = 100, 20
LEAST = 0.95

SLOWED = (sys.executable, "-P", "-m", "scripts.figures.slowed_worker")

METHOD = BenchmarkRequest(silence_s=120.0)
"""As ``rbench run`` has it by default. What is short has as many processes as there may be."""

SCRIPT = Script(
    fake=1,
    inputs=(TensorSpec("input", "float32", ("batch", 3)),),
    outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
    delays_s=(1e-3,),
)

PLAN = Plan(window_s=0.005, warmup_limit_s=0.05)

BARE = """
import sys
import time
import numpy
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {"input": numpy.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(numpy.float32)}
for _ in range(300):
    session.run(None, feeds)
print(flush=True)
for line in sys.stdin:
    for _ in range(5):
        session.run(None, feeds)
    samples = []
    end = time.perf_counter() + float(line)
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        samples.append(time.perf_counter() - start)
    time.sleep(0.06)
    print(*samples, flush=True)
"""
"""What one would write without this project. It has its turns beside ``rbench``, as its time is to be compared; after
each it waits until ONNX Runtime's second thread is at rest."""


class _Bare:
    """A process of that loop, as a participant. A context manager: at its end the process has ended."""

    def __init__(self, artifact: Path, threads: int) -> None:
        command = (sys.executable, "-c", BARE, str(artifact), str(threads))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.rounds_s: list[list[float]] = []

    def __enter__(self) -> _Bare:
        self._read_reply()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def turn(self, turn: TurnPlan) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{turn.duration_s}\n")
        self._process.stdin.flush()
        self.rounds_s.append([float(sample) for sample in self._read_reply().split()])
        return quantile(self.rounds_s[-1], 0.5)

    def _read_reply(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CheckFailedError(
                f"the bare loop ended with exit code {self._process.wait()}", code="bare-loop-crashed"
            )
        return line


@dataclass(frozen=True)
class _SimulatedProcess:
    """A configuration of the scripted backend in one process, on the virtual clock."""

    number: int
    timed: TimedCall
    now: list[int]

    def turn(self, turn: TurnPlan) -> None:
        self.now[:] = [self.number]
        self.timed.renew(turn.duration_s)
        self.timed.turn(turn.duration_s, turn.least, turn.most)


def simulate_run(script: Path, gap: float, seed: int, turn_s: float = 0.01) -> LatencyComparison:
    """One seeded run of the scripted backend against itself, slower by ``gap``, with noise as it really is.

    All of the harness takes part but its processes. Its clock is a virtual one, which the backend's calls move.
    """
    horizon_s = 2.6 * MOST_PROCESSES * METHOD.rounds * turn_s
    clockwork, now = Clockwork((1e-3, 1e-3 * (1 + gap)), USUAL, horizon_s, seed), [0]
    order, sides = random.Random(f"order {seed}"), (list[Rounds](), list[Rounds]())
    with patch(f"{fake.__name__}.time.sleep", lambda _: clockwork.call(now[0])):
        for _ in range(MOST_PROCESSES):
            seats = [_start_simulated(script, number, clockwork, now) for number in range(2)]
            for _, seat in scheduler.in_rounds(seats, METHOD.rounds, order):
                seat.turn(TurnPlan(turn_s, 1, 1000))
            for side, seat in zip(sides, seats, strict=True):
                side.append(seat.timed.series().rounds_s)
    return compare_paired(*sides, seed=seed)


def _start_simulated(script: Path, number: int, clockwork: Clockwork, now: list[int]) -> _SimulatedProcess:
    """A fresh start of the configuration, warmed up."""
    runtime, feeds = runtimes.open(script, "fake"), {"input": np.ones((1, 3), np.float32)}
    seat = _SimulatedProcess(number, TimedCall(lambda: runtime.infer(feeds), PLAN, clockwork.clock), now)
    clockwork.start(number)
    now[:] = [number]
    seat.timed.warm_up()
    return seat


def write_script(folder: Path) -> Path:
    """The file that ``simulate_run`` takes."""
    place = folder / "scripted.fake"
    place.write_text(codec.dumps(SCRIPT), encoding="utf-8")
    return place


def verdicts(setting: FigureSettings) -> Iterator[Figure]:
    """The same twice, and with a gap of 5 %: on the scripted backend by a virtual clock, and ResNet-20 for real."""
    script = write_script(setting.folder)
    for gap, wanted in ((0.0, NO_DIFFERENCE), (GAP, "slower")):
        found = [simulate_run(script, gap, seed) for seed in range(SIMULATED)]
        yield _count_verdicts(f"{SIMULATED} seeded runs on the fake backend, gap {gap:.0%}", found, wanted)
    artifact = _resnet20(setting)
    for gap, wanted in ((0.0, NO_DIFFERENCE), (GAP, "slower")):
        found = [compare_real(artifact, gap, setting.folder, seed) for seed in range(setting.limit or REAL)]
        yield _count_verdicts(f"{len(found)} runs of ResNet-20 on onnxruntime, gap {gap:.0%}", found, wanted)


def _resnet20(setting: FigureSettings) -> Artifact:
    return onnx_file.export(
        ExportRequest(VARIANTS["resnet20"], f"{setting.folder}/", weights="bundled", force=True), SILENT
    )


def compare_real(artifact: Artifact, gap: float, folder: Path, seed: int) -> LatencyComparison:
    """ResNet-20, one image a call, against itself slowed down, as ``rbench run`` measures. Blocks for half a minute.

    Raises:
        CheckFailedError: a process could not do its work.
    """
    job = Job(str(artifact.path), "onnxruntime", "cpu", usable_processors(), 1, None, None, False, seed, Plan())
    entries = [ScheduledJob(name, job, (*SLOWED, str(part))) for name, part in (("reference", 0.0), ("other", gap))]
    reference, other = _gather_outcomes(entries, replace(METHOD, seed=seed), folder)
    return compare_paired(_rounds(reference), _rounds(other), seed=seed)


def _gather_outcomes(entries: Sequence[ScheduledJob], method: BenchmarkRequest, folder: Path) -> list[ProcessOutcomes]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        *_, found = scheduler.gather(entries, method, Path(place), lambda *_: None)
        return found


def _rounds(gathered: ProcessOutcomes) -> list[Rounds]:
    if not gathered.sound:
        raise CheckFailedError(f"a process failed: {gathered.outcomes[-1].reason}", code="process-failed")
    return [outcome.sitting.latency.rounds_s for outcome in gathered.outcomes if outcome.sitting is not None]


def _count_verdicts(name: str, found: Sequence[LatencyComparison], wanted: str) -> Figure:
    counts = Counter(one.verdict for one in found)
    share = counts[wanted] / len(found)  # type: ignore[index]
    middle = quantile([one.ratio for one in found], 0.5)
    width = quantile([one.interval[1] / one.interval[0] - 1 for one in found], 0.5)
    value = f"{counts[wanted]} of {len(found)} {wanted}"  # type: ignore[index]
    notes = (f"median ratio {middle:.4f}, median width of its interval {width:.1%}",)
    return Figure(name, value, f">= {LEAST:.0%}", share >= LEAST, notes)


def harness(setting: FigureSettings) -> Iterator[Figure]:
    """The p50 that rbench reports against that of a bare loop around ``InferenceSession.run``: a fresh process of each,
    side by side in shuffled turns, and all that again."""
    artifact, threads = _resnet20(setting), usable_processors()
    job = Job(str(artifact.path), "onnxruntime", "cpu", threads, 1, None, None, False, 0, Plan())
    order, (rounds, turn) = random.Random(0), scheduler.plan_turns(METHOD, 0.0)
    reported, plain = list[Rounds](), list[Rounds]()
    for _ in range(MOST_PROCESSES):
        with (
            tempfile.TemporaryDirectory(dir=setting.folder) as folder,
            worker_process.Worker(job, Path(folder), lambda _: None, METHOD.silence_s) as worker,
            _Bare(artifact.path, threads) as bare,
        ):
            worker.wait_until_open()
            worker.warm()
            for _, take_turn in scheduler.in_rounds((worker.turn, bare.turn), rounds, order):
                take_turn(turn)
            worker.finish()
            reported += _rounds(ProcessOutcomes([worker.outcome()]))
        plain.append(bare.rounds_s)
    found = compare_paired(reported, plain)
    low, high = found.interval
    medians = " against ".join(f"{1e3 * quantile(together(each), 0.5):.3f}" for each in (reported, plain))
    value = f"{found.ratio:.3f} x [{low:.3f}, {high:.3f}], {medians} ms, {len(plain)} processes of each"
    name = "rbench's p50 against a bare loop's, ResNet-20 batch 1"
    yield Figure(name, value, "0.98 x to 1.02 x", 0.98 <= found.ratio <= 1.02)


ALONE_S = 90.0


def alone(setting: FigureSettings) -> Iterator[Figure]:
    """``rbench run`` without a model, which is on the bundled one."""
    command = [console_script("rbench"), "run", "-o", "results"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=setting.folder)
    taken_s = time.perf_counter() - start
    widest = max(map(len, done.stdout.splitlines()), default=0)
    value = f"{taken_s:.0f} s, exit code {done.returncode}, {widest} columns"
    holds = taken_s < ALONE_S and done.returncode == 0 and 0 < widest <= 100
    yield Figure("rbench run", value, f"< {ALONE_S:.0f} s, 100 columns", holds)
    page, rows = setting.folder / "results/results.html", read(setting.folder / "results" / FILE_NAME)
    value = f"{page.stat().st_size / 1e6:.2f} MB, {sum(row.status == 'ok' for row in rows)} rows"
    yield Figure("the page", value, "written", page.stat().st_size > 0 and bool(rows))
