from __future__ import annotations

from collections.abc import Callable

import pytest

from runtimes.running_calls import RunningCalls
from tests.interrupts import interrupt_uses


@pytest.mark.parametrize("end", [RunningCalls.close, RunningCalls.finish])
def test_an_interrupt_at_any_moment_of_a_call_leaves_nothing_to_wait_for(
    end: Callable[[RunningCalls], object],
) -> None:
    """The thread that was interrupted closes: its call is over, also if the interrupt came before it was counted so."""

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        calls = RunningCalls()

        def use() -> None:
            for _ in range(20):
                with calls:
                    pass

        return use, lambda: end(calls)

    assert interrupt_uses(make, longest_s=2e-5) > 1000
