"""Worker processes that are killed, that crash on an image, and that never become ready."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from runtimes.errors import ArtifactError, ResourceError
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.processes import ProcessExecutor
from runtimes.labelling.work import WorkerSettings
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import digests, request, rows, run, slow, write_images

POISON = """
import os
from runtimes.images import preprocessing
fit_image = preprocessing.fit_image
def fit_or_die(image, spec):
    if image.endswith(b"poison"):
        os.kill(os.getpid(), 11)
    return fit_image(image, spec)
preprocessing.fit_image = fit_or_die
"""
"""A fault of a decoder: what begins like an image and ends in "poison" is a crash."""


def _poison(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def two(settings: WorkerSettings) -> ProcessExecutor:
    """Two workers."""
    return ProcessExecutor(settings, 2)


def test_killed_workers_lose_nothing(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 60), fake_artifact(slow(0.02)).path
    run(request(source, artifact, tmp_path / "whole"))
    executors: list[ProcessExecutor] = []
    kills = [8, 20]

    def start(settings: WorkerSettings) -> ProcessExecutor:
        executors.append(two(settings))
        return executors[0]

    def kill(_: LabellingJob, progress: JobProgress) -> None:
        busy = [worker for worker in executors[0]._workers if worker.work is not None]
        if busy and kills and progress.images >= kills[0]:
            del kills[0]
            os.kill(busy[0]._process.pid, signal.SIGKILL)

    result = run(request(source, artifact, tmp_path / "out"), start, kill)
    assert 1 <= result.progress.deaths <= 2  # a worker that has just sent its report loses no work
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert result.progress.executed == 60  # a killed shard counts once, when it is finished


def test_an_image_that_crashes_the_decoder_is_one_row(
    fake_artifact: FakeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact().path
    run(request(source, artifact, tmp_path / "whole"))
    image = source / "bee" / "0001.png"
    image.write_bytes(image.read_bytes() + b"poison")
    _poison(monkeypatch, tmp_path / "site")
    result = run(request(source, artifact, tmp_path / "out"), two)
    assert result.counts.errors == {"image-kills-worker": 1}
    whole, found = rows(tmp_path / "whole"), rows(tmp_path / "out")
    for before, after in zip(whole, found, strict=True):
        assert before["uri"] == after["uri"]
        if after["uri"] == "bee/0001.png":
            assert (after["label"], after["error_code"]) == (None, "image-kills-worker")
            assert "SIGSEGV" in after["error"]
        else:
            assert before == after


def test_workers_that_never_become_ready_end_the_job(
    fake_artifact: FakeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_images(tmp_path / "photos", 7)
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with refuses(ResourceError, "workers-not-ready", "exit code 9"):
        run(request(source, fake_artifact().path, tmp_path / "out"), two)


def test_an_error_of_a_worker_is_that_of_the_job(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 7), fake_artifact().path

    def spoil(settings: WorkerSettings) -> ProcessExecutor:
        artifact.write_bytes(artifact.read_bytes() + b" ")
        return two(settings)

    with pytest.raises(ArtifactError) as caught:
        run(request(source, artifact, tmp_path / "out"), spoil)
    assert caught.value.code == "file-digest-mismatch"
    assert caught.value.path == artifact
