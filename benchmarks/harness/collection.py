"""Results as they are measured: kept in memory and in files, whatever ends the measuring early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.analysis.figures import Figures
from benchmarks.records.result import Result
from benchmarks.records.store import ResultsFile
from runtimes.errors import RexportError


class Collection:
    """All results of one measuring, each added to the files at once. Its ``with`` block is the measuring.

    The block ends without an error where an interrupt, the end of the process that was asked for, or an error such as
    a full disk ended it: what was measured is kept. An error before the first result passes through.
    """

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Opens the files.

        Args:
            paths: The result files that keep what is measured as well.

        Raises:
            RexportError: as ``ResultsFile``.
        """
        self.results: list[Result] = []
        self.ending: KeyboardInterrupt | SystemExit | RexportError | None = None
        """What ended the measuring early; ``None`` while it goes on and if it is complete."""
        self._files = [ResultsFile(path) for path in paths]

    def add(self, result: Result) -> None:
        """Keeps a result, with the figures that can be derived from those up to it.

        Raises:
            ResourceError: a file cannot be written.
        """
        self.results.append(result)
        for file in self._files:
            file.append(result, Figures.of(result, self.results).as_json())

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, (KeyboardInterrupt, SystemExit)) or (isinstance(error, RexportError) and self.results):
            self.ending = error
            return True
        return False
