"""What really ran: the libraries' own profilers on every precision, and what a description says without them."""

from __future__ import annotations

import errno
import os
import platform
import re
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import runtimes
from runtimes import Artifact, Backend, Layer, TensorSpec
from runtimes.backends import openvino, registry
from runtimes.backends.onnxruntime import executed_precision, profiling
from runtimes.errors import (
    ArtifactError,
    CompatibilityError,
    InputError,
    IntegrityError,
    ResourceError,
    RexportError,
    UsageError,
)
from runtimes.onnx import graph as onnxfile
from runtimes.onnx.graph import OnnxGraph
from runtimes.onnx.wire import Node
from runtimes.protocol import summarise_precisions
from runtimes.runtime import example
from tests.conftest import FakeFactory
from tests.exporter import small
from tests.refusals import refuses
from tests.runtimes import typed
from tests.runtimes.typed import Typed
from tests.samples import SCRIPT, copied, foreign_script

ONNX = [row.name for row in runtimes.available_backends() if "onnx" in row.formats and row.missing() is None]
PROFILERS = [row for row in registry.all_backends() if row.profile is not None and row.missing() is None]


def has(capability: str) -> bool:
    import openvino

    return capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """A small network of basic blocks in every precision."""
    return typed.make_typed_network(typed.BASIC, tmp_path_factory.mktemp("basic"))


@pytest.fixture(scope="module")
def bottleneck(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """A small network of bottlenecks in every precision."""
    return typed.make_typed_network(typed.BOTTLENECK, tmp_path_factory.mktemp("bottleneck"))


def weighted(layers: tuple[Layer, ...]) -> list[Layer]:
    return [layer for layer in layers if layer.weighted]


EXECUTED = {
    ("onnxruntime", "fp32"): "float32",
    ("onnxruntime", "fp16"): "float32",
    ("onnxruntime", "int8"): "int8",
    ("openvino", "fp32"): "float32",
    ("openvino", "fp16"): "float16" if has("FP16") else "float32",
    ("openvino", "bf16"): "bfloat16" if has("BF16") else "float32",
    ("openvino", "int8"): "int8",
}
"""What each backend computes in that can run the precision at all."""


def check_layers(network: Typed, backend: str, precision: str) -> None:
    """Every weighted layer goes by its node, and all run in the arithmetic that the description states."""
    path = network.paths[precision]
    layers = runtimes.profile(path, network.feeds(), backend, threads=1)
    assert sorted(layer.name for layer in weighted(layers)) == sorted(network.convolutions(precision))
    known = {node.name for node in onnx.load(path).graph.node}
    for layer in layers:
        assert set(layer.nodes) <= known
        assert (layer.name in layer.nodes) == bool(layer.nodes)
        assert layer.duration_s is not None
        assert 0 <= layer.duration_s < 60
    named = [layer.name for layer in layers if layer.nodes]
    assert len(set(named)) == len(named)  # no two steps go by the same node
    assert summarise_precisions(layers) == EXECUTED[backend, precision]
    with runtimes.open(path, backend, threads=1) as runtime:
        assert runtime.description.precision == EXECUTED[backend, precision]


@pytest.mark.parametrize(("backend", "precision"), EXECUTED)
def test_layers_have_their_nodes_and_the_stated_arithmetic(network: Typed, backend: str, precision: str) -> None:
    check_layers(network, backend, precision)


@pytest.mark.parametrize("backend", ONNX)
def test_bottlenecks_are_told_like_basic_blocks(bottleneck: Typed, backend: str) -> None:
    for precision in ("fp32", "int8"):
        check_layers(bottleneck, backend, precision)


@pytest.mark.parametrize("backend", ONNX)
def test_the_whole_graph_is_accounted_for(network: Typed, backend: str) -> None:
    """What is fused is told as far as the library tells: OpenVINO tells additions and activations, ONNX Runtime the
    activation whose name a convolution bears."""
    layers = {layer.name: layer for layer in runtimes.profile(network.paths["fp32"], network.feeds(), backend)}
    assert layers["conv1/Conv"].nodes == ("conv1/Conv", "relu/Relu")
    assert layers["conv1/Conv"].operator == {"onnxruntime": "Conv", "openvino": "Convolution"}[backend]
    if backend == "openvino":
        assert layers["layer1.0.conv2/Conv"].nodes[0] == "layer1.0.conv2/Conv"


def test_quantised_layers_go_by_the_librarys_operators(network: Typed) -> None:
    path = network.paths["int8"]
    assert {layer.operator for layer in weighted(runtimes.profile(path, backend="onnxruntime"))} == {
        "QLinearConv",
        "QGemm",
    }
    assert {layer.operator for layer in weighted(runtimes.profile(path, backend="openvino"))} == {
        "Convolution",
        "FullyConnected",
    }


def test_a_layer_left_in_float_is_told(network: Typed, tmp_path: Path) -> None:
    path = tmp_path / "partly.onnx"
    typed.quantise(network.artifact.path, path, network.variant.size, but=["fc/Gemm"])
    total = len(network.convolutions("int8"))
    for backend in ONNX:
        layers = runtimes.profile(path, network.feeds(), backend, threads=1)
        assert Counter(layer.precision for layer in weighted(layers)) == {"int8": total - 1, "float32": 1}
        assert [layer.name for layer in weighted(layers) if layer.precision == "float32"] == ["fc/Gemm"]
        with runtimes.open(path, backend, threads=1) as runtime:
            assert runtime.description.precision == "float32 int8"


def around(operator: str, zero: type[np.generic], relu: bool, behind: str, bias: str) -> Any:
    """A graph of one quantised convolution or Gemm, and what is around it: whether its output is quantised, is taken
    twice or is the graph's, and whether its bias is."""
    conv = operator == "Conv"
    shape = {"Conv": (8, 3, 3, 3), "Gemm": (3, 8), "MatMul": (3, 8)}[operator]
    tensors = {
        "scale": np.float32(0.1),
        "zero": zero(0),
        "w": np.ones(shape, np.int8),
        "wzero": np.int8(0),
        "b": np.ones(8, np.float32 if bias == "float" else np.int32),
        "bscale": np.float32(0.01),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "wzero"], ["wd"]),
        helper.make_node("DequantizeLinear", ["b", "bscale"], ["bd"]),
    ]
    if bias != "quantised":
        nodes.pop()
    taken = {"none": [], "float": ["b"], "quantised": ["bd"]}[bias]
    nodes.append(helper.make_node(operator, ["xd", "wd", *taken], ["y"], "it"))
    last = "y"
    if relu:
        nodes.append(helper.make_node("Relu", ["y"], ["r"]))
        last = "r"
    if behind != "float":
        nodes.append(helper.make_node("QuantizeLinear", [last, "scale", "zero"], ["yq"]))
        nodes.append(helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["out"]))
    if behind != "quantised":
        nodes.append(helper.make_node("Sigmoid", [last], ["out" if behind == "float" else "more"]))
    outputs = ["out", "more"] if behind == "both" else ["out"]
    size = ("n", 3, 8, 8) if conv else ("n", 3)
    return helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )


SURROUNDINGS = [
    # The output is quantised at once.
    ("Conv", np.uint8, False, "quantised", "quantised"),
    ("Conv", np.int8, False, "quantised", "quantised"),
    ("Conv", np.uint8, False, "quantised", "none"),
    ("Conv", np.uint8, False, "quantised", "float"),
    ("Gemm", np.int8, False, "quantised", "quantised"),
    ("MatMul", np.uint8, False, "quantised", "none"),
    # It is quantised behind a ReLU, which unsigned integers make needless.
    ("Conv", np.uint8, True, "quantised", "quantised"),
    ("Conv", np.int8, True, "quantised", "quantised"),
    ("Gemm", np.uint8, True, "quantised", "quantised"),
    ("Gemm", np.int8, True, "quantised", "none"),
    ("MatMul", np.int8, True, "quantised", "none"),
    # It goes on as float.
    ("Conv", np.uint8, False, "float", "quantised"),
    ("Conv", np.uint8, True, "float", "none"),
    ("Gemm", np.uint8, False, "float", "quantised"),
    ("Gemm", np.int8, False, "float", "none"),
    ("Gemm", np.uint8, False, "float", "float"),
    ("Gemm", np.uint8, True, "float", "quantised"),
    ("MatMul", np.uint8, False, "float", "none"),
    # Both.
    ("Conv", np.uint8, False, "both", "quantised"),
    ("Conv", np.int8, True, "both", "none"),
    ("Gemm", np.uint8, False, "both", "quantised"),
    ("MatMul", np.int8, False, "both", "none"),
]
"""For each operator, each of the rules that decide about it."""


@pytest.mark.parametrize(("operator", "zero", "relu", "behind", "bias"), SURROUNDINGS)
def test_onnxruntimes_rules_for_integers_are_known(
    tmp_path: Path, operator: str, zero: type[np.generic], relu: bool, behind: str, bias: str
) -> None:
    path = save_graph(around(operator, zero, relu, behind, bias), tmp_path / "net.onnx")
    with runtimes.open(path, "onnxruntime", threads=1) as runtime:
        stated = runtime.description.precision
    assert summarise_precisions(runtimes.profile(path, None, "onnxruntime", threads=1)) == stated


def test_a_graph_for_tensorrt_is_partly_float_in_onnxruntime(network: Typed, tmp_path: Path) -> None:
    """Signed integers behind a ReLU: ONNX Runtime computes those convolutions in float32, and it is told."""
    model = onnx.load(network.paths["int8"])
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.int8), tensor.name))
    del model.graph.value_info[:]
    model.opset_import[0].version = 20  # from 21 on, ONNX Runtime 1.32 refuses signed pairs that it moves itself
    path = tmp_path / "signed.onnx"
    path.write_bytes(model.SerializeToString())
    layers = runtimes.profile(path, network.feeds(), "onnxruntime", threads=1)
    assert {layer.precision for layer in weighted(layers)} == {"float32", "int8"}
    with runtimes.open(path, "onnxruntime", threads=1) as runtime:
        assert runtime.description.precision == "float32 int8"
    assert summarise_precisions(runtimes.profile(path, network.feeds(), "openvino", threads=1)) == "int8"


@pytest.mark.parametrize(
    ("kind", "device", "machine", "expected"),
    [
        ("float32", "cpu", "x86_64", "float32"),
        ("float16", "cpu", "x86_64", "float32"),
        ("float16", "cpu", "aarch64", "float16"),
        ("float16", "cuda", "x86_64", "float16"),
        ("float64", "cpu", "x86_64", "float64"),
    ],
)
def test_onnxruntimes_rules_for_floats(
    kind: str, device: str, machine: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    for graph in (OnnxGraph((Node("c", "Conv", ("x", "w"), ("y",)),), {"w": kind}), OnnxGraph((), {"w": kind})):
        assert executed_precision.list_arithmetic(graph, device) == (expected,)


def test_on_cuda_quantised_layers_are_float() -> None:
    graph = OnnxGraph((Node("q", "QLinearConv", ("x",), ("y",)),), {})
    assert executed_precision.list_arithmetic(graph, "cuda") == ("float32",)
    assert executed_precision.list_arithmetic(graph, "cpu") == ("int8",)


@pytest.mark.parametrize(
    ("types", "capabilities", "expected"),
    [
        (("float32",), ["FP32", "BF16", "FP16", "INT8"], "f32"),
        (("int8",), ["FP32", "BF16", "FP16", "INT8"], "f32"),
        (("float32", "int8"), ["FP32", "BF16", "FP16", "INT8"], "f32"),
        (("bfloat16",), ["FP32", "BF16"], "bf16"),
        (("bfloat16", "int8"), ["FP32", "BF16"], "bf16"),
        (("bfloat16",), ["FP32", "FP16"], "f32"),
        (("float16",), ["FP32", "FP16"], "f16"),
        (("float16",), ["FP32", "BF16"], "f32"),
        (("bfloat16", "float32"), ["FP32", "BF16"], "f32"),
        (("bfloat16", "float16"), ["FP32", "BF16", "FP16"], "f32"),
        (("float64",), ["FP32"], "f32"),
        ((), ["FP32", "BF16"], "f32"),
    ],
)
def test_openvino_is_never_asked_for_less_than_the_graph(
    types: tuple[str, ...], capabilities: list[str], expected: str
) -> None:
    assert openvino.precision_hint(types, capabilities) == expected


@pytest.mark.skipif(not has("BF16"), reason="this processor has no bfloat16")
def test_openvinos_own_default_would_have_been_found_out(network: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "precision_hint", lambda *_: "bf16")
    path = network.paths["fp32"]
    assert summarise_precisions(runtimes.profile(path, network.feeds(), "openvino", threads=1)) == "bfloat16"
    with runtimes.open(path, "openvino", threads=1) as runtime:
        assert runtime.description.precision == "bfloat16"


def test_a_layer_of_less_than_a_microsecond_is_still_told(network: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO tells whole microseconds, and says of 0 that nothing was executed."""
    kept = openvino._steps
    monkeypatch.setattr(
        openvino, "_steps", lambda compiled: [step | {"execTimeMcs": "not_executed"} for step in kept(compiled)]
    )
    layers = runtimes.profile(network.paths["fp32"], network.feeds(), "openvino")
    assert sorted(layer.name for layer in layers) == sorted(network.convolutions("fp32"))
    assert {layer.duration_s for layer in layers} == {0.0}


def test_without_kernels_it_is_said_in_plain_words(network: Typed) -> None:
    path = network.paths["bf16"]
    for act in (runtimes.open, lambda path, backend: runtimes.profile(path, None, backend)):
        values = (path, "CPU", "Conv in bfloat16", "'conv1/Conv'", "another precision")
        with refuses(CompatibilityError, "provider-lacks-kernel", *values):
            act(path, "onnxruntime")


def test_the_first_test_vector_is_the_default_else_noise(network: Typed, tmp_path: Path) -> None:
    with runtimes.open(network.artifact.path) as runtime:
        np.testing.assert_array_equal(example(runtime)["input"], network.artifact.vectors().inputs[:1])
    for batch, expected in (("batch", 1), (3, 3)):
        model = onnx.load(network.artifact.path)
        shape = [batch, 3, *network.variant.size]
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, shape))
        path = tmp_path / f"{batch}.onnx"
        path.write_bytes(model.SerializeToString())
        with runtimes.open(path) as runtime:
            noise, again = example(runtime)["input"], example(runtime)["input"]
        assert noise.shape == (expected, 3, *network.variant.size)
        assert 0.5 < noise.std() < 2
        np.testing.assert_array_equal(noise, again)


def test_a_fixed_batch_is_filled_with_the_first_vector(tmp_path: Path) -> None:
    artifact = small.export(small.BASIC, tmp_path, batch=2)
    with runtimes.open(artifact.path) as runtime:
        feeds = example(runtime)["input"]
        first = artifact.vectors().inputs[0]
        np.testing.assert_array_equal(feeds, [first, first])
    assert summarise_precisions(runtimes.profile(artifact)) == "float32"


def test_noise_for_integers_fits_them(tmp_path: Path) -> None:
    inputs = tuple(TensorSpec(name, name, ("n", 50, 50)) for name in ("uint8", "int64", "bool", "float16"))
    with runtimes.open(foreign_script(tmp_path / "many.fake", replace(SCRIPT, inputs=inputs)).path) as runtime:
        feeds = example(runtime)
    assert {name: array.dtype.name for name, array in feeds.items()} == {spec.name: spec.dtype for spec in inputs}
    assert (feeds["uint8"].min(), feeds["uint8"].max()) == (0, 255)
    assert set(np.unique(feeds["int64"])) == {0, 1}


def test_pytorch_tells_its_operators(pt2_artifact: Artifact) -> None:
    layers = runtimes.profile(pt2_artifact, threads=1)
    assert summarise_precisions(layers) == "float32"
    found = {layer.name: layer for layer in layers}
    assert len(found) == len(layers)
    assert len(weighted(layers)) == 20
    assert found["layer1.0.conv1/conv2d_1"].operator == "aten.conv2d.default"
    assert found["fc/linear"].weighted
    assert not found["bn1/batch_norm"].weighted
    assert all(layer.nodes == (layer.name,) and layer.duration_s is not None for layer in layers)


def test_pytorch_tells_the_type_of_each_operator() -> None:
    import torch

    from runtimes.backends.pytorch.backend import _time_operators

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.second = torch.nn.Linear(4, 4, dtype=torch.bfloat16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.second(self.first(x).to(torch.bfloat16)).float()
            return result

    x = torch.zeros(2, 4)
    found: list[Layer] = []
    with torch.inference_mode():
        _time_operators(torch.export.export(Mixed(), (x,)).module(), lambda: None, found)(x)
    assert [(layer.name, layer.precision) for layer in found if layer.weighted] == [
        ("first/linear", "float32"),
        ("second/linear_1", "bfloat16"),
    ]


def test_a_backend_that_cannot_tell_says_so(pt2_artifact: Artifact) -> None:
    with refuses(UsageError, "backend-cannot-profile", "inductor", "of pytorch)"):
        runtimes.profile(pt2_artifact, backend="inductor")


def test_a_script_is_one_step(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact(replace(SCRIPT, delays_s=(0.25, 1.0)))
    assert runtimes.profile(artifact.path) == (Layer("script", ("script",), "Script", "float32", True, 0.25),)


@pytest.mark.parametrize("backend", PROFILERS, ids=lambda row: row.name)
def test_feeds_and_options_are_checked_as_for_open(
    backend: Backend, onnx_artifact: Artifact, pt2_artifact: Artifact, fake_artifact: FakeFactory
) -> None:
    artifact = {"onnx": onnx_artifact, "pt2": pt2_artifact, "fake": fake_artifact()}[backend.formats[0]]
    shape = (2, 3, 8, 8) if backend.name == "fake" else (2, 3, 32, 32)
    assert runtimes.profile(artifact.path, {"input": np.ones(shape, np.float32)}, backend.name)
    with refuses(InputError, "input-dtype-mismatch", "float64"):
        runtimes.profile(artifact, {"input": np.ones(shape)}, backend.name)
    with refuses(InputError, "input-names-mismatch", "'input'", "'x'"):
        runtimes.profile(artifact, {"x": np.ones(shape, np.float32)}, backend.name)
    with refuses(InputError, "feeds-empty"):
        runtimes.profile(artifact, {"input": np.ones((0, *shape[1:]), np.float32)}, backend.name)
    with refuses(UsageError, "threads-out-of-range", "not 0"):
        runtimes.profile(artifact, None, backend.name, threads=0)
    with refuses(UsageError, "device-unknown", "'tpu'"):
        runtimes.profile(artifact, None, backend.name, device="tpu")


def test_a_damaged_file_is_not_profiled(onnx_artifact: Artifact, tmp_path: Path) -> None:
    artifact = copied(onnx_artifact, tmp_path)
    content = bytearray(artifact.path.read_bytes())
    content[len(content) // 2] ^= 1
    artifact.path.write_bytes(content)
    for what in (artifact, artifact.path):
        with refuses(IntegrityError, "file-digest-mismatch"):
            runtimes.profile(what)


def test_nothing_is_left_on_the_disk(onnx_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for backend in ONNX:
        runtimes.profile(onnx_artifact, backend=backend)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with refuses(ResourceError, "file-access-failed", tmp_path / "gone", "profile", os.strerror(errno.ENOENT)):
        runtimes.profile(onnx_artifact, backend="onnxruntime")


def test_a_profile_cut_short_is_an_error(
    onnx_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text('[{"name": ')
    monkeypatch.setattr(profiling, "_record_profile", lambda *_: cut)
    with refuses(ResourceError, "profile-incomplete", "char 10"):
        runtimes.profile(onnx_artifact, backend="onnxruntime")


def test_what_only_running_finds_out_is_a_declared_error(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["b"])],
        "net",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ("n", "m"))],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, ("k", "l"))],
        [numpy_helper.from_array(np.ones((2, 4), np.float32), "w")],
    )
    path = save_graph(graph, tmp_path / "net.onnx")
    assert runtimes.profile(path, {"a": np.ones((2, 4), np.float32)}, "onnxruntime")
    with refuses(ArtifactError, "onnxruntime-refused-file", "Add node"):
        runtimes.profile(path, {"a": np.ones((3, 3), np.float32)}, "onnxruntime")


SHAPES, OPERATION = RuntimeError("Exception from a.cpp:1:\nShapes differ"), RuntimeError("X is not supported")


@pytest.mark.parametrize(
    ("given", "kind", "code", "value"),
    [
        (SHAPES, ArtifactError, "openvino-refused-file", ": Shapes differ"),
        (OPERATION, CompatibilityError, "openvino-cannot-run", OPERATION),
        (RuntimeError("Cannot allocate memory"), ResourceError, "openvino-out-of-memory", ""),
        (InputError("the caller's", code="own"), InputError, "own", ""),
    ],
)
def test_openvinos_errors_are_translated(given: Exception, kind: type[RexportError], code: str, value: object) -> None:
    with refuses(kind, code, value), openvino._translate_errors():
        raise given


def save_graph(graph: Any, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("backend", ONNX)
@pytest.mark.parametrize("names", [("", "", ""), ('a"b', "c\\d", "e\nf"), ("é", "日本", "x y")])
def test_foreign_names_do_no_harm(tmp_path: Path, backend: str, names: tuple[str, str, str]) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], names[0], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], names[1]),
        helper.make_node("Softmax", ["r"], ["scores"], names[2], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("n", 4, 8, 8))],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    (layer,) = weighted(runtimes.profile(save_graph(graph, tmp_path / "net.onnx"), None, backend))
    assert layer.name == (names[0] or "c")
    assert layer.nodes == (names[0] or "c", names[1] or "r")


def layer(precision: str, weighted: bool = True) -> Layer:
    return Layer("x", (), "Conv", precision, weighted, None)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([layer("int8")] * 3, "int8"),
        ([layer("int8"), layer("float32", weighted=False)], "int8"),
    ],
)
def test_arithmetic_in_words(layers: list[Layer], expected: str) -> None:
    assert summarise_precisions(layers) == expected


def test_without_weighted_layers_there_is_no_arithmetic() -> None:
    assert "no convolution" in summarise_precisions([])
    assert "no convolution" in summarise_precisions([layer("float32", weighted=False)])


def test_mixed_arithmetic_is_counted_most_frequent_first() -> None:
    summary = summarise_precisions([layer("float32"), *[layer("int8")] * 53])
    counts = re.findall(r"(\w+) \((\d+) of (\d+)\)(?:, |$)", summary)
    assert counts == [("int8", "53", "54"), ("float32", "1", "54")]


def event(name: str, operator: str, kind: str = "float") -> dict[str, Any]:
    about = {"op_name": operator, "input_type_shape": [{kind: [1]}], "output_type_shape": []}
    return {"name": f"{name}_kernel_time", "dur": 3, "ts": 0, "args": about}


BLOCK = OnnxGraph(
    (
        Node("conv1", "Conv", ("input", "w1"), ("a",)),
        Node("conv2", "Conv", ("input", "w2"), ("b",)),
        Node("add", "Add", ("a", "b"), ("sum",)),
        Node("relu", "Relu", ("sum",), ("r",)),
        Node("Transpose", "Transpose", ("r",), ("t",)),
        Node("conv3_nchwc", "Conv", ("t", "w3"), ("d",)),
    ),
    {"w1": "float32", "w2": "float32", "w3": "float32"},
)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event("conv1_token_12", "QLinearConv", "uint8")], [("conv1", "int8", True)]),
        ([event("InsertedPrecisionFreeCast_b_nchwc_token_3", "Conv")], [("conv2", "float32", True)]),
        ([event("conv3_nchwc", "Conv", "double")], [("conv3_nchwc", "float64", True)]),
        ([event("conv3_nchwc_nchwc", "Conv")], [("conv3_nchwc", "float32", True)]),
        # Two convolutions lead to the addition: neither may be claimed.
        ([event("r_nchwc", "Conv")], [("relu", "float32", True)]),
        # What the library adds bears the name of a tensor, or of a node that has a step of its own.
        ([event("InsertedPrecisionFreeCast_r", "Cast")], [("InsertedPrecisionFreeCast_r", "float32", False)]),
        (
            [event("Transpose", "Transpose"), event("Transpose_token_4", "Transpose", "float16")],
            [("Transpose", "float32", False), ("Transpose_token_4", "float16", False)],
        ),
        ([event("ReorderOutput_token_9", "ReorderOutput")], [("ReorderOutput_token_9", "float32", False)]),
    ],
)
def test_onnxruntimes_names_are_undecorated(
    events: list[dict[str, Any]], expected: list[tuple[str, str, bool]]
) -> None:
    found = profiling.layers(events, BLOCK, timed=True)
    assert [(layer.name, layer.precision, layer.weighted) for layer in found] == expected
    assert {layer.duration_s for layer in found} == {3e-6}
    assert {layer.duration_s for layer in profiling.layers(events, BLOCK, timed=False)} == {None}


def test_a_circle_of_nodes_ends() -> None:
    circle = OnnxGraph(
        (
            Node("one", "Reshape", ("b",), ("a",)),
            Node("two", "Reshape", ("a",), ("b",)),
            Node("conv", "Conv", ("a", "w"), ("c",)),
        ),
        {"w": "float32"},
    )
    assert circle.arithmetic == ("float32",)
    assert [node.name for node in circle.find_fused(circle.nodes[0])] == ["one"]


def test_a_tensor_that_is_left_out_has_no_producer() -> None:
    graph = OnnxGraph((Node("pool", "MaxPool", ("x",), ("y", "")), Node("clip", "Clip", ("y", "", "max"), ("z",))), {})
    assert graph.find("") is None
    assert [node.name for node in graph.find_fused(graph.nodes[1])] == ["clip"]


def quantised(data: str, weights: str) -> OnnxGraph:
    """A convolution whose input and weights come through ``data`` and ``weights``, each an operator."""
    return OnnxGraph(
        (
            Node("d", data, ("x", "s", "z"), ("d",)),
            Node("w", weights, ("q", "s", "z"), ("w",)),
            Node("conv", "Conv", ("d", "w"), ("c",)),
        ),
        {"q": "int8", "s": "float16"},
    )


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (quantised("DequantizeLinear", "DequantizeLinear"), ("int8",)),
        (quantised("Relu", "DequantizeLinear"), ("float16",)),
        (OnnxGraph((Node("q", "QLinearConv", ("x",), ("y",)),), {}), ("int8",)),
        (OnnxGraph((Node("m", "MatMulInteger", ("x", "w"), ("y",)),), {}), ("int8",)),
        (OnnxGraph((Node("m", "MatMul", ("x", "y"), ("z",)),), {"s": "bfloat16", "shape": ""}), ("bfloat16",)),
        (OnnxGraph((Node("m", "Conv", ("x",), ("z",)),), {}), ()),
    ],
)
def test_a_graphs_arithmetic(graph: OnnxGraph, expected: tuple[str, ...]) -> None:
    assert graph.arithmetic == expected


def test_a_graph_as_its_file_has_it(network: Typed, tmp_path: Path) -> None:
    for path in network.paths.values():
        model = onnx.load(path)
        found = onnxfile.graph(path)
        assert [(node.name, node.operator, list(node.inputs), list(node.outputs)) for node in found.nodes] == [
            (node.name, node.op_type, list(node.input), list(node.output)) for node in model.graph.node
        ]
        assert list(found.types) == [tensor.name for tensor in model.graph.initializer]
        assert [found.find(name) for node in found.nodes for name in (node.name, node.outputs[0])] == [
            node for node in found.nodes for _ in range(2)
        ]
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(network.artifact.path.read_bytes()[:-7])
    with refuses(ArtifactError, "onnx-field-cut"):
        onnxfile.graph(cut)
