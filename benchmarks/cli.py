"""``rbench``: what artifacts cost on this machine, and what they are worth. Everything heavy is imported late."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands.doctor import doctor
from benchmarks.commands.measure import load, run, tune
from benchmarks.commands.paper import paper
from benchmarks.commands.results import compare, merge, report
from exporter.commands import terminal

ALONE = "rbench-results"
"""Where ``rbench`` without a word writes its files."""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="rbench alone measures the bundled trained model on every runtime that is here, and writes a report to "
    f"{ALONE}.",
)
@click.version_option(package_name="rexport", prog_name="rbench")
@click.pass_context
def rbench(context: click.Context) -> None:
    """Measure what models cost on this machine, and what they are worth."""
    if context.invoked_subcommand is None:
        context.invoke(run, folder=Path(ALONE))


for command in (run, tune, doctor, load, compare, merge, report, paper):
    rbench.add_command(command)


def main() -> None:
    """The console script."""
    terminal.run(rbench)


if __name__ == "__main__":
    main()
