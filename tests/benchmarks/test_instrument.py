"""The instrument against itself: the same twice is a tie, a known gap is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.process import worker_process
from benchmarks.process.job import Job
from benchmarks.records.plan import Plan
from benchmarks.stats.comparison import NO_DIFFERENCE
from scripts.figures import instrument
from scripts.figures.slowed_worker import call_slowed
from tests.benchmarks.scripts import SCRIPT, artifact


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, NO_DIFFERENCE), (0.05, "slower"), (-0.05, "faster")])
def test_verdicts_on_sixty_seeded_runs_are_right(tmp_path: Path, gap: float, verdict: str) -> None:
    """On a virtual clock, with noise of processes, turns and calls, stalls, drift and a step; all of the harness takes
    part but its processes."""
    script = instrument.write_script(tmp_path)
    found = [instrument.simulate_run(script, gap, seed) for seed in range(60)]
    assert Counter(one.verdict for one in found)[verdict] >= 57  # type: ignore[index]
    held = sum(one.interval[0] <= 1 / (1 + gap) <= one.interval[1] for one in found)
    assert held >= 54  # of 95 % intervals


def test_a_gap_that_is_injected_is_the_gap_that_there_is() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.001
        return now

    def call() -> str:
        nonlocal now
        now += 1.0
        return "done"

    before = now
    assert call_slowed(call, 0.05, clock) == "done"
    assert now - before == pytest.approx(1.05, abs=0.006)


def test_a_slowed_worker_does_its_work(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    plan = Plan(duration_s=0.02, window_s=0.001, warmup_limit_s=0.01)
    job = Job(str(artifact(tmp_path, SCRIPT)), "fake", "cpu", 1, 1, None, None, False, 0, plan, number=1)
    outcome, _ = worker_process.run(job, folder, lambda _: None, 60.0, program=(*instrument.SLOWED, "0.05"))
    assert (outcome.status, outcome.reason) == ("ok", None)
