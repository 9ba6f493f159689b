from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy.packing import pack_predictions
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis import figures
from benchmarks.analysis.figures import Figures
from benchmarks.records.identity import describe_baseline, is_reference
from benchmarks.records.result import Baseline, Estimate, RecordedFigures, Result, RoofInputs
from benchmarks.records.samples import LoadResult, ProcessSamples
from benchmarks.stats import comparison, intervals
from benchmarks.stats.comparison import NO_DIFFERENCE
from tests.benchmarks.gatherings import process, series
from tests.benchmarks.results import EMPTY, QUIET, change_facts


def measured(*processes: ProcessSamples, **facts: object) -> Result:
    """A result of these processes, of one without an argument."""
    samples = processes or (process(),)
    return change_facts(EMPTY, **{"samples": samples, "processes": len(samples), **facts})


def reference(*processes: ProcessSamples, **facts: object) -> Result:
    return measured(*processes, **{"backend": "pytorch", **facts})


def against(result: Result, *others: Result) -> Figures:
    return Figures.of(result, (*others, result))


def value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value


def predictions(best: Sequence[int], targets: Sequence[int] | None) -> Predictions:
    ranked = np.asarray([[value, *(other for other in range(10) if other != value)][:5] for value in best])
    truth = None if targets is None else np.asarray(targets)
    return Predictions(np.arange(len(best)), truth, ranked, np.ones(len(best), np.float32), 10)


def predicting(best: Sequence[int], targets: Sequence[int] | None = None, **facts: object) -> Result:
    return measured(predictions=pack_predictions(predictions(best, targets), None), **facts)


def test_every_figure_by_hand() -> None:
    found = Figures(measured(batch=4))
    assert value(found.p50) == pytest.approx(0.002)
    assert value(found.p90) == pytest.approx(0.00204)
    assert value(found.compute_p50) == pytest.approx(0.001)
    assert found.images_per_s == pytest.approx(4 / 0.002)
    assert (found.load_s, found.first_s, found.peak_bytes, found.baseline_bytes) == (
        0.125,
        0.01,
        50_000_000,
        20_000_000,
    )
    assert (found.top1, found.images, found.agreement, found.ratio, found.verdict, found.roofline_share) == (None,) * 6
    assert (found.disturbances, found.warnings) == ((), ())


def test_ratios_that_disagree_are_a_warning() -> None:
    """Both become twice as slow for a part of the run, one of them for more than half of its calls."""

    def of(*rounds: tuple[float, int]) -> ProcessSamples:
        taken = tuple((seconds,) * count for seconds, count in rounds)
        return replace(process(rounds=len(rounds)), latency=replace(process().latency, rounds_s=taken))

    theirs = reference(*[of(*[(0.01, 10)] * 6, *[(0.02, 10)] * 2)] * 3)
    ours = measured(*[of(*[(0.001, 10)] * 6, *[(0.002, 100)] * 2)] * 3)
    found = against(ours, theirs)
    assert value(found.ratio) == pytest.approx(10)
    assert value(found.p50) == 0.002
    (warning,) = (each for each in found.warnings if each.code == "speed-changed")
    assert "(10.00x, 5.00x)" in warning.sentence
    steady = measured(*[of(*[(0.001, 10)] * 8)] * 3)
    assert "speed-changed" not in {each.code for each in against(steady, theirs).warnings}


def test_what_was_not_measured_has_no_figures() -> None:
    found = Figures(change_facts(EMPTY, status="skipped", backend="pytorch"))
    assert {name: getattr(found, name) for name in figures.NAMES if getattr(found, name)} == {}


def test_figures_of_several_processes_are_of_all_samples() -> None:
    slow = replace(process(median=0.004), peak_bytes=70_000_000, load_s=9.0)
    found = Figures(measured(process(), slow, process(median=0.002, seed=3)))
    taken = (process(), slow, process(median=0.002, seed=3))
    together = [sample for one in taken for sample in one.latency.samples_s]
    assert value(found.p50) == intervals.quantile(together, 0.5)
    assert found.images_per_s == pytest.approx(len(together) / sum(together))
    assert value(found.compute_p50) == pytest.approx(0.001, rel=0.1)
    assert (found.load_s, found.peak_bytes) == (0.125, 70_000_000)  # of the first one; of the largest
    rounds = [one.latency.rounds_s for one in taken]
    assert found.p50 is not None
    assert found.p50.interval == intervals.quantile_intervals(rounds, [0.5, 0.9], 0)[0]


@pytest.mark.parametrize(
    ("count", "given"), [(4, 0), (5, 1), (19, 1), (20, 2), (999, 2), (1000, 3), (9999, 3), (10_000, 4)]
)
def test_quantiles_are_given_from_enough_samples_on(count: int, given: int) -> None:
    found = Figures(measured(process(count, median=0.02)))
    estimates = (found.p50, found.p90, found.p99, found.p999)
    assert [estimate is not None for estimate in estimates] == [True] * given + [False] * (4 - given)
    assert all(estimate.interval is None for estimate in estimates[:given] if estimate)


@pytest.mark.parametrize(("processes", "given"), [(1, False), (2, False), (3, True), (4, True)])
def test_intervals_and_verdicts_need_three_processes_a_side(processes: int, given: bool) -> None:
    mine = [process(seed=seed) for seed in range(processes)]
    its = [process(median=0.006, seed=seed) for seed in range(4)]
    for found in (against(measured(*mine), reference(*its)), against(measured(*its), reference(*mine))):
        assert found.ratio is not None
        assert (found.ratio.interval is not None, found.verdict is not None) == (given, given)
    own = Figures(measured(*mine))
    assert own.p50 is not None
    assert own.compute_p50 is not None
    assert (own.p50.interval is not None, own.compute_p50.interval is not None) == (given, given)
    assert own.validity == ("VALID" if given else "PRELIMINARY")


def test_busy_is_invalid_and_unrecorded_is_preliminary() -> None:
    busy = [process(seed=seed, conditions=replace(QUIET, foreign_cores=1.2)) for seed in range(3)]
    found = Figures(measured(*busy))
    assert found.validity_reason is not None
    assert (found.validity, found.validity_reason.code) == ("INVALID", "machine-busy")
    assert "60 %" in found.validity_reason.sentence
    assert Figures(measured(busy[0])).validity == "INVALID"  # which weighs more than too few processes
    unwatched = Figures(measured(*(process(seed=seed, conditions=None) for seed in range(3))))
    assert unwatched.validity_reason is not None
    assert (unwatched.validity, unwatched.validity_reason.code) == ("PRELIMINARY", "machine-not-recorded")


def test_samples_of_all_processes_count_together() -> None:
    halves = [process(250, rounds=2, seed=seed) for seed in (0, 1)]
    assert Figures(measured(*halves)).p99 is not None
    assert Figures(measured(halves[0])).p99 is None


def test_the_ratio_says_how_many_times_as_fast() -> None:
    def three(median: float, seed: int = 0) -> tuple[ProcessSamples, ...]:
        return tuple(process(median=median, seed=seed + number) for number in range(3))

    found = against(measured(*three(0.002)), reference(*three(0.006)))
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(3.0)
    assert found.ratio.interval is not None
    assert found.ratio.interval[0] <= found.ratio.value <= found.ratio.interval[1]
    assert found.verdict == "faster"
    assert against(measured(*three(0.002)), reference(*three(0.001))).verdict == "slower"
    assert against(measured(*three(0.002)), reference(*three(0.002, seed=7))).verdict == NO_DIFFERENCE


@pytest.mark.parametrize(
    "other", [{"run": "another"}, {"subject": "another"}, {"batch": 8}, {"status": "failed"}, {"precision": "fp16"}]
)
def test_the_reference_is_of_the_same_run_subject_and_batch(other: dict[str, object]) -> None:
    assert against(measured(), reference(**other)).ratio is None


def test_of_several_references_the_one_beside_it_counts() -> None:
    apart, beside = reference(process(median=0.004), group=1), reference(process(median=0.006), group=2)
    assert value(against(measured(group=2), apart, beside).ratio) == pytest.approx(3.0)
    assert value(against(measured(group=3), apart, beside).ratio) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("group", "of_reference", "paired"), [(1, 1, True), (1, 2, False), (None, None, False), (None, 1, False)]
)
def test_results_that_took_turns_are_compared_in_pairs(
    group: int | None, of_reference: int | None, paired: bool
) -> None:
    """Both drift alike: side by side it cancels, and apart it does not."""
    mine = [process(40, 0.002 * (1 + 0.2 * number), rounds=6, seed=number) for number in range(3)]
    its = [process(40, 0.0022 * (1 + 0.2 * number), rounds=6, seed=9 + number) for number in range(3)]
    found = against(measured(*mine, group=group), reference(*its, group=of_reference))
    sides = [[one.latency.rounds_s for one in side] for side in (its, mine)]
    compare = comparison.compare_paired if paired else comparison.compare_unpaired
    expected = compare(sides[0], sides[1], seed=0)
    assert found.ratio == Estimate(expected.ratio, *expected.interval)
    assert found.verdict == expected.verdict == ("faster" if paired else NO_DIFFERENCE)


def test_unequal_results_are_paired_in_what_both_have() -> None:
    its = [process(40, 0.004, rounds=6), process(40, 0.004, rounds=6, seed=5)]
    mine = process(40, rounds=6)
    found = against(measured(mine, group=1), reference(*its, group=1))
    expected = comparison.compare_paired([its[0].latency.rounds_s], [mine.latency.rounds_s], seed=0)
    assert found.ratio == Estimate(expected.ratio)


def test_the_reference_itself_has_ratio_one_and_no_verdict() -> None:
    found = against(reference(), reference(process(median=0.006)))
    assert (found.ratio, found.verdict) == (Estimate(1.0), None)


def test_the_reference_is_pytorch_in_fp32_alone() -> None:
    found = against(measured(backend="pytorch", precision="fp16"), reference(process(median=0.006)))
    assert value(found.ratio) == pytest.approx(3.0)
    pairs = (("pytorch", "fp32"), ("pytorch", "fp16"), ("inductor", "fp32"))
    results = [measured(backend=backend, precision=precision) for backend, precision in pairs]
    assert [is_reference(result) for result in results] == [True, False, False]
    assert describe_baseline(results[1]) == "pytorch fp32"


def test_the_baseline_is_what_the_run_recorded() -> None:
    """Of two files in one precision one is the baseline, and the other is compared with it."""
    baseline = Baseline("onnxruntime", "int8", "a.onnx")
    facts = {"backend": "onnxruntime", "precision": "int8", "baseline": baseline}
    first = change_facts(measured(process(median=0.006)), file="a.onnx", **facts)
    second = change_facts(measured(process(median=0.003)), file="b.onnx", **facts)
    found = Figures.of_all([second, first])
    assert [figures.is_reference for figures in found] == [False, True]
    assert [value(figures.ratio) for figures in found] == [pytest.approx(2.0), 1.0]
    assert describe_baseline(second) == "onnxruntime int8 a.onnx"
    assert not is_reference(change_facts(first, backend="pytorch", precision="fp32"))


def test_a_share_of_the_roof_is_of_the_compute_runs() -> None:
    roof = RoofInputs(1_000_000, 2_000_000, 4e9, 4e9)
    assert Figures(measured(roof=roof)).roofline_share == pytest.approx(0.5)
    assert Figures(change_facts(EMPTY, roof=roof)).roofline_share is None


def test_other_clocks_have_medians_of_their_own() -> None:
    timed = replace(process(), device=series(50, 0.0005), image=series(50, 0.003))
    found = Figures(measured(timed))
    for estimate, median in ((found.device_p50, 0.0005), (found.image_p50, 0.003)):
        assert estimate is not None
        assert estimate.value == pytest.approx(median)
    plain = Figures(measured())
    assert (plain.device_p50, plain.image_p50) == (None, None)


def test_disturbances_are_those_of_all_processes() -> None:
    busy = process(conditions=replace(QUIET, foreign_cores=0.9, processors=2))
    found = Figures(measured(process(), busy)).disturbances
    assert found is not None
    assert [reason.code for reason in found] == ["others-busy"]
    assert Figures(measured(process(conditions=None))).disturbances is None


def test_predictions_against_the_truth_and_the_reference() -> None:
    its = predicting([0, 1, 2, 9], [0, 1, 9, 9], backend="pytorch")
    found = against(predicting([0, 1, 2, 3], [0, 1, 9, 9]), its)
    assert [value(share) for share in (found.top1, found.top5, found.agreement)] == [0.5, 0.5, 0.75]
    assert found.images == 4
    assert found.agreement is not None
    assert found.agreement.interval is not None
    assert found.agreement.interval[0] < 0.75 < found.agreement.interval[1]
    assert found.changed_predictions is not None
    assert (
        found.changed_predictions.better,
        found.changed_predictions.worse,
        found.changed_predictions.real + found.changed_predictions.near_ties,
    ) == (0, 1, 1)
    own = against(its)
    assert (own.changed_predictions, value(own.agreement), str(value(own.top1_change))) == (None, 1.0, "0.0")


def test_the_drop_is_against_the_first_evaluated_reference() -> None:
    first = predicting([0, 1, 2, 9], [0, 1, 2, 3], backend="pytorch", batch=8)
    second = predicting([9, 9, 9, 9], [0, 1, 2, 3], backend="pytorch")
    mine = predicting([0, 1, 9, 9], [0, 1, 2, 3])
    found = against(mine, reference(), first, second)
    assert found.top1_change is not None
    assert found.top1_change.value == -0.25
    assert found.top1_change.interval is not None
    assert found.top1_change.interval[0] < -0.25 < found.top1_change.interval[1]
    alone = against(mine)
    assert (alone.top1_change, alone.changed_predictions, alone.agreement, value(alone.top1)) == (None, None, None, 0.5)


def test_noise_has_agreement_and_no_accuracy() -> None:
    found = against(predicting([0, 1]), predicting([0, 1], backend="pytorch"))
    assert (found.images, found.top1, found.top5, found.top1_change, value(found.agreement)) == (
        2,
        None,
        None,
        None,
        1.0,
    )


def test_samples_of_no_length_give_no_rate_and_no_ratio() -> None:
    zero = replace(process(), latency=replace(series(30, 1.0), rounds_s=((0.0,) * 30,)))
    found = against(measured(zero), reference())
    assert (value(found.p50), found.images_per_s, found.ratio, found.verdict) == (0.0, None, None, None)


def test_figures_of_a_load_are_of_its_responses() -> None:
    responses = tuple(0.001 + 1e-6 * number for number in range(1000))
    load = LoadResult("clients", responses, responses, 250.0, clients=4, peak_bytes=7)
    found = Figures(change_facts(EMPTY, load=load, batch=8))
    assert value(found.p50) == pytest.approx(0.0014995)
    assert found.images_per_s == 2000.0
    assert found.p99 is not None
    assert (found.p999, found.compute_p50, found.ratio, found.peak_bytes) == (None, None, None, 7)


def test_recorded_figures_stand_in_place_of_derived_ones() -> None:
    ratio = Estimate(2.0, 1.5, 2.5)
    three = tuple(process(seed=seed) for seed in range(3))
    for recorded, verdict in (("faster", "faster"), ("tie", NO_DIFFERENCE)):
        kept = RecordedFigures(False, {"ratio": ratio, "drop": ratio}, verdict=recorded)  # type: ignore[arg-type]
        some = against(measured(*three, recorded=kept), reference())
        assert (some.ratio, some.verdict, some.top1_change) == (ratio, verdict, Estimate(-2.0, -2.5, -1.5))
        assert value(some.p50) == pytest.approx(0.002)
    every = against(measured(recorded=RecordedFigures(True, {"p50": ratio}, 9, 3.0)), reference())
    assert (every.p50, every.p90, every.compute_p50) == (Estimate(2.0), None, None)  # one process gives no interval
    assert (every.ratio, every.verdict) == (None, None)
    assert (every.images, every.images_per_s, every.warnings) == (9, 3.0, ())


def test_every_figure_is_told_as_json() -> None:
    found = against(predicting([0], [0]), predicting([0], [0], backend="pytorch")).as_json()
    assert tuple(found) == figures.NAMES
    assert found["p50"] == {"value": pytest.approx(0.002), "low": None, "high": None}
    assert (found["p999"], found["images"], found["disturbances"]) == (None, 1, [])
