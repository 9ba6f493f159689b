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
from typing import TypeVar

from benchmarks.process import worker_process
from benchmarks.process.job import Job, ProcessOutcomes, TurnPlan
from benchmarks.process.worker_process import Worker
from benchmarks.records.plan import BUDGET_S, LEAST_PROCESSES, MOST_PROCESSES
from benchmarks.stats.intervals import MIN_SAMPLES
from benchmarks.stats.trend import MIN_TREND_ROUNDS

HELD = 12
"""Processes that are open at the same time at most."""


SPARE_BYTES = 1 << 30
"""Of memory, that is left free beside the largest process so far before another one is opened."""


LEAST_ROUNDS = MIN_TREND_ROUNDS
"""Of slow calls too: in fewer no drift could be told."""


LEAST_SAMPLES = 2 * MIN_SAMPLES[0.5]
"""Of all processes of a configuration together, however slow it is."""


@dataclass(frozen=True)
class Method:
    """How a field is measured.

    Attributes:
        duration_s: of sampling each clock in each process.
        processes: of each configuration, one after another; ``None`` means ``LEAST_PROCESSES``, and more as long as
            they fit into the budget, ``MOST_PROCESSES`` at most. Time alone decides, never what was found.
        rounds: in each process; fewer where a call takes longer than a round's share of the duration.
        max_samples: of each clock in each process.
        seed: of the order in each round.
        silence_s, show_errors: as for ``benchmarks.process.worker_process.Worker``.
    """

    duration_s: float
    processes: int | None
    rounds: int
    max_samples: int
    seed: int
    silence_s: float
    show_errors: bool = False
    budget_s: float = BUDGET_S

    @property
    def least(self) -> int:
        """How many processes there are at least."""
        return LEAST_PROCESSES if self.processes is None else self.processes

    def expect_processes(self, taken_s: Sequence[float]) -> int:
        """How many processes there are in all, as far as the seconds tell that those so far took. The first says
        nothing of the next, as it does what is done once."""
        if self.processes is not None or len(taken_s) < 2:
            return self.least
        left_s = max(0.0, self.budget_s - math.fsum(taken_s))
        return max(self.least, min(MOST_PROCESSES, len(taken_s) + int(left_s / max(taken_s[-1], 1e-9))))

    def turns(self, slowest_s: float) -> tuple[int, TurnPlan]:
        """How many rounds there are in each process, and what a turn is, where a call takes so long."""
        rounds = max(min(LEAST_ROUNDS, self.rounds), min(self.rounds, int(self.duration_s / max(slowest_s, 1e-9))))
        most = max(1, self.max_samples // rounds)
        return rounds, TurnPlan(
            self.duration_s / rounds, min(most, math.ceil(LEAST_SAMPLES / rounds / self.least)), most
        )


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


@dataclass(frozen=True)
class Progress:
    """How far a field is, for people: the configuration that something new begins with, or nothing, and the step.

    ``left_s`` and ``whole_s``, of this field and of one like it, are estimates; ``None`` while there is nothing to
    estimate from.
    """

    name: str
    step: str
    left_s: float | None = None
    whole_s: float | None = None


def gather(
    entries: Sequence[ScheduledJob], method: Method, folder: Path, heard: Callable[[Progress], None]
) -> Iterator[list[ProcessOutcomes]]:
    """Measures; gives the list that is filled at once, and again after each process of all. Blocks meanwhile.

    What finds no room beside the others, because memory is short or they are many, is measured after them, by itself.
    ``folder`` is an existing one for these entries alone.
    """
    found = [ProcessOutcomes() for _ in entries]
    yield found
    for group in _groups(found):
        scheduler = _Scheduler(entries, found, group, method, folder, heard)
        while scheduler.has_more:
            scheduler.run_processes()
            yield found


def _groups(found: Sequence[ProcessOutcomes]) -> Iterator[list[int]]:
    """Places of entries that are measured side by side: as many as there is room for, then each of the rest alone."""
    everyone = list(range(len(found)))
    yield everyone[:HELD]
    for place in everyone:
        if not found[place].outcomes:
            found[place].alone = True
            yield [place]


class _Scheduler:
    """Runs the processes of one group."""

    def __init__(
        self,
        entries: Sequence[ScheduledJob],
        found: list[ProcessOutcomes],
        group: list[int],
        method: Method,
        folder: Path,
        heard: Callable[[Progress], None],
    ) -> None:
        self._entries = entries
        self._found = found
        self._group = group
        self._method = method
        self._folder = folder
        self._heard = heard
        self._order = random.Random(method.seed)
        self._largest_bytes = 0.0
        self._taken_s: list[float] = []
        self._spent_s: list[float] = []
        self._began_s = 0.0
        self._expected_s: float | None = None

    @property
    def has_more(self) -> bool:
        """Whether there is another process of each to come."""
        return len(self._spent_s) < self._method.expect_processes(self._spent_s)

    def run_processes(self) -> None:
        """A fresh process of each, and all their turns; their outcomes are added. One that ends in place of taking its
        turn is taken out."""
        self._began_s, number = time.monotonic(), len(self._spent_s)
        with contextlib.ExitStack() as ended:
            workers = self._open_workers(number, ended)
            rounds, turn = self._method.turns(self._warm_up(workers))
            timed_s, turns = time.monotonic(), rounds * len(workers)
            for taken, (round_number, place) in enumerate(in_rounds(workers, rounds, self._order), start=1):
                median_s = workers[place].turn(turn)
                now_s = time.monotonic()
                self._expected_s = timed_s - self._began_s + (now_s - timed_s) * turns / taken
                if median_s is None:
                    self._add(place, workers.pop(place))
                    continue
                name = self._entries[place].name
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
        places = [place for place in self._group if self._found[place].sound]
        workers: dict[int, Worker] = {}
        for together in [places] if number else [[place] for place in places]:
            if workers and not number and not self._room():
                break
            begun = {place: self._start_worker(place, number, ended) for place in together}
            for place, worker in begun.items():
                resident = worker.wait_until_open()
                if resident is None:
                    self._add(place, worker)
                else:
                    self._largest_bytes = max(self._largest_bytes, resident)
                    workers[place] = worker
        if not number:
            self._group = [place for place in self._group if place in workers]
        return workers

    def _start_worker(self, place: int, number: int, ended: contextlib.ExitStack) -> Worker:
        entry, method = self._entries[place], self._method
        job = replace(entry.job, number=number, evaluate=entry.job.evaluate and not number)
        folder = Path(tempfile.mkdtemp(dir=self._folder))

        def report_step(step: str) -> None:
            self._report_progress(number, f"{entry.name}: {step}", entry.name)

        self._report_progress(number, f"{entry.name}: start", entry.name)
        return ended.enter_context(
            Worker(job, folder, report_step, method.silence_s, method.show_errors, entry.program)
        )

    def _room(self) -> bool:
        available = available_bytes()
        return available is None or available > self._largest_bytes + SPARE_BYTES

    def _warm_up(self, workers: dict[int, Worker]) -> float:
        """The seconds of the slowest one's usual call. One that ends in place of warming up is taken out."""
        usual_s = [0.0]
        for place, worker in list(workers.items()):
            warm_s = worker.warm()
            if warm_s is None:
                self._add(place, workers.pop(place))
            else:
                usual_s.append(warm_s)
        return max(usual_s)

    def _add(self, place: int, worker: Worker) -> None:
        """Ends the process and keeps its outcome."""
        gathered = self._found[place]
        gathered.outcomes.append(worker.outcome())
        if len(gathered.outcomes) == 1:
            gathered.predictions = worker.predictions

    def _report_progress(self, number: int, step: str, name: str = "") -> None:
        expected = self._method.expect_processes(self._spent_s)
        left_s, whole_s = self._estimate_left()
        of = f" of {expected}" if self._method.processes is not None or len(self._spent_s) > 1 else ""
        shown = step if expected == 1 else f"process {number + 1}{of} · {step}"
        self._heard(Progress("" if number else name, shown, left_s, whole_s))

    def _estimate_left(self) -> tuple[float, float] | tuple[None, None]:
        """How long it still takes, and in all, as far as the processes so far tell; of the first one its turns do."""
        each_s = statistics.fmean(self._taken_s) if self._taken_s else self._expected_s
        if each_s is None:
            return None, None
        expected = self._method.expect_processes(self._spent_s if len(self._spent_s) > 1 else [each_s, each_s])
        done_s = each_s * len(self._taken_s) if self._taken_s else time.monotonic() - self._began_s
        return max(0.0, each_s * expected - done_s), each_s * expected


def available_bytes(root: Path = Path("/")) -> int | None:
    """The memory that can be had without swapping; ``None`` where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
