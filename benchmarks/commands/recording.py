"""What the commands that measure have in common: the files that rows are kept in, and an early end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.commands import terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.records.result import Row
    from benchmarks.records.store import ResultsFile
    from runtimes.errors import RexportError


def files(*places: Path | None) -> list[ResultsFile]:
    """The files of those places that are named, ready to be added to.

    Raises:
        RexportError: as ``ResultsFile``.
    """
    from benchmarks.records.store import ResultsFile

    return [ResultsFile(place) for place in places if place is not None]


def run_to_end(work: Callable[[], None], rows: list[Row]) -> tuple[int | None, RexportError | None]:
    """Does the work, with standard output kept for the result. The exit code of an early end, and the error if one
    ended it, as a full disk does: what was measured is still to be shown. ``None`` and ``None`` if it is complete.

    Raises:
        RexportError: there is no row yet.
    """
    from runtimes.errors import RexportError

    try:
        with terminal.reserve_stdout():
            work()
    except KeyboardInterrupt:
        return terminal.INTERRUPTED, None
    except SystemExit:  # SIGTERM, as exporter.commands.terminal turns it
        return terminal.TERMINATED, None
    except RexportError as error:
        if not rows:
            raise
        return error.exit_code, error
    return None, None


def keep(row: Row, kept: list[ResultsFile]) -> None:
    """Adds the row to each file."""
    for file in kept:
        file.append(row)
