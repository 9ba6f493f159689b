"""Configurations that are compared, measured side by side: a process of each at the same time, and turns in rounds.

What changes on the machine between two measurements would else be taken for a difference between what was measured.
So in each round every configuration has a turn, in a shuffled order, while the others wait; and what one start of a
process differs from the next is seen by doing it all several times with fresh processes.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from benchmarks.harness.room import Room
from benchmarks.process import worker_process
from benchmarks.process.job import Job, ProcessOutcomes, TurnPlan
from benchmarks.process.worker_process import Worker
from benchmarks.records.plan import LEAST_PROCESSES, MOST_PROCESSES
from benchmarks.records.request import BenchmarkRequest
from benchmarks.stats.intervals import MIN_SAMPLES
from benchmarks.stats.trend import MIN_TREND_ROUNDS
from runtimes.errors import Reason
from runtimes.selection import PROCESSOR

HELD = 12
"""Processes that are open at the same time at most."""

GPU_LEAD_S = 1.0
"""The time for which the first process of a set works before its warm-up on a GPU, whose clocks rise meanwhile."""

LEAST_SAMPLES = 2 * MIN_SAMPLES[0.5]
"""Of all processes of a configuration together, however slow it is."""


def least_processes(request: BenchmarkRequest) -> int:
    """How many processes of each configuration there are at least."""
    return LEAST_PROCESSES if request.processes is None else request.processes


def expect_processes(request: BenchmarkRequest, taken_s: Sequence[float]) -> int:
    """How many processes of each configuration there are in all, as far as the seconds tell that those so far took:
    where no number is asked for, as many as fit into the budget, ``MOST_PROCESSES`` at most. Time alone decides, never
    what was found; and the first says nothing of the next, as it does what is done once."""
    least = least_processes(request)
    if request.processes is not None or len(taken_s) < 2:
        return least
    left_s = max(0.0, request.budget_s - math.fsum(taken_s))
    return max(least, min(MOST_PROCESSES, len(taken_s) + int(left_s / max(taken_s[-1], 1e-9))))


def plan_turns(request: BenchmarkRequest, slowest_s: float) -> tuple[int, TurnPlan]:
    """How many rounds there are in each process, and what a turn is, where a call takes so long: fewer rounds where it
    takes longer than a round's share of the duration, but never so few that no drift could be told."""
    fitting = int(request.duration_s / max(slowest_s, 1e-9))
    rounds = max(min(MIN_TREND_ROUNDS, request.rounds), min(request.rounds, fitting))
    most = max(1, request.max_samples // rounds)
    least = min(most, math.ceil(LEAST_SAMPLES / rounds / least_processes(request)))
    return rounds, TurnPlan(request.duration_s / rounds, least, most)


@dataclass(frozen=True)
class ScheduledJob:
    """A configuration of a field: its name in what is told, its job, and what the job is given to."""

    name: str
    job: Job
    program: tuple[str, ...] = worker_process.PROGRAM


Participant = TypeVar("Participant")


def in_rounds(
    participants: Collection[Participant], rounds: int, order: random.Random
) -> Iterator[tuple[int, Participant]]:
    """Whose turn it is, and in which round: each participant has one in each of the rounds, in a shuffled order. One
    that the caller takes out of the collection, at its own turn, has no further ones."""
    for number in range(rounds):
        for participant in order.sample(list(participants), len(participants)):
            yield number, participant


Report: TypeAlias = Callable[[str, str, float | None, float | None], None]
"""Hears the name of a configuration where something new begins with it, else nothing; and the step. Then the seconds
that are left of this trial, or ``None`` until the first process of each is through, which evaluates as well. Last the
seconds of a process of each without that, or ``None`` while nothing tells them."""


def gather(
    entries: Sequence[ScheduledJob],
    request: BenchmarkRequest,
    folder: Path,
    report: Report,
    at_once: bool = False,
) -> Iterator[list[ProcessOutcomes]]:
    """Measures; gives the list that is filled at once, and again after each process of all. Blocks meanwhile.

    What finds no room beside the others, because memory is short or they are many, is measured after them, by itself.
    ``folder`` is an existing one for these entries alone. With ``at_once`` all have their turns at the same time, each
    on a GPU of its own.
    """
    found = [ProcessOutcomes() for _ in entries]
    yield found
    for group in _groups(found):
        scheduler = _Scheduler(entries, found, group, request, folder, report, at_once)
        while scheduler.has_more:
            scheduler.run_processes()
            yield found


def _groups(found: Sequence[ProcessOutcomes]) -> Iterator[list[int]]:
    """Places of entries that are measured side by side: as many as there is room for, then each of the rest alone."""
    everyone = list(range(len(found)))
    for place in everyone[HELD:]:
        found[place].alone = Reason("processes-held", f"no room beside the others: at most {HELD} processes take turns")
    yield everyone[:HELD]
    for place in everyone:
        if not found[place].outcomes:
            yield [place]


@dataclass
class _Scheduler:
    """Runs the processes of one group."""

    entries: Sequence[ScheduledJob]
    found: list[ProcessOutcomes]
    group: list[int]
    request: BenchmarkRequest
    folder: Path
    report: Report
    at_once: bool

    def __post_init__(self) -> None:
        self._order = random.Random(self.request.seed)
        self._room = Room()
        self._taken_s: list[float] = []
        self._spent_s: list[float] = []
        self._began_s = 0.0
        self._expected_s: float | None = None

    @property
    def has_more(self) -> bool:
        """Whether there is another process of each to come."""
        return len(self._spent_s) < expect_processes(self.request, self._spent_s)

    def run_processes(self) -> None:
        """A fresh process of each, and all their turns; their outcomes are added. One that ends in place of warming up
        or of taking its turn is taken out."""
        self._began_s, number = time.monotonic(), len(self._spent_s)
        with contextlib.ExitStack() as ended:
            workers = self._open_workers(number, ended)
            usual_s = [0.0]
            lead_s = 0.0 if self.request.device == PROCESSOR else GPU_LEAD_S
            for number_in_set, (place, worker) in enumerate(list(workers.items())):
                if (warm_s := worker.warm(0.0 if number_in_set else lead_s)) is None:
                    self._add(place, workers.pop(place))
                else:
                    usual_s.append(warm_s)
            rounds, turn = plan_turns(self.request, max(usual_s))
            timed_s, turns, begun = time.monotonic(), rounds * len(workers), -1
            for taken, (round_number, place) in enumerate(in_rounds(workers, rounds, self._order), start=1):
                if self.at_once and round_number != begun:
                    begun = round_number
                    for worker in workers.values():
                        worker.start_turn(turn)
                median_s = workers[place].wait_for_turn() if self.at_once else workers[place].turn(turn)
                now_s = time.monotonic()
                self._expected_s = timed_s - self._began_s + (now_s - timed_s) * turns / taken
                if median_s is None:
                    self._add(place, workers.pop(place))
                    continue
                name = self.entries[place].name
                self._report_progress(number, f"round {round_number + 1} of {rounds} · {name} {median_s * 1e3:.3g} ms")
            self._taken_s.append(time.monotonic() - self._began_s)
            for place, worker in workers.items():
                worker.finish()
                self._add(place, worker)
        self._spent_s.append(time.monotonic() - self._began_s)

    def _open_workers(self, number: int, ended: contextlib.ExitStack) -> dict[int, Worker]:
        """The processes that are opened and checked. Those of the first sitting one after another, so that what each
        takes to load is its own; later on all load at the same time. They call their models one after another in any
        case: the threads of two that compute would wait for each other, many times as long as they work, and a library
        that chooses its kernels by trial would choose others."""
        places = [place for place in self.group if self.found[place].sound]
        workers: dict[int, Worker] = {}
        for together in [places] if number else [[place] for place in places]:
            shortage = self._room.find_shortage() if workers and not number else None
            if shortage is not None:
                for place in places:
                    if not (place in workers or self.found[place].outcomes):
                        self.found[place].alone = shortage
                break
            begun = {place: self._start_worker(place, number, ended) for place in together}
            for place, worker in begun.items():
                if (resident := worker.wait_until_open()) is None:
                    self._add(place, worker)
                else:
                    self._room.add(resident, None if self.at_once else worker.gpu)
                    workers[place] = worker
        if not number:
            self.group = [place for place in self.group if place in workers]
        return workers

    def _start_worker(self, place: int, number: int, ended: contextlib.ExitStack) -> Worker:
        entry, request = self.entries[place], self.request
        job = replace(entry.job, number=number, evaluate=entry.job.evaluate and not number)
        folder = Path(tempfile.mkdtemp(dir=self.folder))

        def report_step(step: str) -> None:
            self._report_progress(number, f"{entry.name}: {step}", entry.name)

        self._report_progress(number, f"{entry.name}: start", entry.name)
        worker = Worker(job, folder, report_step, request.silence_s, request.show_errors, entry.program)
        return ended.enter_context(worker)

    def _add(self, place: int, worker: Worker) -> None:
        """Ends the process and keeps its outcome."""
        gathered = self.found[place]
        gathered.outcomes.append(worker.outcome())
        if len(gathered.outcomes) == 1:
            gathered.predictions = worker.predictions

    def _report_progress(self, number: int, step: str, name: str = "") -> None:
        """Tells how long it still takes, and in all, as far as the processes so far tell; of the first its turns do."""
        left_s = None
        each_s = statistics.fmean(self._taken_s) if self._taken_s else self._expected_s
        if each_s is not None and self._spent_s:
            spent_s = self._spent_s if len(self._spent_s) > 1 else [*self._spent_s, each_s]
            to_come = expect_processes(self.request, spent_s) - len(self._spent_s) - 1
            left_s = each_s * to_come + max(0.0, each_s - (time.monotonic() - self._began_s))
        expected = expect_processes(self.request, self._spent_s)
        of = f" of {expected}" if self.request.processes is not None or len(self._spent_s) > 1 else ""
        shown = step if expected == 1 else f"process {number + 1}{of} · {step}"
        self.report("" if number else name, shown, left_s, each_s)
