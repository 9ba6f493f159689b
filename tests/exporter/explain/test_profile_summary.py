from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

import runtimes
from exporter.explain.profile_summary import ExecutedPart, Execution, bits, execution
from exporter.models.positions import places
from runtimes import Artifact, Description
from runtimes.protocol import Layer
from tests.exporter import small, spoilt

ABOUT = Description("fake", "1", "cpu", "script", "int8", 1)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return small.export(small.BOTTLENECK, tmp_path_factory.mktemp("execution"))


def ran(graph: onnx.ModelProto, folder: Path, backend: str) -> Execution:
    path = spoilt.written(graph, folder / "graph.onnx")
    return execution(runtimes.profile(path, backend=backend, threads=1), "int8", ABOUT)


def blocks(ran: Execution) -> Iterator[ExecutedPart]:
    for stage in ran.stages:
        yield from stage.blocks or (stage,)


def remarks(ran: Execution) -> set[tuple[str, str, str]]:
    """(block, kind, operator) of all that is remarked on."""
    return {(block.name, remark.kind, remark.operator) for block in blocks(ran) for remark in block.remarks}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["conv1/Conv", "relu/Relu", "layer1.0.conv1/Conv", "layer1.0/Add"], ["stem", "stem", "layer1.0", "layer1.0"]),
        (["layer3.22.relu/Relu_2", "avgpool/ReduceMean", "Reshape", "fc/Gemm"], ["layer3.22", *["head"] * 3]),
        (["layer1.0.conv1/Conv", "QuantizeLinear_layer2.1.relu/Relu_1"], ["layer1.0", "layer2.1"]),
        (["QuantizeLinear_input_1", "maxpool/MaxPool", "Transpose", "layer1.0/Add"], [*["stem"] * 3, "layer1.0"]),
        (["layer1.0.conv1/Conv", "Reorder_7", "layer1.1.conv1/Conv"], ["layer1.0", "layer1.0", "layer1.1"]),
        (["/conv1/Conv", "/layer1/layer1.0/conv1/Conv", "/fc/Gemm"], ["stem", "layer1.0", "head"]),
        (["input_f32_layer1.0.conv1/Conv", "DequantizeLinear_relu/Relu_1"], ["layer1.0", "stem"]),
        (["features.0/Conv", "conv1/Conv", "fc/Gemm"], ["network"] * 3),
        ([], []),
    ],
)
def test_names_tell_the_block(names: list[str], found: list[str]) -> None:
    assert [place.block for place in places(names)] == found


def test_blocks_belong_to_stages_and_stem_and_head_are_stages() -> None:
    assert [place.stage for place in places(["conv1/Conv", "layer2.0/Add", "fc/Gemm"])] == ["stem", "layer2", "head"]


@pytest.mark.parametrize(
    ("precision", "width"),
    [("int8", 8), ("uint8", 8), ("fp16", 16), ("bfloat16", 16), ("float32", 32), ("fp32", 32), ("unknown", 32)],
)
def test_the_width_is_in_the_name(precision: str, width: int) -> None:
    assert bits(precision) == width


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_fuses_wholly_is_not_remarked_on(artifact: Artifact, tmp_path: Path, backend: str) -> None:
    found = ran(spoilt.int8(artifact), tmp_path, backend)
    assert remarks(found) == set()
    assert found.precisions == {"int8": 13}
    assert found.kept == 13
    assert [stage.name for stage in found.stages] == ["stem", "layer1", "layer2", "head"]
    assert [block.name for block in blocks(found)] == ["stem", "layer1.0", "layer1.1", "layer2.0", "head"]
    assert found.stages[1].precisions == {"int8": 7}
    assert found.weighted_share is not None
    assert found.conversion_share is not None
    assert 0 < found.weighted_share < 1
    assert 0 < found.conversion_share < 1


@pytest.mark.parametrize(("backend", "operator"), [("onnxruntime", "Conv"), ("openvino", "Convolution")])
def test_a_convolution_left_in_float_is_named(artifact: Artifact, tmp_path: Path, backend: str, operator: str) -> None:
    found = ran(spoilt.interrupted(spoilt.int8(artifact), "layer1.1.conv2/Conv", 0), tmp_path, backend)
    assert found.precisions == {"int8": 12, "float32": 1}
    assert found.kept == 12
    wide = [(block.name, remark) for block in blocks(found) for remark in block.remarks if remark.kind == "weighted"]
    ((block, remark),) = wide
    assert (block, remark.operator, remark.precision) == ("layer1.1", operator, "float32")
    assert remark.nodes == ("layer1.1.conv2/Conv",)
    assert remark.duration_s is not None
    assert {place for place, _, _ in remarks(found)} == {"layer1.1"}


def test_unfused_nodes_are_named_beside_integer_convolutions(artifact: Artifact, tmp_path: Path) -> None:
    graph = spoilt.interrupted(spoilt.int8(artifact), "layer1.1.conv2/Conv", 0, requantised=True)
    found = ran(graph, tmp_path, "onnxruntime")
    assert found.precisions == {"int8": 13}
    assert remarks(found) == {
        ("layer1.1", "conversion", "DequantizeLinear"),
        ("layer1.1", "conversion", "QuantizeLinear"),
        ("layer1.1", "float", "Abs"),
    }
    (stage,) = (stage for stage in found.stages if stage.name == "layer1")
    assert {remark.operator: remark.nodes for remark in stage.remarks}["QuantizeLinear"] == ("layer1.1.conv2/Conv/Q",)


def test_a_residual_addition_in_float_is_named(artifact: Artifact, tmp_path: Path) -> None:
    found = ran(spoilt.interrupted(spoilt.int8(artifact), "layer1.1/Add", 1), tmp_path, "onnxruntime")
    assert found.precisions == {"int8": 13}
    added = [remark for block in blocks(found) for remark in block.remarks if remark.operator == "Add"]
    assert [(remark.kind, remark.precision, remark.nodes) for remark in added] == [
        ("float", "float32", ("layer1.1/Add",))
    ]
    assert ("conversion", "DequantizeLinear") in {(kind, operator) for _, kind, operator in remarks(found)}


def test_what_runs_wider_as_a_whole_is_said_once(artifact: Artifact) -> None:
    found = execution(runtimes.profile(artifact, backend="onnxruntime", threads=1), "fp16", ABOUT)
    assert found.kept == 0
    assert found.precisions == {"float32": 13}
    assert not [remark for block in blocks(found) for remark in block.remarks if remark.kind != "conversion"]


def test_an_fp32_graph_is_what_it_should_be(artifact: Artifact) -> None:
    found = execution(runtimes.profile(artifact, backend="onnxruntime", threads=1), "fp32", ABOUT)
    assert found.kept == 13


def step(name: str, operator: str, precision: str, duration_s: float | None) -> Layer:
    weighted = operator in ("Conv", "QLinearConv", "Gemm")
    return Layer(name, (name,), operator, precision, weighted, duration_s)


STEPS = (
    step("QuantizeLinear_input_1", "QuantizeLinear", "float32", 1.0),
    step("conv1/Conv", "QLinearConv", "int8", 2.0),
    step("layer1.0.conv1/Conv", "QLinearConv", "int8", 3.0),
    step("Reorder_1", "Reorder", "int8", 1.0),
    step("Reorder_2", "Reorder", "int8", 1.5),
    step("layer1.0/Add", "Add", "float32", 0.5),
    step("layer1.1.conv1/Conv", "Conv", "float32", 5.0),
    step("DequantizeLinear_layer1.1.relu/Relu_1", "DequantizeLinear", "int8", 1.0),
    step("avgpool/ReduceMean", "ReduceMean", "float32", 2.0),
    step("fc/Gemm", "Gemm", "int8", 3.0),
)


def test_the_time_is_summed_up() -> None:
    found = execution(STEPS, "int8", ABOUT)
    assert found.description is ABOUT
    assert found.duration_s == 20.0
    assert found.weighted_share == 13 / 20
    assert found.conversion_share == 4.5 / 20
    stem, layer1, head = found.stages
    assert (stem.duration_s, stem.share, stem.blocks) == (3.0, 0.15, ())
    assert (layer1.duration_s, [block.duration_s for block in layer1.blocks]) == (12.0, [6.0, 6.0])
    assert layer1.precisions == {"int8": 1, "float32": 1}
    assert (head.duration_s, head.remarks) == (5.0, ())


def test_the_most_expensive_step_comes_first() -> None:
    found = execution(STEPS, "int8", ABOUT)
    stem, layer1, head = found.stages
    assert stem.remarks == head.remarks == ()
    assert [(remark.kind, remark.nodes, remark.duration_s) for remark in layer1.remarks] == [
        ("weighted", ("layer1.1.conv1/Conv",), 5.0),
        ("conversion", ("Reorder_1", "Reorder_2"), 2.5),
        ("float", ("layer1.0/Add",), 0.5),
    ]
    assert layer1.blocks[0].remarks == layer1.remarks[1:]
    assert layer1.blocks[1].remarks == layer1.remarks[:1]


def test_a_library_that_does_not_tell_times_is_not_guessed_at() -> None:
    found = execution((*STEPS[:3], step("layer1.0.conv2/Conv", "QLinearConv", "int8", None)), "int8", ABOUT)
    assert (found.duration_s, found.weighted_share, found.conversion_share) == (None, None, None)
    assert [stage.duration_s for stage in found.stages] == [3.0, None]
    assert [stage.share for stage in found.stages] == [None, None]


def test_half_a_width_that_was_not_asked_for_is_no_wider() -> None:
    found = execution((step("conv1/Conv", "Conv", "bfloat16", 1.0),), "fp16", ABOUT)
    assert (found.kept, found.precisions) == (1, {"bfloat16": 1})


def test_a_network_of_other_names_is_one_stage() -> None:
    found = execution(
        (step("features.0/Conv", "Conv", "float32", 1.0), step("x/Relu", "Relu", "float32", 1.0)), "int8", ABOUT
    )
    (stage,) = found.stages
    assert (stage.name, stage.share, stage.blocks) == ("network", 1.0, ())


def test_nothing_with_weights_is_no_error() -> None:
    found = execution((step("x/Relu", "Relu", "float32", 0.0),), "int8", ABOUT)
    assert (found.precisions, found.kept, found.weighted_share) == ({}, 0, None)
