"""Where a typed graph goes wrong: its layers' values against those of the same network in fp32, layer by layer.

Both graphs are run with every layer's value as an extra output, through the default runtime, one batch at a time.
The typed graph is run *as it is written*: its Q/DQ nodes round as they stand, since nothing can be fused across an
output, and a 16-bit graph is computed in float32 and every value rounded to its type (``emulate_in_float32``), so
that the answer is the same on a machine without 16-bit arithmetic. In two more copies every block, and every layer,
is fed with fp32's own values: what is wrong behind it then is *new* there, and not handed down.
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
from exporter.explain.graph_probes import (
    add_inputs,
    emulate_in_float32,
    expose_values,
    input_name,
    name_of,
    value_types,
)
from exporter.models.positions import NetworkPosition, places
from runtimes import Runtime
from runtimes.errors import ModelMismatchError, quote
from runtimes.protocol import Array, Arrays

if TYPE_CHECKING:
    import onnx

OPERATORS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "ReduceMean", "GlobalAveragePool")
"""Whose values are compared."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class LayerError:
    """How far a layer's values are from fp32's.

    Attributes:
        name: of the node.
        error: root mean square of the differences over that of fp32's values, over all images; ``None`` where a value
            is not finite.
        new: the same if the layer is given fp32's values: what it does itself.
    """

    name: str
    error: float | None
    new: float | None


@dataclass(frozen=True)
class BlockError:
    """How far a block's output is from fp32's, and how far if the block is given fp32's values; its ``layers`` with the
    largest ``new`` first."""

    name: str
    error: float | None
    new: float | None
    layers: tuple[LayerError, ...]


@dataclass(frozen=True)
class StageError:
    """How far a stage's output is from fp32's, and the largest ``new`` of its ``blocks``, that one first."""

    name: str
    error: float | None
    new: float | None
    blocks: tuple[BlockError, ...]


@dataclass(frozen=True, eq=False)
class GraphComparison:
    """Two graphs compared.

    Attributes:
        runtime: that ran them, and its version.
        stages: the largest ``new`` first.
        error: of the last layer's values.
        logits: (n, ...) float32, fp32's own answers to the images.
    """

    runtime: str
    stages: tuple[StageError, ...]
    error: float | None
    logits: Array


@dataclass(frozen=True)
class GraphInputs:
    """What goes into both graphs at once: arrays (n, ...) of which the first ``count`` rows are images."""

    typed: Array
    reference: Array
    count: int


def size_of(error: float | None) -> float:
    """To sort by: what is not finite is larger than everything."""
    return math.inf if error is None else error


def relative(difference: float, size: float) -> float | None:
    """Root of the ratio of two sums of squares; ``None`` where it is not finite."""
    if not math.isfinite(difference) or not math.isfinite(size) or (size == 0 < difference):
        return None
    return math.sqrt(difference / size) if size else 0.0


def compare(
    typed: onnx.ModelProto, reference: onnx.ModelProto, images: Iterable[GraphInputs], threads: int | None = None
) -> GraphComparison:
    """The stages with their blocks and layers, and how far each is off. Blocks for four runs an image.

    No more than one batch's values are held at a time. The graphs are left as they are.

    Raises:
        ModelMismatchError: the graphs are not of the same network.
        RexportError: no runtime here runs them; an image does not fit.
    """
    points = _points(typed, reference)
    answer = reference.graph.output[0].name
    exact_values = list(dict.fromkeys([*(point.reference for point in points), answer]))
    sums, logits = np.zeros((4, len(points))), []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def open_graph(graph: onnx.ModelProto, name: str) -> Runtime:
            (folder / name).write_bytes(graph.SerializeToString())
            return stack.enter_context(runtimes.open(folder / name, threads=threads))

        expected = open_graph(expose_values(reference, exact_values), "reference.onnx")
        copies = _copies(typed, reference, points)
        others = [
            (open_graph(graph, f"{number}.onnx"), fed_points) for number, (graph, fed_points) in enumerate(copies)
        ]
        for batch in images:
            exact = expected.infer({expected.inputs[0].name: batch.reference})
            sums[0] += _squares(points, exact, None, batch.count)
            for row, (runtime, fed_points) in enumerate(others, start=1):
                feeds = {input_name(point.typed): exact[point.reference] for point in fed_points}
                found = runtime.infer({runtime.inputs[0].name: batch.typed} | feeds)
                sums[row] += _squares(points, exact, found, batch.count)
            logits.append(exact[answer][: batch.count])
        about = expected.description
    error = relative(sums[1, -1], sums[0, -1])
    return GraphComparison(f"{about.backend} {about.version}", _stages(points, sums), error, np.concatenate(logits))


@dataclass(frozen=True)
class _Point:
    """A layer that both graphs have: the names of its value in each. ``taken`` if other nodes take that value,
    ``leaves`` if other blocks do; ``inside`` are the nodes of its own block."""

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
    where = places([name_of(node) for node in nodes])
    users: dict[str, set[str]] = {}
    members: dict[str, set[str]] = {}
    for node, place in zip(nodes, where, strict=True):
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
        for node, place in zip(nodes, where, strict=True)
        if node.op_type in OPERATORS and (name_of(node), node.op_type) in values and node.output[0] in shapes
    ]
    _check_shapes(points, value_types(typed), shapes)
    return points


def _check_layers(ours: Set[tuple[str, str]], theirs: Set[tuple[str, str]]) -> None:
    """Both must have the same layers with weights, which no quantiser adds or takes away."""
    odd = sorted(name for name, operator in ours ^ theirs if operator in _WEIGHTED)
    if odd:
        raise _mismatch(f"{quote(odd[0])!r} is a layer of one alone")
    if not any(operator in _WEIGHTED for _, operator in ours):
        raise _mismatch("there is no layer with weights in them")


def _check_shapes(
    points: Sequence[_Point], ours: Mapping[str, onnx.TypeProto], theirs: Mapping[str, onnx.TypeProto]
) -> None:
    for point in points:
        pairs = ((ours, point.typed), (theirs, point.reference))
        shapes = [[dim.dim_value for dim in types[value].tensor_type.shape.dim] for types, value in pairs]
        if len(shapes[0]) != len(shapes[1]) or any(a and b and a != b for a, b in zip(*shapes, strict=True)):
            one, other = ("x".join(str(size or "n") for size in shape) for shape in shapes)
            raise _mismatch(f"{quote(point.name)!r} gives {one} in one, {other} in the other")


def _mismatch(what: str) -> ModelMismatchError:
    return ModelMismatchError(
        f"the graph and its fp32 reference are not the same network: {what}",
        code="networks-differ",
        hint="--against takes the fp32 artifact of the same weights",
    )


def _copies(
    typed: onnx.ModelProto, reference: onnx.ModelProto, points: Sequence[_Point]
) -> Iterator[tuple[onnx.ModelProto, list[_Point]]]:
    """The typed graph by itself, with every block fed, and with every layer; and the points whose values each takes."""
    values = [point.typed for point in points]
    plain, exact = emulate_in_float32(typed), value_types(reference)
    types = {point.typed: exact[point.reference] for point in points}
    yield expose_values(plain, values), []
    leaving = [point for point in points if point.leaves]
    yield expose_values(add_inputs(plain, types, {point.typed: point.inside for point in leaving}), values), leaving
    taken = [point for point in points if point.taken]
    yield expose_values(add_inputs(plain, types, {point.typed: frozenset() for point in taken}), values), taken


def _squares(points: Sequence[_Point], exact: Arrays, found: Arrays | None, count: int) -> Array:
    """(points,): for each the sum of the squares of its differences from fp32, or of fp32's values themselves."""
    result = np.zeros(len(points))
    with np.errstate(over="ignore", invalid="ignore"):
        for number, point in enumerate(points):
            value = exact[point.reference]
            if found is not None:
                value = found[point.typed] - value
            result[number] = np.square(value[:count], dtype=np.float64).sum()
    return result


def _stages(points: Sequence[_Point], sums: Array) -> tuple[StageError, ...]:
    blocks: dict[str, list[BlockError]] = {}
    for place in dict.fromkeys(point.place for point in points):
        members = [number for number, point in enumerate(points) if point.place == place]
        layers = [_layer(points[number], *sums[:, number]) for number in members]
        size, _, new, _ = sums[:, members[-1]]
        worst = tuple(sorted(layers, key=lambda layer: -size_of(layer.new)))
        blocks.setdefault(place.stage, []).append(BlockError(place.block, layers[-1].error, relative(new, size), worst))
    stages = []
    for name, inside in blocks.items():
        ordered = tuple(sorted(inside, key=lambda block: -size_of(block.new)))
        stages.append(StageError(name, inside[-1].error, ordered[0].new, ordered))
    return tuple(sorted(stages, key=lambda stage: -size_of(stage.new)))


def _layer(point: _Point, size: float, difference: float, _: float, new: float) -> LayerError:
    return LayerError(point.name, relative(difference, size), relative(new, size))
