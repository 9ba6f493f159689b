"""Test doubles of sessions: on a scripted clock, and some that cheat it. None of them stands for a real library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

from runtimes import Artifact, Runtime, codec
from runtimes.backends.fake import FakeSession, Script, answers
from runtimes.protocol import Arrays, Options
from tests.benchmarks.scripts import SCRIPT

Kind: TypeAlias = Callable[[Script, Options], FakeSession]


class Now:
    """A clock that goes on only where a double says so."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Paced(FakeSession):
    """Honest: a whole call takes its share of the delay for the copies and then the delay, a bound run the delay."""

    def __init__(self, now: Now, delays_s: Iterator[float], copies: float = 0.0) -> None:
        super().__init__(SCRIPT, Options("cpu", 1))
        self.now = now
        self.delays_s = delays_s
        self.copies = copies
        self.log: list[str] = []

    def run(self, arrays: Arrays) -> Arrays:
        self.log.append("run")
        self.now.s += next(self.delays_s) * (1 + self.copies)
        return answers(self._script, arrays)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        del arrays

        def bound() -> None:
            self.log.append("bound")
            self.now.s += next(self.delays_s)

        return bound


class Launching(Paced):
    """Dishonest unless ``launch`` is 1: a bound run queues its work, returns after that share of what this takes, and a
    whole call waits for the queue and works then."""

    def __init__(self, now: Now, delays_s: Iterator[float], copies: float = 0.0, launch: float = 0.0) -> None:
        super().__init__(now, delays_s, copies)
        self.launch = launch
        self.idle_at_s = 0.0

    def run(self, arrays: Arrays) -> Arrays:
        self.now.s = max(self.now.s, self.idle_at_s)
        return super().run(arrays)

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        del arrays

        def bound() -> None:
            delay_s = next(self.delays_s)
            self.idle_at_s = max(self.idle_at_s, self.now.s) + delay_s
            self.now.s += self.launch * delay_s + 1e-6

        return bound


class Queueing(FakeSession):
    """Dishonest, in real time: a bound run returns at once, one thread in the background does the work of all, and a
    whole call waits for it."""

    def __init__(self, script: Script, options: Options) -> None:
        super().__init__(script, options)
        self._queue = ThreadPoolExecutor(1)

    def run(self, arrays: Arrays) -> Arrays:
        return self._queue.submit(super().run, arrays).result()

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        work = super().bind(arrays)

        def bound() -> None:
            self._queue.submit(work)

        return bound

    def close(self) -> None:
        self._queue.shutdown()


class Idling(FakeSession):
    """Dishonest: a bound run does nothing at all. Whole calls are right."""

    def bind(self, arrays: Arrays) -> Callable[[], None]:
        super().bind(arrays)
        return lambda: None


class FillingLater(FakeSession):
    """Dishonest, in real time: from some call on the outputs are filled a few milliseconds after they are returned."""

    HONEST_CALLS = 40
    LATE_S = 0.004

    def __init__(self, script: Script, options: Options, honest_calls: int = HONEST_CALLS) -> None:
        super().__init__(script, options)
        self._honest_left = honest_calls

    def run(self, arrays: Arrays) -> Arrays:
        found = super().run(arrays)
        self._honest_left -= 1
        if self._honest_left >= 0:
            return found
        empty = {name: np.zeros_like(values) for name, values in found.items()}

        def fill() -> None:
            for name, values in found.items():
                empty[name][...] = values

        timer = threading.Timer(self.LATE_S, fill)
        timer.daemon = True
        timer.start()
        return empty


def opening(kind: Kind) -> Callable[..., Runtime]:
    """In place of ``runtimes.open``: a scripted artifact in a session of that kind."""

    def opened(path: str, *_: object, **__: object) -> Runtime:
        artifact = Artifact.read(path)
        return Runtime(artifact, kind(codec.loads(Script, artifact.path.read_bytes()), Options("cpu", 1)))

    return opened
