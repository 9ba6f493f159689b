"""Graphs of deep networks from graphs of shallow ones: a block that a stage repeats is traced once.

All blocks of a stage but the first have the same layers, so their nodes differ in names and weights alone. The time
that torch needs grows with the square of the number of blocks. Here it traces two blocks of each stage, and the nodes
of the second one are repeated for the others. The graph is the one that torch writes for the whole network: the same
nodes, the same names, the same numbers. Like any other graph, it is checked against PyTorch after it is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from exporter.models.layers import foldable_norms
from exporter.models.variants import Variant
from runtimes.errors import CheckFailedError, quote
from runtimes.protocol import Array

if TYPE_CHECKING:
    import onnx
    from torch import nn

TRACED_BLOCKS = 2
"""The blocks of a stage that are traced: the first, which may change the shape, and one of those that keep it."""


def shorten(variant: Variant) -> Variant | None:
    """Return the variant with at most ``TRACED_BLOCKS`` blocks in each stage, or ``None`` to trace it as a whole.

    A pruned network is traced as a whole, because its blocks all differ; and one with group norms, because torch
    computes constants without names from their weights.

    Args:
        variant: The variant.
    """
    if variant.channels or variant.norm == "group" or max(variant.depths) <= TRACED_BLOCKS:
        return None
    return replace(variant, depths=tuple(min(depth, TRACED_BLOCKS) for depth in variant.depths))


def draw_parameters(module: nn.Module) -> None:
    """Fill the parameters and statistics of a module with random numbers, in place.

    torch stores equal tensors of a graph once. Tensors that are equal in the traced blocks may differ in the others, so
    no two of them may be equal.

    Args:
        module: The module to be traced.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    stored = module.state_dict()  # without the constant weights of a blur
    with torch.no_grad():
        for values in stored.values():
            if values.is_floating_point():
                values.uniform_(0.5, 1.5, generator=generator)


def fold_parameters(variant: Variant, module: nn.Module) -> dict[str, Array]:
    """Return the tensors of a network by name, as a graph with folded batch norms has them.

    The arithmetic is that of torch's exporter, to the bit.

    Args:
        variant: The variant.
        module: The network in float32, which is not changed.
    """
    result = {
        name: values.detach().numpy()
        for name, values in module.state_dict().items()
        if not name.endswith(".num_batches_tracked")
    }
    modules = dict(module.named_modules())
    for norm, convolution in foldable_norms(variant).items():
        scale, shift, mean, variance = (
            result.pop(f"{norm}.{name}") for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + modules[norm].eps)  # (out_channels,)
        weight = result[f"{convolution}.weight"]
        result[f"{convolution}.weight"] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        result[f"{convolution}.bias"] = (0.0 - mean) * factor + shift
    return result


def repeat_blocks(graph: onnx.ModelProto, variant: Variant, parameters: Mapping[str, Array]) -> onnx.ModelProto:
    """Turn the graph of a shortened variant into that of the variant, in place, and return it.

    Args:
        graph: The tidy graph of ``shorten(variant)``.
        variant: The variant.
        parameters: The tensors of the network, as from ``fold_parameters``.

    Raises:
        CheckFailedError: The graph has other tensors than the network, or a block that cannot be repeated.
    """
    blocks = [
        _RepeatedBlock.of(f"layer{number}", depth, graph.graph)
        for number, depth in enumerate(variant.depths, start=1)
        if depth > TRACED_BLOCKS
    ]
    nodes: list[onnx.NodeProto] = []
    for block, run in _split(graph.graph.node, blocks):
        nodes += _rename_inputs(run, blocks) if block is None else block.repeat_nodes(run)
    tensors: list[onnx.TensorProto] = []
    for block, stored in _split(graph.graph.initializer, blocks):
        tensors += stored if block is None else block.repeat_tensors(stored)
    _set_parameters(tensors, parameters)
    del graph.graph.node[:], graph.graph.initializer[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(tensors)
    folded = {f"{convolution}.bias" for convolution in foldable_norms(variant).values()}
    _drop_biases(graph.graph, {name for name, values in parameters.items() if not values.any()} - folded)
    return graph


@dataclass(frozen=True)
class _RepeatedBlock:
    """The traced block that a stage repeats.

    Attributes:
        stage: The name of the stage's module, for example ``layer1``.
        depth: The number of blocks of the stage.
        entry: The value that the block reads from the block before.
        exit: The value that the block returns, which may be an output of the graph.
        last: The name of the node that computes ``exit``.
    """

    stage: str
    depth: int
    entry: str
    exit: str
    last: str

    @classmethod
    def of(cls, stage: str, depth: int, graph: onnx.GraphProto) -> _RepeatedBlock:
        """Find the block in a graph.

        Raises:
            CheckFailedError: The block reads more than one value of the other blocks, or they read more than one of its
                values.
        """
        prefix = f"{stage}.{TRACED_BLOCKS - 1}"
        inner = [node for node in graph.node if _belongs(node.name, prefix)]
        own = {name: node.name for node in inner for name in node.output}
        stored = {tensor.name for tensor in graph.initializer}
        entries = {name for node in inner for name in node.input if name} - own.keys() - stored
        outer = {name for node in graph.node if not _belongs(node.name, prefix) for name in node.input}
        exits = (outer | {value.name for value in graph.output}) & own.keys()
        if len(entries) != 1 or len(exits) != 1:
            raise CheckFailedError(
                f"in the graph of torch, the block {prefix} has {len(entries)} inputs and {len(exits)} outputs, "
                "expected one of each",
                code="block-not-repeatable",
            )
        (entry,), (end,) = entries, exits
        return cls(stage, depth, entry, end, own[end])

    @property
    def prefix(self) -> str:
        """The name of the traced block's module."""
        return f"{self.stage}.{TRACED_BLOCKS - 1}"

    @property
    def stage_exit(self) -> str:
        """The value that the last block of the stage returns."""
        return self.exit if self.exit != self.last else self._rename(self.last, self.depth - 1)

    def _rename(self, name: str, index: int) -> str:
        """Return a name of the traced block as the block of another index has it. Other names stay."""
        return f"{self.stage}.{index}{name.removeprefix(self.prefix)}" if _belongs(name, self.prefix) else name

    def repeat_nodes(self, run: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
        """Yield the nodes of all blocks from the traced one on."""
        import onnx

        for index in range(TRACED_BLOCKS - 1, self.depth):
            bounds = {self.exit: self.stage_exit if index == self.depth - 1 else self._rename(self.last, index)}
            if index >= TRACED_BLOCKS:
                bounds[self.entry] = self._rename(self.last, index - 1)
            for traced in run:
                node = onnx.NodeProto()
                node.CopyFrom(traced)
                node.name = self._rename(node.name, index)
                for names in (node.input, node.output):
                    names[:] = [bounds.get(name) or self._rename(name, index) for name in names]
                yield node

    def repeat_tensors(self, run: Sequence[onnx.TensorProto]) -> Iterator[onnx.TensorProto]:
        """Yield the tensors of all blocks from the traced one on, all with the numbers of the traced one."""
        import onnx

        for index in range(TRACED_BLOCKS - 1, self.depth):
            for traced in run:
                tensor = onnx.TensorProto()
                tensor.CopyFrom(traced)
                tensor.name = self._rename(traced.name, index)
                yield tensor


def _belongs(name: str, prefix: str) -> bool:
    """Return whether a node or a tensor with this name belongs to a module."""
    return name.startswith((f"{prefix}.", f"{prefix}/"))


_Item = TypeVar("_Item", "onnx.NodeProto", "onnx.TensorProto")


def _split(
    items: Iterable[_Item], blocks: Sequence[_RepeatedBlock]
) -> Iterator[tuple[_RepeatedBlock | None, list[_Item]]]:
    """Yield the runs of items of one repeated block, and the runs between them with ``None``, in their order."""

    def block_of(item: _Item) -> _RepeatedBlock | None:
        return next((block for block in blocks if _belongs(item.name, block.prefix)), None)

    return ((block, list(run)) for block, run in groupby(items, block_of))


def _rename_inputs(run: Sequence[onnx.NodeProto], blocks: Sequence[_RepeatedBlock]) -> Sequence[onnx.NodeProto]:
    """Let nodes outside the repeated blocks read the last block of a stage, in place."""
    exits = {block.exit: block.stage_exit for block in blocks}
    for node in run:
        node.input[:] = [exits.get(name, name) for name in node.input]
    return run


def _set_parameters(tensors: Sequence[onnx.TensorProto], parameters: Mapping[str, Array]) -> None:
    """Give tensors the numbers of the network, in place. Tensors without its names are constants and stay.

    Raises:
        CheckFailedError: A tensor of the network is not there, or has another shape.
    """
    missing = dict(parameters)
    for tensor in tensors:
        values = missing.get(tensor.name)
        if values is not None and values.shape == tuple(tensor.dims):
            tensor.raw_data = np.ascontiguousarray(values).tobytes()
            del missing[tensor.name]
    if missing:
        raise CheckFailedError(
            f"{len(missing)} tensors of the network are not in the graph of torch, for example "
            f"{quote(next(iter(missing)))}",
            code="tensor-not-exported",
        )


def _drop_biases(graph: onnx.GraphProto, zeros: Set[str]) -> None:
    """Drop the biases that are all zero, in place, as torch does in a graph that it traces as a whole.

    Args:
        graph: The graph.
        zeros: The names of the tensors that are all zero, without the biases of folded norms, which torch keeps.
    """
    dropped: set[str] = set()
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and node.input[2] in zeros:
            dropped.add(node.input.pop())
    kept = [tensor for tensor in graph.initializer if tensor.name not in dropped]
    del graph.initializer[:]
    graph.initializer.extend(kept)
