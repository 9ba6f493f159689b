"""``rbench``: latency, throughput, memory and accuracy of models. Everything heavy is imported late."""

from __future__ import annotations

import click

from benchmarks.commands.doctor import doctor
from benchmarks.commands.measure import load, run, tune
from benchmarks.commands.paper import paper
from benchmarks.commands.results import compare, merge, report
from exporter.commands import terminal
from exporter.commands.command import Group
from exporter.commands.completion import completion_command


@click.group("rbench", cls=Group, examples=("rbench run --quick", "rbench run resnet20.onnx -o results/"))
@click.version_option(package_name="rexport", prog_name="rbench", help="Show the version and exit.")
def rbench() -> None:
    """Measure latency, throughput, memory and accuracy of models."""


for command in (run, load, tune, report, compare, merge, paper, doctor, completion_command("rbench", "Set up")):
    rbench.add_command(command)


def main() -> None:
    """The console script."""
    terminal.run(rbench, "rbench")


if __name__ == "__main__":
    main()
