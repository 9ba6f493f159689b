"""Explanations for people: one table with the largest errors first, and a summary in two lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from exporter.document.blocks import Document, Legend, Sentence, Table, TableColumn, TableRow
from exporter.explain import engine_tables
from exporter.explain.explanation import Errors, Explanation
from exporter.explain.profile_summary import ExecutedPart, Execution, ProfileRemark
from exporter.format import count, milliseconds, percent
from exporter.precision.layer_errors import BlockError, LayerError, StageError

Detail: TypeAlias = Literal["stage", "block", "layer"]
"""The lowest level of the table."""


@dataclass(frozen=True)
class ExplanationRow:
    """A row of the table.

    Attributes:
        name: The name of the stage, block or layer.
        depth: 0 for a stage, 1 for a block, 2 for a layer.
        ran: The part as it was executed, or ``None`` if unknown.
        error: The error against fp32, or ``None`` if unknown.
        remarks: The remarks on the execution.
    """

    name: str
    depth: int
    ran: ExecutedPart | None
    error: StageError | BlockError | LayerError | None
    remarks: tuple[ProfileRemark, ...]


def rows(explanation: Explanation, detail: Detail) -> tuple[ExplanationRow, ...]:
    """Return the rows of the table.

    The stages with the largest new error come first. If errors are unknown, the stages with the longest time come
    first.

    Args:
        explanation: The explanation.
        detail: The lowest level.
    """
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
    """Return a document with the table for an ``explanation``, down to ``detail``, the legend and the verdict.

    For the layers of an engine, a second table has the kernels. A third has the deviation of the blocks, if known.
    """
    lines = (*verdict(explanation), *deviation_verdict(explanation))
    kernels = engine_tables.kernel_table(explanation.execution) if detail == "layer" else None
    deviation = engine_tables.deviation_table(explanation.deviation)
    blocks = (
        Sentence(_title(explanation), "headline"),
        _table(explanation, detail),
        *(table for table in (kernels, deviation) if table is not None),
        Legend(tuple(_legend(explanation))),
        *map(Sentence, lines),
    )
    return Document("rexport explain", blocks)


def _title(explanation: Explanation) -> str:
    parts = [Path(explanation.artifact).name, explanation.precision]
    if explanation.execution is not None:
        description = explanation.execution.description
        parts.append(f"{description.backend} {description.version} ({description.provider})")
        parts.append(f"{description.device}, {count(description.threads, 'thread')}")
    return " · ".join(parts)


def _table(explanation: Explanation, detail: Detail) -> Table:
    ran, errors = explanation.execution is not None, explanation.errors is not None
    numbers = [*(("ms", "time %") if ran else ()), *(("error %", "new error %") if errors else ())]
    columns = (
        TableColumn("block" if detail != "stage" else "stage", left=True, unbroken=True),
        *([TableColumn("executed as", left=True)] if ran else ()),
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


def _format_remark(remark: ProfileRemark, prefix: str) -> str:
    if remark.kind == "weighted":
        text = f"{', '.join(_module(name, prefix) for name in remark.nodes)} in {remark.precision}"
    else:
        count = f"{len(remark.nodes)} " if len(remark.nodes) > 1 else ""
        text = count + remark.operator + (f" in {remark.precision}" if remark.kind == "float" else "")
    return text if remark.duration_s is None else f"{text}, {milliseconds(remark.duration_s)} ms"


def _short(name: str, prefix: str) -> str:
    """Return the name of a node without the name of its block, or unchanged outside a block."""
    within = "." in prefix and name.startswith((f"{prefix}.", f"{prefix}/"))
    return name.removeprefix(prefix).lstrip("./") if within else name


def _module(name: str, prefix: str) -> str:
    """Return the module of a node, without the name of its block."""
    short = _short(name, prefix)
    return short.rpartition("/")[0] or short


def _legend(explanation: Explanation) -> Iterator[tuple[str, str]]:
    if explanation.execution is not None:
        yield "ms", "the time of one run under the library's profiler, which itself takes time"
    if explanation.errors is not None:
        errors = explanation.errors
        yield "error", f"the RMS of the differences from {errors.reference}, relative to its RMS, on {errors.images}"
        yield "new error", "the error if the block or layer receives fp32 values; for a stage, its worst block"
        yield "as written", f"each step of the graph is computed separately, with {errors.runtime}"
    if explanation.deviation is not None:
        yield (
            "deviation",
            "the RMS of the differences of the engine from its ONNX graph as written, relative to its RMS",
        )


def verdict(explanation: Explanation) -> tuple[str, str]:
    """Return two lines: the executed precisions, and the largest new error; or the reasons why they are unknown."""
    ran, errors = explanation.execution, explanation.errors
    first = (
        f"no execution profile: {explanation.no_execution}"
        if ran is None
        else _format_execution(ran, explanation.precision)
    )
    second = f"no comparison with fp32: {explanation.no_errors}" if errors is None else _format_errors(errors)
    return first, second


def deviation_verdict(explanation: Explanation) -> tuple[str, ...]:
    """Return one line on the deviation of an engine from its ONNX graph, or none if it was not asked for."""
    if explanation.no_deviation is not None:
        return (f"no deviation of the engine: {explanation.no_deviation}",)
    found = explanation.deviation
    if found is None:
        return ()
    output, marked, limit = (percent(share) for share in (found.output, found.marked_output, found.limit))
    text = f"the outputs of the engine deviate by {output} % from its ONNX graph (limit {limit} %)"
    engines = count(found.engines, "engine")
    if found.first is None:
        why = f", and {marked} % with all blocks shown" if output != marked else ""
        return (f"{text}{why}; no block is beyond the limit ({engines} built)",)
    how = "found by bisection, because the deviation vanishes when all blocks are shown" if found.bisected else "shown"
    return (f"{text}; the first block beyond the limit is {found.first}, {how} ({engines} built)",)


def _format_execution(ran: Execution, precision: str) -> str:
    weighted = sum(ran.precisions.values())
    if not weighted:
        return "no weighted layers were executed"
    first, *others = ran.precisions.items()
    text = f"{f'{first[1]} of' if others else 'all'} {weighted} weighted layers executed as {first[0]}"
    text += "".join(f", {count} as {name}" for name, count in others)
    if not ran.kept:
        text += f", none as {precision}"
    if ran.weighted_share is not None and ran.conversion_share is not None:
        shares = [f"{100 * share:.0f} %" for share in (ran.weighted_share, ran.conversion_share)]
        text += f"; {shares[0]} of the time in weighted layers, {shares[1]} in conversions"
    return text


def _format_errors(errors: Errors) -> str:
    block = errors.stages[0].blocks[0]
    text = f"largest new error in {block.name}: {percent(block.new)} %"
    if len(block.layers) > 1:
        text += f", mostly from {_module(block.layers[0].name, block.name)}"
    text += f"; error of the outputs {percent(errors.written)} % as written"
    return text if errors.ran is None else f"{text}, {percent(errors.ran)} % as executed"
