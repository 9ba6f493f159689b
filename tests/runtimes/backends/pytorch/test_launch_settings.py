from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from runtimes.backends.pytorch.launch_settings import apply_launch_settings
from tests.runtimes.backends.pytorch.app_settings import APPS

CUDNN: Any = torch.backends.cudnn
PLACES: tuple[Any, ...] = (torch.backends.cuda.matmul, CUDNN.conv, CUDNN.rnn)


def settings() -> list[str]:
    return [place.fp32_precision for place in PLACES]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, search = settings(), CUDNN.benchmark
    yield
    assert (settings(), CUDNN.benchmark) == (before, search)


def tried(*arguments: str) -> list[str]:
    """What the program found that tries the settings of apps, in processes of their own."""
    command = [sys.executable, "-m", "tests.runtimes.backends.pytorch.app_settings", *arguments]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert lines[-1].startswith(f"tried {2 * len(APPS)} ")
    return lines[:-1]


def test_what_an_app_has_set_is_as_it_was_and_read_by_all() -> None:
    assert tried() == []


def test_the_newer_interface_alone_is_found_out() -> None:
    found = {line.split()[1] for line in tried("newer-only")}
    assert found >= {"older-inside", "allow-inside", "cudnn-inside", "search-inside", "not-restored"}


@pytest.mark.parametrize("tf32", [True, False, None])
def test_half_precision_leaves_float32_alone(tf32: bool | None) -> None:
    before = settings()
    with apply_launch_settings(tf32, search=True):
        assert settings() == (before if tf32 is None else ["tf32" if tf32 else "ieee"] * 3)
        assert CUDNN.benchmark
    with apply_launch_settings(tf32):
        assert not CUDNN.benchmark


def test_an_error_inside_restores_them_and_gives_the_turn_back() -> None:
    before = settings()
    with pytest.raises(RuntimeError, match="no kernel"), apply_launch_settings(True, search=True):
        raise RuntimeError("no kernel")
    assert (settings(), CUDNN.benchmark) == (before, False)
    with apply_launch_settings(False):
        pass


def test_sessions_that_differ_take_turns() -> None:
    wrong: list[list[str]] = []
    barrier = threading.Barrier(4)

    def launch(tf32: bool) -> None:
        barrier.wait()
        for _ in range(300):
            with apply_launch_settings(tf32):
                for _ in range(3):
                    if settings() != ["tf32" if tf32 else "ieee"] * 3:
                        wrong.append(settings())

    threads = [threading.Thread(target=launch, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
