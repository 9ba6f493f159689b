"""What the driver of a real GPU tells of a job, of its own memory, and of a stranger on the same GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.machine import gpu
from benchmarks.machine.disturbances import disturbances
from benchmarks.machine.gpu_monitor import GpuMonitor
from benchmarks.process import worker_process
from benchmarks.process.job import Job, JobOutcome
from benchmarks.records.plan import Plan
from runtimes.tensors import cuda
from tests.gpu.conftest import Samples

NO_GPU = cuda.missing()

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

torch = pytest.importorskip("torch", reason="torch is not installed")

STRANGER_BYTES = 2 << 30

STRANGER = f"""
import sys, torch
held = torch.empty({STRANGER_BYTES}, dtype=torch.uint8, device="cuda")
work = torch.randn(4096, 4096, device="cuda")
torch.cuda.synchronize()
print(__import__("os").getpid(), flush=True)
for _ in range(100000):
    work @ work
    torch.cuda.synchronize()
"""
"""Computes for some minutes, unless it is ended, and holds memory."""


@pytest.fixture
def visible() -> None:
    """The driver lists this process, as it does not in some containers."""
    meter = gpu.gauge("cuda")
    if meter is None:
        pytest.skip(f"the GPU cannot be read: {gpu.missing()}")
    held = torch.ones(1, device="cuda")
    if (meter.processes() or {}).get(os.getpid()) is None:
        pytest.skip("the driver does not report this process and its memory")
    del held


@pytest.fixture
def stranger() -> Iterator[int]:
    """The number of a process that computes on the GPU and that has no parent here."""
    start = f'setsid "{sys.executable}" -c "$0" &'
    with subprocess.Popen(["sh", "-c", start, STRANGER], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        number = int(shell.stdout.readline())
        try:
            yield number
        finally:
            os.kill(number, signal.SIGKILL)


def job_outcome(samples: Samples, folder: Path) -> JobOutcome:
    job = Job(
        artifact=str(samples.programs["fp32"].path),
        runtime="pytorch",
        device="cuda",
        threads=1,
        batch=8,
        data=None,
        limit=None,
        evaluate=False,
        seed=0,
        plan=Plan(duration_s=0.5),
    )
    outcome, _ = worker_process.run(job, folder, lambda _: None, 300.0)
    assert (outcome.status, outcome.reason) == ("ok", None)
    return outcome


def test_a_job_has_clock_energy_and_limits(samples: Samples, tmp_path: Path) -> None:
    if gpu.gauge("cuda") is None:
        pytest.skip(f"the GPU cannot be read: {gpu.missing()}")
    outcome = job_outcome(samples, tmp_path)
    assert outcome.sitting is not None
    assert outcome.sitting.conditions is not None
    told = outcome.sitting.conditions.gpu
    assert told is not None
    assert told.wall_s > 0
    assert told.sm_mhz is None or 0 < told.sm_mhz[0] <= told.sm_mhz[1]
    for limited_s in (told.power_limited_s, told.thermal_limited_s):
        assert limited_s is None or limited_s >= 0
    if outcome.energy is not None:
        assert 5 < outcome.energy.power_w < 3000
        assert outcome.energy.duration_s >= 3


def test_a_stranger_is_a_disturbance(samples: Samples, tmp_path: Path, visible: None, stranger: int) -> None:
    del visible
    outcome = job_outcome(samples, tmp_path)
    assert outcome.sitting is not None
    conditions = outcome.sitting.conditions
    assert conditions is not None
    assert conditions.gpu is not None
    assert any(str(stranger) in name for name in conditions.gpu.processes or ())
    assert {"gpu-others-busy", "gpu-shared"} <= {reason.code for reason in disturbances([conditions], 1) or ()}
    assert 0 < (outcome.device_peak_bytes or 0) < STRANGER_BYTES


def test_memory_is_that_of_this_process(visible: None) -> None:
    del visible
    monitor = GpuMonitor("cuda")
    monitor.read_state()
    before = monitor.peak_bytes()
    held = torch.empty(1 << 29, dtype=torch.uint8, device="cuda")
    monitor.read_state()
    assert before is not None
    assert (monitor.peak_bytes() or 0) - before >= held.nbytes
