"""Evaluation on images. While a GPU processes some, a thread prepares the next ones."""

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
from runtimes.devices import CPU
from runtimes.parity import logits_of
from runtimes.protocol import Array
from runtimes.tensors.validation import check_rows

T = TypeVar("T")

AHEAD = 3
"""The number of batches that are prepared in advance. One slow image then does not delay the runtime."""


def evaluate(
    job: Job, runtime: Runtime, broken: list[Unreadable], step: Callable[[str], None]
) -> predictions.Predictions:
    """Return the predictions of the runtime for the images of the job.

    Decoding uses threads of its own, in addition to the ``job.threads`` of the runtime. For a GPU, preprocessing has
    one too. On the CPU it takes its turn: a thread beside the runtime would delay one of its threads, and all others
    would wait for that one, which takes longer than preprocessing itself.

    Args:
        job: The job.
        runtime: The runtime.
        broken: The list to which unreadable images are added.
        step: Called with the progress.

    Raises:
        RexportError: The data cannot be read, the data do not fit the model, or a logit is not finite.
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
        name = runtime.outputs[0].name
        check_rows(outputs, (name,), len(arrays))
        return outputs[name].astype(np.float32, copy=False)

    ahead = images.batches if job.device == CPU else prefetch(images.batches)
    with closing(ahead) as batches:
        return predictions.predict(infer_batch, report_batches(batches), images.targets)


def prefetch(source: Generator[T, None, None], most: int = AHEAD) -> Generator[T, None, None]:
    """Yield the items of ``source`` in their order while a thread of its own takes the next ones.

    The thread ends, and ``source`` is closed, when the source is exhausted or raises, or when the generator is closed,
    which waits for the item in progress. If the caller may leave early, it must close the generator, for example by
    ``contextlib.closing``.

    Args:
        source: The source.
        most: The largest number of items that are waiting or in progress.

    Raises:
        BaseException: An exception of ``source``, at the position of the item that caused it.
    """
    with closing(source), ThreadPoolExecutor(1, "prepare") as thread:
        waiting = deque(thread.submit(next, source) for _ in range(most))
        try:
            with suppress(StopIteration):  # the source is exhausted
                while True:
                    item = waiting.popleft().result()
                    waiting.append(thread.submit(next, source))
                    yield item
        finally:
            for future in waiting:
                future.cancel()
