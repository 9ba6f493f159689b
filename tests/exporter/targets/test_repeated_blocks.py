"""The graph of a deep network from that of a shallow one: the same as the graph that torch writes for the whole."""

from __future__ import annotations

from dataclasses import replace

import onnx as onnx_library
import pytest
from torch import nn

from exporter.export_request import ExportRequest
from exporter.models.outputs import LOGITS
from exporter.models.several_outputs import with_outputs
from exporter.models.variants import VARIANTS, Variant
from exporter.network import Network, prepare
from exporter.targets import onnx_file
from exporter.targets.repeated_blocks import (
    TRACED_BLOCKS,
    draw_parameters,
    fold_parameters,
    repeat_blocks,
    shorten,
)
from runtimes.errors import CheckFailedError
from runtimes.protocol import Array
from tests.exporter.small import BASIC, BOTTLENECK, LATER, SILENT
from tests.refusals import refuses

DEEP = {
    "basic": replace(BASIC, depths=(3, 4, 1)),
    "plain": replace(BASIC, depths=(3, 2, 3), residual=False),
    "bottleneck": replace(BOTTLENECK, depths=(4, 3)),
    **{name: replace(row, depths=(3, 4)) for name, row in LATER.items() if row.norm != "group"},
}
"""Small networks that repeat blocks, with all options that a repeated block may have."""


def drawn(row: Variant, outputs: tuple[str, ...] = (LOGITS,)) -> Network:
    """A network whose numbers all differ: torch stores equal tensors once, and leaves out a bias of zeros."""
    network = prepare(ExportRequest(row, "unused", outputs=outputs), SILENT)
    draw_parameters(network.model)
    return network


def whole(network: Network, batch: int | None = None) -> onnx_library.ModelProto:
    """The graph that torch writes for the whole network."""
    module = with_outputs(network.model, network.outputs)
    return onnx_file._trace_module(module, network, batch, onnx_file.DEFAULT_OPSET)


def without_numbered_names(graph: onnx_library.ModelProto) -> bytes:
    """A graph whose constants are named in the order of their first use: torch numbers all values of the trace."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    names: dict[str, str] = {}
    for node in graph.graph.node:
        for name in node.input:
            if name.startswith("val_"):
                names.setdefault(name, f"constant {len(names)}")
    for node in graph.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    for old, new in names.items():
        stored[old].name = new
    return bytes(graph.SerializeToString(deterministic=True))


def same_graphs(network: Network, batch: int | None = None) -> bool:
    repeated = onnx_file._trace(network, batch, onnx_file.DEFAULT_OPSET)
    return without_numbered_names(repeated) == without_numbered_names(whole(network, batch))


def test_a_repeated_graph_is_that_of_the_whole() -> None:
    assert same_graphs(drawn(DEEP["basic"], ("logits", "stages", "features", "cam")))


def test_a_bias_of_zeros_is_left_out_as_of_the_whole() -> None:
    network = drawn(DEEP["basic"])
    nn.init.zeros_(network.model.get_parameter("fc.bias"))
    assert "fc.bias" not in {tensor.name for tensor in whole(network).graph.initializer}
    assert same_graphs(network)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_every_kind_of_block_is_repeated_exactly(name: str) -> None:
    assert same_graphs(drawn(DEEP[name], ("logits", "stages")))


@pytest.mark.slow
def test_a_fixed_batch_is_repeated_exactly() -> None:
    assert same_graphs(drawn(DEEP["bottleneck"]), 2)


def test_the_trace_grows_with_no_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch sees of a network does not depend on how often its blocks repeat, so its time does not grow."""
    counts = []

    def count(module: nn.Module, *_: object) -> onnx_library.ModelProto:
        counts.append(len(list(module.modules())))
        return onnx_library.ModelProto()

    monkeypatch.setattr(onnx_file, "_trace_module", count)
    monkeypatch.setattr(onnx_file, "repeat_blocks", lambda graph, *_: graph)
    for depth in (4, 8, 16):
        onnx_file._trace(prepare(ExportRequest(replace(BASIC, depths=(depth,) * 3), "unused"), SILENT), None, 20)
    assert len(set(counts)) == 1


@pytest.mark.parametrize("row", VARIANTS.values(), ids=list(VARIANTS))
def test_all_but_listed_networks_are_shortened(row: Variant) -> None:
    short = shorten(row)
    alone = bool(row.channels) or row.norm == "group" or max(row.depths) <= TRACED_BLOCKS
    assert (short is None) == alone
    assert short is None or max(short.depths) == TRACED_BLOCKS


@pytest.fixture(scope="module")
def short_graph() -> bytes:
    row = shorten(DEEP["basic"])
    assert row is not None
    return bytes(whole(drawn(row)).SerializeToString())


def parameters(row: Variant) -> dict[str, Array]:
    return fold_parameters(row, drawn(row).model)


def test_a_missing_tensor_is_caught(short_graph: bytes) -> None:
    graph = onnx_library.load_from_string(short_graph)
    for tensor in graph.graph.initializer:
        tensor.name = "elsewhere" if tensor.name == "fc.weight" else tensor.name
    with refuses(CheckFailedError, "tensor-not-exported", "fc.weight"):
        repeat_blocks(graph, DEEP["basic"], parameters(DEEP["basic"]))


def test_a_tensor_of_another_shape_is_caught(short_graph: bytes) -> None:
    tensors = parameters(DEEP["basic"])
    tensors["fc.weight"] = tensors["fc.weight"][:3]
    with refuses(CheckFailedError, "tensor-not-exported", "fc.weight"):
        repeat_blocks(onnx_library.load_from_string(short_graph), DEEP["basic"], tensors)


def test_a_block_with_two_inputs_is_caught(short_graph: bytes) -> None:
    graph = onnx_library.load_from_string(short_graph)
    node = next(node for node in graph.graph.node if node.name == "layer1.1.conv2/Conv")
    node.input[0] = "conv1/Conv"
    with refuses(CheckFailedError, "block-not-repeatable", "layer1.1"):
        repeat_blocks(graph, DEEP["basic"], parameters(DEEP["basic"]))
