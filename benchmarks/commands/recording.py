"""What the commands that measure have in common: the files that results are kept in, and an early end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.commands import terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from benchmarks.records.request import RunListener
    from benchmarks.records.result import Result
    from benchmarks.records.store import ResultsFile
    from runtimes.errors import RexportError


def files(*places: Path | None) -> list[ResultsFile]:
    """The files of those places that are named, ready to be added to.

    Raises:
        RexportError: as ``ResultsFile``.
    """
    from benchmarks.records.store import ResultsFile

    return [ResultsFile(place) for place in places if place is not None]


def collect(
    measure: Callable[[RunListener], Generator[Result, None, None]], results: list[Result], kept: Sequence[ResultsFile]
) -> tuple[int | None, RexportError | None]:
    """Fills ``results`` and adds each to each file, with standard output kept for the result. The exit code of an
    early end, and the error if one ended it, as a full disk does: what was measured is still to be shown. ``None`` and
    ``None`` if it is complete.

    Raises:
        RexportError: there is no result yet.
    """
    from benchmarks.commands.progress import listening
    from benchmarks.harness.collection import collect as keep

    with terminal.reserve_stdout(), listening() as listener:
        ending = keep(measure(listener), results, kept)
    if isinstance(ending, KeyboardInterrupt):
        return terminal.INTERRUPTED, None
    if isinstance(ending, SystemExit):  # SIGTERM, as exporter.commands.terminal turns it
        return terminal.TERMINATED, None
    return (None, None) if ending is None else (ending.exit_code, ending)
