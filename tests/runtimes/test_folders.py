from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtimes import folders
from runtimes.errors import UsageError
from runtimes.folders import folder_to_fill
from tests.refusals import refuses


def test_a_folder_that_is_not_filled_does_not_stay(tmp_path: Path) -> None:
    def fill(place: Path, *names: str) -> None:
        with refuses(UsageError, "test-refusal"), folder_to_fill(place):
            for name in names:
                (place / name).touch()
            raise UsageError("no more comes", code="test-refusal")

    (tmp_path / "old").mkdir()
    fill(tmp_path / "old")
    fill(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == ["old"]
    fill(tmp_path / "a" / "b", "page")
    with folder_to_fill(tmp_path / "c"):
        (tmp_path / "c" / "page").touch()
    with folder_to_fill(tmp_path / "d" / "e"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["a", "c", "old"]


FILLS_LATER = """
import sys
from pathlib import Path
from runtimes.folders import folder_to_fill
folder = Path(sys.argv[1])
with folder_to_fill(folder):
    print("inside", flush=True)
    sys.stdin.read()
    (folder / "page").touch()
"""


@contextmanager
def another_process(folder: Path) -> Iterator[None]:
    """Another process is about to fill the folder, and does so at the end of the block."""
    command = [sys.executable, "-c", FILLS_LATER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "inside\n"
        yield
        process.communicate()
    assert process.returncode == 0


def test_a_folder_that_another_process_fills_stays(tmp_path: Path) -> None:
    with folder_to_fill(tmp_path / "new"), another_process(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path / "new") == ["page"]
    with another_process(tmp_path / "later"), folder_to_fill(tmp_path / "later"):
        pass
    assert os.listdir(tmp_path / "later") == ["page"]


def test_threads_make_and_remove_one_folder_at_once(tmp_path: Path) -> None:
    """A folder that one of them removes is there for the others all the same."""
    failures: list[BaseException] = []

    def fill() -> None:
        try:
            for _ in range(100):
                with folder_to_fill(tmp_path / "new"):
                    (tmp_path / "new" / f"{threading.get_ident()}").touch()
                    (tmp_path / "new" / f"{threading.get_ident()}").unlink()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_stranger_who_locks_the_folder_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_PATIENCE_S", 0.1)
    (tmp_path / "new").mkdir()
    descriptor = os.open(tmp_path / "new", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with folder_to_fill(tmp_path / "new"):
        (tmp_path / "new" / "page").touch()
    os.close(descriptor)
    assert os.listdir(tmp_path / "new") == ["page"]


def test_without_locks_a_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A double of a file system without locks, which cannot be had here."""

    def refuse(*_: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with folder_to_fill(tmp_path / "new"):
        pass
    assert os.listdir(tmp_path) == ["new"]
