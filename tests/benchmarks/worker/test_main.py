from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import runtimes
from benchmarks.accuracy import predictions
from benchmarks.analysis.assembly import ResultContext, finish_result
from benchmarks.analysis.figures import Figures
from benchmarks.machine import gpu_monitor
from benchmarks.machine.gpu_monitor import GpuMemory
from benchmarks.process import worker_process
from benchmarks.process.job import Job, JobOutcome, Pipes, ProcessOutcomes, TurnPlan
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.samples import ProcessSamples
from benchmarks.roofline.roof import count_layers
from benchmarks.worker import __main__ as worker
from benchmarks.worker import clocks, kernels
from benchmarks.worker.__main__ import outcomes
from benchmarks.worker.calls import tolerance_of
from benchmarks.worker.kernels import Kernel
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.targets import onnx_file
from runtimes import codec
from runtimes.artifacts.manifest import Engine, Profile
from runtimes.backends import fake, registry
from runtimes.backends.fake import FakeSession, Script
from runtimes.errors import CompatibilityError, Reason
from runtimes.protocol import Arrays, Layer, Options, RunTimes, TensorSpec
from runtimes.tensors.dlpack import DeviceTensor
from tests.benchmarks import doubles
from tests.benchmarks.nvml import TOTAL_BYTES, Card, installed, steady
from tests.benchmarks.results import EMPTY
from tests.benchmarks.scripts import JOB, SCRIPT, artifact, foreign, read, with_batch
from tests.benchmarks.worker.test_trtexec import TIMES, stand_in
from tests.conftest import SILENT


class Told(Pipes):
    """The worker's end of a wire that has no other: it hears, and may take so many turns of its plan."""

    lead_s = 0.0

    def __init__(self, job: Job, turns: int = 1) -> None:
        self._turn = TurnPlan(job.plan.duration_s, job.plan.min_samples, job.plan.max_samples)
        self._turns = turns
        self.steps: list[str] = []
        self.before_calls: list[str] | None = None
        self.said: list[tuple[str, float]] = []
        self.gpu: GpuMemory | None = None

    def step(self, name: str) -> None:
        self.steps.append(name)

    def wait_for_start(self) -> None:
        self.before_calls = list(self.steps)

    def report_open(self, peak_bytes: int, gpu: GpuMemory | None = None) -> float:
        self.said.append(("opened", peak_bytes))
        self.gpu = gpu
        return self.lead_s

    def ready(self, usual_s: float) -> None:
        self.said.append(("ready", usual_s))

    def turns(self) -> Iterator[TurnPlan]:
        yield from [self._turn] * self._turns

    def report_turn(self, median_s: float) -> None:
        self.said.append(("turned", median_s))


def done(job: Job, tmp_path: Path) -> tuple[JobOutcome, list[str]]:
    told = Told(job)
    *_, outcome = outcomes(job, tmp_path / "p.npz", told)
    return outcome, told.steps


def sat(outcome: JobOutcome) -> ProcessSamples:
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.sitting is not None
    return outcome.sitting


def test_an_artifact_is_checked_timed_and_evaluated(tmp_path: Path) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)))
    outcome, steps = done(job, tmp_path)
    assert (outcome.status, outcome.reason, outcome.notes) == ("ok", None, ())
    assert steps == ["open", "first call", "check", "warm-up", steps[4], "profile"]
    assert steps[4].split()[1:] == ["0", "of", "64"]
    sitting = sat(outcome)
    assert min(len(sitting.latency.samples_s), len(sitting.compute.samples_s)) >= 3
    assert (sitting.device, sitting.image, outcome.load, outcome.warnings) == (None, None, None, ())
    assert outcome.description is not None
    assert outcome.description.backend == "fake"
    assert 0 < (sitting.baseline_bytes or 0) <= (sitting.peak_bytes or 0)
    assert min(sitting.first_s, sitting.load_s, outcome.evaluated_per_s or 0) > 0
    assert sitting.conditions is not None
    assert sitting.conditions.wall_s > 0
    found = predictions.load(tmp_path / "p.npz")
    assert (len(found.indices), found.targets, found.classes) == (64, None, 10)
    assert set(found.best[:, 0]) == {0, 9}


def test_its_turns_are_the_rounds_and_the_parent_hears_of_each(tmp_path: Path) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False, began_s=time.monotonic() - 100)
    told = Told(job, turns=4)
    *_, outcome = outcomes(job, tmp_path / "p.npz", told)
    sitting = sat(outcome)
    assert [word for word, _ in told.said] == ["opened", "ready", *["turned"] * 4]
    assert told.before_calls == ["open"]
    assert told.said[0][1] <= (sitting.peak_bytes or 0)
    assert [number for _, number in told.said[2:]] == [
        pytest.approx(np.median(samples), abs=1e-9) for samples in sitting.latency.rounds_s
    ]
    assert len(sitting.compute.rounds_s) == len(sitting.starts_s) == 4
    assert 100 < sitting.starts_s[0] < sitting.starts_s[-1] < 160


def test_only_the_first_process_tells_what_all_would(tmp_path: Path) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False, number=1)
    outcome, steps = done(job, tmp_path)
    assert (sat(outcome).image, outcome.arithmetic, outcome.energy) == (None, None, None)
    assert "profile" not in steps


def test_a_graph_that_gives_one_output_for_all_inputs_is_told(tmp_path: Path) -> None:
    outcome, _ = done(replace(JOB, artifact=str(foreign(tmp_path, replace(SCRIPT, scale=0.0)))), tmp_path)
    assert outcome.status == "ok"
    assert [warning.code for warning in outcome.warnings] == ["outputs-constant"]


def test_odd_inputs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = {"input": np.zeros((2, 3, 8, 8), np.float32)}
    monkeypatch.setattr(worker, "rotation", lambda *_: [zeros, zeros])
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False), tmp_path)
    assert [warning.code for warning in outcome.warnings] == ["inputs-flat", "inputs-equal", "outputs-constant"]


def test_images_are_timed_to_their_labels(tmp_path: Path) -> None:
    path = artifact(tmp_path, dataset="fashion-mnist")
    job = replace(JOB, artifact=str(path), data="fashion-mnist", batch=1, limit=20)
    sitting = sat(done(job, tmp_path)[0])
    assert sitting.image is not None
    assert len(sitting.image.rounds_s) == 1
    assert min(sitting.image.samples_s) > 0


def test_a_load_takes_the_place_of_turns(tmp_path: Path) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False, load=ArrivalPlan("single-stream", 0.01))
    told = Told(job)
    *_, outcome = outcomes(job, tmp_path / "p.npz", told)
    assert (outcome.status, outcome.sitting, told.said) == ("ok", None, [])
    assert outcome.load is not None
    assert outcome.load.services_s


@pytest.mark.parametrize(
    ("kind", "codes"),
    [(doubles.Queueing, {"runs-unfinished"}), (doubles.FillingLater, {"output-late", "output-changed"})],
)
def test_a_backend_that_returns_early_gets_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: doubles.Kind, codes: set[str]
) -> None:
    monkeypatch.setattr(runtimes, "open", doubles.opening(kind))
    job = replace(JOB, artifact=str(artifact(tmp_path, replace(SCRIPT, delays_s=(2e-4,)))))
    told = Told(job, turns=4)
    *_, outcome = outcomes(job, tmp_path / "p.npz", told)
    assert (outcome.status, outcome.sitting) == ("failed", None)
    assert outcome.reason is not None
    assert outcome.reason.code in codes
    assert not (tmp_path / "p.npz").exists()


def test_runs_that_do_nothing_get_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to wait for them, so that their process does not notice; the row does."""
    path = str(artifact(tmp_path, replace(SCRIPT, delays_s=(2e-3,))))
    results = []
    for kind in (FakeSession, doubles.Idling):
        monkeypatch.setattr(runtimes, "open", doubles.opening(kind))
        job = replace(JOB, artifact=path, evaluate=False, plan=replace(JOB.plan, duration_s=0.05))
        *_, outcome = outcomes(job, tmp_path / "p.npz", Told(job))
        assert (outcome.status, outcome.sitting is None) == ("ok", False), outcome.reason
        results.append(finish_result(EMPTY, ProcessOutcomes([outcome]), None, ResultContext()))
    honest, idle = results
    assert (honest.status, Figures(honest).compute_p50 is None) == ("ok", False)
    assert idle == replace(EMPTY, status="failed", reason=idle.reason, notes=idle.notes, time=idle.time)
    assert idle.reason is not None
    assert idle.reason.code == "runs-without-work"


def test_what_ran_is_what_the_profiler_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def profile(path: str, feeds: Arrays, *options: object, **_: object) -> tuple[Layer, ...]:
        asked.extend((path, feeds["input"].shape, *options))
        return tuple(Layer(f"{n}", (), "Conv", "int8" if n else "float32", True, None) for n in range(3))

    monkeypatch.setattr(runtimes, "profile", profile)
    job = replace(JOB, artifact=str(artifact(tmp_path)))
    outcome, _ = done(job, tmp_path)
    assert count_layers(outcome.arithmetic) == {"int8": 2, "float32": 1}
    assert asked == [job.artifact, (2, 3, 8, 8), "fake", "cpu", 1]


def test_a_profile_that_fails_is_a_note_and_no_number_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> tuple[Layer, ...]:
        raise RuntimeError("the profiler\nbroke")

    monkeypatch.setattr(runtimes, "profile", broken)
    outcome, _ = done(replace(JOB, artifact=str(foreign(tmp_path)), evaluate=False), tmp_path)
    assert sat(outcome).latency.samples_s
    assert outcome.arithmetic is None
    assert [note.code for note in outcome.notes] == ["outputs-not-compared", "profiler-failed"]
    assert outcome.notes[1].sentence.endswith(" profiler broke")


def test_a_profiler_that_ends_the_process_takes_no_number(tmp_path: Path) -> None:
    code = "import os, sys, runtimes; runtimes.profile = lambda *_, **__: os.abort()\n"
    code += "from benchmarks.worker.__main__ import main; sys.exit(main(sys.argv[1:]))"
    folder = tmp_path / "job"
    folder.mkdir()
    job = replace(JOB, artifact=str(artifact(tmp_path)))
    outcome, answers = worker_process.run(job, folder, lambda _: None, 60.0, program=(sys.executable, "-c", code))
    assert (outcome.status, [note.code for note in outcome.notes]) == ("ok", ["profiler-crashed"])
    assert sat(outcome).latency.samples_s
    assert len(predictions.load(answers).indices) == 64


def test_a_backend_without_a_profiler_tells_its_arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tuple(replace(row, profile=None) for row in registry.all_backends())
    monkeypatch.setattr(registry, "all_backends", lambda: silent)
    outcome, steps = done(replace(JOB, artifact=str(artifact(tmp_path))), tmp_path)
    assert (outcome.status, outcome.arithmetic, outcome.notes) == ("ok", None, ())
    assert "profile" not in steps


def test_a_file_that_the_runtime_does_not_take_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise CompatibilityError("no kernel for Conv in bfloat16", code="kernel-missing", hint="another")

    monkeypatch.setattr(runtimes, "open", refusing)
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path))), tmp_path)
    assert (outcome.status, outcome.reason and outcome.reason.code) == ("skipped", "kernel-missing")
    assert str(outcome.reason).endswith("bfloat16 (another)")


def test_scripted_delays_are_what_is_measured(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, delays_s=(0.004,)))
    plan = replace(JOB.plan, duration_s=0.05)
    outcome, _ = done(replace(JOB, artifact=str(path), plan=plan, evaluate=False), tmp_path)
    sitting = sat(outcome)
    for series in (sitting.latency, sitting.compute):
        assert min(series.samples_s) >= 0.004
    assert sitting.first_s >= 0.004


def test_samples_are_nanoseconds(tmp_path: Path) -> None:
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path))), tmp_path)
    assert all(sample == round(sample, 9) for sample in sat(outcome).latency.samples_s)


def test_no_parity_no_number(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(SCRIPT, scale=1.001))
    outcome, steps = done(replace(JOB, artifact=str(path)), tmp_path)
    assert (outcome.status, outcome.reason and outcome.reason.code) == ("failed", "vectors-not-matched")
    assert all(figure in str(outcome.reason) for figure in ("1.0e-03", "1.0e-05"))
    assert "warm-up" not in steps
    assert not (tmp_path / "p.npz").exists()


ENGINE = Engine(
    flavor="tensorrt",
    version="11.4.0",
    gpu=None,
    compute_capability=None,
    driver=None,
    targets=(),
    profiles=(Profile(1, 8, 64),),
    opt_level=3,
    workspace_bytes=None,
    tf32=False,
    hardware_compat="none",
    version_compat=False,
    stripped=False,
    onnx="resnet20.onnx",
    tolerance=None,
)


@pytest.mark.parametrize(
    ("parity", "engine", "allowed"), [(None, None, 1e-4), (1e-5, 0.5, 1e-5), (None, 0.01, 0.01), (None, 0.0, 0.0)]
)
def test_an_engine_carries_its_tolerance(
    tmp_path: Path, parity: float | None, engine: float | None, allowed: float
) -> None:
    manifest = read(artifact(tmp_path)).manifest
    assert manifest is not None
    assert manifest.parity is not None
    passed = None if parity is None else replace(manifest.parity, tolerance=parity)
    built = None if engine is None else replace(ENGINE, tolerance=engine)
    assert tolerance_of(replace(manifest, parity=passed, engine=built)) == allowed


def test_answers_that_are_not_finite_are_caught(tmp_path: Path) -> None:
    script = replace(SCRIPT, outputs=(TensorSpec("logits", "float16", ("batch", 10)),), scale=1e9)
    with np.errstate(over="ignore"):
        outcome, _ = done(replace(JOB, artifact=str(foreign(tmp_path, script))), tmp_path)
    assert (outcome.status, outcome.reason and outcome.reason.code) == ("failed", "model-output-not-finite")


def test_a_foreign_file_says_what_was_not_checked(tmp_path: Path) -> None:
    outcome, _ = done(replace(JOB, artifact=str(foreign(tmp_path)), evaluate=False), tmp_path)
    assert outcome.status == "ok"
    assert [note.code for note in outcome.notes] == ["outputs-not-compared"]


def test_an_output_that_changes_while_it_is_timed_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    honest = fake.answers

    def drifting(script: Script, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        return honest(replace(script, scale=1.0 if calls < 60 else 1.0 + calls), arrays)

    monkeypatch.setattr(fake, "answers", drifting)
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path))), tmp_path)
    assert outcome.status == "failed"
    assert (outcome.reason and outcome.reason.code) == "output-changed"


@pytest.mark.parametrize(
    ("change", "code", "value"),
    [
        (lambda job: replace(job, device="cuda"), "backend-lacks-device", "'cuda'"),
        (lambda job: replace(job, artifact="missing.fake"), "file-access-failed", "missing.fake"),
        (lambda job: replace(job, batch=3), "batch-fixed", "2"),
    ],
)
def test_what_is_refused_has_its_reason(tmp_path: Path, change: Callable[[Job], Job], code: str, value: str) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path, with_batch(SCRIPT, 2))))
    outcome, _ = done(change(job), tmp_path)
    assert outcome.status == "error"
    assert outcome.reason is not None
    assert outcome.reason.code == code
    assert value in outcome.reason.sentence


def test_a_library_that_raises_is_an_error_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\n  second\tline \x1b[31m")

    monkeypatch.setattr(runtimes, "open", broken)
    outcome, _ = done(JOB, tmp_path)
    assert (outcome.status, outcome.reason and outcome.reason.code) == ("error", "library-failed")
    assert str(outcome.reason).split() == ["RuntimeError:", "first", "line", "second", "line", "\\x1b[31m"]


def test_a_fixed_batch_is_filled_up_and_no_image_is_lost(tmp_path: Path) -> None:
    for name, script in (("fixed", with_batch(SCRIPT, 5)), ("open", SCRIPT)):
        path = artifact(tmp_path, script, f"{name}.fake")
        job = replace(JOB, artifact=str(path), batch=5, limit=13)
        *_, outcome = outcomes(job, tmp_path / f"{name}.npz", Told(job))
        assert outcome.status == "ok"
    fixed, free = (predictions.load(tmp_path / f"{name}.npz") for name in ("fixed", "open"))
    assert len(fixed.indices) == len(free.indices) == 13


class OnADevice(fake.FakeSession):
    """Stands in for a session on a GPU, which is not here: its device takes a scripted 2 ms, whatever the host took."""

    def run_tensors(self, tensors: Mapping[str, DeviceTensor]) -> Arrays:
        raise NotImplementedError

    def queue(self, feeds: object, stream: object) -> NoReturn:
        raise NotImplementedError

    def empty_array(self, shape: object, dtype: object) -> NoReturn:
        raise NotImplementedError

    def bind_timed(self, arrays: Arrays) -> Callable[[], RunTimes]:
        call = self.bind(arrays)

        def run_once() -> RunTimes:
            call()
            return RunTimes(0.002, 0.001)

        return run_once


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Card:
    """The scripted backend on a scripted GPU."""
    card = Card(
        used_bytes=steady(500, 800, 800, 900, 2500),
        energy_mj=steady(*range(0, 10**9, 50_000)),
        clocks_mhz=steady(1980, 1755, 210),
    )
    installed(monkeypatch, card)
    monkeypatch.setattr(gpu_monitor, "ENERGY_WARMUP_S", 0.0)
    monkeypatch.setattr(gpu_monitor, "ENERGY_LEAST_S", 1e-9)
    monkeypatch.setattr(fake, "FakeSession", OnADevice)
    rows = tuple(replace(row, devices=("cpu", "cuda")) for row in registry.all_backends() if row.name == "fake")
    monkeypatch.setattr(registry, "all_backends", lambda: rows)
    return card


def test_on_a_gpu_its_own_clock_and_its_state_are_told(tmp_path: Path, on_a_gpu: Card) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False)
    outcome, steps = done(job, tmp_path)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert steps == ["open", "first call", "check", "warm-up", "profile"]
    sitting = sat(outcome)
    assert sitting.device is not None
    assert set(sitting.device.samples_s) == {0.002}
    assert len(sitting.device.samples_s) == max(3, min(5, len(sitting.compute.samples_s)))  # 0.01 s of them
    assert outcome.gpu_before is not None
    assert outcome.gpu_after is not None
    assert (outcome.gpu_before.uuid, outcome.gpu_after.uuid) == (on_a_gpu.uuid, on_a_gpu.uuid)
    assert (outcome.gpu_before.memory_used_bytes, outcome.gpu_after.memory_used_bytes) == (900, 2500)
    assert outcome.device_peak_bytes == 300  # without what is bound for each feed, and without what others take then
    assert outcome.energy is not None
    assert (outcome.energy.energy_j, outcome.energy.runs) == (50.0, 1)


def test_the_state_after_is_that_at_the_end_of_the_runs(tmp_path: Path, on_a_gpu: Card) -> None:
    """When the parent asks for the end, the GPU is idle or works for another process."""
    del on_a_gpu
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False), tmp_path)
    assert outcome.gpu_after is not None
    assert outcome.gpu_after.sm_mhz == 1755
    conditions = sat(outcome).conditions
    assert conditions is not None
    assert conditions.gpu is not None
    assert conditions.gpu.sm_mhz == (1755, 1755)


def test_on_a_gpu_the_parent_hears_of_its_memory(tmp_path: Path, on_a_gpu: Card) -> None:
    on_a_gpu.compute_mode = 3
    told = Told(replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False))
    list(outcomes(replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False), tmp_path / "p", told))
    feeds_bytes = 16 * 2 * 3 * 8 * 8 * 4
    assert told.gpu == GpuMemory(300, TOTAL_BYTES - 800, 2 * feeds_bytes, exclusive=True)


def test_a_worker_that_leads_works_before_its_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(clocks, "repeat", lambda _, duration_s: asked.append(duration_s))
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False)
    told = Told(job)
    told.lead_s = 1.5
    list(outcomes(job, tmp_path / "p", told))
    assert asked == [1.5]


def test_a_load_on_a_gpu_has_its_conditions(tmp_path: Path, on_a_gpu: Card) -> None:
    on_a_gpu.processes = {os.getpid(): 1, 1 << 30: 1}
    plan = ArrivalPlan("single-stream", duration_s=0.02)
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False, number=1, load=plan)
    outcome, _ = done(job, tmp_path)
    assert outcome.load is not None
    assert outcome.load.conditions is not None
    assert outcome.load.conditions.gpu is not None
    assert outcome.load.conditions.gpu.processes == (f"process {1 << 30}",)


def test_a_library_that_cannot_be_timed_says_why(
    tmp_path: Path, on_a_gpu: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = Reason("device-time-includes-host", "it waits")

    class Waiting(OnADevice):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.description = replace(self.description, notes=(why,))

        def bind_timed(self, arrays: Arrays) -> None:  # type: ignore[override]  # noqa: ARG002
            return None

    monkeypatch.setattr(fake, "FakeSession", Waiting)
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False)
    outcome, _ = done(job, tmp_path)
    assert outcome.status == "ok"
    assert sat(outcome).device is None
    assert why in outcome.notes
    assert outcome.gpu_before is not None
    assert outcome.gpu_before.uuid == on_a_gpu.uuid


def test_energy_is_of_all_runs_until_the_counter_moved(
    tmp_path: Path, on_a_gpu: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run takes 5 ms and uses 3 J, however few are sampled."""
    monkeypatch.setattr(gpu_monitor, "ENERGY_LEAST_S", 0.6)
    made: list[None] = []

    class Using(OnADevice):
        def bind(self, arrays: Arrays) -> Callable[[], None]:
            call = super().bind(arrays)
            return lambda: (call(), made.append(None))[0]  # type: ignore[func-returns-value]

    monkeypatch.setattr(fake, "FakeSession", Using)
    on_a_gpu.energy_mj = (3000 * len(made) for _ in itertools.count())
    script, plan = replace(SCRIPT, delays_s=(0.005,)), replace(JOB.plan, duration_s=0.01, max_samples=3)
    path = artifact(tmp_path, script)
    job = replace(JOB, artifact=str(path), device="cuda", evaluate=False, plan=plan)
    outcome, _ = done(job, tmp_path)
    compute = sat(outcome).compute
    assert len(compute.samples_s) == 3
    assert outcome.energy is not None
    assert outcome.energy.energy_j / outcome.energy.runs == pytest.approx(3.0)
    assert len(made) > len(compute.warmup_s) + 3 + 20


def test_the_device_runs_no_more_often_than_the_host_clock_tells(tmp_path: Path, on_a_gpu: Card) -> None:
    del on_a_gpu
    plan = replace(JOB.plan, duration_s=3600.0, min_samples=1, max_samples=4)
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False, plan=plan)
    outcome, _ = done(job, tmp_path)
    sitting = sat(outcome)
    assert sitting.device is not None
    assert len(sitting.device.samples_s) == 4


def test_throughput_is_measured_for_each_number_of_streams(tmp_path: Path) -> None:
    job = replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False, throughput=(1, 3))
    sitting = sat(done(job, tmp_path)[0])
    assert [series.streams for series in sitting.throughput] == [1, 3]
    assert all(len(series.rates_per_s) == len(sitting.starts_s) for series in sitting.throughput)
    assert all(rate > 0 for series in sitting.throughput for rate in series.rates_per_s)


class Compiled(OnADevice):
    """Says that it runs an engine."""

    def __init__(self, script: Script, options: Options) -> None:
        super().__init__(script, options)
        self.description = replace(self.description, compiled="/x/net.engine")


@pytest.mark.parametrize("works", [True, False])
def test_an_engine_is_measured_by_trtexec_as_well(
    tmp_path: Path, on_a_gpu: Card, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    del on_a_gpu
    monkeypatch.setattr(fake, "FakeSession", Compiled)
    body = f"pathlib.Path(options['exportTimes']).write_text({TIMES!r})" if works else "sys.exit(1)"
    program = stand_in(tmp_path, body)
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False, trtexec=str(program))
    outcome, steps = done(job, tmp_path)
    assert "trtexec" in steps
    assert (outcome.trtexec is not None) is works
    assert ("trtexec-failed" in [note.code for note in outcome.notes]) is not works
    if outcome.trtexec is not None:
        assert outcome.trtexec.command[1:3] == ("--loadEngine=/x/net.engine", f"--shapes=input:{JOB.batch}x3x8x8")
    again, _ = done(replace(job, number=1), tmp_path)
    assert again.trtexec is None


@pytest.mark.parametrize(("name", "arithmetic"), [("sm80_gemm_tf32f32", "tfloat32"), ("mystery_gemm", "float32")])
def test_the_names_of_the_kernels_tell_more_than_the_profile(
    tmp_path: Path, on_a_gpu: Card, monkeypatch: pytest.MonkeyPatch, name: str, arithmetic: str
) -> None:
    del on_a_gpu
    monkeypatch.setattr(kernels, "can_record", lambda: True)
    monkeypatch.setattr(kernels, "record_kernels", lambda run: (run(), (Kernel(name, 0.0, 0.001),))[1])
    job = replace(JOB, artifact=str(artifact(tmp_path)), device="cuda", evaluate=False)
    outcome, _ = done(job, tmp_path)
    assert outcome.kernels is not None
    assert (outcome.kernels.names, outcome.kernels.busy_s) == ((name,), 0.001)
    assert outcome.arithmetic == arithmetic


def test_kernels_of_a_row_that_needs_graphs_are_its_siblings(
    tmp_path: Path, on_a_gpu: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    del on_a_gpu
    opened: list[tuple[str | None, bool]] = []

    def notice(path: str, backend: str | None, *rest: Any, **options: Any) -> runtimes.Runtime:
        opened.append((backend, options.get("cuda_graphs", True)))
        return really(path, "fake", *rest, **options)

    really = runtimes.open
    monkeypatch.setattr(runtimes, "open", notice)
    (row,) = registry.all_backends()
    rows = (row, replace(row, name="recorded", aliases=(), profile=None, without_graphs="fake"))
    monkeypatch.setattr(registry, "all_backends", lambda: rows)
    monkeypatch.setattr(kernels, "can_record", lambda: True)
    monkeypatch.setattr(kernels, "record_kernels", lambda run: (run(), (Kernel("a_gemm", 0.0, 0.001),))[1])
    job = replace(JOB, artifact=str(artifact(tmp_path)), runtime="recorded", device="cuda", evaluate=False)
    outcome, _ = done(job, tmp_path)
    assert outcome.kernels is not None
    assert opened == [("recorded", True), ("fake", False)]


def test_on_a_processor_there_is_nothing_of_a_gpu(tmp_path: Path) -> None:
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path)), evaluate=False), tmp_path)
    assert (sat(outcome).device, outcome.gpu_before, outcome.gpu_after) == (None, None, None)
    assert (outcome.device_peak_bytes, outcome.energy) == (None, None)


@pytest.mark.parametrize("wish", [True, False])
def test_the_wish_for_cuda_graphs_reaches_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: bool
) -> None:
    seen: list[object] = []

    def noting(*arguments: object, **options: object) -> None:
        seen.extend((*arguments, options))
        raise CompatibilityError("enough")

    monkeypatch.setattr(runtimes, "open", noting)
    done(replace(JOB, artifact=str(artifact(tmp_path)), cuda_graphs=wish, streams=2), tmp_path)
    assert seen[1:] == ["fake", "cpu", 1, wish, {"streams": 2, "batch": 2}]


def test_what_libraries_print_does_not_matter(tmp_path: Path) -> None:
    """A real process, with a module that prints to standard output while it is imported."""
    job = tmp_path / "job.json"
    job.write_text(codec.dumps(replace(JOB, artifact=str(artifact(tmp_path)))))
    noisy = "import sys, benchmarks.worker.__main__ as w\n"
    noisy += "w._check = (lambda real: lambda *a: (print('noise'), real(*a))[1])(w._check)\n"
    noisy += "sys.exit(w.main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", noisy, str(job), str(tmp_path / "o.json"), str(tmp_path / "p.npz")],
        input="call\nwarm\nturn 0.01 3 100\nfinish\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[0] == "open"
    assert "noise" not in result.stdout
    assert "noise" in result.stderr
    assert json.loads((tmp_path / "o.json").read_text())["status"] == "ok"


def test_a_trunk_is_timed_and_has_no_accuracy(tmp_path: Path) -> None:
    trunk = replace(SCRIPT, outputs=(TensorSpec("features", "float32", ("batch", 16)),))
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path, trunk))), tmp_path)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.sitting is not None
    assert "not-a-classifier" in [note.code for note in outcome.notes]
    assert not (tmp_path / "predictions").exists()


def test_one_output_is_timed_and_not_evaluated(tmp_path: Path) -> None:
    row = replace(VARIANTS["resnet20"], classes=1)
    model = onnx_file.export(ExportRequest(row, f"{tmp_path}/single.onnx"), SILENT).path
    outcome, _ = done(replace(JOB, artifact=str(model), runtime="onnxruntime"), tmp_path)
    assert (outcome.status, outcome.reason, outcome.evaluated_per_s) == ("ok", None, None)
    assert outcome.sitting is not None
    assert "one-output-not-evaluated" in [note.code for note in outcome.notes]
    assert not (tmp_path / "p.npz").exists()


def test_a_wrong_output_besides_the_logits_is_not_timed(tmp_path: Path) -> None:
    several = replace(SCRIPT, outputs=(*SCRIPT.outputs, TensorSpec("features", "float32", ("batch", 16))), scale=1.01)
    outcome, _ = done(replace(JOB, artifact=str(artifact(tmp_path, several))), tmp_path)
    assert outcome.reason is not None
    assert outcome.reason.code == "vectors-not-matched"
