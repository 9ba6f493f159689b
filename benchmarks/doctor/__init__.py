"""``rbench doctor``: what is installed, whether it works, what is missing, and the command that mends it.

Libraries are asked and tried in processes of their own: one that crashes or hangs is a finding and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.doctor import machine, packages, smoke_tests
from benchmarks.doctor.findings import DoctorReport, Finding, split_commands
from benchmarks.doctor.gpu_probe import GpuProbe, probe_gpus
from runtimes import available_backends

__all__ = ["DoctorReport", "Finding", "examine"]


def examine(notify: Callable[[str], None]) -> DoctorReport:
    """Examines everything. Blocks for some seconds a backend, and longer for one that compiles or hangs.

    ``notify`` gets what is at work.

    Raises:
        CheckFailedError: not even the machine could be looked at.
    """
    notify("looking at the machine")
    probe, ending = probe_gpus()
    versions = packages.list_installed()
    gpus = probe.environment.gpus
    with_gpu = bool(gpus or probe.devices)
    findings = [
        machine.python(probe.environment.python),
        *machine.installation(),
        *machine.machine(probe.environment),
        *machine.gpu(probe, ending),
        *(packages.adapt_commands(finding, versions) for finding in _runtimes(probe, with_gpu, versions, notify)),
        *packages.extras(versions, with_gpu),
        *packages.conflicts(versions, gpus),
        *machine.folders(),
    ]
    return DoctorReport(
        rexport=machine.version(),
        folder=str(machine.folder()),
        environment=probe.environment,
        healthy=all(finding.status != "broken" for finding in findings),
        findings=tuple(findings),
    )


def _runtimes(
    probe: GpuProbe, with_gpu: bool, versions: Mapping[str, str], notify: Callable[[str], None]
) -> list[Finding]:
    rows, alone = available_backends(), packages.for_processors(versions)
    install = {name: _force_reinstall(message) for name, message in probe.installs.items()}
    findings = []
    for trial in smoke_tests.plan_smoke_tests(rows, probe.missing, install, alone, no_gpu=probe.cuda is not None):
        findings.append(smoke_tests.run_smoke_test(trial, partial(_report_step, notify, trial.subject)))
    return findings + [smoke_tests.absent(row, why, with_gpu) for row in rows if (why := probe.missing[row.name])]


def _report_step(notify: Callable[[str], None], subject: str, step: str) -> None:
    notify(f"trying {subject}: {step}")


def _force_reinstall(message: str | None) -> tuple[str, ...]:
    """The command that installs what a backend asks for, as one that installs it again."""
    _, commands = split_commands(message or "")
    return tuple(command.replace("pip install ", "pip install --force-reinstall ", 1) for command in commands)
