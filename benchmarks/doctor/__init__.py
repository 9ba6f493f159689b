"""``rbench doctor``: what is installed, whether it works, what is missing, and the command that repairs it.

Libraries are loaded and tested in separate processes, so that a library that crashes or hangs is only a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from benchmarks.doctor import machine, packages, smoke_tests
from benchmarks.doctor.findings import DoctorReport, Finding, format_report, nothing_runs, split_commands
from benchmarks.doctor.gpu_probe import GpuProbe, probe_gpus
from runtimes import available_backends

__all__ = ["DoctorReport", "Finding", "examine", "format_report"]


def examine(notify: Callable[[str], None]) -> DoctorReport:
    """Examine the installation and the machine.

    The call blocks for a few seconds for each backend, and longer for a backend that compiles or hangs.

    Args:
        notify: Called with each step.

    Raises:
        CheckFailedError: The machine cannot be examined.
    """
    notify("examining the machine")
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
        healthy=not nothing_runs(findings) and all(finding.status != "broken" for finding in findings),
        findings=tuple(findings),
    )


def _runtimes(
    probe: GpuProbe, with_gpu: bool, versions: Mapping[str, str], notify: Callable[[str], None]
) -> Iterator[Finding]:
    rows, cpu_builds = available_backends(), packages.for_processors(versions)
    install = {
        name: tuple(command.replace("install ", "install --force-reinstall ", 1) for command in split_commands(text)[1])
        for name, text in probe.installs.items()
        if text is not None
    }
    for test in smoke_tests.plan_smoke_tests(rows, probe.missing, install, cpu_builds, no_gpu=probe.cuda is not None):

        def report(step: str, subject: str = test.subject) -> None:
            notify(f"testing {subject}: {step}")

        yield smoke_tests.run_smoke_test(test, report)
    yield from (smoke_tests.absent(row, why, with_gpu) for row in rows if (why := probe.missing[row.name]))
