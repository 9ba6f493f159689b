"""The driver against a scripted executor and a clock that tests move."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from runtimes.errors import ArtifactError, CheckFailedError
from runtimes.labelling.driver import HOPELESS_IMAGES, Driver, JobProgress, JobWatch
from runtimes.labelling.queue import ShardQueue
from runtimes.labelling.work import ShardReport, ShardWork, WorkerDeath
from tests.refusals import refuses
from tests.runtimes.labelling.test_queue import job

NOTHING = JobProgress(0, 0, 0, 0)


@dataclass
class ScriptedExecutor:
    """Finishes works at once, with errors and deaths as asked; each empty wait takes ten seconds."""

    capacity: int = 2
    errors: int = 0
    deaths: int = 0
    poison: int = -1
    hangs: bool = False
    fails: bool = False
    now_s: float = 0.0
    in_progress: int = 0
    works: deque[ShardWork] = field(default_factory=deque)

    def submit(self, work: ShardWork) -> None:
        assert len(self.works) < self.capacity
        self.works.append(work)

    def wait(self, timeout_s: float) -> ShardReport | WorkerDeath | None:
        assert timeout_s > 0
        if self.fails:
            raise ArtifactError("broken", code="test")
        if self.hangs:
            self.now_s += 10
            return None
        work = self.works.popleft()
        if self.deaths or work.start <= self.poison < work.stop:
            self.deaths = max(0, self.deaths - 1)
            return WorkerDeath(work, "killed by SIGKILL")
        return ShardReport(work, self.errors, None if work.whole else b"")

    def images_in_progress(self) -> int:
        return self.in_progress

    def describe_workers(self) -> str:
        return "2 workers wait for 8 CPUs, and there are 4"

    def close(self) -> None:
        """Do nothing."""


class Pieces:
    """Remembers which shards were put together."""

    def __init__(self) -> None:
        self.written: list[int] = []

    def write_pieces(self, shard: int, pieces: list[ShardReport]) -> None:
        assert sum(piece.work.images for piece in pieces) == 64
        self.written.append(shard)

    def error_rows(self, work: ShardWork, death: WorkerDeath) -> bytes:
        assert (work.images, death.reason) == (1, "killed by SIGKILL")
        return b""


def drive(
    executor: ScriptedExecutor, images: int = 256, max_errors: int = 0, before: JobProgress = NOTHING
) -> tuple[JobProgress, Pieces, list[JobProgress]]:
    seen: list[JobProgress] = []
    watch = JobWatch(max_errors, 60, max_errors >= images, seen.append, lambda: executor.now_s)
    pieces, plan = Pieces(), job(images)
    return Driver(ShardQueue(plan, range(plan.shards)), executor, pieces, watch, before).run(), pieces, seen


def test_all_shards_are_labelled_and_counted() -> None:
    progress, pieces, seen = drive(ScriptedExecutor(errors=1), max_errors=4)
    assert progress == JobProgress(256, 4, 256, 0) == seen[-1]
    assert pieces.written == []


def test_deaths_repeat_and_halve_and_the_counts_stay_right() -> None:
    progress, pieces, _ = drive(ScriptedExecutor(capacity=1, deaths=4), images=64)
    assert progress == JobProgress(64, 0, 64, 4)
    assert pieces.written == [0]


def test_a_single_image_that_kills_its_workers_is_an_error() -> None:
    progress, pieces, _ = drive(ScriptedExecutor(poison=9), images=64, max_errors=1)
    assert (progress.images, progress.errors, progress.executed) == (64, 1, 63)
    assert pieces.written == [0]


def test_too_many_errors_end_the_job() -> None:
    with refuses(CheckFailedError, "too-many-errors", 3, 2):
        drive(ScriptedExecutor(errors=1), max_errors=2)


def test_the_errors_of_earlier_runs_count() -> None:
    with refuses(CheckFailedError, "too-many-errors"):
        drive(ScriptedExecutor(), max_errors=2, before=JobProgress(64, 3, 0, 0))


def test_a_job_without_any_label_ends_early() -> None:
    images = 64 * 100
    with refuses(CheckFailedError, "no-labels") as caught:
        drive(ScriptedExecutor(errors=64), images, max_errors=images - 1)
    assert f"{HOPELESS_IMAGES // 64 * 64 + 64:,}" in str(caught.value)


def test_a_job_without_any_label_runs_on_where_that_is_allowed() -> None:
    progress, _, _ = drive(ScriptedExecutor(errors=64), 6400, max_errors=6400)
    assert progress.errors == 6400


def test_a_job_that_does_not_move_names_what_is_lacking() -> None:
    executor = ScriptedExecutor(hangs=True)
    with refuses(CheckFailedError, "labelling-stalled", "8 CPUs"):
        drive(executor)
    assert executor.now_s == 70


def test_images_in_progress_count_as_movement() -> None:
    class Moving(ScriptedExecutor):
        def images_in_progress(self) -> int:
            self.in_progress += 1
            self.hangs = self.in_progress < 100
            return self.in_progress

    executor = Moving(hangs=True)
    progress, _, _ = drive(executor)
    assert executor.now_s > 600
    assert progress.images == 256


def test_an_error_of_a_worker_ends_the_job() -> None:
    with pytest.raises(ArtifactError):
        drive(ScriptedExecutor(fails=True))
