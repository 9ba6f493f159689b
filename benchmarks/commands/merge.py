"""``rbench merge``. Everything heavy is imported late."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.commands import options
from exporter.commands import terminal


@click.command(context_settings=options.SETTINGS)
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|DIR...")
@click.option("-o", "out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="To write.")
@click.option("--force", is_flag=True, help="Replace the file if it is there, even if it is one of those to merge.")
@terminal.debug_option
def merge(sources: tuple[Path, ...], out: Path, force: bool) -> None:
    """Put the rows of several files, of several machines too, into one. A row that is in more than one stands once."""
    from benchmarks.compare import merge as merging

    merged = merging.merge(sources, out, force)
    left_out = f"; left out as duplicates: {merged.duplicates}" if merged.duplicates else ""
    click.echo(f"rows: {len(merged.results)} of files: {len(sources)}{left_out}", err=True)
    click.echo(out)
