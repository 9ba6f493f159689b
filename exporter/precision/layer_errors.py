"""Errors of a typed graph: the values of its layers compared with those of the same network in fp32.

Both graphs run with the default backend, one batch at a time, with the value of each layer as an additional output. The
typed graph runs *as it is written*. Its Q/DQ nodes round exactly, because no fusion is possible across an output. A
16-bit graph computes in float32 and rounds each value to its type (``emulate_in_float32``), so the result is the same
on a machine without 16-bit arithmetic. In two more copies, each block or each layer receives the values of fp32 as
inputs. The error at its output is then *new*, not inherited from earlier layers.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import runtimes
from exporter.models.positions import NetworkPosition, places
from exporter.precision.graph_probes import (
    add_inputs,
    emulate_in_float32,
    expose_values,
    input_name,
    name_of,
    value_types,
)
from runtimes import Runtime
from runtimes.errors import ModelMismatchError, quote
from runtimes.protocol import Array, Arrays

if TYPE_CHECKING:
    import onnx

OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "ReduceMean", "GlobalAveragePool")
"""The operators whose values are compared."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class LayerError:
    """The error of a layer's values against fp32.

    Attributes:
        name: The name of the node.
        error: The root mean square of the differences, divided by that of the fp32 values, over all images. ``None`` if
            a value is not finite.
        new: The same if the layer receives the values of fp32, which is the error that the layer adds.
    """

    name: str
    error: float | None
    new: float | None


@dataclass(frozen=True)
class BlockError:
    """The error of a block's output against fp32.

    Attributes:
        name: The name of the block.
        error: The error of the output, as in ``LayerError``.
        new: The error of the output if the block receives the values of fp32.
        layers: The layers, with the largest ``new`` first.
    """

    name: str
    error: float | None
    new: float | None
    layers: tuple[LayerError, ...]


@dataclass(frozen=True)
class StageError:
    """The error of a stage's output against fp32.

    Attributes:
        name: The name of the stage.
        error: The error of the output, as in ``LayerError``.
        new: The largest ``new`` of the blocks.
        blocks: The blocks, with the largest ``new`` first.
    """

    name: str
    error: float | None
    new: float | None
    blocks: tuple[BlockError, ...]


@dataclass(frozen=True, eq=False)
class GraphComparison:
    """The comparison of two graphs.

    Attributes:
        runtime: The backend that ran both graphs, with its version.
        stages: The stages, with the largest ``new`` first.
        error: The error of the last layer's values.
        logits: The outputs of the fp32 graph, float32 (n, ...).
    """

    runtime: str
    stages: tuple[StageError, ...]
    error: float | None
    logits: Array


@dataclass(frozen=True)
class GraphInputs:
    """A batch for both graphs.

    Attributes:
        typed: The input of the typed graph (n, ...).
        reference: The input of the fp32 graph (n, ...).
        count: The number of images. The rows that follow them fill the batch.
    """

    typed: Array
    reference: Array
    count: int


def size_of(error: float | None) -> float:
    """Return an error as a key for sorting. An error that is not finite is the largest."""
    return math.inf if error is None else error


def relative(difference: float, size: float) -> float | None:
    """Return the square root of ``difference / size``, two sums of squares, or ``None`` if the root is not finite."""
    if not math.isfinite(difference) or not math.isfinite(size) or (size == 0 < difference):
        return None
    return math.sqrt(difference / size) if size else 0.0


def compare(
    typed: onnx.ModelProto, reference: onnx.ModelProto, images: Iterable[GraphInputs], threads: int | None = None
) -> GraphComparison:
    """Compare the layers of two graphs.

    The call blocks for four runs of each image, and keeps the values of one batch in memory. The graphs are not
    changed.

    Args:
        typed: The graph of the artifact.
        reference: The fp32 graph of the same network.
        images: The batches, at least one.
        threads: The number of threads, as for ``runtimes.open``.

    Raises:
        ModelMismatchError: The graphs do not belong to the same network.
        RexportError: No installed backend runs the graphs, or an image does not fit.
    """
    points = _points(typed, reference)
    logits_name = reference.graph.output[0].name
    exact_values = list(dict.fromkeys([*(point.reference for point in points), logits_name]))
    sums, logits = np.zeros((4, len(points))), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def open_graph(graph: onnx.ModelProto, name: str) -> Runtime:
            (folder / name).write_bytes(graph.SerializeToString())
            return stack.enter_context(runtimes.open(folder / name, threads=threads))

        expected = open_graph(expose_values(reference, exact_values), "reference.onnx")
        copies = _copies(typed, reference, points)
        others = [(open_graph(graph, f"{index}.onnx"), fed_points) for index, (graph, fed_points) in enumerate(copies)]
        for batch in images:
            exact = expected.infer({expected.inputs[0].name: batch.reference})
            sums[0] += _squares(points, exact, None, batch.count)
            for number, (runtime, fed_points) in enumerate(others, start=1):
                feeds = {input_name(point.typed): exact[point.reference] for point in fed_points}
                outputs = runtime.infer({runtime.inputs[0].name: batch.typed} | feeds)
                sums[number] += _squares(points, exact, outputs, batch.count)
            logits.append(exact[logits_name][: batch.count])
        description = expected.description
    error = relative(sums[1, -1], sums[0, -1])
    return GraphComparison(
        f"{description.backend} {description.version}", _stages(points, sums), error, np.concatenate(logits)
    )


@dataclass(frozen=True)
class _Point:
    """A layer of both graphs.

    Attributes:
        name: The name of the node.
        place: The position of the layer.
        typed: The name of its value in the typed graph.
        reference: The name of its value in the fp32 graph.
        taken: Whether other nodes use the value.
        leaves: Whether other blocks use the value.
        inside: The names of the nodes in the block of the layer.
    """

    name: str
    place: NetworkPosition
    typed: str
    reference: str
    taken: bool
    leaves: bool
    inside: frozenset[str]


def _points(typed: onnx.ModelProto, reference: onnx.ModelProto) -> list[_Point]:
    nodes = list(reference.graph.node)
    values = {(name_of(node), node.op_type): node.output[0] for node in typed.graph.node}
    _check_layers(values.keys(), {(name_of(node), node.op_type) for node in nodes})
    positions = places([name_of(node) for node in nodes])
    users: dict[str, set[str]] = {}
    members: dict[str, set[str]] = {}
    for node, place in zip(nodes, positions, strict=True):
        members.setdefault(place.block, set()).add(name_of(node))
        for value in node.input:
            users.setdefault(value, set()).add(place.block)
    shapes = value_types(reference)
    points = [
        _Point(
            name=name_of(node),
            place=place,
            typed=values[name_of(node), node.op_type],
            reference=node.output[0],
            taken=node.output[0] in users,
            leaves=bool(users.get(node.output[0], set()) - {place.block}),
            inside=frozenset(members[place.block]),
        )
        for node, place in zip(nodes, positions, strict=True)
        if node.op_type in OPERATORS and (name_of(node), node.op_type) in values and node.output[0] in shapes
    ]
    _check_shapes(points, value_types(typed), shapes)
    return points


def _check_layers(ours: Set[tuple[str, str]], theirs: Set[tuple[str, str]]) -> None:
    """Check that both graphs have the same layers with weights, which no quantiser adds or removes."""
    unmatched = sorted(name for name, operator in ours ^ theirs if operator in _WEIGHTED)
    if unmatched:
        raise _mismatch(f"only one of them has the layer {quote(unmatched[0])!r}")
    if not any(operator in _WEIGHTED for _, operator in ours):
        raise _mismatch("they have no layers with weights")


def _check_shapes(
    points: Sequence[_Point], ours: Mapping[str, onnx.TypeProto], theirs: Mapping[str, onnx.TypeProto]
) -> None:
    for point in points:
        if point.typed not in ours:  # onnx infers no shape behind the GroupNormalization of opset 21 and later
            continue
        pairs = ((ours, point.typed), (theirs, point.reference))
        shapes = [[dim.dim_value for dim in types[value].tensor_type.shape.dim] for types, value in pairs]
        if len(shapes[0]) != len(shapes[1]) or any(a and b and a != b for a, b in zip(*shapes, strict=True)):
            first, second = ("x".join(str(size or "n") for size in shape) for shape in shapes)
            raise _mismatch(f"the output of {quote(point.name)!r} has the shapes {first} and {second}")


def _mismatch(what: str) -> ModelMismatchError:
    return ModelMismatchError(
        f"the graph and its fp32 reference are not the same network: {what}",
        code="networks-differ",
        hint="use --against with the fp32 artifact of the same weights",
    )


def _copies(
    typed: onnx.ModelProto, reference: onnx.ModelProto, points: Sequence[_Point]
) -> Iterator[tuple[onnx.ModelProto, list[_Point]]]:
    """Yield three copies of the typed graph, each with the points whose values it receives from fp32.

    The copies receive no values, the inputs of each block, and the inputs of each layer.
    """
    values = [point.typed for point in points]
    plain, exact = emulate_in_float32(typed), value_types(reference)
    types = {point.typed: exact[point.reference] for point in points}
    yield expose_values(plain, values), []
    leaving = [point for point in points if point.leaves]
    yield expose_values(add_inputs(plain, types, {point.typed: point.inside for point in leaving}), values), leaving
    taken = [point for point in points if point.taken]
    yield expose_values(add_inputs(plain, types, {point.typed: frozenset() for point in taken}), values), taken


def _squares(points: Sequence[_Point], exact: Arrays, outputs: Arrays | None, count: int) -> Array:
    """Return the sum of squares of each point's differences from fp32, or of the fp32 values without ``outputs``."""
    result = np.zeros(len(points))
    with np.errstate(over="ignore", invalid="ignore"):
        for index, point in enumerate(points):
            value = exact[point.reference]
            if outputs is not None:
                value = outputs[point.typed] - value
            result[index] = np.square(value[:count], dtype=np.float64).sum()
    return result


def _stages(points: Sequence[_Point], sums: Array) -> tuple[StageError, ...]:
    blocks: dict[str, list[BlockError]] = {}
    for position in dict.fromkeys(point.place for point in points):
        members = [index for index, point in enumerate(points) if point.place == position]
        layers = [_layer(points[index], *sums[:, index]) for index in members]
        size, _, new, _ = sums[:, members[-1]]
        worst = tuple(sorted(layers, key=lambda layer: -size_of(layer.new)))
        blocks.setdefault(position.stage, []).append(
            BlockError(position.block, layers[-1].error, relative(new, size), worst)
        )
    stages = []
    for name, inside in blocks.items():
        ordered = tuple(sorted(inside, key=lambda block: -size_of(block.new)))
        stages.append(StageError(name, inside[-1].error, ordered[0].new, ordered))
    return tuple(sorted(stages, key=lambda stage: -size_of(stage.new)))


def _layer(point: _Point, size: float, difference: float, _: float, new: float) -> LayerError:
    return LayerError(point.name, relative(difference, size), relative(new, size))
