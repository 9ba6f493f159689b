"""Smoke tests: each backend opens a tiny model in a process of its own, and its outputs are compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.doctor import sample_model
from benchmarks.doctor.findings import Finding, from_message, split_commands
from benchmarks.process import worker_process
from benchmarks.process.job import Job, JobOutcome
from benchmarks.process.worker_process import PROGRAM
from benchmarks.records.plan import Plan
from runtimes.errors import Reason
from runtimes.processors import usable_processors
from runtimes.protocol import Backend
from runtimes.selection import PROCESSOR

LIMIT_S = 120.0
"""The time without a sign of life after which a test ends. The longest step compiles for 10 s to 40 s."""

_PROBE = (*PROGRAM[:-1], "benchmarks.doctor.smoke_worker")
_ONE_CALL = Plan(duration_s=0.0, min_samples=1, max_samples=1, window_s=0.0, warmup_limit_s=0.0)


@dataclass(frozen=True)
class SmokeTest:
    """The test of one backend on one device.

    Attributes:
        row: The backend.
        device: The device.
        install: The command that installs or repairs the library, or nothing.
        for_processors: The installed packages that are built without GPU support and have a build with it.
    """

    row: Backend
    device: str
    install: tuple[str, ...] = ()
    for_processors: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The name of the test, as ``onnxruntime on cpu``."""
        return f"{self.row.name} on {self.device}"


def plan_smoke_tests(
    rows: Sequence[Backend],
    missing: Mapping[str, str | None],
    install: Mapping[str, tuple[str, ...]],
    for_processors: tuple[str, ...],
    no_gpu: bool,
) -> list[SmokeTest]:
    """Return a test for each installed backend on each available device.

    Args:
        rows: The backends.
        missing: For each backend, the reason why it cannot run here, or ``None``.
        install: For each backend, the command that installs or repairs its library.
        for_processors: The installed packages that are built without GPU support and have a build with it.
        no_gpu: Whether there is no usable GPU.
    """
    return [
        SmokeTest(row, device, install.get(row.name, ()), for_processors)
        for row in rows
        if missing[row.name] is None
        for device in row.devices
        if device == PROCESSOR or not no_gpu
    ]


def absent(row: Backend, reason: str, with_gpu: bool) -> Finding:
    """Return the finding about a backend that is not installed.

    Without a GPU, no command is given for a backend that runs only on GPUs.

    Args:
        row: The backend.
        reason: The reason why the backend cannot run here.
        with_gpu: Whether there is a GPU.
    """
    if with_gpu or PROCESSOR in row.devices:
        return from_message("runtimes", row.name, "missing", Reason("backend-missing", f"{reason}"))
    what, _ = split_commands(reason)
    return Finding(
        "runtimes", row.name, "missing", "backend-needs-gpu", f"the backend runs only on NVIDIA GPUs; {what}"
    )


def run_smoke_test(
    test: SmokeTest, notify: Callable[[str], None], limit_s: float = LIMIT_S, program: tuple[str, ...] = _PROBE
) -> Finding:
    """Run a test and return its finding.

    The call blocks until the process of the test has ended, at most ``limit_s`` after its last step.

    Args:
        test: The test.
        notify: Called with each step.
        limit_s: The time that one step may take.
        program: The command that ``benchmarks.process.worker_process.run`` starts.
    """
    format = next((name for name in test.row.formats if name in sample_model.FORMATS), None)
    if format is None:
        reason = Reason(
            "backend-not-tried",
            f"installed but not tested: rexport cannot make a model in the format of this backend "
            f"({test.row.formats[0]})",
        )
        return from_message("runtimes", test.subject, "warning", reason)
    with tempfile.TemporaryDirectory(prefix="rexport-doctor-") as folder:
        job = Job(
            artifact=str(Path(folder) / f"sample.{format}"),
            runtime=test.row.name,
            device=test.device,
            threads=usable_processors(),
            batch=1,
            data=None,
            limit=None,
            evaluate=False,
            seed=0,
            plan=_ONE_CALL,
        )
        outcome, _ = worker_process.run(job, Path(folder), notify, limit_s, program=program)
    if outcome.reason is not None:
        sentence = outcome.reason.sentence.removeprefix(f"{job.artifact}: ")
        outcome = replace(outcome, reason=outcome.reason._replace(sentence=sentence))
    return judge_outcome(test, outcome)


def judge_outcome(test: SmokeTest, outcome: JobOutcome) -> Finding:
    """Return the finding about the ``outcome`` of a ``test``."""
    library = outcome.description
    if outcome.status == "ok" and library is not None:
        process = outcome.sitting
        times = f"opened in {process.load_s:.1f} s, first call {process.first_s * 1e3:,.0f} ms" if process else ""
        what = f"{library.version} ({library.provider}) gives correct outputs; {times}"
        if not outcome.notes:
            return Finding("runtimes", test.subject, "ok", "backend-works", f"{what}")
        what = "; ".join(map(str, (what, *outcome.notes)))
        return Finding("runtimes", test.subject, "warning", "backend-works-partly", f"{what}", test.install)
    reason = "the worker reported no reason" if outcome.reason is None else outcome.reason.sentence
    unbuilt = any(name in reason.lower() for name in test.for_processors)
    if outcome.status == "skipped" and test.device != PROCESSOR and unbuilt:
        return from_message("runtimes", test.subject, "missing", Reason("backend-missing", f"{reason}"))
    finding = from_message("runtimes", test.subject, "broken", Reason("backend-broken", f"{reason}"))
    has_remedy = bool(finding.mend) or reason.endswith(")")
    return finding if has_remedy else replace(finding, mend=test.install)
