"""Tables of an engine: the kernel of each step with the nodes fused into it, and the deviation of each block."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.document.blocks import Table, TableColumn, TableRow
from exporter.explain.engine_deviation import EngineDeviation
from exporter.explain.profile_summary import Execution
from exporter.format import milliseconds, percent
from exporter.precision.layer_errors import size_of
from runtimes.protocol import Layer


def kernel_table(execution: Execution | None) -> Table | None:
    """Return the steps in their order with fused nodes and kernels, or ``None`` if the library names no kernels."""
    steps = () if execution is None else tuple(_steps(execution))
    if not any(step.tactic for step in steps):
        return None
    columns = (
        TableColumn("step", left=True),
        TableColumn("executed as", left=True),
        TableColumn("ms", unbroken=True),
        TableColumn("kernel", left=True),
    )
    lines = (
        TableRow(
            (
                " + ".join(step.nodes) or step.name,
                step.precision,
                milliseconds(step.duration_s),
                step.tactic or "",
            )
        )
        for step in steps
    )
    return Table(columns, tuple(lines))


def deviation_table(deviation: EngineDeviation | None) -> Table | None:
    """Return the deviation of each block in the order of the network, or ``None`` if it is not known."""
    if deviation is None:
        return None
    columns = (TableColumn("block", left=True, unbroken=True), TableColumn("deviation %", unbroken=True))
    lines = (
        TableRow(
            (block.name, percent(block.deviation)),
            state="strong" if size_of(block.deviation) > deviation.limit else "",
        )
        for block in deviation.blocks
    )
    return Table(columns, tuple(lines))


def _steps(execution: Execution) -> Iterator[Layer]:
    for stage in execution.stages:
        for part in stage.blocks or (stage,):
            yield from part.steps
