"""The recipe of NVIDIA ModelOpt: with the real library in an environment of its own, and without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import runtimes
from exporter.models.resnet import build
from exporter.precision import modelopt, recipe_search
from exporter.precision.modelopt import _store_weights, quantise_with_modelopt
from exporter.precision.recipes import recipes_for
from exporter.precision.spec import PrecisionSpec
from exporter.targets import tensorrt_engine
from exporter.targets.tensorrt_engine import EngineRequest
from runtimes import Artifact
from runtimes.errors import BackendUnavailableError, CompatibilityError
from tests.exporter.small import SILENT, export
from tests.peers import ROOT, peer
from tests.refusals import refuses


def test_the_recipe_is_for_tensorrt_and_comes_last() -> None:
    assert list(recipes_for("int8", "tensorrt"))[-1] == list(recipes_for("fp8", "tensorrt"))[-1] == "modelopt"
    assert "modelopt" not in recipes_for("int8", "cpu")


def test_without_the_library_the_recipe_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    from tests.exporter.precision.test_float8 import WIDE

    spec = PrecisionSpec("fp8", calibration_images=2, gate_images=2, recipe="modelopt")
    with refuses(BackendUnavailableError, "modelopt-missing"):
        export(WIDE, tmp_path, precision_spec=spec)
    assert list(tmp_path.iterdir()) == []


def quantised_nothing(path: str, *, output_path: str, **_: object) -> None:
    Path(output_path).write_bytes(Path(path).read_bytes())


def failed(path: str, **_: object) -> None:
    raise RuntimeError(f"no plugin for {path}")


@pytest.mark.parametrize(
    ("quantize", "code"), [(quantised_nothing, "modelopt-quantised-nothing"), (failed, "modelopt-failed")]
)
def test_a_library_that_fails_leaves_a_reason(monkeypatch: pytest.MonkeyPatch, quantize: object, code: str) -> None:
    """The double has the entry of the library that is called."""
    package = ModuleType("modelopt.onnx.quantization")
    package.quantize = quantize  # type: ignore[attr-defined]
    for name in ("modelopt", "modelopt.onnx"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr(modelopt, "quantiser", lambda: "nvidia-modelopt 0.47.0")
    with refuses(CompatibilityError, code):
        quantise_with_modelopt(float_graph(), np.zeros((1, 4), np.float32), "int8")


def float_graph() -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "g", value[:1], value[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def weighted_graph() -> onnx.ModelProto:
    """A product whose float16 weights are quantised to E4M3 and restored in the graph."""
    weights = np.arange(-8, 8, dtype=np.float16).reshape(4, 4) / np.float16(7)
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    scale = numpy_helper.from_array(np.array(0.01, np.float16), "scale")
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["weights", "scale", "zero"], ["narrow"]),
        helper.make_node("DequantizeLinear", ["narrow", "scale", "zero"], ["restored"]),
        helper.make_node("MatMul", ["x", "restored"], ["y"]),
        helper.make_node("Cast", ["y"], ["output"], to=TensorProto.FLOAT),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("input", "output")]
    tensors = [numpy_helper.from_array(weights, "weights"), scale, zero]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_stored_weights_are_the_same_function_in_fewer_bytes(tmp_path: Path) -> None:
    graph, stored = weighted_graph(), weighted_graph()
    _store_weights(stored)
    onnx.checker.check_model(stored, full_check=True)
    assert [node.op_type for node in stored.graph.node].count("QuantizeLinear") == 0
    kinds = {tensor.name: tensor.data_type for tensor in stored.graph.initializer}
    assert kinds["narrow"] == TensorProto.FLOAT8E4M3FN
    assert "weights" not in kinds
    feeds = {"input": np.ones((1, 4), np.float32)}
    results = []
    for number, model in enumerate((graph, stored)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model.SerializeToString())
        with runtimes.open(path, "onnxruntime") as runtime:
            results.append(runtime.infer(feeds)["output"])
    np.testing.assert_array_equal(results[0], results[1])


def test_a_search_for_tensorrt_names_the_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with refuses(BackendUnavailableError, "modelopt-missing"):
        recipe_search._quantiser(recipes_for("fp8", "tensorrt")["modelopt"])


@pytest.mark.peers
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_the_real_library_passes_the_gate(precision: str, tmp_path: Path) -> None:
    """In its environment; TensorRT-RTX builds the file here, and ONNX Runtime opens it."""
    python, out = peer("modelopt") / "bin" / "python", tmp_path / f"{precision}.onnx"
    words = ["onnx", "resnet20", "--weights", "bundled", "--precision", precision, "--recipe", "modelopt"]
    target = ["--target", "tensorrt"] if precision == "int8" else []
    run = subprocess.run(
        [python, "-m", "exporter.cli", *words, *target, "--calibration-images", "32", "-o", out],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{out}\n"
    manifest = Artifact.read(out).manifest
    assert manifest is not None
    assert manifest.calibration is not None
    assert manifest.gate is not None
    assert manifest.calibration.quantiser.startswith("nvidia-modelopt ")
    assert manifest.gate.error < 0.1
    kinds = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
    assert TensorProto.FLOAT16 in kinds
    assert TensorProto.FLOAT not in kinds
    assert out.stat().st_size < 0.35 * 4 * sum(value.numel() for value in build_resnet20().parameters())
    engine = tensorrt_engine.build_artifact(out, EngineRequest("rtx"), SILENT)
    assert engine.manifest is not None
    assert engine.manifest.precision == precision


def build_resnet20() -> nn.Module:
    from exporter.models.variants import VARIANTS

    return build(VARIANTS["resnet20"])
