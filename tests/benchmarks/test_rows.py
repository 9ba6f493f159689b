from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy import Predictions
from benchmarks.gpu import GpuState
from benchmarks.job import Outcome
from benchmarks.measure import Measurement
from benchmarks.results import Row, Status
from benchmarks.rows import NOT_SETTLED, Reference, finished, is_reference
from runtimes.protocol import Description
from tests.benchmarks.rows import EMPTY

ABOUT = Description("onnxruntime", "1.32.0", "cpu", "CPUExecutionProvider", "float32", 2)


def samples(count: int, median: float) -> tuple[float, ...]:
    """So many samples around the median, evenly spread, a microsecond apart, in random order."""
    steps = (np.arange(count) - (count - 1) / 2) * 1e-6
    return tuple(round(float(value), 9) for value in np.random.default_rng(0).permutation(median + steps))


def outcome(count: int = 101, median: float = 0.002, settled: bool = True) -> Outcome:
    latency = Measurement((0.5, 0.25), samples(count, median), settled)
    compute = Measurement((0.5,), samples(count, median / 2), True)
    return Outcome("ok", None, None, ABOUT, 0.125, 0.01, latency, compute, 50_000_000, 20_000_000)


def predictions(best: list[int], targets: list[int] | None) -> Predictions:
    ranked = np.asarray([[value, *(other for other in range(10) if other != value)][:5] for value in best])
    truth = None if targets is None else np.asarray(targets)
    return Predictions(np.arange(len(best)), truth, ranked, np.ones(len(best), np.float32), 10)


def test_every_figure_of_a_row_by_hand() -> None:
    row = finished(replace(EMPTY, batch=4), outcome(), None, Reference())
    assert row.p50_s == pytest.approx(0.002)
    assert row.p90_s == pytest.approx(0.00204)
    assert row.p99_s == pytest.approx(0.002049)
    assert row.compute_p50_s == pytest.approx(0.001)
    assert row.images_per_s == pytest.approx(4 / 0.002)
    assert (row.load_s, row.first_s, row.peak_bytes, row.baseline_bytes) == (0.125, 0.01, 50_000_000, 20_000_000)
    assert (row.runtime_version, row.provider, row.arithmetic) == ("1.32.0", "CPUExecutionProvider", "float32")
    assert row.samples_s is not None
    assert len(row.samples_s) == 101
    assert row.warmup_s == (0.5, 0.25)
    assert (row.top1, row.images, row.agreement, row.ratio) == (None, None, None, None)


@pytest.mark.parametrize(("count", "given"), [(4, 0), (5, 1), (19, 1), (20, 2), (99, 2), (100, 3)])
def test_quantiles_are_given_from_enough_samples_on(count: int, given: int) -> None:
    row = finished(EMPTY, outcome(count), None, Reference())
    values = (row.p50_s, row.p90_s, row.p99_s)
    assert [value is not None for value in values] == [True] * given + [False] * (3 - given)
    for value, interval in zip(values, (row.p50_interval_s, row.p90_interval_s, row.p99_interval_s), strict=True):
        assert (value is None) == (interval is None)
        if value is not None and interval is not None:
            assert interval[0] <= value <= interval[1]


def test_the_ratio_says_how_many_times_as_fast() -> None:
    slow = outcome(median=0.006).latency
    row = finished(EMPTY, outcome(median=0.002), None, Reference(slow))
    assert row.ratio == pytest.approx(3.0)
    assert row.ratio_interval is not None
    assert row.ratio_interval[0] <= 3.0 <= row.ratio_interval[1]


def test_the_reference_itself_has_ratio_one() -> None:
    same = outcome()
    row = finished(replace(EMPTY, runtime="pytorch"), same, None, Reference(same.latency))
    assert (row.ratio, row.ratio_interval) == (1.0, (1.0, 1.0))


def test_the_reference_is_pytorch_in_fp32_alone() -> None:
    fp32 = outcome(median=0.006)
    row = finished(replace(EMPTY, runtime="pytorch", precision="fp16"), outcome(), None, Reference(fp32.latency))
    assert row.ratio == pytest.approx(3.0)
    assert row.ratio_interval != (1.0, 1.0)
    assert [is_reference(*pair) for pair in (("pytorch", "fp32"), ("pytorch", "fp16"), ("inductor", "fp32"))] == [
        True,
        False,
        False,
    ]


STATE = GpuState("NVIDIA H200", "GPU-0", 1980, 3201, 512.25, 41, ("power cap",), 1000.0, 600)


def test_what_a_gpu_tells_is_in_the_row() -> None:
    device = Measurement((0.25,), samples(50, 0.0005), True)
    before = replace(STATE, sm_mhz=345, throttle=("idle",))
    told = replace(
        outcome(),
        device=device,
        gpu_before=before,
        gpu_after=STATE,
        device_peak_bytes=7_000_000,
        energy_per_image_j=0.125,
    )
    row = finished(replace(EMPTY, device="cuda", cuda_graphs=False), told, None, Reference())
    assert row.device_p50_s == pytest.approx(0.0005)
    assert row.device_p50_interval_s is not None
    assert row.device_p50_interval_s[0] <= 0.0005 <= row.device_p50_interval_s[1]
    assert (row.device_samples_s, row.device_warmup_s) == (device.samples_s, (0.25,))
    assert (row.gpu_before, row.gpu_after, row.cuda_graphs) == (before, STATE, False)
    assert (row.device_peak_bytes, row.energy_per_image_j) == (7_000_000, 0.125)
    few = replace(told, device=Measurement((), samples(4, 0.0005), True))
    assert finished(EMPTY, few, None, Reference()).device_p50_s is None


def test_a_processor_has_none_of_it() -> None:
    row = finished(EMPTY, outcome(), None, Reference())
    assert (row.device_p50_s, row.device_samples_s, row.gpu_after, row.energy_per_image_j) == (None,) * 4


def test_answers_against_the_truth_and_the_reference() -> None:
    mine, theirs = predictions([0, 1, 2, 3], [0, 1, 9, 9]), predictions([0, 1, 2, 9], [0, 1, 9, 9])
    row = finished(EMPTY, outcome(), mine, Reference(None, theirs))
    assert (row.images, row.top1, row.top5, row.agreement, row.unreadable) == (4, 0.5, 0.5, 0.75, 0)
    assert row.agreement_interval is not None
    assert row.agreement_interval[0] < 0.75 < row.agreement_interval[1]


def test_the_drop_is_against_the_reference_row() -> None:
    mine, theirs = predictions([0, 1, 9, 9], [0, 1, 2, 3]), predictions([0, 1, 2, 9], [0, 1, 2, 3])
    row = finished(EMPTY, outcome(), mine, Reference(None, theirs))
    assert row.drop == 0.25
    assert row.drop_interval is not None
    assert row.drop_interval[0] < 0.25 < row.drop_interval[1]
    assert finished(EMPTY, outcome(), mine, Reference()).drop is None


def test_what_ran_is_what_the_profile_tells_if_there_is_one() -> None:
    proven = replace(outcome(), arithmetic="int8 (53 of 54), float32 (1 of 54)")
    assert finished(EMPTY, proven, None, Reference()).arithmetic == "int8 (53 of 54), float32 (1 of 54)"
    assert finished(EMPTY, outcome(), None, Reference()).arithmetic == "float32"


def test_noise_has_agreement_and_no_accuracy() -> None:
    noise = predictions([0, 1], None)
    row = finished(EMPTY, outcome(), noise, Reference(None, noise))
    assert (row.images, row.top1, row.top5, row.agreement) == (2, None, None, 1.0)


@pytest.mark.parametrize("status", ["failed", "skipped", "error"])
def test_what_is_not_ok_has_no_number(status: Status) -> None:
    broken = replace(outcome(), status=status, reason="r")
    row = finished(EMPTY, broken, None, Reference(broken.latency))
    assert row == replace(EMPTY, status=status, reason="r", time=row.time)


def test_what_a_reader_must_know_is_noted() -> None:
    unreadable = tuple(f"{letter}.png" for letter in "abcd")
    told = replace(outcome(settled=False), note="no test vectors", unreadable=unreadable)
    row: Row = finished(EMPTY, told, predictions([0], [0]), Reference())
    assert row.note == f"no test vectors; {NOT_SETTLED}; 4 images could not be read: a.png, b.png, c.png, ..."
    assert row.unreadable == 4


def test_samples_of_no_length_give_no_rate_and_no_ratio() -> None:
    zero = Measurement((), (0.0,) * 30, True)
    row = finished(EMPTY, replace(outcome(), latency=zero), None, Reference(outcome().latency))
    assert (row.p50_s, row.images_per_s, row.ratio) == (0.0, None, None)
