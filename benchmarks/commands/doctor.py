"""``rbench doctor``: say what is installed and whether it works."""

from __future__ import annotations

import sys

import click

from benchmarks.commands import options
from exporter.commands import terminal


@click.command(context_settings=options.SETTINGS)
@terminal.json_option
@terminal.debug_option
def doctor(as_json: bool) -> None:
    """Say what is installed, whether it works, what is missing, and the command that mends it.

    Each installed backend opens a tiny model and answers, in a process of its own that may crash or hang; one that
    compiles takes some tens of seconds. Exit code 1 if something that is installed is broken.
    """
    from benchmarks.doctor import examine, format_report
    from runtimes import codec

    with terminal.reserve_stdout(), terminal.listening() as listener:
        report = examine(listener.step)
    click.echo(codec.dumps(report, indent=2) if as_json else "\n".join(format_report(report)))
    sys.exit(0 if report.healthy else 1)
