from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.serving.metrics_folder import NEW_S, metrics_folder

HOLDER = """
import time
from runtimes.serving.metrics_folder import metrics_folder
with metrics_folder() as folder:
    print(folder, flush=True)
    time.sleep(3600)
"""
"""A server that holds its folder, as far as the folder is concerned."""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    command, environment = [sys.executable, "-c", HOLDER], os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def age(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_the_folder_of_a_killed_server_is_removed(holder: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    process, left = holder
    process.kill()
    process.wait()
    (left / "counter_1.db").write_bytes(b"x")
    with metrics_folder():
        assert left.is_dir()  # it is young, so its server may be about to lock it
    age(left)
    with metrics_folder() as folder:
        assert list(tmp_path.iterdir()) == [Path(folder)]
    assert list(tmp_path.iterdir()) == []
    assert NEW_S > 10


def test_the_folder_of_a_living_server_stays(holder: tuple[subprocess.Popen[str], Path]) -> None:
    _, kept = holder
    age(kept)
    with metrics_folder():
        assert kept.is_dir()


def test_a_folder_of_somebody_elses_making_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other, link = tmp_path / "rexport-metrics-other", tmp_path / "rexport-metrics-link"
    other.mkdir()
    link.symlink_to(other)
    age(other)
    with metrics_folder():
        assert other.is_dir()
        assert link.is_symlink()
