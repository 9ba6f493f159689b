"""Results as they are measured: kept in memory and in files, whatever ends the measuring early."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from benchmarks.analysis.figures import Figures
from benchmarks.records.result import Result
from benchmarks.records.store import ResultsFile
from runtimes.errors import RexportError


def collect(
    measured: Generator[Result, None, None], results: list[Result], kept: Sequence[ResultsFile] = ()
) -> KeyboardInterrupt | SystemExit | RexportError | None:
    """Adds each result to ``results`` and to each file at once; blocks until all is measured.

    Returns:
        What ended the measuring early, with the results up to there in ``results``: an interrupt, the end of the
        process that was asked for, or an error, as of a full disk. ``None`` if it is complete.

    Raises:
        RexportError: there is no result yet.
    """
    try:
        with closing(measured):
            for result in measured:
                results.append(result)
                for file in kept:
                    file.append(result, Figures.of(result, results).as_json())
    except (KeyboardInterrupt, SystemExit) as ending:
        return ending
    except RexportError as error:
        if not results:
            raise
        return error
    return None
