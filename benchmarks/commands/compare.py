"""``rbench compare``. Everything heavy is imported late."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchmarks.commands import options
from benchmarks.records.identity import FIELDS
from exporter.commands import terminal

_FIELD_NAMES = [field.name for field in FIELDS]


def fraction(context: click.Context, param: click.Parameter, value: str) -> float:
    """From ``5%`` or ``0.05``."""
    try:
        part = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no percentage: write 5% or 0.05", context, param) from None
    if not 0 <= part < float("inf"):
        raise click.BadParameter(f"{value!r} is not a number from 0 on", context, param)
    if part >= 1 and not value.endswith("%"):
        raise click.BadParameter(f"{value!r} is no fraction of 1: write {value}% or 0.05", context, param)
    return part


@click.command(context_settings=options.SETTINGS)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--max-slowdown",
    callback=fraction,
    default="5%",
    show_default=True,
    metavar="PERCENT",
    help="Largest slowdown of the p50 that passes, as 5% or 0.05.",
)
@options.max_drop_option("Largest loss of top-1 that passes, in percentage points.")
@click.option(
    "--across",
    multiple=True,
    type=click.Choice(_FIELD_NAMES),
    metavar="KEY",
    help=f"Let rows be compared although they differ in KEY; repeatable. One of {', '.join(_FIELD_NAMES)}.",
)
@click.option(
    "--allow-missing",
    "missing",
    is_flag=True,
    help="Let pass what OLD measured and NEW lacks or has skipped, as where NEW is of fewer backends.",
)
@terminal.json_option
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for a pull request.")
@terminal.debug_option
def compare(
    old: Path,
    new: Path,
    max_slowdown: float,
    max_drop: float,
    across: tuple[str, ...],
    missing: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Say whether NEW is slower than OLD or answers worse, and exit with 1 if so.

    OLD and NEW are files of rows as rbench run writes them, or folders with a results.jsonl; of several runs in a file
    the last one counts. All figures are taken from the raw samples and answers. A row is a regression if it is slower
    with 95 % confidence and by more than --max-slowdown, if it lost top-1 likewise, or if it was measured before and
    now fails, is skipped or is not there. Rows of another model file, machine, device, thread count or rate are refused
    unless --across allows it.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown exclude each other")
    from benchmarks.compare import compare as comparing
    from benchmarks.report.comparison import comparison_document
    from benchmarks.report.markdown import markdown
    from exporter.document.terminal import print_document
    from runtimes import codec

    found = comparing.compare(old, new, comparing.Limits(max_slowdown, max_drop, across, missing))
    if as_json:
        click.echo(codec.dumps(found, indent=2))
    elif as_markdown:
        click.echo(markdown(comparison_document(found)), nl=False)
    else:
        print_document(comparison_document(found), sys.stdout)
    sys.exit(0 if found.passed else 1)
