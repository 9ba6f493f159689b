"""``rbench doctor``: say what is installed and whether it works."""

from __future__ import annotations

import sys

import click

from exporter.commands import streams, terminal
from exporter.commands.command import SectionedCommand


@click.command(cls=SectionedCommand, heading="Set up", examples=("rbench doctor", "rbench doctor --json"))
@terminal.json_option
@terminal.debug_option
def doctor(as_json: bool) -> None:
    """Check what is installed and whether it works.

    Each installed backend opens a tiny model and runs it, in a process of its own; one that compiles takes some tens of
    seconds. What is missing or broken comes with the command that repairs it, and so do settings of a GPU that disturb
    measurements. The exit code is 1 if something installed is broken, or if no backend can run a model.
    """
    from benchmarks.doctor import examine, format_report
    from runtimes import codec

    with terminal.reserve_stdout(), terminal.listening() as listener:
        report = examine(listener.step)
    if as_json:
        streams.print_json(codec.dumps(report, indent=2))
    else:
        streams.print_result("\n".join(format_report(report)))
    sys.exit(0 if report.healthy else 1)
