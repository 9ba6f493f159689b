"""Accuracy, measured with the images made ready in one thread while the runtime answers in another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

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

_ENDED = object()
"""Stands behind the last item."""


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
    """The items of ``source`` in their order, drawn by a thread of its own: ``most`` items at most are waiting or under
    way while the caller is at one.

    The thread ends, and ``source`` is closed, when all is given, when ``source`` raises, and when the generator is
    closed: it then waits for the item under way. Close it, as with ``contextlib.closing``, where it may be left early.

    Raises:
        BaseException: what ``source`` raises, at the turn of the item that it spoilt.
    """
    with closing(source), ThreadPoolExecutor(1, "prepare") as thread:
        waiting = deque(thread.submit(next, source, _END) for _ in range(most))
        try:
            while not isinstance(item := waiting.popleft().result(), _End):
                waiting.append(thread.submit(next, source, _END))
                yield item
        finally:
            for future in waiting:
                future.cancel()


class _End:
    """Stands behind the last item."""


_END = _End()
