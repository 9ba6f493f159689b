from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis import assembly
from benchmarks.analysis.assembly import ResultContext
from benchmarks.machine.gpu import GpuState
from benchmarks.machine.gpu_monitor import EnergyUse
from benchmarks.process.job import JobOutcome, ProcessOutcomes
from benchmarks.records.request import BenchmarkRequest, Configuration, Pair, PrecisionVariant, Refusal, Subject
from benchmarks.records.result import Asked, Evaluation, GpuUse, Ran, Result, RoofInputs, Status
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import Cost
from runtimes.backends import fake
from runtimes.errors import Reason
from tests.benchmarks.gatherings import changed, gathered, outcome, process, series
from tests.benchmarks.results import EMPTY, MACHINE, change_facts

BROKE = Reason("broke", "it broke")


def finished(
    result: Result, found: ProcessOutcomes, predictions: Predictions | None = None, context: ResultContext | None = None
) -> Result:
    return assembly.finish_result(result, found, predictions, context or ResultContext())


def predicted(count: int = 1) -> Predictions:
    best = np.zeros((count, 5), np.int64) + np.arange(5)
    return Predictions(np.arange(count), np.zeros(count, np.int64), best, np.ones(count, np.float32), 10)


def test_a_result_knows_what_was_asked_for_from_the_start() -> None:
    request = BenchmarkRequest(
        ("net.fake",), seed=3, duration_s=0.5, processes=4, rounds=7, device="cuda", command=("rbench", "run")
    )
    typed = PrecisionVariant("fp16", Refusal("skipped", BROKE))
    subject = Subject("net.fake", None, "resnet20", None, (typed,), typed, None, "photos")
    configuration = Configuration(Pair(subject, fake.BACKEND, typed, typed.made), batch=8, threads=3, cuda_graphs=False)
    started = assembly.start_result("0123", MACHINE, request, configuration)
    assert started.asked == Asked(3, "cuda", False, 0.5, 4, 7, 3, None, ("rbench", "run"))
    assert (started.run, started.environment, started.ran, started.samples) == ("0123", MACHINE, Ran("cuda", 3), ())
    of = started.identity
    assert (of.subject, of.backend, of.precision, of.batch, of.data) == ("net.fake", "fake", "fp16", 8, "photos")


def test_what_ran_and_what_was_sampled_are_in_the_result() -> None:
    found = finished(EMPTY, gathered(process(), process(seed=1)))
    assert found.ran == Ran("cpu", 2, "1.32.0", "CPUExecutionProvider", "float32")
    assert found.samples == (process(), process(seed=1))
    assert (found.status, found.reason, found.evaluation, found.roof) == ("ok", None, None, None)


def test_the_profile_tells_what_ran_if_there_is_one() -> None:
    mixed = "int8 (53 of 54), float32 (1 of 54)"
    assert finished(EMPTY, changed(gathered(), arithmetic=mixed)).ran.arithmetic == mixed


COST = Cost(multiply_adds=1_000_000, traffic_bytes=2_000_000, weights_bytes=500_000)
CEILINGS = Ceilings("cpu", 2, {"float32": 4e9}, 4e9)


def test_work_and_ceilings_are_kept_where_both_are_known() -> None:
    whole = ResultContext(cost=COST, ceilings=CEILINGS)
    assert finished(EMPTY, gathered(), context=whole).roof == RoofInputs(1_000_000, 2_000_000, 4e9, 4e9)
    for half in (ResultContext(cost=COST), ResultContext(ceilings=CEILINGS)):
        assert finished(EMPTY, gathered(), context=half).roof is None
    unknown = changed(gathered(), arithmetic="int8 (1 of 1)")
    assert finished(EMPTY, unknown, context=whole).roof is None  # a ceiling that was not measured is not guessed


STATE = GpuState("NVIDIA H200", "GPU-0", 1980, 3201, 512.25, 41, (), 1000.0, 600)


def test_what_a_gpu_tells_is_in_the_result() -> None:
    before = replace(STATE, sm_mhz=345, throttle=("idle",))
    device, energy = replace(process(), device=series(50, 0.0005)), EnergyUse(1500.0, 3.0, runs=30)
    first = replace(outcome(device), gpu_before=before, device_peak_bytes=7_000_000, energy=energy)
    found = finished(EMPTY, ProcessOutcomes([first, replace(outcome(device), gpu_after=STATE)]))
    assert found.gpu == GpuUse(before, STATE, 7_000_000, 1500.0 / 30 / EMPTY.identity.batch, 0.0333, 500.0)
    assert finished(EMPTY, gathered()).gpu == GpuUse()


def test_predictions_are_packed_with_their_labels() -> None:
    labels = tuple(f"class {number}" for number in range(10))
    context = ResultContext(labels=labels)
    found = finished(EMPTY, changed(gathered(), evaluated_per_s=120.0), predicted(4), context)
    assert found.predictions is not None
    assert (found.predictions.images, found.predictions.labels) == (4, labels)
    assert found.evaluation == Evaluation(0, (), 120.0)


def test_wider_arithmetic_is_noted() -> None:
    noted = changed(gathered(), notes=(Reason("vectors-missing", "no test vectors"),))
    found = finished(change_facts(EMPTY, precision="fp16"), noted)
    assert [note.code for note in found.notes] == ["vectors-missing", "ran-wider"]
    assert finished(EMPTY, changed(gathered(), arithmetic="bfloat16")).notes == ()


def test_warnings_of_all_workers_are_kept_once() -> None:
    found = gathered(process(), process(seed=1))
    odd, rare = Reason("inputs-equal", "all inputs are the same"), Reason("b", "b")
    found.outcomes[:] = [replace(one, warnings=(odd, rare)) for one in found.outcomes]
    assert finished(EMPTY, found).warnings == (odd, rare)


def test_unreadable_images_are_counted_and_some_named() -> None:
    unreadable = tuple(f"{number:04}.png" for number in range(1200))
    found = finished(EMPTY, changed(gathered(), unreadable=unreadable), predicted())
    assert found.evaluation == Evaluation(1200, unreadable[:1000], None)
    (note,) = found.notes
    assert note.code == "images-left-out"
    assert all(word in note.sentence for word in ("1,200 images", "0000.png, 0001.png, 0002.png", "1,197 more"))
    (few,) = finished(EMPTY, changed(gathered(), unreadable=unreadable[:1]), predicted()).notes
    assert "1 image " in few.sentence


@pytest.mark.parametrize("status", ["failed", "skipped", "error"])
def test_what_is_not_ok_has_no_number(status: Status) -> None:
    found = finished(EMPTY, changed(gathered(), status=status, reason=BROKE))
    assert found == change_facts(EMPTY, status=status, reason=BROKE, time=found.time)


@pytest.mark.parametrize("status", ["failed", "skipped", "error"])
def test_a_later_process_that_is_not_ok_spoils_all(status: Status) -> None:
    outcomes = ProcessOutcomes([outcome(), outcome(), JobOutcome(status, BROKE)])
    found = finished(EMPTY, outcomes, predicted())
    assert (found.status, found.samples, found.predictions) == (status, (), None)
    assert found.reason is not None
    assert (found.reason.code, "process 3" in found.reason.sentence) == ("broke", True)


def test_runs_that_do_no_work_are_a_failure() -> None:
    idle = replace(process(), compute=series(50, 1e-6))
    idle = replace(idle, compute=replace(idle.compute, rounds_s=((4e-7,) * 50,)))
    found = finished(EMPTY, gathered(idle), predicted())
    assert (found.status, found.samples, found.predictions) == ("failed", (), None)
    assert found.reason is not None
    assert found.reason.code == "runs-without-work"
