"""``rbench report``: rows that were measured before, as a page and as Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter import terminal

if TYPE_CHECKING:
    from benchmarks.results import Row

PAGE = Path("report.html")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RESULTS...")
@click.option(
    "-o", "page", type=click.Path(path_type=Path), metavar="FILE", help=f"[{PAGE}, unless --markdown is given alone]"
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="For a comment on a change; - is standard output.",
)
@click.option("--title", default="rbench", show_default=True, metavar="TEXT", help="Over the page.")
@terminal.debug_option
def report(results: tuple[Path, ...], page: Path | None, markdown: Path | None, title: str) -> None:
    """Show measured rows as one page that opens from disk, needs no network and nothing beside it.

    RESULTS are files of JSON lines, as rbench run leaves them, or folders with a results.jsonl. Of each configuration
    the rows of its last run are shown. Prints the path of what was written.
    """
    from benchmarks import outputs
    from benchmarks.html.page import html
    from benchmarks.markdown import markdown as in_markdown

    if page is None and markdown is None:
        page = PAGE
    _refuse_inputs(results, page, markdown)
    if page is not None:
        _need_plots()
    rows = _rows(results)
    if page is not None:
        outputs.put(page, html(rows, title))
        click.echo(page)
    if markdown is not None and str(markdown) != "-":
        outputs.put(markdown, in_markdown(rows, title))
        click.echo(markdown)
    elif markdown is not None:
        click.echo(in_markdown(rows, title), nl=False)


def _need_plots() -> None:
    from benchmarks.html import canvas
    from runtimes.errors import BackendUnavailableError

    if canvas.missing() is not None:
        raise BackendUnavailableError("the page's plots need matplotlib, which is not installed", hint=canvas.INSTALL)


def _refuse_inputs(results: tuple[Path, ...], *outputs: Path | None) -> None:
    """Nothing is written over what is read."""
    from benchmarks.results import located
    from runtimes.errors import UsageError

    read = {located(path).resolve() for path in results}
    for path in outputs:
        if path is not None and path.resolve() in read:
            raise UsageError("it is read and would be written over", path=path, hint="name another file")


def _rows(results: tuple[Path, ...]) -> tuple[Row, ...]:
    """All of them, without those that a later run of the same configuration has replaced, which a notice counts."""
    from benchmarks.compare.keys import latest
    from benchmarks.results import located, read
    from runtimes.errors import ArtifactError

    every = [row for path in results for row in read(located(path))]
    if not every:
        raise ArtifactError("no rows in it", path=results[0], hint="rbench run -o DIR makes some")
    kept = latest(every)
    if len(kept) < len(every):
        click.echo(f"{len(every) - len(kept)} rows of earlier runs of the same configurations are left out", err=True)
    return kept
