from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.analysis.figures import Figures, latencies
from benchmarks.compare import changes
from benchmarks.compare.compare import Limits, compare
from benchmarks.machine.monitor import Conditions
from benchmarks.records.result import Estimate, RecordedFigures, Result
from benchmarks.records.samples import LoadResult
from benchmarks.report.comparison import comparison_document
from benchmarks.stats.comparison import NO_DIFFERENCE
from exporter.document.terminal import as_text
from exporter.proportions import newcombe, wilson
from runtimes.errors import ArtifactError, CompatibilityError, Reason
from tests.benchmarks import results
from tests.benchmarks.comparisons import LATER, OLD, SAME, SLOWER, compared, file, taken, with_predictions
from tests.benchmarks.results import QUIET, change_facts
from tests.refusals import refuses

REFERENCE, FASTER, SKIPPED = results.REFERENCE.result, results.FASTER.result, results.SKIPPED.result

TOLERANT = Limits(slowdown=0.25)
"""Lets pass more than three processes may be apart by chance."""


def codes(reasons: Sequence[Reason]) -> list[str]:
    return [reason.code for reason in reasons]


def test_two_runs_of_the_same_thing_are_a_tie(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SAME], TOLERANT)
    (row,) = found.rows
    assert (found.passed, row.regressions, row.remarks) == (True, (), ())
    assert row.p50 is not None
    assert (row.p50.verdict, row.p50.paired, row.p50.units) == (NO_DIFFERENCE, False, "processes")
    assert (row.p50.old_s, row.p50.new_s) == (0.0004, 0.0004)
    assert row.p50.interval[0] < 1 < row.p50.interval[1]
    assert row.p99 is not None


def test_slower_by_more_than_allowed_is_a_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SLOWER])
    (row,) = found.rows
    assert not found.passed
    assert row.p50 is not None
    assert row.p50.verdict == "slower"
    assert row.p50.slowdown == pytest.approx(0.10, abs=0.02)
    assert row.p50.slowdown_interval[0] < row.p50.slowdown < row.p50.slowdown_interval[1]
    (regression,) = row.regressions
    assert regression.code == "latency-worse"
    assert row.p50.percent_text in regression.sentence


def test_slower_within_the_limit_and_faster_pass(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SLOWER], Limits(slowdown=0.25))
    assert found.passed
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.verdict == "slower"
    faster = compared(tmp_path, [SLOWER], [OLD])
    assert faster.passed
    assert faster.rows[0].p50 is not None
    assert faster.rows[0].p50.verdict == "faster"


def test_a_gap_within_chance_is_no_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [taken(0.000402, 4)], Limits(slowdown=0.0))
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.slowdown > 0
    assert found.passed


def test_a_tie_too_wide_for_the_limit_is_remarked(tmp_path: Path) -> None:
    (row,) = compared(tmp_path, [OLD], [SAME], Limits(slowdown=0.0001)).rows
    assert row.p50 is not None
    assert row.p50.verdict == NO_DIFFERENCE
    (remark,) = row.remarks
    assert remark.code == "too-noisy"
    assert f"{100 * row.p50.slowdown_interval[1]:.1f} %" in remark.sentence
    assert compared(tmp_path, [OLD], [SAME], Limits(slowdown=0.5)).rows[0].remarks == ()


def test_of_many_runs_only_the_slower_are_regressions() -> None:
    for seed in range(100, 130, 2):
        before, now, slow = map(Figures, (taken(0.0004, seed), taken(0.0004, seed + 1), taken(0.00046, seed + 1)))
        same, worse = changes.change(before, now, 0.5), changes.change(before, slow, 0.5)
        assert same is not None
        assert worse is not None
        assert same.verdict == NO_DIFFERENCE
        assert worse.verdict == "slower"
        assert worse.slowdown > 0.05


def with_latencies(result: Result, rounds_of: Any) -> Result:
    """The result with other latencies: ``rounds_of(number, rounds)`` of each process."""
    samples = [
        replace(process, latency=replace(process.latency, rounds_s=rounds_of(number, process.latency.rounds_s)))
        for number, process in enumerate(result.samples)
    ]
    return change_facts(result, samples=tuple(samples))


def test_results_that_took_turns_are_compared_in_pairs(tmp_path: Path) -> None:
    def drifting(result: Result, times: float = 1.0) -> Result:
        """So many times as long, and each process twice as slow as the one before, which meets both alike."""
        moved = with_latencies(
            result, lambda number, rounds: tuple(tuple(times * 2**number * s for s in each) for each in rounds)
        )
        return change_facts(moved, run="one")

    old, new = drifting(OLD), drifting(SLOWER, times=1.1)
    found = compared(tmp_path, [old], [new])
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.paired
    assert found.rows[0].p50.slowdown == pytest.approx(0.21, abs=0.03)
    assert not found.passed
    elsewhere = compared(tmp_path, [old], [change_facts(new, run="another")])
    assert elsewhere.rows[0].p50 is not None
    assert (elsewhere.rows[0].p50.paired, elsewhere.rows[0].p50.verdict) == (False, NO_DIFFERENCE)


def test_a_file_against_itself_is_a_tie_in_every_row(tmp_path: Path) -> None:
    path = file(tmp_path / "r.jsonl", REFERENCE, FASTER, SKIPPED)
    found = compare(path, path, Limits())
    assert found.passed
    assert [row.p50 and row.p50.ratio for row in found.rows] == [1.0, 1.0, None]
    assert [codes(row.remarks) for row in found.rows] == [[], [], ["not-measured-twice"]]


def test_samples_that_took_no_time_are_refused(tmp_path: Path) -> None:
    stopped = with_latencies(SAME, lambda *_: ((0.0, 0.001),))
    with refuses(ArtifactError, "facts-contradict", "onnxruntime int8, batch 1", "latency", "0.0"):
        compared(tmp_path, [OLD], [stopped])


CONTRADICTIONS = {
    "samples of what failed": change_facts(SAME, status="failed"),
    "rounds without a start": change_facts(SAME, samples=tuple(replace(one, starts_s=(0.0,)) for one in SAME.samples)),
    "services without a response": change_facts(
        SAME, samples=(), load=LoadResult("single-stream", (0.1, 0.1), (0.1,), 1.0)
    ),
    "responses that took no time": change_facts(
        SAME, samples=(), load=LoadResult("single-stream", (0.1,), (0.0,), 1.0)
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_facts_that_contradict_each_other_are_refused(tmp_path: Path, case: str) -> None:
    result = CONTRADICTIONS[case]
    with refuses(ArtifactError, "facts-contradict", "new.jsonl"):
        compared(tmp_path, [OLD], [result], Limits(across=("load",)))


def test_damaged_predictions_are_refused(tmp_path: Path) -> None:
    result = with_predictions(OLD, 930)
    assert result.predictions is not None
    broken = change_facts(result, predictions=replace(result.predictions, packed="AAAA"))
    with refuses(ArtifactError, "predictions-damaged"):
        compared(tmp_path, [broken], [result])


def test_a_drop_is_found_image_by_image(tmp_path: Path) -> None:
    found = compared(tmp_path, [with_predictions(OLD, 930)], [with_predictions(SAME, 920)])
    (row,) = found.rows
    assert row.drop is not None
    assert (row.drop.old, row.drop.new, row.drop.value, row.drop.images) == (0.93, 0.92, 0.01, 1000)
    assert row.drop.paired
    assert row.drop.flips is not None
    assert (row.drop.flips.better, row.drop.flips.worse) == (0, 10)
    (regression,) = row.regressions
    assert regression.code == "accuracy-worse"
    assert "1.00 ± 0.65" in regression.sentence
    assert codes(row.remarks)[0] == "predictions-changed"
    limits = Limits(drop=1.0)
    assert compared(tmp_path, [with_predictions(OLD, 930)], [with_predictions(SAME, 920)], limits).passed


def with_totals(result: Result, top1: float | None, images: int = 1000) -> Result:
    """As an older version recorded it: shares of images, and no predictions."""
    figures = Figures(result)
    estimates = {name: figure for name in ("p50", "p99") if (figure := getattr(figures, name)) is not None}
    if top1 is not None:
        estimates["top1"] = Estimate(top1, *wilson(round(top1 * images), images))
    return change_facts(result, recorded=RecordedFigures(True, estimates, images))


def test_the_same_drop_of_totals_is_within_chance(tmp_path: Path) -> None:
    before, now = with_totals(OLD, 0.93), with_totals(SAME, 0.92)
    found = compared(tmp_path, [before], [now])
    assert found.rows[0].drop is not None
    assert (found.rows[0].drop.paired, found.rows[0].drop.flips) == (False, None)
    assert found.rows[0].drop.interval[0] < 0
    assert found.passed
    assert not compared(tmp_path, [before], [with_totals(SAME, 0.8)]).passed


def test_a_drop_within_chance_is_no_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [with_predictions(OLD, 930)], [with_predictions(SAME, 929)], Limits(drop=0.0))
    assert found.rows[0].drop is not None
    assert found.rows[0].drop.value > 0
    assert found.passed


def test_predictions_on_other_images_are_not_compared(tmp_path: Path) -> None:
    cases = {
        "images-differ": (with_predictions(OLD, 930), with_predictions(SAME, 460, images=500)),
        "data-differ": (with_totals(OLD, 0.93), change_facts(with_totals(SAME, 0.93), data="other")),
        "top1-on-one-side": (OLD, with_predictions(SAME, 930)),
    }
    for code, (old, new) in cases.items():
        found = compared(tmp_path, [old], [new], TOLERANT)
        assert found.rows[0].drop is None
        assert codes(found.rows[0].remarks) == [code]
    assert compared(tmp_path, [OLD], [change_facts(OLD, run="next")], TOLERANT).rows[0].remarks == ()


def test_newcombes_interval_is_that_of_his_paper() -> None:
    # Newcombe 1998, Table II, (a), method 10
    assert newcombe(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def loaded(rate: float, slower: float = 1.0, seed: int = 0, share: float | None = None) -> Result:
    random = np.random.default_rng(seed)
    responses = tuple(float(s) for s in slower * 0.001 * np.exp(random.normal(scale=0.05, size=1200)))
    load = LoadResult("server", responses, responses, rate, rate_per_s=rate, rate_share=share)
    return change_facts(FASTER, samples=(), evaluation=None, load=load, run=f"load {seed}")


def test_responses_under_a_load_are_compared_at_one_rate(tmp_path: Path) -> None:
    found = compared(tmp_path, [loaded(100.0)], [loaded(100.0, 1.2, seed=1)])
    (row,) = found.rows
    assert (row.load, found.passed) == ("server", False)
    assert codes(row.remarks) == ["one-process-each"]
    assert row.p99 is not None
    with refuses(CompatibilityError, "conditions-differ", "100.0", "140.0", "--across rate"):
        compared(tmp_path, [loaded(100.0)], [loaded(140.0, seed=1)])
    with refuses(CompatibilityError, "no-common-configuration", "load"):
        compared(tmp_path, [OLD], [loaded(100.0)])


def test_a_rate_that_the_machine_decided_is_no_difference(tmp_path: Path) -> None:
    """Each run takes its own from its single stream, and no two of these reach the same."""
    found = compared(tmp_path, [loaded(100.0, share=0.7)], [loaded(91.0, 1.1, seed=1, share=0.7)])
    (row,) = found.rows
    assert row.p50 is not None
    assert row.p50.slowdown == pytest.approx(0.1, abs=0.02)
    assert row.remarks[0].code == "rates-differ"
    with refuses(CompatibilityError, "conditions-differ", "100.0", "70%", "--across rate"):
        compared(tmp_path, [loaded(100.0)], [loaded(100.0, seed=1, share=0.7)])


def test_loads_of_other_rates_are_no_earlier_runs(tmp_path: Path) -> None:
    later = change_facts(loaded(200.0, seed=2), time=LATER)
    found = compared(tmp_path, [loaded(100.0), loaded(200.0, seed=1)], [loaded(100.0, seed=3), later])
    assert [row.p50 is not None for row in found.rows] == [True, True]
    assert (found.notices, found.only_old, found.only_new) == ((), (), ())
    again = change_facts(loaded(91.0, seed=5, share=0.7), time=LATER)
    derived = compared(tmp_path, [loaded(100.0, share=0.7)], [loaded(95.0, seed=4, share=0.7), again])
    assert len(derived.notices) == 1


def test_cold_starts_are_processes_each() -> None:
    responses = (0.3, 0.31, 0.32, 0.3, 0.33)
    cold = change_facts(FASTER, samples=(), load=LoadResult("cold", responses, responses, 3.0))
    assert latencies(cold) == (((0.3,),), ((0.31,),), ((0.32,),), ((0.3,),), ((0.33,),))
    found = changes.change(Figures(cold), Figures(cold), 0.5)
    assert found is not None
    assert found.units == "processes"
    assert changes.change(Figures(cold), Figures(cold), 0.99) is None


def test_too_few_samples_are_remarked(tmp_path: Path) -> None:
    few = change_facts(OLD, samples=with_latencies(OLD, lambda *_: ((0.0004,) * 4,)).samples[:1])
    found = compared(tmp_path, [few], [SAME])
    assert found.rows[0].p50 is None
    assert codes(found.rows[0].remarks) == ["samples-too-few"]


def test_other_circumstances_and_disturbances_are_remarked(tmp_path: Path) -> None:
    busy = replace(QUIET, foreign_cores=0.9, processors=2, pressure_share=0.9)
    samples = tuple(replace(process, conditions=busy) for process in SAME.samples)
    new = change_facts(SAME, backend_version="1.33.0", arithmetic="float32", samples=samples)
    found = compared(tmp_path, [OLD], [new], TOLERANT)
    remarks = found.rows[0].remarks
    assert codes(remarks) == ["circumstances-differ", "circumstances-differ", "side-invalid"]
    assert all(word in remarks[0].sentence for word in ("1.32.0", "1.33.0"))
    assert remarks[1].sentence.endswith("float32 now")
    assert remarks[2].sentence.startswith("NEW is INVALID")


def test_a_busy_machine_fails_only_a_strict_comparison(tmp_path: Path) -> None:
    def measured(conditions: Conditions | None) -> Result:
        return change_facts(SAME, samples=tuple(replace(each, conditions=conditions) for each in SAME.samples))

    cases = {
        "side-invalid": measured(replace(QUIET, foreign_cores=0.9, processors=2, pressure_share=0.9)),
        "side-unwatched": measured(None),
    }
    for code, new in cases.items():
        loose, strict = (
            compared(tmp_path, [measured(QUIET)], [new], replace(TOLERANT, strict=on)) for on in (False, True)
        )
        assert code in codes(strict.rows[0].remarks)
        assert (loose.passed, strict.passed) == (True, False)
        assert "failed: 1 row compared, 1 of them unreliable" in as_text(comparison_document(strict))
    assert compared(tmp_path, [measured(QUIET)], [measured(QUIET)], replace(TOLERANT, strict=True)).passed
