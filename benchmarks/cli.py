"""``rbench``: what artifacts cost on this machine, and what they are worth. Everything heavy is imported late."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter import terminal

if TYPE_CHECKING:
    from benchmarks.request import Request
    from benchmarks.results import ResultsFile, Row

CLEAR_LINE = "\r\x1b[K"


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="rbench alone measures the bundled trained model on every runtime that is here.",
)
@click.version_option(package_name="rexport", prog_name="rbench")
@click.pass_context
def rbench(context: click.Context) -> None:
    """Measure what models cost on this machine, and what they are worth."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@rbench.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("subjects", nargs=-1, metavar="[ARTIFACT|VARIANT]...")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="A runtime; repeatable. Default: all.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(min=1), metavar="N", help="Images a call; repeatable. [1]"
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Default: all that this process may use.")
@click.option("--data", metavar="NAME|DIR", help="Labelled images. Default: the bundled set where it fits, else noise.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Evaluate N images at most.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds of sampling, for latency and for compute each.",
)
@click.option("--weights", metavar="random|bundled|imagenet|FILE", help="Of a VARIANT. Default: random.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    metavar="S",
    help="End a configuration that gives no sign of life for so long.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Add JSON lines to FILE.")
@click.option(
    "-o", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Write results.jsonl, results.md, results.csv."
)
@click.option("--debug", is_flag=True, help="Show tracebacks, and what the workers print.")
def run(
    subjects: tuple[str, ...],
    runtimes: tuple[str, ...],
    device: str,
    batches: tuple[int, ...],
    threads: int | None,
    data: str | None,
    limit: int | None,
    duration: float,
    weights: str | None,
    seed: int,
    timeout: float,
    json_file: Path | None,
    folder: Path | None,
    debug: bool,
) -> None:
    """Measure artifacts, or variants exported on the way. Without any: the bundled trained model."""
    from benchmarks.request import Request

    request = Request(
        subjects, runtimes, device, batches, threads, data, limit, weights, seed, duration, timeout, debug
    )
    sys.exit(_run(request, json_file, folder))


def _run(request: Request, json_file: Path | None, folder: Path | None) -> int:
    from benchmarks import report
    from benchmarks.results import ResultsFile
    from benchmarks.run import exit_code
    from runtimes.errors import RexportError

    places = (None if folder is None else folder / "results.jsonl", json_file)
    kept = [ResultsFile(place) for place in places if place is not None]
    rows: list[Row] = []
    failure: RexportError | None = None
    try:
        with terminal.stdout_reserved():
            _measure(request, rows, kept)
        code, complete = exit_code(rows, request.runtimes), True
    except KeyboardInterrupt:
        code, complete = terminal.INTERRUPTED, False
    except SystemExit:  # SIGTERM, as exporter.terminal turns it
        code, complete = terminal.TERMINATED, False
    except RexportError as error:  # the disk, say: what was measured is still shown
        if not rows:
            raise
        code, complete, failure = error.exit_code, False, error
    report.print_table(rows, sys.stdout, complete)
    if folder is not None:
        _write(folder, rows, complete)
    if failure is not None:
        raise failure
    return code


def _measure(request: Request, rows: list[Row], kept: list[ResultsFile]) -> None:
    from benchmarks.request import Listener
    from benchmarks.run import run as measured

    progress = _Progress()
    try:
        with contextlib.closing(measured(request, Listener(progress.step, progress.notice))) as found:
            for row in found:
                rows.append(row)
                for file in kept:
                    file.append(row)
    finally:
        progress.clear()


def _write(folder: Path, rows: list[Row], complete: bool) -> None:
    from benchmarks import report
    from runtimes.files import write_atomically

    contents = {"results.md": report.markdown(rows, complete), "results.csv": report.csv_text(rows)}
    for name, content in contents.items():
        with write_atomically(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")


class _Progress:
    """Tells on standard error what is being measured: one line that changes on a terminal, else a line for each.

    It writes when a step begins and not in between: a spinner would take processor time from what is measured.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._subject: str | None = None

    def step(self, subject: str, step: str) -> None:
        if self._terminal:
            sys.stderr.write(f"{CLEAR_LINE}{subject}: {step}")
        elif subject != self._subject:
            sys.stderr.write(f"{subject}\n")
        self._subject = subject
        sys.stderr.flush()

    def notice(self, text: str) -> None:
        self.clear()
        sys.stderr.write(f"{text}\n")

    def clear(self) -> None:
        if self._terminal:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()


def main() -> None:
    """The console script."""
    terminal.run(rbench)


if __name__ == "__main__":
    main()
