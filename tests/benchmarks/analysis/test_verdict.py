from __future__ import annotations

from dataclasses import replace

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.verdict import judge
from benchmarks.machine.monitor import Conditions
from runtimes.errors import Reason
from tests.benchmarks.gatherings import process
from tests.benchmarks.results import EMPTY, FASTER, QUIET, REFERENCE, SKIPPED, change, change_facts


def measured(conditions: Conditions | None = QUIET, processes: int = 3) -> Figures:
    samples = tuple(process(conditions=conditions, seed=seed) for seed in range(processes))
    return Figures(change_facts(EMPTY, samples=samples))


def text(*results: Figures) -> str:
    found = judge(results)
    assert found is not None
    return found.text


def test_an_idle_machine_makes_a_valid_run() -> None:
    assert text(REFERENCE, FASTER, SKIPPED) == "VALID: the machine was idle"


def test_a_little_load_leaves_a_run_valid() -> None:
    assert text(measured(), measured(replace(QUIET, foreign_cores=0.15))) == "VALID: the machine was nearly idle"


def test_a_valid_run_says_which_latencies_are_too_noisy() -> None:
    """The times of one process are three times those of the others, and no other program ran."""
    slow = tuple(process(median=0.002 if seed else 0.006, seed=seed) for seed in range(3))
    noisy = Figures(change_facts(EMPTY, samples=slow))
    assert text(measured(), noisy) == (
        "VALID: the machine was idle, but 1 of 2 latencies are too noisy; run again with more processes"
    )


def test_one_busy_row_makes_a_run_invalid() -> None:
    busy = measured(replace(QUIET, foreign_cores=1.6))
    assert text(measured(), busy, measured(processes=1)) == (
        "INVALID: other processes used 80 % of the CPUs (1 of 3 rows); results unreliable, run again on an idle machine"
    )


def test_several_busy_rows_have_one_common_reason() -> None:
    rows = [measured(replace(QUIET, foreign_cores=cores)) for cores in (1.6, 1.2)]
    assert "other processes used 70 % of the CPUs; results" in text(*rows)
    hot = change(measured(), validity_reason=Reason("gpu-throttled", "the GPU's clock was limited"))
    other = change(measured(), validity_reason=Reason("gpu-throttled", "another"))
    assert text(hot, other).endswith("the GPU's clock was limited; results unreliable, run again when the GPU is cool")


def test_too_few_processes_make_a_run_preliminary() -> None:
    assert text(measured(processes=1), measured()) == (
        "PRELIMINARY: 1 process per configuration; an interval needs at least 3 (1 of 2 rows)"
    )
    assert text(measured(None)) == "PRELIMINARY: the state of the machine was not recorded"


def test_nothing_measured_has_no_verdict() -> None:
    assert judge([SKIPPED]) is None
    assert judge([]) is None
