from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporter.precision.cast import cast
from exporter.precision.layer_errors import (
    BlockError,
    GraphComparison,
    GraphInputs,
    LayerError,
    compare,
    relative,
    size_of,
)
from runtimes import Artifact
from runtimes.errors import ModelMismatchError
from tests.exporter import small, spoilt
from tests.refusals import refuses


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return small.export(small.BOTTLENECK, tmp_path_factory.mktemp("errors"))


@pytest.fixture(scope="module")
def reference(artifact: Artifact) -> onnx.ModelProto:
    return onnx.load(artifact.path)


def images(artifact: Artifact, batch: int = 1) -> list[GraphInputs]:
    values = artifact.vectors().inputs
    starts = range(0, len(values), batch)
    return [
        GraphInputs(values[at : at + batch], values[at : at + batch], len(values[at : at + batch])) for at in starts
    ]


def compare_graphs(typed: onnx.ModelProto, reference: onnx.ModelProto, artifact: Artifact) -> GraphComparison:
    return compare(typed, reference, images(artifact)[:3], 1)


def by_block(found: GraphComparison) -> dict[str, BlockError]:
    return {block.name: block for stage in found.stages for block in stage.blocks}


def by_layer(found: GraphComparison) -> dict[str, LayerError]:
    return {layer.name: layer for block in by_block(found).values() for layer in block.layers}


def test_a_graph_does_not_differ_from_itself(artifact: Artifact, reference: onnx.ModelProto) -> None:
    before = reference.SerializeToString()
    found = compare_graphs(reference, reference, artifact)
    assert reference.SerializeToString() == before
    assert {layer.error for layer in by_layer(found).values()} == {0.0}
    np.testing.assert_allclose(found.logits, artifact.vectors().logits[:3], rtol=1e-4, atol=1e-5)
    assert found.error == 0
    assert found.runtime.startswith("onnxruntime ")
    assert set(by_block(found)) == {"stem", "layer1.0", "layer1.1", "layer2.0", "head"}


def test_the_errors_are_those_of_all_images_together(artifact: Artifact, reference: onnx.ModelProto) -> None:
    typed = spoilt.int8(artifact)
    one, three = (compare(typed, reference, images(artifact, batch), 1) for batch in (1, 3))
    assert len(one.logits) == len(three.logits) == 7
    for name, layer in by_layer(one).items():
        assert size_of(layer.error) == pytest.approx(size_of(by_layer(three)[name].error), rel=1e-3)


def test_rows_beyond_the_count_are_no_images(artifact: Artifact, reference: onnx.ModelProto) -> None:
    typed = spoilt.int8(artifact)
    (whole,) = images(artifact, 7)
    found = compare(typed, reference, [replace(whole, count=2)], 1)
    two = compare(typed, reference, images(artifact)[:2], 1)
    assert found.logits.shape == (2, 10)
    assert size_of(found.error) == pytest.approx(size_of(two.error), rel=1e-3)


def test_an_int8_graph_is_off_by_its_rounding_everywhere(artifact: Artifact, reference: onnx.ModelProto) -> None:
    found = compare_graphs(spoilt.int8(artifact), reference, artifact)
    for block in by_block(found).values():
        assert 1e-3 < size_of(block.new) < 0.3, block
    for name, layer in by_layer(found).items():
        if name.endswith("/Conv"):
            assert 1e-4 < size_of(layer.new) < 0.3, layer
        if "Relu" in name:
            assert layer.new == 0, layer
    assert 1e-3 < size_of(found.error) < 0.3


@pytest.mark.parametrize("layer", ["conv1/Conv", "layer1.0.downsample.0/Conv", "layer1.1.conv2/Conv", "fc/Gemm"])
def test_the_block_of_a_spoilt_layer_comes_first(artifact: Artifact, reference: onnx.ModelProto, layer: str) -> None:
    found = compare_graphs(spoilt.misscaled(spoilt.int8(artifact), layer, 3), reference, artifact)
    block = found.stages[0].blocks[0]
    assert block.layers[0].name == layer
    assert size_of(block.layers[0].new) == pytest.approx(2, abs=0.5)
    others = [other for other in by_layer(found).values() if other.name != layer]
    assert max(size_of(other.new) for other in others) < 0.3


def test_what_is_handed_down_is_not_new(artifact: Artifact, reference: onnx.ModelProto) -> None:
    clean = compare_graphs(spoilt.int8(artifact), reference, artifact)
    found = compare_graphs(spoilt.misscaled(spoilt.int8(artifact), "layer1.0.conv3/Conv", 3), reference, artifact)
    assert found.stages[0].name == "layer1"
    for name in ("layer1.1", "layer2.0", "head"):
        assert size_of(by_block(found)[name].error) > 2 * size_of(by_block(clean)[name].error)
        assert by_block(found)[name].new == pytest.approx(by_block(clean)[name].new, rel=1e-6)


def test_the_largest_new_error_comes_first_at_each_level(artifact: Artifact, reference: onnx.ModelProto) -> None:
    def check(errors: list[float | None]) -> None:
        assert list(map(size_of, errors)) == sorted(map(size_of, errors), reverse=True)

    found = compare_graphs(spoilt.int8(artifact), reference, artifact)
    check([stage.new for stage in found.stages])
    for stage in found.stages:
        check([block.new for block in stage.blocks])
        assert stage.new == stage.blocks[0].new
        for block in stage.blocks:
            check([layer.new for layer in block.layers])
    (layer1,) = (stage for stage in found.stages if stage.name == "layer1")
    assert layer1.error == by_block(found)["layer1.1"].error == by_layer(found)["layer1.1.relu/Relu_3"].error


@pytest.mark.parametrize(("element", "low", "high"), [("float16", 1e-4, 1e-3), ("bfloat16", 1e-3, 1e-2)])
def test_a_graph_of_half_precision_is_off_by_its_rounding(
    artifact: Artifact, reference: onnx.ModelProto, element: str, low: float, high: float
) -> None:
    found = compare_graphs(cast(reference, element), reference, artifact)
    for layer in by_layer(found).values():
        assert low / 2 < size_of(layer.new) < high, layer
    assert low < size_of(found.error) < high


def test_an_overflow_is_larger_than_any_error(artifact: Artifact, reference: onnx.ModelProto) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(reference)
    factors = {"layer1.1.conv2.weight": 3e4, "layer1.1.conv3.weight": 1e-3}
    for tensor in graph.graph.initializer:
        if tensor.name in factors:
            values = numpy_helper.to_array(tensor) * np.float32(factors[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    found = compare_graphs(cast(graph, "float16"), graph, artifact)
    block = found.stages[0].blocks[0]
    assert (block.name, block.new, block.error) == ("layer1.1", None, None)
    assert (block.layers[0].name, block.layers[0].new) == ("layer1.1.conv2/Conv", None)
    assert found.error is None
    assert size_of(by_layer(found)["layer1.1.conv3/Conv"].new) < 1e-2
    assert size_of(by_block(found)["layer2.0"].new) < 1e-2


ROUNDINGS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "float16": lambda values: values.astype(np.float16).astype(np.float32),
    "bfloat16": lambda values: values.astype(ml_dtypes.bfloat16).astype(np.float32),
}


@pytest.mark.parametrize("element", ROUNDINGS)
def test_every_value_of_a_half_precision_graph_is_rounded(
    element: str,
) -> None:
    """By arithmetic of NumPy's: weights, input, product and sum, each rounded."""
    round_off = ROUNDINGS[element]
    dice = np.random.default_rng(0)
    weights, data = (dice.standard_normal(shape).astype(np.float32) for shape in ((8, 5), (3, 8)))
    graph = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["input", "w"], ["fc/MatMul"], "fc/MatMul"),
                helper.make_node("Add", ["fc/MatMul", "fc/MatMul"], ["logits"], "fc/Add"),
            ],
            "small",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5])],
            [numpy_helper.from_array(weights, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    found = compare(cast(graph, element), graph, [GraphInputs(data, data, 3)], 1)
    product = round_off(round_off(data) @ round_off(weights))
    exact = data @ weights
    layers = {layer.name: size_of(layer.error) for layer in found.stages[0].blocks[0].layers}
    assert layers["fc/MatMul"] == pytest.approx(np.linalg.norm(product - exact) / np.linalg.norm(exact), rel=1e-3)
    assert layers["fc/Add"] == pytest.approx(
        np.linalg.norm(round_off(2 * product) - 2 * exact) / np.linalg.norm(2 * exact), rel=1e-3
    )


def test_another_network_is_refused(
    artifact: Artifact, reference: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = onnx.load(small.export(small.BASIC, tmp_path_factory.mktemp("other")).path)
    with refuses(ModelMismatchError, "networks-differ", "layer1.0.conv3/Conv"):
        compare_graphs(reference, other, artifact)


def test_other_widths_are_refused(
    artifact: Artifact, reference: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = small.export(replace(small.BOTTLENECK, widths=(4, 16)), tmp_path_factory.mktemp("wide"))
    with refuses(ModelMismatchError, "networks-differ", "layer2.0.conv1/Conv", "nx8x8x8", "nx16x8x8"):
        compare_graphs(reference, onnx.load(other.path), artifact)


def test_a_graph_without_weights_is_refused(artifact: Artifact) -> None:
    graph = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "empty",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        )
    )
    with refuses(ModelMismatchError, "networks-differ", "--against", "fp32"):
        compare_graphs(graph, graph, artifact)


@pytest.mark.parametrize(
    ("difference", "size", "error"),
    [(1.0, 4.0, 0.5), (0.0, 0.0, 0.0), (1.0, 0.0, None), (float("inf"), 1.0, None), (float("nan"), 1.0, None)],
)
def test_errors_are_relative(difference: float, size: float, error: float | None) -> None:
    assert relative(difference, size) == error
