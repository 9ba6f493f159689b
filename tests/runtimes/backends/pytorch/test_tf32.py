from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from runtimes.backends.pytorch.tf32 import set_float32_precision

CUDNN: Any = torch.backends.cudnn
PLACES: tuple[Any, ...] = (torch.backends.cuda.matmul, CUDNN.conv, CUDNN.rnn)


def settings() -> list[str]:
    return [place.fp32_precision for place in PLACES]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = settings()
    yield
    for place, value in zip(PLACES, before, strict=True):
        place.fp32_precision = value


@pytest.mark.parametrize(("tf32", "word"), [(True, "tf32"), (False, "ieee")])
@pytest.mark.parametrize("app", [None, "tf32", "ieee"])
def test_it_lasts_and_the_apps_own_settings_come_back(tf32: bool, word: str, app: str | None) -> None:
    if app is not None:
        for place in PLACES:
            place.fp32_precision = app
    before = settings()
    with set_float32_precision(tf32):
        assert settings() == [word] * 3
    assert settings() == before


def test_the_older_switches_are_as_they_were() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for tf32 in (True, False):
        with set_float32_precision(tf32):
            pass
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_an_error_inside_restores_them_and_gives_the_turn_back() -> None:
    before = settings()
    with pytest.raises(RuntimeError, match="no kernel"), set_float32_precision(True):
        raise RuntimeError("no kernel")
    assert settings() == before
    with set_float32_precision(False):
        pass


def test_sessions_that_differ_take_turns() -> None:
    wrong: list[list[str]] = []
    barrier = threading.Barrier(4)

    def launch(tf32: bool) -> None:
        barrier.wait()
        for _ in range(300):
            with set_float32_precision(tf32):
                for _ in range(3):
                    if settings() != ["tf32" if tf32 else "ieee"] * 3:
                        wrong.append(settings())

    threads = [threading.Thread(target=launch, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
