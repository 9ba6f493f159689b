"""What a labelling job shows, and the accuracy of its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from exporter.inspect.labelled_accuracy import check_targets, measure_accuracy
from exporter.inspect.labelling import LOG_S, LabellingProgress
from exporter.network import ExportListener
from exporter.proportions import wilson
from runtimes.errors import ModelMismatchError, Reason
from runtimes.labelling.driver import JobProgress
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import request, rows, run, write_images
from tests.runtimes.labelling.test_queue import job


class Screen:
    """Remembers steps, notices and progress, under a clock that the test moves."""

    def __init__(self, live: bool) -> None:
        self.steps: list[str] = []
        self.notices: list[str | Reason] = []
        self.shares: list[tuple[float | None, str]] = []
        self.now_s = 0.0
        listener = ExportListener(
            self.steps.append, self.notices.append, lambda share, detail: self.shares.append((share, detail))
        )
        self.listener = LabellingProgress(listener, "/out", False, live, lambda: self.now_s).job_listener()

    def move(self, seconds: float, images: int, errors: int = 0) -> None:
        """Report after so many seconds that so many images are done."""
        self.now_s += seconds
        self.listener.progress(job(10_000), JobProgress(images, errors, images, 0))


def test_a_terminal_shows_the_rate_of_the_last_half_minute() -> None:
    screen = Screen(live=True)
    screen.listener.planned(job(10_000), JobProgress(0, 0, 0, 0))
    screen.move(0, 0)
    assert screen.steps[-1] == "opening the model"
    for _ in range(10):
        screen.move(10, 0)  # a model that takes long to open does not slow the rate down later
    screen.move(10, 1000)
    screen.move(10, 2000)
    screen.move(10, 3000, errors=2)
    screen.move(10, 4000, errors=2)
    share, detail = screen.shares[-1]
    assert (share, screen.steps[-1]) == (0.4, "labelling")
    assert "100 images/s" in detail
    assert "2 errors" in detail


@pytest.mark.parametrize(("live", "lines"), [(True, 0), (False, 3)])
def test_a_log_has_a_line_a_minute(live: bool, lines: int) -> None:
    screen = Screen(live)
    for number in range(int(3 * LOG_S / 10) + 1):
        screen.move(10, 100 * number)
    assert len(screen.notices) == lines
    assert all("images/s" in str(notice) and "left" in str(notice) for notice in screen.notices)


def test_numbers_of_a_table_are_the_outputs(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 20), fake_artifact().path
    paths = sorted(source.rglob("*.png"))
    run(request(source, artifact, tmp_path / "plain"))
    indices = [row["index"] for row in rows(tmp_path / "plain")]
    labels = [index if number % 4 else (index + 1) % 10 for number, index in enumerate(indices)]
    table = pyarrow.table({"bytes": [path.read_bytes() for path in paths], "label": labels})
    parquet.write_table(table, tmp_path / "a.parquet")
    result = run(request(tmp_path / "a.parquet", artifact, tmp_path / "out"))
    accuracy = measure_accuracy(result.out, result.job, artifact)
    assert (accuracy.right, accuracy.images, accuracy.share) == (15, 20, 0.75)
    assert accuracy.interval == wilson(15, 20)


def test_classes_that_the_network_lacks_are_refused(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 6), fake_artifact().path
    result = run(request(source, artifact, tmp_path / "out"))
    check_targets(result.out, result.job)
    with refuses(ModelMismatchError, "class-count-mismatch", 2, 10):
        measure_accuracy(result.out, result.job, artifact)


def test_a_job_without_labels_has_no_accuracy(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 2), fake_artifact().path
    for path in source.rglob("*.png"):
        path.write_bytes(b"broken")
    result = run(request(source, artifact, tmp_path / "out"))
    with refuses(ModelMismatchError, "accuracy-without-labels"):
        measure_accuracy(result.out, result.job, artifact)
    shutil.rmtree(tmp_path / "out")
