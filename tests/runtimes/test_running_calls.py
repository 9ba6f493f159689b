from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from runtimes.running_calls import RunningCalls
from tests.interrupts import Use, interrupt_in_process


def use_calls(end: Callable[[RunningCalls], object]) -> Use:
    calls = RunningCalls()

    def use() -> None:
        for _ in range(20):
            with calls:
                pass

    return use, lambda: end(calls)


close_calls, finish_calls = partial(use_calls, RunningCalls.close), partial(use_calls, RunningCalls.finish)


@pytest.mark.parametrize("name", ["close_calls", "finish_calls"])
def test_an_interrupt_leaves_no_call_to_wait_for(name: str) -> None:
    """The thread that was interrupted closes: its call is over, also if the interrupt came before it was counted so."""
    assert interrupt_in_process(__name__, name, longest_s=2e-5) > 1000
