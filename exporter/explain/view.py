"""An explanation for people: one table with the worst first, and what it comes to in two lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from exporter.document.blocks import Document, Legend, Sentence, Table, TableColumn, TableRow
from exporter.explain.explanation import Errors, Explanation
from exporter.explain.layer_errors import BlockError, LayerError, StageError
from exporter.explain.profile_summary import ExecutedPart, Execution, ProfileRemark
from exporter.format import count, milliseconds

Detail: TypeAlias = Literal["stage", "block", "layer"]
"""Down to what the table goes."""


@dataclass(frozen=True)
class ExplanationRow:
    """A line of the table: ``depth`` 0 for a stage, 1 for a block, 2 for a layer. What is ``None`` is not known."""

    name: str
    depth: int
    ran: ExecutedPart | None
    error: StageError | BlockError | LayerError | None
    remarks: tuple[ProfileRemark, ...]


def rows(explanation: Explanation, detail: Detail) -> tuple[ExplanationRow, ...]:
    """The stages with the largest new error first, or those that take the most time where errors are not known."""
    parts = {} if explanation.execution is None else {part.name: part for part in explanation.execution.stages}
    errors = {} if explanation.errors is None else {stage.name: stage for stage in explanation.errors.stages}
    names = list(errors) or sorted(parts, key=lambda name: -(parts[name].share or 0))
    names += [name for name in parts if name not in names]
    return tuple(row for name in names for row in _stage_rows(name, parts.get(name), errors.get(name), detail))


def _stage_rows(
    name: str, part: ExecutedPart | None, error: StageError | None, detail: Detail
) -> Iterator[ExplanationRow]:
    parts = {} if part is None else {block.name: block for block in part.blocks}
    errors = {} if error is None else {block.name: block for block in error.blocks}
    names = list(errors) or sorted(parts, key=lambda block: -(parts[block].share or 0))
    names += [block for block in parts if block not in names]
    alone = names in ([], [name])
    remarks = () if part is None or (detail != "stage" and not alone) else part.remarks
    yield ExplanationRow(name, 0, part, error, remarks)
    for block in names if detail != "stage" else ():
        if not alone:
            mine = parts.get(block)
            yield ExplanationRow(block, 1, mine, errors.get(block), () if mine is None else mine.remarks)
        if detail == "layer" and block in errors:
            for layer in errors[block].layers:
                yield ExplanationRow(_short(layer.name, block), 2, None, layer, ())


def explanation_document(explanation: Explanation, detail: Detail) -> Document:
    """One table, what its columns are, and the verdict."""
    verdicts = map(Sentence, verdict(explanation))
    blocks = (
        Sentence(_title(explanation), "headline"),
        _table(explanation, detail),
        Legend(tuple(_legend(explanation))),
        *verdicts,
    )
    return Document("rexport explain", blocks)


def _title(explanation: Explanation) -> str:
    parts = [Path(explanation.artifact).name, explanation.precision]
    if explanation.execution is not None:
        about = explanation.execution.description
        parts.append(f"{about.backend} {about.version} ({about.provider})")
        parts.append(f"{about.device}, {count(about.threads, 'thread')}")
    return " · ".join(parts)


def _table(explanation: Explanation, detail: Detail) -> Table:
    ran, errors = explanation.execution is not None, explanation.errors is not None
    numbers = [*(("ms", "time %") if ran else ()), *(("error %", "new %") if errors else ())]
    columns = (
        TableColumn("block" if detail != "stage" else "stage", left=True, unbroken=True),
        *([TableColumn("ran in", left=True)] if ran else ()),
        *(TableColumn(heading, unbroken=True) for heading in numbers),
        *([TableColumn("remarks", left=True)] if ran else ()),
    )
    lines = (
        TableRow(tuple(_cells(row, ran, errors)), state="strong" if row.depth == 0 and detail != "stage" else "")
        for row in rows(explanation, detail)
    )
    return Table(columns, tuple(lines))


def _cells(row: ExplanationRow, ran: bool, errors: bool) -> Iterator[str]:
    part = row.ran
    yield "  " * row.depth + row.name
    if ran:
        yield "" if part is None else _mixture(part)
        yield "" if part is None else milliseconds(part.duration_s)
        yield "" if part is None or part.share is None else f"{100 * part.share:.1f}"
    if errors:
        yield "" if row.error is None else percent(row.error.error)
        yield "" if row.error is None else percent(row.error.new)
    if ran:
        yield "; ".join(_format_remark(remark, row.name) for remark in row.remarks)


def _mixture(part: ExecutedPart) -> str:
    if len(part.precisions) == 1:
        return next(iter(part.precisions))
    return ", ".join(f"{count} {precision}" for precision, count in part.precisions.items())


def _format_remark(remark: ProfileRemark, place: str) -> str:
    if remark.kind == "weighted":
        text = f"{', '.join(_module(name, place) for name in remark.nodes)} in {remark.precision}"
    else:
        count = f"{len(remark.nodes)} " if len(remark.nodes) > 1 else ""
        text = count + remark.operator + (f" in {remark.precision}" if remark.kind == "float" else "")
    return text if remark.duration_s is None else f"{text}, {milliseconds(remark.duration_s)} ms"


def _short(name: str, place: str) -> str:
    """A node's name within its block; as it is among a whole stage's."""
    within = "." in place and name.startswith((f"{place}.", f"{place}/"))
    return name.removeprefix(place).lstrip("./") if within else name


def _module(name: str, place: str) -> str:
    """The module that a node belongs to, within its block."""
    short = _short(name, place)
    return short.rpartition("/")[0] or short


def percent(share: float | None) -> str:
    """An error in per cent with three digits: ``6.01``, ``0.0329``, ``<0.001``, or ``inf`` where it is not finite."""
    if share is None:
        return "inf"
    value = 100 * share
    return "<0.001" if 0 < value < 0.001 else "0" if value == 0 else f"{value:#.3g}".rstrip(".")


def _legend(explanation: Explanation) -> Iterator[str]:
    if explanation.execution is not None:
        yield "ms: of one run under the library's profiler, which costs time itself."
    if explanation.errors is not None:
        found = explanation.errors
        yield f"error: rms of the differences from {found.reference} over its own rms, on {found.images};"
        yield "new: the same if fp32's values go into the block or layer, of a stage its worst block's."
        yield f"as written: every step for itself, on {found.runtime}."


def verdict(explanation: Explanation) -> tuple[str, str]:
    """What ran, and where the largest error comes in, or why that is not known."""
    ran, errors = explanation.execution, explanation.errors
    first = (
        f"what ran is not known: {explanation.no_execution}"
        if ran is None
        else _format_execution(ran, explanation.precision)
    )
    second = f"errors are not known: {explanation.no_errors}" if errors is None else _wrong(errors)
    return first, second


def _format_execution(ran: Execution, precision: str) -> str:
    weighted = sum(ran.precisions.values())
    if not weighted:
        return "no layer with weights ran"
    first, *others = ran.precisions.items()
    text = f"runs {first[0]} in {f'{first[1]} of' if others else 'all'} {weighted} weighted layers"
    text += "".join(f", {name} in {count}" for name, count in others)
    if not ran.kept:
        text += f", and not {precision}"
    if ran.weighted_share is not None and ran.conversion_share is not None:
        spent = [f"{100 * share:.0f} %" for share in (ran.weighted_share, ran.conversion_share)]
        text += f"; {spent[0]} of the time in them, {spent[1]} in conversions"
    return text


def _wrong(errors: Errors) -> str:
    block = errors.stages[0].blocks[0]
    text = f"most error enters at {block.name}: {percent(block.new)} %"
    if len(block.layers) > 1:
        text += f", at {_module(block.layers[0].name, block.name)}"
    text += f"; answers {percent(errors.written)} % off as written"
    return text if errors.ran is None else f"{text}, {percent(errors.ran)} % as it ran"
