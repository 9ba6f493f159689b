"""``Service``: the models of a server, their queues, and the threads that prepare requests. HTTP and gRPC share it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

from runtimes.errors import InputError, ResourceError, quote
from runtimes.processors import usable_processors
from runtimes.serving.batcher import Batcher, QueuedRequest
from runtimes.serving.inference_request import InferenceRequest
from runtimes.serving.metrics import ServingMetrics
from runtimes.serving.model import VERSION, ServedModel, check_distinct
from runtimes.serving.settings import ServingSettings
from runtimes.serving.sole_client import SoleClient
from runtimes.tensors.spec import Arrays

Prepare = Callable[[], InferenceRequest]
"""Decodes or parses a request. It is called in a thread that may block."""

T = TypeVar("T")

ENCODE_HERE_BYTES = 64 << 10
"""The size of outputs in bytes up to which an answer is made in the thread of the event loop."""

BRIEF_S = 0.01
"""The usual seconds of a request up to which the event loop runs the network itself, if it has but one client."""

MAX_PREPARING = 4
"""The number of threads that decode images and parse tensors, at most, beside the thread that runs each network."""

RETRY_LIMIT_S = 30
"""The largest value of the header Retry-After in seconds."""


class Service:
    """The models of a server and their queues.

    Args:
        models: The opened models, which stay the caller's. Their names have to differ.
        settings: The limits.
        metrics: The metrics.

    Attributes:
        draining: Whether the server is about to stop. It still answers, but says that it is not ready.

    Raises:
        UsageError: Two models have the same name.
    """

    def __init__(self, models: Sequence[ServedModel], settings: ServingSettings, metrics: ServingMetrics) -> None:
        check_distinct([model.name for model in models])
        self.models = {model.name: model for model in models}
        self.settings = settings
        self.metrics = metrics
        self.draining = False
        self._reading = 0
        self._sole_client = SoleClient()
        self._batchers = {
            model.name: Batcher(
                model.batching(settings.max_batch), settings, partial(metrics.observe_batch, model.name)
            )
            for model in models
        }
        for name, batcher in self._batchers.items():
            metrics.watch_queue(name, batcher)
        threads = len(models) + min(MAX_PREPARING, usable_processors())
        self._threads = ThreadPoolExecutor(threads, "rexport-serving")

    def model(self, name: str | None, version: str = "") -> ServedModel:
        """Return a model.

        Args:
            name: The name of the model. ``None`` means the only one.
            version: The version, or an empty text for the one that there is.

        Raises:
            InputError: There is no such model; or there are several, and ``name`` is ``None``.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        known = ", ".join(self.models)
        if name is None:
            raise InputError(
                "the request names no model", code="model-required", hint=f"add ?model= and one of {known}"
            )
        if name not in self.models:
            raise InputError(f"there is no model {quote(name)!r}", code="model-unknown", hint=f"the models are {known}")
        if version not in ("", VERSION):
            raise InputError(
                f"model {name} has no version {quote(version)!r}",
                code="model-version-unknown",
                hint=f"the only version is {VERSION}",
            )
        return self.models[name]

    async def run(
        self, model: ServedModel, prepare: Prepare, connection: object = None
    ) -> tuple[InferenceRequest, Arrays]:
        """Prepare a request in a thread, run it with others, and return it with the outputs of the network.

        While one connection alone sends requests to a fast network, all of this happens in the thread of the event
        loop: two changes between threads take a quarter of a millisecond, and there is nobody to wait. If the calling
        task is cancelled, the request gives its place back.

        Args:
            model: The model.
            prepare: Makes the request. It is called in any thread.
            connection: As from ``connection_of``.

        Raises:
            ResourceError: The queue is full, or the request passed its deadline.
            RexportError: As for ``prepare`` and ``Runtime.infer``.
        """
        loop, thread = asyncio.get_running_loop(), threading.get_ident()
        future: asyncio.Future[Arrays] = loop.create_future()

        def resolve(outcome: Arrays | Exception) -> None:
            if threading.get_ident() == thread:
                _deliver(future, outcome)
                return
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, future, outcome)

        batcher = self._batchers[model.name]
        prepared: list[InferenceRequest] = []
        place = batcher.admit(resolve)
        try:
            if self._is_sole_and_brief(batcher, connection):
                _prepare(batcher, place, prepare, prepared)
            else:
                self._threads.submit(_prepare, batcher, place, prepare, prepared)
            outputs = await future
        except BaseException:
            batcher.withdraw(place)
            raise
        return prepared[0], outputs

    def _is_sole_and_brief(self, batcher: Batcher, connection: object) -> bool:
        sole = self._sole_client.is_sole(connection, time.monotonic())
        return sole and not self.settings.delay_s and 0 < batcher.request_s <= BRIEF_S

    async def encode(self, encode: Callable[[], T], outputs: Arrays) -> T:
        """Return ``encode()``, which is called in a thread if the outputs are large.

        Args:
            encode: Makes an answer of the outputs.
            outputs: The outputs.
        """
        if sum(array.nbytes for array in outputs.values()) <= ENCODE_HERE_BYTES:
            return encode()
        return await asyncio.get_running_loop().run_in_executor(self._threads, encode)

    @contextmanager
    def reading(self, model: ServedModel) -> Iterator[None]:
        """Hold the ``with`` block, which reads the body of a request for a model, to the size of the queue.

        Bodies that arrive do not take places of the queue, so that slow clients do not keep others from it; but there
        are no more of them at once than places.

        Raises:
            ResourceError: The queue is full, or too many bodies arrive at once.
        """
        self._batchers[model.name].check_place()
        if self._reading >= self.settings.queue:
            raise ResourceError(
                f"{self._reading} bodies of requests arrive at once, and no more are taken",
                code="too-many-bodies",
                hint="try again later",
            )
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    def retry_after_s(self, name: str | None) -> int:
        """Return the whole seconds after which a refused request may be sent again, from 1 to ``RETRY_LIMIT_S``."""
        batcher = self._batchers.get(name or "")
        wait_s = 0.0 if batcher is None else batcher.expected_wait_s
        return max(1, min(RETRY_LIMIT_S, round(wait_s)))

    def close(self) -> None:
        """Wait for the threads to finish their work, and end them."""
        self._threads.shutdown()


def _prepare(batcher: Batcher, place: QueuedRequest, prepare: Prepare, prepared: list[InferenceRequest]) -> None:
    """Prepare a request and add it to its queue, unless nobody waits for it any more."""
    if place.finished:
        return
    try:
        request = prepare()
    except Exception as error:
        batcher.fail(place, error)
        return
    prepared.append(request)
    if request.timeout_s is not None:
        place.deadline_s = min(place.deadline_s, time.monotonic() + request.timeout_s)
    batcher.add(place, request.feeds)


def _deliver(future: asyncio.Future[Arrays], outcome: Arrays | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
