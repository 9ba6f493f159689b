"""What limits a GPU's throughput: each limit is told beyond its bound, and not at it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.limits import DeviceTimes, list_limits
from benchmarks.records.result import Estimate, KernelSummary, RoofInputs, TrtexecTimes
from benchmarks.records.samples import Transfers
from benchmarks.report.run import parity_remarks
from tests.benchmarks.results import ON_A_GPU, change_facts

TIMES = DeviceTimes(device_s=0.001, enqueue_s=0.0001, to_device_s=0.0004, to_host_s=0.0001)


def codes(times: DeviceTimes | None, idle_share: float | None = None, ratio: float | None = None) -> list[str]:
    return [reason.code for reason in list_limits(times, idle_share, ratio)]


def test_a_row_that_the_gpu_limits_has_no_warning() -> None:
    assert codes(TIMES, 0.02, 1.0) == []
    assert codes(DeviceTimes(0.001)) == []
    assert codes(None, None, None) == []


def test_a_host_that_queues_too_slowly_is_told() -> None:
    assert codes(replace(TIMES, enqueue_s=0.0008)) == []
    (warning,) = list_limits(replace(TIMES, enqueue_s=0.00081), 0.63, None)
    assert warning.code == "enqueue-bound"
    assert "idle 63 %" in warning.sentence


def test_copies_that_take_longer_than_the_run_are_told() -> None:
    assert codes(replace(TIMES, to_device_s=0.0009)) == []
    assert codes(replace(TIMES, to_device_s=0.00091)) == ["transfer-bound"]


@pytest.mark.parametrize(("ratio", "told"), [(0.97, False), (1.03, False), (0.96, True), (1.04, True)])
def test_another_time_by_trtexec_is_told(ratio: float, told: bool) -> None:
    assert codes(TIMES, ratio=ratio) == ["trtexec-differs"] * told


def test_the_figures_of_a_gpu_by_hand() -> None:
    """The device takes 0.321 ms, queueing a tenth of it, and the copies a fifth and a hundredth."""
    figures = Figures(
        change_facts(
            ON_A_GPU.result,
            kernels=KernelSummary(50, 0.000214, "float16", ("gemm",)),
            trtexec=TrtexecTimes("101600", ("trtexec",), (0.00031, 0.000321, 0.00033)),
            roof=RoofInputs(160_500, 1, 1e9, 1e12),
        )
    )
    assert figures.device_p50 is not None
    assert figures.device_p50.value == 0.000321
    values = (figures.enqueue_p50, figures.to_device_p50, figures.to_host_p50)
    assert [each and each.value for each in values] == pytest.approx([3.21e-5, 6.42e-5, 3.21e-6])
    assert figures.device_p99 is None  # of 301 samples
    assert figures.device_idle_share == pytest.approx(1 / 3)
    assert figures.roofline_share == pytest.approx(0.5)  # of the device's time, not of the host's
    assert figures.trtexec_p50 == Estimate(0.000321)
    assert figures.trtexec_ratio == 1.0
    assert figures.throughput is not None
    speeds = {name: each.value * 0.00041 for name, each in figures.throughput.items()}
    assert speeds == pytest.approx({"1": 1.0, "2": 1.5, "4": 1.25})
    (remark,) = parity_remarks([figures, ON_A_GPU])
    assert remark.code == "trtexec-parity"
    assert "1.000" in remark.text


def test_slow_copies_of_a_result_are_among_its_warnings() -> None:
    result = ON_A_GPU.result
    slow = tuple(replace(process, transfers=Transfers((0.001,) * 20, (0.0,) * 20)) for process in result.samples)
    assert "transfer-bound" in [warning.code for warning in Figures(change_facts(result, samples=slow)).warnings]
    assert "transfer-bound" not in [warning.code for warning in Figures(result).warnings]
