"""Accuracy, measured with the images made ready in one thread while the runtime answers in another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TypeVar

import numpy as np

from benchmarks.accuracy import predictions
from benchmarks.process.job import Job
from benchmarks.worker.inputs import Batches, evaluation
from exporter.data.dataset import Unreadable
from runtimes import Runtime
from runtimes.parity import logits_of
from runtimes.protocol import Array

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

    def infer_batch(arrays: Array) -> predictions.Logits:
        if len(arrays) != images.batch:
            return logits_of(runtime, arrays, images.batch)
        outputs = runtime.infer({runtime.inputs[0].name: arrays})
        return outputs[runtime.outputs[0].name].astype(np.float32, copy=False)

    with closing(prefetch(images.batches)) as batches:
        return predictions.predict(infer_batch, report_batches(batches), images.targets)


def prefetch(source: Generator[T, None, None], most: int = AHEAD) -> Generator[T, None, None]:
    """The items of ``source`` in their order, drawn by a thread of its own: ``most`` items at most are waiting or under
    way while the caller is at one.

    The thread ends, and ``source`` is closed, when all is given, when ``source`` raises, and when the generator is
    closed: it then waits for the item under way. Close it, as with ``contextlib.closing``, where it may be left early.

    Raises:
        BaseException: what ``source`` raises, at the turn of the item that it spoilt.
    """
    with closing(source), ThreadPoolExecutor(1, "prepare") as thread:
        waiting = deque(thread.submit(next, source) for _ in range(most))
        try:
            with suppress(StopIteration):  # the source has come to its end
                while True:
                    item = waiting.popleft().result()
                    waiting.append(thread.submit(next, source))
                    yield item
        finally:
            for future in waiting:
                future.cancel()
