"""Accuracy, measured with the images made ready in one thread while the runtime answers in another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from benchmarks.accuracy import predictions
from benchmarks.process.job import Job
from benchmarks.worker.inputs import Batches, evaluation
from runtimes.parity import logits_of
from runtimes.protocol import Array

if TYPE_CHECKING:
    from exporter.data.dataset import Unreadable
    from runtimes import Runtime

T = TypeVar("T")

AHEAD = 3
"""Batches that are made ready while the runtime is at one: enough that one late image does not keep it waiting."""


def evaluate(
    job: Job, runtime: Runtime, broken: list[Unreadable], step: Callable[[str], None]
) -> predictions.Predictions:
    """The runtime's answers on the job's images; ``broken`` gets those that cannot be read, ``step`` how far it is.

    Decoding and preparing take their own threads beside the ``job.threads`` that answer. Nothing is timed here but the
    whole: where processors are idle they are used, and where none is, preparing costs what it would cost in turn.

    Raises:
        RexportError: the data cannot be read, or are not for this model; or a logit is not finite.
    """
    images = evaluation(job, runtime, broken)

    def report_batches(batches: Batches) -> Batches:
        for indices, arrays in batches:
            step(f"accuracy {int(indices[0]):,} of {images.total:,}")
            yield indices, arrays

    with closing(prefetch(images.batches)) as batches:
        return predictions.predict(
            lambda arrays: _logits(runtime, arrays, images.batch), report_batches(batches), images.targets
        )


def _logits(runtime: Runtime, images: Array, batch: int) -> predictions.Logits:
    """As ``parity.logits_of``, and a whole batch goes in as it is."""
    if len(images) != batch:
        return logits_of(runtime, images, batch)
    outputs = runtime.infer({runtime.inputs[0].name: images})
    return outputs[runtime.outputs[0].name].astype(np.float32, copy=False)


def prefetch(source: Generator[T, None, None], most: int = AHEAD) -> Generator[T, None, None]:
    """What ``source`` gives, in its order, drawn by a thread of its own: ``most`` items at most are waiting or under
    way while the caller is at one.

    The thread ends, and ``source`` is closed, when all is given, when ``source`` raises, and when the generator is
    closed: it then waits for the item under way. Close it, as with ``contextlib.closing``, where it may be left early.

    Raises:
        BaseException: what ``source`` raises, at the turn of the item that it spoilt.
    """
    line = _Line(source, most)
    thread = threading.Thread(target=line.draw, name="prepare", daemon=True)
    thread.start()
    try:
        yield from line.items()
    finally:
        line.leave()
        thread.join()


@dataclass(frozen=True)
class _Ended:
    """Stands behind the last item; ``error`` is why it is the last, if ``source`` did not just end."""

    error: BaseException | None


class _Line(Generic[T]):
    """Between the thread that draws and the one that takes: a bounded queue that either side can leave."""

    def __init__(self, source: Generator[T, None, None], most: int) -> None:
        self._source = source
        self._places = threading.Semaphore(most)
        self._drawn: queue.SimpleQueue[T | _Ended] = queue.SimpleQueue()
        self._left = False

    def draw(self) -> None:
        """Draws until there is no more, or nobody takes it."""
        try:
            with closing(self._source):
                self._draw()
        except BaseException as error:  # the taker raises it
            self._drawn.put(_Ended(error))
        else:
            self._drawn.put(_Ended(None))

    def _draw(self) -> None:
        self._places.acquire()
        while not self._left:
            try:
                item = next(self._source)
            except StopIteration:
                return
            self._drawn.put(item)
            self._places.acquire()

    def items(self) -> Generator[T, None, None]:
        while not isinstance(item := self._drawn.get(), _Ended):
            self._places.release()
            yield item
        try:
            if item.error is not None:
                raise item.error
        finally:
            del item  # else the error would hold this frame, and this frame the error

    def leave(self) -> None:
        self._left = True
        self._places.release()
