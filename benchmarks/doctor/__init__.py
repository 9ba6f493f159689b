"""``rbench doctor``: what is installed, whether it works, what is missing, and the command that mends it.

Libraries are asked and tried in processes of their own: one that crashes or hangs is a finding and no more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from benchmarks.doctor import machine, packages, smoke_tests
from benchmarks.doctor.findings import DoctorReport, Finding, from_message
from benchmarks.doctor.gpu_probe import GpuProbe, probe_gpus
from runtimes import available_backends

__all__ = ["DoctorReport", "Finding", "examine"]


def examine(heard: Callable[[str], None]) -> DoctorReport:
    """All that can be found out. Blocks for some seconds a backend, and longer for one that compiles or hangs.

    ``heard`` is told what is at work.

    Raises:
        CheckFailedError: not even the machine could be looked at.
    """
    heard("looking at the machine")
    seen, ending = probe_gpus()
    versions = packages.list_installed()
    gpus = seen.environment.gpus
    with_gpu = bool(gpus or seen.devices)
    findings = [
        *machine.rexport(seen.environment.python),
        *machine.machine(seen.environment),
        *machine.gpu(seen, ending),
        *(packages.adapt_commands(finding, versions) for finding in _runtimes(seen, with_gpu, versions, heard)),
        *packages.extras(versions, with_gpu),
        *packages.conflicts(versions, gpus),
        *machine.folders(),
    ]
    return DoctorReport(
        rexport=machine.version(),
        folder=str(machine.folder()),
        environment=seen.environment,
        healthy=all(finding.status != "broken" for finding in findings),
        findings=tuple(findings),
    )


def _runtimes(
    seen: GpuProbe, with_gpu: bool, versions: Mapping[str, str], heard: Callable[[str], None]
) -> list[Finding]:
    rows, alone = available_backends(), packages.for_processors(versions)
    install = {name: _force_reinstall(message) for name, message in seen.installs.items()}
    found = []
    for trial in smoke_tests.plan_trials(rows, seen.missing, install, alone, no_gpu=seen.cuda is not None):
        found.append(smoke_tests.run_trial(trial, functools.partial(_report_step, heard, trial.subject)))
    return found + [smoke_tests.absent(row, reason, with_gpu) for row in rows if (reason := seen.missing[row.name])]


def _report_step(heard: Callable[[str], None], subject: str, step: str) -> None:
    heard(f"trying {subject}: {step}")


def _force_reinstall(message: str | None) -> tuple[str, ...]:
    """The command that installs what a backend asks for, as one that installs it again."""
    commands = from_message("runtimes", "", "missing", message or "").mend
    return tuple(command.replace("pip install ", "pip install --force-reinstall ", 1) for command in commands)
