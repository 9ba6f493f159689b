from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis import figures as rows
from benchmarks.analysis.figures import Reference, RowContext
from benchmarks.machine.gpu import GpuState
from benchmarks.process.job import JobOutcome, ProcessOutcomes
from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.result import Row, Status
from benchmarks.records.samples import ProcessSamples
from benchmarks.records.subject import Configuration, Pair, PrecisionVariant, Refusal, Subject, is_reference
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import Cost
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals as statistics_intervals
from runtimes.backends import fake
from tests.benchmarks.gatherings import changed, gathered, outcome, series, sitting
from tests.benchmarks.rows import EMPTY, MACHINE, QUIET

ALONE = replace(EMPTY, processes=1, rounds=1)


def finished(
    row: Row, found: ProcessOutcomes, predictions: Predictions | None = None, context: RowContext | None = None
) -> Row:
    return rows.finish_row(row, found, predictions, context or RowContext())


def context(*sittings: ProcessSamples, predictions: Predictions | None = None, field: int | None = None) -> RowContext:
    return RowContext(Reference(sittings, predictions, field))


def predictions(best: list[int], targets: list[int] | None) -> Predictions:
    ranked = np.asarray([[value, *(other for other in range(10) if other != value)][:5] for value in best])
    truth = None if targets is None else np.asarray(targets)
    return Predictions(np.arange(len(best)), truth, ranked, np.ones(len(best), np.float32), 10)


def test_a_row_knows_what_was_asked_for_before_anything_is_measured() -> None:
    request = BenchmarkRequest(
        ("net.fake",), seed=3, duration_s=0.5, processes=4, rounds=7, device="cuda", command=("rbench", "run")
    )
    typed = PrecisionVariant("fp16", Refusal("skipped", "no"))
    subject = Subject("net.fake", None, "resnet20", None, (typed,), typed, None, "photos")
    configuration = Configuration(Pair(fake.BACKEND, typed, typed.made), batch=8, threads=3, cuda_graphs=False)
    row = rows.start_row("0123", MACHINE, request, subject, configuration)
    assert (row.requested_threads, row.requested_device, row.duration_s, row.processes, row.rounds) == (
        3,
        "cuda",
        0.5,
        4,
        7,
    )
    assert (row.command, row.run, row.environment, row.seed) == (("rbench", "run"), "0123", MACHINE, 3)
    assert (row.subject, row.runtime, row.precision, row.batch, row.data) == ("net.fake", "fake", "fp16", 8, "photos")
    assert (row.cuda_graphs, row.field, row.sittings) == (False, None, ())


def test_every_figure_of_a_row_by_hand() -> None:
    row = finished(replace(ALONE, batch=4), gathered())
    assert row.p50_s == pytest.approx(0.002)
    assert row.p90_s == pytest.approx(0.00204)
    assert row.compute_p50_s == pytest.approx(0.001)
    assert row.images_per_s == pytest.approx(4 / 0.002)
    assert (row.load_s, row.first_s, row.peak_bytes, row.baseline_bytes) == (0.125, 0.01, 50_000_000, 20_000_000)
    assert (row.runtime_version, row.provider, row.arithmetic) == ("1.32.0", "CPUExecutionProvider", "float32")
    assert row.sittings == (sitting(),)
    assert (row.top1, row.images, row.agreement, row.ratio, row.verdict, row.roof) == (None,) * 6
    assert (row.disturbances, row.warnings) == ((), ())


def test_a_row_of_several_processes_is_of_all_their_samples() -> None:
    slow = replace(sitting(median=0.004), peak_bytes=70_000_000, load_s=9.0)
    row = finished(replace(EMPTY, processes=2), gathered(sitting(), slow))
    together = [*sitting().latency.samples_s, *slow.latency.samples_s]
    assert row.p50_s == statistics_intervals.quantile(together, 0.5)
    assert row.images_per_s == pytest.approx(len(together) / sum(together))
    assert row.compute_p50_s == pytest.approx(0.0015, rel=0.1)
    assert (row.load_s, row.peak_bytes) == (0.125, 70_000_000)  # of the first one; of the largest
    assert row.sittings == (sitting(), slow)
    (expected,) = statistics_intervals.quantile_intervals(
        [sitting().latency.rounds_s, slow.latency.rounds_s], [0.5, 0.9], row.seed
    )[:1]
    assert row.p50_interval_s == expected


@pytest.mark.parametrize(
    ("count", "given"), [(4, 0), (5, 1), (19, 1), (20, 2), (999, 2), (1000, 3), (9999, 3), (10_000, 4)]
)
def test_quantiles_are_given_from_enough_samples_on(count: int, given: int) -> None:
    row = finished(ALONE, gathered(sitting(count, median=0.02)))
    values = (row.p50_s, row.p90_s, row.p99_s, row.p999_s)
    intervals = (row.p50_interval_s, row.p90_interval_s, row.p99_interval_s, row.p999_interval_s)
    assert [value is not None for value in values] == [True] * given + [False] * (4 - given)
    for value, interval in zip(values, intervals, strict=True):
        assert (value is None) == (interval is None)
        if value is not None and interval is not None:
            assert interval[0] <= value <= interval[1]


def test_what_counts_is_the_samples_of_all_processes_together() -> None:
    halves = [sitting(250, rounds=2, seed=seed) for seed in (0, 1)]
    assert finished(replace(EMPTY, processes=2), gathered(*halves)).p99_s is not None
    assert finished(ALONE, gathered(halves[0])).p99_s is None


def test_the_ratio_says_how_many_times_as_fast() -> None:
    row = finished(ALONE, gathered(), context=context(sitting(median=0.006)))
    assert row.ratio == pytest.approx(3.0)
    assert row.ratio_interval is not None
    assert row.ratio_interval[0] <= 3.0 <= row.ratio_interval[1]
    assert row.verdict == "faster"
    assert finished(ALONE, gathered(), context=context(sitting(median=0.001))).verdict == "slower"
    assert finished(ALONE, gathered(), context=context(sitting(seed=7))).verdict == "tie"


@pytest.mark.parametrize(
    ("field", "reference_field", "paired"), [(1, 1, True), (1, 2, False), (None, None, False), (None, 1, False)]
)
def test_rows_are_paired_where_they_took_turns_with_the_reference(
    field: int | None, reference_field: int | None, paired: bool
) -> None:
    """Both drift alike: side by side it cancels, and apart it does not."""
    mine = [sitting(40, 0.002 * (1 + 0.2 * number), rounds=6, seed=number) for number in range(3)]
    its = [sitting(40, 0.0022 * (1 + 0.2 * number), rounds=6, seed=9 + number) for number in range(3)]
    row = finished(
        replace(EMPTY, processes=3, field=field), gathered(*mine), context=context(*its, field=reference_field)
    )
    sides = [[one.latency.rounds_s for one in side] for side in (its, mine)]
    compare = statistics.compare_paired if paired else statistics.compare_unpaired
    expected = compare(sides[0], sides[1], seed=row.seed)
    assert (row.ratio, row.ratio_interval, row.verdict) == (expected.ratio, expected.interval, expected.verdict)
    assert row.verdict == ("faster" if paired else "tie")


def test_rows_that_an_interrupt_left_unequal_are_paired_in_what_both_have() -> None:
    its = [sitting(40, 0.004, rounds=6), sitting(40, 0.004, rounds=6, seed=5)]
    row = finished(replace(EMPTY, field=1), gathered(sitting(40, rounds=6)), context=context(*its, field=1))
    expected = statistics.compare_paired(
        [its[0].latency.rounds_s], [sitting(40, rounds=6).latency.rounds_s], seed=row.seed
    )
    assert (row.ratio, row.ratio_interval) == (expected.ratio, expected.interval)


def test_the_reference_itself_has_ratio_one_and_no_verdict() -> None:
    row = finished(replace(ALONE, runtime="pytorch"), gathered(), context=context(sitting()))
    assert (row.ratio, row.ratio_interval, row.verdict) == (1.0, (1.0, 1.0), None)


def test_the_reference_is_pytorch_in_fp32_alone() -> None:
    slow = context(sitting(median=0.006))
    row = finished(replace(ALONE, runtime="pytorch", precision="fp16"), gathered(), context=slow)
    assert row.ratio == pytest.approx(3.0)
    assert row.ratio_interval != (1.0, 1.0)
    assert [is_reference(*pair) for pair in (("pytorch", "fp32"), ("pytorch", "fp16"), ("inductor", "fp32"))] == [
        True,
        False,
        False,
    ]


COST = Cost(multiply_adds=1_000_000, traffic_bytes=2_000_000, weights_bytes=500_000, activations_bytes=100_000)
CEILINGS = Ceilings("cpu", 2, {"float32": 4e9}, 4e9)


def test_a_row_stands_under_its_roof() -> None:
    row = finished(ALONE, gathered(), context=RowContext(cost=COST, ceilings=CEILINGS))
    assert row.roof is not None
    assert (row.roof.least_s, row.roof.bound) == (0.0005, "bandwidth")
    assert row.roof.share == pytest.approx(0.5)
    assert row.warnings == ()
    for half in (RowContext(cost=COST), RowContext(ceilings=CEILINGS)):
        assert finished(ALONE, gathered(), context=half).roof is None
    other = finished(
        ALONE, changed(gathered(), arithmetic="int8 (1 of 1)"), context=RowContext(cost=COST, ceilings=CEILINGS)
    )
    assert other.roof is None  # a ceiling that was not measured is not guessed


def test_a_row_beyond_its_roof_is_doubtful() -> None:
    row = finished(
        ALONE, gathered(), context=RowContext(cost=replace(COST, traffic_bytes=8_000_000), ceilings=CEILINGS)
    )
    assert row.roof is not None
    assert row.roof.share == pytest.approx(2.0)
    (warning,) = row.warnings
    assert warning.startswith("1 ms a call is less than the 2 ms that 8 MB take at the 4 GB/s of the memory here")


STATE = GpuState("NVIDIA H200", "GPU-0", 1980, 3201, 512.25, 41, (), 1000.0, 600)


def test_what_a_gpu_tells_is_in_the_row() -> None:
    before = replace(STATE, sm_mhz=345, throttle=("idle",))
    device = replace(sitting(), device=series(50, 0.0005))
    first = replace(outcome(device), gpu_before=before, device_peak_bytes=7_000_000, energy_per_image_j=0.125)
    found = ProcessOutcomes([first, replace(outcome(device), gpu_after=STATE)])
    row = finished(replace(EMPTY, processes=2, requested_device="cpu", cuda_graphs=False), found)
    assert row.device_p50_s == pytest.approx(0.0005)
    assert row.device_p50_interval_s is not None
    assert row.device_p50_interval_s[0] <= 0.0005 <= row.device_p50_interval_s[1]
    assert (row.gpu_before, row.gpu_after, row.cuda_graphs) == (before, STATE, False)
    assert (row.device_peak_bytes, row.energy_per_image_j) == (7_000_000, 0.125)
    few = replace(sitting(), device=series(4, 0.0005))
    assert finished(ALONE, gathered(few)).device_p50_s is None


def test_a_gpu_that_was_slowed_down_is_a_disturbance() -> None:
    held = changed(gathered(), gpu_after=replace(STATE, throttle=("software thermal slowdown",)))
    assert finished(ALONE, held).disturbances == ("the GPU's clock was held down: software thermal slowdown",)


def test_a_processor_has_none_of_it() -> None:
    row = finished(ALONE, gathered())
    assert (row.device_p50_s, row.gpu_after, row.energy_per_image_j) == (None, None, None)


def test_from_image_to_label_is_a_clock_of_its_own() -> None:
    row = finished(ALONE, gathered(replace(sitting(), image=series(50, 0.003))))
    assert row.image_p50_s == pytest.approx(0.003)
    assert row.image_p50_interval_s is not None
    assert finished(ALONE, gathered()).image_p50_s is None


def test_disturbances_are_those_of_all_processes() -> None:
    busy = sitting(conditions=replace(QUIET, foreign_cores=0.9, processors=2))
    row = finished(replace(EMPTY, processes=2), gathered(sitting(), busy))
    assert row.disturbances is not None
    (line,) = row.disturbances
    assert line.startswith("others used 0.90 of 2 processors while it was timed; up to 0.10 is quiet")
    assert line.endswith("(the worst of 1 in 2 processes)")
    assert finished(ALONE, gathered(sitting(conditions=None))).disturbances is None


def test_answers_against_the_truth_and_the_reference() -> None:
    mine, theirs = predictions([0, 1, 2, 3], [0, 1, 9, 9]), predictions([0, 1, 2, 9], [0, 1, 9, 9])
    labels = tuple(f"class {number}" for number in range(10))
    seen = RowContext(Reference(predictions=theirs), labels)
    row = finished(ALONE, changed(gathered(), evaluated_per_s=120.0), mine, seen)
    assert (row.images, row.top1, row.top5, row.agreement, row.unreadable) == (4, 0.5, 0.5, 0.75, 0)
    assert row.agreement_interval is not None
    assert row.agreement_interval[0] < 0.75 < row.agreement_interval[1]
    assert row.evaluated_per_s == 120.0
    assert row.answers is not None
    assert (row.answers.images, row.answers.labels) == (4, labels)
    assert row.flips is not None
    assert (row.flips.better, row.flips.worse, row.flips.real + row.flips.near_ties) == (0, 1, 1)
    reference = finished(replace(ALONE, runtime="pytorch"), gathered(), theirs, seen)
    assert (reference.flips, reference.agreement, reference.drop) == (None, 1.0, 0.0)
    assert reference.answers is not None


def test_the_drop_is_against_the_reference_row() -> None:
    mine, theirs = predictions([0, 1, 9, 9], [0, 1, 2, 3]), predictions([0, 1, 2, 9], [0, 1, 2, 3])
    row = finished(ALONE, gathered(), mine, context(predictions=theirs))
    assert row.drop == 0.25
    assert row.drop_interval is not None
    assert row.drop_interval[0] < 0.25 < row.drop_interval[1]
    alone = finished(ALONE, gathered(), mine)
    assert (alone.drop, alone.flips, alone.agreement) == (None, None, None)
    assert alone.answers is not None


def test_what_ran_is_what_the_profile_tells_if_there_is_one() -> None:
    proven = changed(gathered(), arithmetic="int8 (53 of 54), float32 (1 of 54)")
    assert finished(ALONE, proven).arithmetic == "int8 (53 of 54), float32 (1 of 54)"
    assert finished(ALONE, gathered()).arithmetic == "float32"


def test_arithmetic_that_is_wider_than_the_graph_is_noted_and_narrower_is_doubtful() -> None:
    half = finished(replace(ALONE, precision="fp16"), changed(gathered(), note="no test vectors"))
    assert (half.note, half.warnings) == ("no test vectors; typed in fp16, it ran in float32", ())
    narrow = finished(ALONE, changed(gathered(), arithmetic="bfloat16"))
    assert (narrow.note, narrow.warnings) == (None, ("the graph is typed in fp32, and it ran in bfloat16",))


def test_noise_has_agreement_and_no_accuracy() -> None:
    noise = predictions([0, 1], None)
    row = finished(ALONE, gathered(), noise, context(predictions=noise))
    assert (row.images, row.top1, row.top5, row.agreement) == (2, None, None, 1.0)


@pytest.mark.parametrize("status", ["failed", "skipped", "error"])
def test_what_is_not_ok_has_no_number(status: Status) -> None:
    broken = changed(gathered(), status=status, reason="r")
    row = finished(EMPTY, broken, None, context(sitting()))
    assert row == replace(EMPTY, status=status, reason="r", time=row.time)


@pytest.mark.parametrize("status", ["failed", "skipped", "error"])
def test_a_later_process_that_is_not_ok_takes_the_numbers_of_the_first_with_it(status: Status) -> None:
    found = ProcessOutcomes([outcome(), outcome(), JobOutcome(status, "it broke")])
    row = finished(replace(EMPTY, processes=5), found, predictions([0], [0]), context(sitting()))
    expected = replace(EMPTY, processes=5, status=status, reason="in process 3: it broke", time=row.time)
    assert row == expected


def test_what_a_reader_must_know_is_noted() -> None:
    unreadable = tuple(f"{number:04}.png" for number in range(1200))
    told = changed(gathered(), note="no test vectors", unreadable=unreadable)
    row = finished(ALONE, told, predictions([0], [0]))
    assert row.note == (
        "no test vectors; 1,200 images could not be read: 0000.png, 0001.png, 0002.png, and 1,197 more, by name in the "
        "results' unreadable_names"
    )
    assert (row.unreadable, row.unreadable_names) == (1200, unreadable[:1000])
    few = finished(ALONE, changed(gathered(), unreadable=unreadable[:1]), predictions([0], [0]))
    assert (few.note, few.unreadable_names) == ("1 image could not be read: 0000.png", ("0000.png",))


def test_samples_of_no_length_give_no_rate_and_no_ratio() -> None:
    zero = replace(sitting(), latency=replace(series(30, 1.0), rounds_s=((0.0,) * 30,)))
    row = finished(ALONE, gathered(zero), context=context(sitting()))
    assert (row.p50_s, row.images_per_s, row.ratio, row.verdict) == (0.0, None, None, None)
