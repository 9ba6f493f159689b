"""Whether each backend works: it opens a tiny model in a process of its own, and its answers are compared."""

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
"""Without a sign of life, at each step. The longest one compiles for 10 s, or for 40 on a busy machine."""

_PROBE = (*PROGRAM[:-1], "benchmarks.doctor.smoke_worker")
_ONE_CALL = Plan(duration_s=0.0, min_samples=1, max_samples=1, window_s=0.0, warmup_limit_s=0.0)


@dataclass(frozen=True)
class SmokeTest:
    """One backend on one device. ``install`` is what brings or mends its library, one command or none.

    ``for_processors`` names installed packages that are built without a GPU, and have a build with one.
    """

    row: Backend
    device: str
    install: tuple[str, ...] = ()
    for_processors: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """As ``onnxruntime on cpu``."""
        return f"{self.row.name} on {self.device}"


def plan_smoke_tests(
    rows: Sequence[Backend],
    missing: Mapping[str, str | None],
    install: Mapping[str, tuple[str, ...]],
    for_processors: tuple[str, ...],
    no_gpu: bool,
) -> list[SmokeTest]:
    """The backends that are there, on each device that is there."""
    return [
        SmokeTest(row, device, install.get(row.name, ()), for_processors)
        for row in rows
        if missing[row.name] is None
        for device in row.devices
        if device == PROCESSOR or not no_gpu
    ]


def absent(row: Backend, reason: str, with_gpu: bool) -> Finding:
    """A backend that is not there. Without a GPU, nothing is to be done about one that runs on GPUs alone."""
    if with_gpu or PROCESSOR in row.devices:
        return from_message("runtimes", row.name, "missing", Reason("backend-missing", f"{reason}"))
    what, _ = split_commands(reason)
    return Finding("runtimes", row.name, "missing", "backend-needs-gpu", f"it runs on NVIDIA GPUs alone; {what}")


def run_smoke_test(
    test: SmokeTest, notify: Callable[[str], None], limit_s: float = LIMIT_S, program: tuple[str, ...] = _PROBE
) -> Finding:
    """What came of it. Blocks until its process has ended, which is ``limit_s`` after its last step at the latest.

    ``notify`` is told each step; ``program`` is started as ``benchmarks.process.worker_process.run`` starts it.
    """
    format = next((name for name in test.row.formats if name in sample_model.FORMATS), None)
    if format is None:
        reason = Reason(
            "backend-not-tried",
            f"installed and not tried: no model of a format that it opens can be made here ({test.row.formats[0]})",
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
    """The outcome as a finding."""
    library = outcome.description
    if outcome.status == "ok" and library is not None:
        sitting = outcome.sitting
        times = f"opened in {sitting.load_s:.1f} s, first call {sitting.first_s * 1e3:,.0f} ms" if sitting else ""
        what = f"{library.version} ({library.provider}) gives the right answers; {times}"
        if not outcome.notes:
            return Finding("runtimes", test.subject, "ok", "backend-works", f"{what}")
        what = "; ".join(map(str, (what, *outcome.notes)))
        return Finding("runtimes", test.subject, "warning", "backend-works-partly", f"{what}", test.install)
    reason = "it gave no reason" if outcome.reason is None else outcome.reason.sentence
    unbuilt = any(name in reason.lower() for name in test.for_processors)
    if outcome.status == "skipped" and test.device != PROCESSOR and unbuilt:
        return from_message("runtimes", test.subject, "missing", Reason("backend-missing", f"{reason}"))
    finding = from_message("runtimes", test.subject, "broken", Reason("backend-broken", f"{reason}"))
    says_itself = bool(finding.mend) or reason.endswith(")")
    return finding if says_itself else replace(finding, mend=test.install)
