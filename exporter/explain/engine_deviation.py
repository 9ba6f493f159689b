"""The deviation of an engine's values from its ONNX graph, by marking values as outputs and building engines again.

The method is that of Polygraphy. An engine fuses layers and hides the values between them. An additional output shows a
value, but also ends a fusion there, so the error that is sought may vanish. Therefore:

1. The engine as it is: the deviation of its own outputs.
2. An engine with the output of each block marked: the deviation of each block.
3. If these outputs no longer deviate but those of the engine as it is do, engines with a single mark, by bisection: all
   fusions but one are then those of the engine as it is.

The values are compared with those of the graph as it is written, on the CPU, so that the rounding that the precision
itself brings does not count.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import runtimes
from exporter.models.positions import places
from exporter.precision.graph_probes import emulate_in_float32, mark_values, name_of, output_name
from exporter.precision.layer_errors import OPERATORS, relative, size_of
from runtimes import Runtime
from runtimes.errors import ModelMismatchError
from runtimes.protocol import Array, Arrays

if TYPE_CHECKING:
    import onnx

OpenEngine = Callable[["onnx.ModelProto"], Runtime]
"""A function that builds an engine from a graph and opens it."""


@dataclass(frozen=True)
class BlockDeviation:
    """The deviation of a block's output.

    Attributes:
        name: The name of the block.
        deviation: The root mean square of the differences from the graph as it is written, divided by that of the
            values. ``None`` if a value is not finite.
    """

    name: str
    deviation: float | None


@dataclass(frozen=True)
class EngineDeviation:
    """The deviation of an engine from its ONNX graph.

    Attributes:
        limit: The largest deviation that counts as rounding.
        output: The deviation of the outputs of the engine as it is.
        marked_output: The same of the engine with all blocks marked.
        blocks: The deviations of the blocks in this engine, in the order of the network.
        first: The first block whose output deviates by more than the limit, or ``None``.
        bisected: Whether ``first`` was found by bisection with single marks.
        engines: The number of engines that were built, the one as it is included.
    """

    limit: float
    output: float | None
    marked_output: float | None
    blocks: tuple[BlockDeviation, ...]
    first: str | None
    bisected: bool
    engines: int


def measure_deviation(
    graph: onnx.ModelProto, images: Sequence[Array], limit: float, open_engine: OpenEngine
) -> EngineDeviation:
    """Build engines from a graph and return where their values depart from it.

    The call blocks for the build of two engines, and of one more for each step of a bisection.

    Args:
        graph: The ONNX graph of the engine.
        images: The batches as the graph takes them, at least one.
        limit: The largest deviation that counts as rounding.
        open_engine: Builds and opens an engine. Each runtime is closed here.

    Raises:
        ModelMismatchError: The graph has no layers that can be marked.
        RexportError: An engine cannot be built or run, or no installed backend runs the graph on the CPU.
    """
    values = block_values(graph)
    outputs = [output.name for output in graph.graph.output]
    expected = _expected(graph, list(values.values()), images)
    engines = 0

    def deviations(marked: Sequence[str]) -> dict[str, float | None]:
        nonlocal engines
        engines += 1
        with open_engine(mark_values(graph, [values[name] for name in marked])) as runtime:
            given = [runtime.infer({runtime.inputs[0].name: batch}) for batch in images]
        return _compare(given, expected, [*outputs, *(output_name(values[name]) for name in marked)])

    output = _largest(deviations(()), outputs)
    marked = deviations(tuple(values))
    blocks = tuple(BlockDeviation(name, marked[output_name(value)]) for name, value in values.items())
    marked_output = _largest(marked, outputs)
    first = next((block.name for block in blocks if size_of(block.deviation) > limit), None)
    bisected = first is None and size_of(output) > limit
    if bisected:
        names = list(values)
        first = bisect(names, lambda name: size_of(deviations((name,))[output_name(values[name])]) > limit)
    return EngineDeviation(limit, output, marked_output, blocks, first, bisected, engines)


def block_values(graph: onnx.ModelProto) -> dict[str, str]:
    """Return the name of the value that each block returns, by the name of the block, in the order of the network.

    Raises:
        ModelMismatchError: The graph has no layers whose values can be compared.
    """
    nodes = list(graph.graph.node)
    positions = places([name_of(node) for node in nodes])
    values = {
        position.block: node.output[0]
        for position, node in zip(positions, nodes, strict=True)
        if node.op_type in OPERATORS
    }
    if not values:
        raise ModelMismatchError("the graph has no layers whose values can be compared", code="graph-without-layers")
    return values


def bisect(names: Sequence[str], deviates: Callable[[str], bool]) -> str | None:
    """Return the first name that deviates, or ``None`` if not even the last one does.

    The number of calls grows with the logarithm of the number of names: all names after the first deviating one are
    assumed to deviate, too.

    Args:
        names: The names in order.
        deviates: Whether the value of a name deviates.
    """
    if not names or not deviates(names[-1]):
        return None
    low, high = 0, len(names) - 1  # names[high] deviates
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if deviates(names[middle]) else (middle + 1, high)
    return names[high]


def _expected(graph: onnx.ModelProto, values: Sequence[str], images: Sequence[Array]) -> list[Arrays]:
    """Return the marked values and the outputs of the graph as it is written, on the CPU, one entry a batch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "written.onnx")
        path.write_bytes(mark_values(emulate_in_float32(graph), values).SerializeToString())
        with runtimes.open(path) as runtime:
            return [runtime.infer({runtime.inputs[0].name: batch}) for batch in images]


def _compare(given: Sequence[Arrays], expected: Sequence[Arrays], names: Sequence[str]) -> dict[str, float | None]:
    """Return the deviation of each output over all batches."""
    result = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for name in names:
            pairs = [(ours[name], theirs[name]) for ours, theirs in zip(given, expected, strict=True)]
            difference = math.fsum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
            result[name] = relative(
                difference, math.fsum(float(np.square(b, dtype=np.float64).sum()) for _, b in pairs)
            )
    return result


def _largest(deviations: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    return max((deviations[name] for name in names), key=size_of)
