"""The metrics of a server for Prometheus. All labels are from closed sets: models, routes, and status codes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from runtimes.serving.batcher import Batcher

CONTENT_TYPE = CONTENT_TYPE_LATEST

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable with the folder in which the processes of a server keep their metrics, so that each can answer for all.
The library reads it when it is imported."""

_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4, 8, 16)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class ServingMetrics:
    """The counters and histograms of a server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("route", "model", "status")
        self._requests = Counter("rexport_requests", "Answered requests.", labels, registry=registry)
        self._duration = Histogram(
            "rexport_request_duration_seconds",
            "Time from the first byte of a request's head to the end of its answer.",
            ("route", "model"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._received = Counter("rexport_received_bytes", "Bytes of the bodies of requests.", registry=registry)
        self._sent = Counter("rexport_sent_bytes", "Bytes of the bodies of answers.", registry=registry)
        self._rows = Histogram(
            "rexport_batch_rows", "Rows of a run of the network.", ("model",), registry=registry, buckets=_ROWS
        )
        self._inference = Histogram(
            "rexport_inference_duration_seconds",
            "Time of a run of the network.",
            ("model",),
            registry=registry,
            buckets=_SECONDS,
        )
        self._queued = Gauge(
            "rexport_queued_requests",
            "Requests that have a place in the queue, those in work included.",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._batchers: dict[str, Batcher] = {}

    def watch_queue(self, model: str, batcher: Batcher) -> None:
        """Show the length of a queue from now on.

        Args:
            model: The name of the model.
            batcher: The queue.
        """
        self._batchers[model] = batcher

    def observe_batch(self, model: str, rows: int, duration_s: float) -> None:
        """Count a run of a network.

        Args:
            model: The name of the model.
            rows: The number of rows.
            duration_s: The time of the run.
        """
        self._rows.labels(model).observe(rows)
        self._inference.labels(model).observe(duration_s)
        self._queued.labels(model).set(self._batchers[model].admitted)

    def observe_request(self, route: str, model: str, status: int, sizes: tuple[int, int], duration_s: float) -> None:
        """Count an answered request.

        Args:
            route: The path of the route, with the names of its parameters in place of their values.
            model: The name of a model, or an empty text.
            status: The status of the answer.
            sizes: The bytes of the request's body and of the answer's.
            duration_s: The time that the request took.
        """
        self._requests.labels(route, model, str(status)).inc()
        self._duration.labels(route, model).observe(duration_s)
        self._received.inc(sizes[0])
        self._sent.inc(sizes[1])

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus: those of all processes of the server."""
        for name, batcher in self._batchers.items():
            self._queued.labels(name).set(batcher.admitted)
        if os.environ.get(FOLDER_VARIABLE) is None:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
