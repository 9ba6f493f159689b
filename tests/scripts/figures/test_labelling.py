from __future__ import annotations

import pytest

from scripts.figures.labelling import MemorySample, _flatness, _speed

MIB = 1 << 20


@pytest.mark.parametrize(("ours_s", "same", "holds"), [(1.0, True, True), (1.05, True, False), (0.5, False, False)])
def test_a_job_must_be_as_fast_as_the_loop_and_right(ours_s: float, same: bool, holds: bool) -> None:
    figure = _speed("resnet20", 100, ([ours_s] * 5, [1.0] * 5), same)
    assert figure.holds is holds
    assert f"{100 / ours_s:,.0f} against 100 " in figure.value


@pytest.mark.parametrize(("growth", "holds"), [(0.0, True), (0.2, False)])
def test_memory_that_grows_with_the_job_is_missed(growth: float, holds: bool) -> None:
    samples = [MemorySample(n / 100, int(100 * MIB * (1 + growth * n / 100)), 50 * MIB) for n in range(1, 101)]
    assert _flatness("driver", samples, lambda sample: sample.driver_bytes, "").holds is holds
    assert _flatness("workers", samples, lambda sample: sample.worker_bytes, "").holds
