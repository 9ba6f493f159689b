"""A labelling job for the command line: its progress on the terminal, and what it has to say in the end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from exporter.export_request import ExportListener
from exporter.format import count
from exporter.inspect.labelled_accuracy import LabelEvaluation, LabelledAccuracy
from runtimes import codec
from runtimes.errors import Reason, quote
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.label import JobListener, LabellingResult

RATE_S = 30.0
"""The time over which images per second are averaged."""

LOG_S = 60.0
"""The time between two lines of progress where standard error is no terminal."""

FORMS = {"folder": "folder", "tar": "tar archive", "parquet": "Parquet", "list": "list of paths and URIs"}
"""The forms of a source in words."""


class LabellingProgress:
    """Shows a job on the status line, and in a log as a line a minute.

    Args:
        listener: The status line and the notices.
        evaluation: Finds the classes of the images before they are labelled, or ``None``.
        live: Whether the status line is drawn.
        clock: Returns seconds.
    """

    def __init__(
        self,
        listener: ExportListener,
        evaluation: LabelEvaluation | None,
        live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._evaluation = evaluation
        self._live = live
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque()
        self._logged_s = clock()

    def job_listener(self) -> JobListener:
        """Return what ``label`` calls."""
        self._listener.step("listing the source")
        return JobListener(self._list, self._plan, self._show)

    def _list(self, images: int) -> None:
        self._listener.progress(None, count(images, "image"))

    def _plan(self, job: LabellingJob, before: JobProgress) -> None:
        if self._evaluation is not None:
            self._listener.step("matching the classes")
            self._evaluation.match(job)
        self._listener.notice(
            Reason(
                "source-recognised",
                f"{quote(job.source)}: {FORMS[job.kind]}, {count(job.images, 'image')}, "
                f"{count(job.shards, 'shard')} of up to {count(job.shard, 'image')} (--kind)",
            )
        )
        if before.images:
            self._listener.notice(f"{before.images:,} of {count(job.images, 'image')} are labelled already")
        self._listener.step("opening the model")

    def _show(self, job: LabellingJob, progress: JobProgress) -> None:
        now_s = self._clock()
        self._recent.append((now_s, progress.images))
        while now_s - self._recent[0][0] > RATE_S:
            self._recent.popleft()
        if progress.images == self._recent[0][1] and len(self._recent) == 1:
            return
        began_s, first = self._recent[0]
        rate = (progress.images - first) / (now_s - began_s) if now_s > began_s else 0.0
        detail = f"{progress.images:,} of {count(job.images, 'image')} · {rate:,.0f} images/s"
        if progress.errors:
            detail += f" · {count(progress.errors, 'error')}"
        if rate:
            self._listener.step("labelling")
            self._listener.progress(progress.images / job.images, detail)
        if not self._live and now_s - self._logged_s >= LOG_S:
            self._logged_s = now_s
            left = f", {(job.images - progress.images) / rate:,.0f} s left" if rate else ""
            self._listener.notice(detail.replace(" · ", ", ") + left)


def announce_end(result: LabellingResult, notify: Callable[[Reason], None]) -> None:
    """Say how many images have no label and why, and how many workers died.

    Args:
        result: The finished job.
        notify: Receives each notice.
    """
    errors = result.counts.errors
    if errors:
        reasons = ", ".join(f"{code} {number:,}" for code, number in errors.items())
        notify(
            Reason(
                "images-without-label",
                f"{sum(errors.values()):,} of {count(result.counts.images, 'image')} have no label: {reasons}",
            )
        )
    if result.progress.deaths:
        notify(Reason("workers-died", f"{count(result.progress.deaths, 'worker')} died; no image was lost"))


def accuracy_as_text(accuracy: LabelledAccuracy) -> str:
    """Return a line with the accuracy of a finished job and its interval."""
    low, high = accuracy.interval
    images = count(accuracy.images, "image")
    return f"top-1 accuracy {accuracy.share:.2%} [{low:.2%}, {high:.2%}] of {images}"


def as_json(result: LabellingResult, accuracy: LabelledAccuracy | None) -> str:
    """Return the facts of a finished job as a JSON object.

    Args:
        result: The finished job.
        accuracy: Its accuracy, if it was asked for.
    """
    facts: dict[str, object] = {
        "out": result.out,
        "images": result.counts.images,
        "errors": result.counts.errors,
        "executed_images": result.progress.executed,
        "worker_deaths": result.progress.deaths,
    }
    if accuracy is not None:
        facts["top1"] = {
            "value": accuracy.share,
            "low": accuracy.interval[0],
            "high": accuracy.interval[1],
            "right": accuracy.right,
            "images": accuracy.images,
        }
    return codec.dumps(facts, indent=2)
