"""``rbench doctor``: what is installed, whether it works, what is missing, and the command that mends it.

Libraries are asked and tried in processes of their own: one that crashes or hangs is a finding and no more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from benchmarks.doctor import machine, packages, trials
from benchmarks.doctor.findings import Finding, Report, from_message
from benchmarks.doctor.look import Look, look
from runtimes import available_backends

__all__ = ["Finding", "Report", "examine"]


def examine(heard: Callable[[str], None]) -> Report:
    """All that can be found out. Blocks for some seconds a backend, and longer for one that compiles or hangs.

    ``heard`` is told what is at work.

    Raises:
        CheckFailedError: not even the machine could be looked at.
    """
    heard("looking at the machine")
    seen, ending = look()
    versions = packages.installed()
    gpus = seen.environment.gpus
    with_gpu = bool(gpus or seen.devices)
    findings = [
        *machine.rexport(seen.environment.python),
        *machine.machine(seen.environment),
        *machine.gpu(seen, ending),
        *(packages.suited(finding, versions) for finding in _runtimes(seen, with_gpu, versions, heard)),
        *packages.extras(versions, with_gpu),
        *packages.conflicts(versions, gpus),
        *machine.folders(),
    ]
    return Report(
        rexport=machine.version(),
        folder=str(machine.folder()),
        environment=seen.environment,
        healthy=all(finding.status != "broken" for finding in findings),
        findings=tuple(findings),
    )


def _runtimes(seen: Look, with_gpu: bool, versions: Mapping[str, str], heard: Callable[[str], None]) -> list[Finding]:
    rows, alone = available_backends(), packages.for_processors(versions)
    install = {name: _forced(message) for name, message in seen.installs.items()}
    found = []
    for trial in trials.planned(rows, seen.missing, install, alone, no_gpu=seen.cuda is not None):
        found.append(trials.tried(trial, functools.partial(_tell, heard, trial.subject)))
    return found + [trials.absent(row, reason, with_gpu) for row in rows if (reason := seen.missing[row.name])]


def _tell(heard: Callable[[str], None], subject: str, step: str) -> None:
    heard(f"trying {subject}: {step}")


def _forced(message: str | None) -> tuple[str, ...]:
    """The command that installs what a backend asks for, as one that installs it again."""
    commands = from_message("runtimes", "", "missing", message or "").mend
    return tuple(command.replace("pip install ", "pip install --force-reinstall ", 1) for command in commands)
