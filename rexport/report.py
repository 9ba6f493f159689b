"""The report of a benchmark: its rows, and how they are shown and saved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.analysis.figures import Figures
from benchmarks.commands import outputs
from benchmarks.records.store import FILE_NAME, ResultsFile, read
from benchmarks.report.csv_export import record
from benchmarks.report.document import run_document
from benchmarks.report_html.fragment import html_fragment
from exporter.document.blocks import Remark, Sentence
from exporter.document.terminal import as_text
from runtimes.arguments import require_not_empty
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from exporter.document.blocks import Document

ROWS_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Report:
    """What a benchmark measured. ``print`` shows its table as the command does; a notebook shows it as HTML.

    Attributes:
        rows: one for each combination of network, precision, backend and batch size, in the order in which they were
            measured. A row has figures such as ``p50`` (seconds), ``images_per_s``, ``top1`` (0 to 1), each an
            estimate with ``value``, ``low`` and ``high`` where it has an interval, or ``None`` where it was not
            measured; and ``result``, with the raw samples, the machine, and the ``status``. What could not be measured
            is a row whose ``result.reason`` says why.
        complete: whether the benchmark came to its end.

    Examples:
        >>> report = rexport.benchmark("resnet20.onnx")
        >>> for row in report.rows:
        ...     print(row.result.identity.backend, row.p50)
    """

    rows: tuple[Figures, ...]
    complete: bool = True

    @property
    def verdict(self) -> str:
        """Which configuration is the fastest, a line for each network and batch size; if nothing was measured, why."""
        sentences, failures = [], []
        for section in self._document.sections:
            sentences += [block.text for block in section.all_of(Sentence) if block.role == "headline"]
            failures += [block.text for block in section.all_of(Remark) if block.kind == "failure"]
        return "\n".join(sentences or failures) or "Nothing was measured."

    def to_records(self) -> list[dict[str, object]]:
        """The rows as flat dicts of text and numbers, with the columns of the CSV file; ``None`` is what was not
        measured. Durations are seconds, sizes are bytes, shares lie between 0 and 1.

        Examples:
            >>> pandas.DataFrame(report.to_records())[["backend", "precision", "p50_s"]]
        """
        return [record(row) for row in self.rows]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report, and gives the path.

        Args:
            path: ``.html``: a page with plots that needs nothing beside it. ``.md``: Markdown for a comment.
                ``.csv``: a spreadsheet. ``.jsonl``: the rows with their raw samples, which ``rbench report`` and
                ``rbench compare`` read. No suffix, or a folder that exists: all of these as ``results.*`` in the
                folder. What is there is replaced; but a ``.jsonl`` file keeps its rows, and gets those that it lacks.

        Raises:
            UsageError: another suffix, or an empty text.
            ResourceError: the file cannot be written; it is as it was.
            ArtifactError: a ``.jsonl`` file is there that holds something else than rows; it is left as it is.
        """
        require_not_empty(path=path)
        target = Path(path)
        if target.is_dir() or not target.suffix:
            self._add_rows(target / FILE_NAME)
            outputs.write(target, self.rows, self.complete)
        elif target.suffix == ROWS_SUFFIX:
            self._add_rows(target)
        elif target.suffix in outputs.RENDERERS:
            outputs.write_file(target, self.rows, self.complete)
        else:
            known = ", ".join(sorted([ROWS_SUFFIX, *outputs.RENDERERS]))
            raise UsageError(
                f"a report has one of the suffixes {known}, not {target.suffix}",
                code="report-suffix-unknown",
                path=target,
                hint="end the path in one of them; without a suffix it is a folder for all of them",
            )
        return target

    def _add_rows(self, path: Path) -> None:
        file = ResultsFile(path)
        kept = read(path) if path.exists() else ()
        for row in self.rows:
            if row.result not in kept:
                file.append(row.result, row.as_json())

    @property
    def _document(self) -> Document:
        return run_document(self.rows, self.complete)

    def __str__(self) -> str:
        return as_text(self._document)

    def __repr__(self) -> str:
        return f"<rexport.Report of {len(self.rows)} rows{'' if self.complete else ', incomplete'}>"

    def _repr_html_(self) -> str:
        return html_fragment(self._document)
