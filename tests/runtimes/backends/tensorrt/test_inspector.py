"""What an engine's inspector says, in the words of TensorRT 10 and 11."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtimes import Artifact
from runtimes.backends.tensorrt.inspector import EngineLayer, read
from runtimes.errors import ArtifactError
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Layer, summarise_precisions
from tests.refusals import refuses

SEPARATOR = "\x1e"


def row(
    name: str, kind: str, taken: str, given: str, tactic: str | None = None, metadata: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """A layer as TensorRT 10 tells it."""
    found = {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "a", "Dimensions": [8, 3, 32, 32], "Format/Datatype": taken}],
        "Outputs": [{"Name": "b", "Dimensions": [8, 16, 32, 32], "Format/Datatype": given}],
        **more,
    }
    if tactic is not None:
        found["TacticName"] = tactic
    if metadata:
        found["Metadata"] = SEPARATOR.join(f"[ONNX Layer: {node}]" for node in metadata)
    return found


def in_eleven(found: dict[str, Any]) -> dict[str, Any]:
    """The same layer as TensorRT 11 tells it, where a tensor's type stands for itself."""

    def split(tensor: dict[str, Any]) -> dict[str, Any]:
        words = tensor["Format/Datatype"]
        rest = {key: value for key, value in tensor.items() if key != "Format/Datatype"}
        kind = next(word for word in ("Int8", "Half", "BFloat16", "Float", "N/A") if word.lower() in words.lower())
        kind = {"N/A": ""}.get(kind, kind)
        return {**rest, "Format": "Row major linear format (kLINEAR)" if kind else words, "DataType": kind}

    return {**found, "Inputs": [*map(split, found["Inputs"])], "Outputs": [*map(split, found["Outputs"])]}


LINEAR = "Row major linear Float format"
HALVES = "Channel major Half format where channel % 8 == 0"
BYTES = "Thirty-two wide channel vectorized row major Int8 format"
HIDDEN = "N/A due to dynamic shapes"
F32 = "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc_tilesize128x64x16"
TF32 = "sm80_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x64x16"

CASES = {
    "float": (row("conv1/Conv + relu/Relu", "CaskConvolution", LINEAR, LINEAR, F32), "float32", True),
    "TensorFloat-32": (row("conv1/Conv", "CaskConvolution", LINEAR, LINEAR, TF32), "tfloat32", True),
    "half": (row("conv1/Conv", "CaskConvolution", HALVES, HALVES, "sm90_xmma_f16f16"), "float16", True),
    "bfloat16": (row("conv1/Conv", "CaskConvolution", "BFloat16 linear", "BFloat16 linear"), "bfloat16", True),
    "int8 that gives float": (row("conv1/Conv", "CaskConvolution", BYTES, LINEAR), "int8", True),
    "hidden by dynamic shapes": (
        row("conv1/Conv", "CaskConvolution", HIDDEN, HIDDEN, Weights={"Type": "Int8", "Count": 864}),
        "int8",
        True,
    ),
    "hidden altogether": (row("conv1/Conv", "CaskConvolution", HIDDEN, HIDDEN), "unknown", True),
    "product": (row("fc/Gemm_myl0_3", "gemm", HALVES, HALVES, metadata=("fc/Gemm",)), "float16", True),
    "fusion with a product": (
        row("__myl_FcAdd_myl0_1", "fusion", HALVES, HALVES, "sm80_xmma_gemm_f16f16", ("fc/Gemm",)),
        "float16",
        True,
    ),
    "pointwise": (
        row("__myl_AddRelu_myl0_2", "kgen", HALVES, HALVES, "__myl_AddRelu", ("add", "relu")),
        "float16",
        False,
    ),
    "reformat": (
        row("Reformatting CopyNode for Input Tensor 0 to conv1/Conv", "Reformat", LINEAR, HALVES),
        "float32",
        False,
    ),
}


@pytest.mark.parametrize("release", [10, 11])
@pytest.mark.parametrize("case", CASES)
def test_what_a_layer_computes_in(case: str, release: int) -> None:
    found, precision, weighted = CASES[case]
    text = json.dumps({"Layers": [found if release == 10 else in_eleven(found)], "Bindings": ["input", "logits"]})
    (layer,) = read(text)
    assert (layer.layer.precision, layer.layer.weighted) == (precision, weighted)
    assert layer.title == found["Name"]
    assert layer.tactic == found.get("TacticName")


def test_fused_nodes_are_those_of_the_metadata() -> None:
    text = json.dumps(
        {
            "Layers": [
                row("made up", "CaskConvolution", HALVES, HALVES, metadata=("layer1.0.conv1/Conv", "relu_1/Relu")),
                row("joined", "fusion", HALVES, HALVES, Metadata="[ONNX Layer: a]\x1f[ONNX Layer: b/Conv[0]]"),
            ]
        }
    )
    first, second = (row.layer for row in read(text))
    assert first == Layer(
        "layer1.0.conv1/Conv", ("layer1.0.conv1/Conv", "relu_1/Relu"), "CaskConvolution", "float16", True, None
    )
    assert (second.name, second.nodes) == ("b/Conv[0]", ("a", "b/Conv[0]"))


def test_without_metadata_the_names_are_taken_apart() -> None:
    copied = "Reformatting CopyNode for Input Tensor 0 to conv1/Conv"
    text = json.dumps(
        {
            "Layers": [
                row("weight_q + conv1/QuantizeLinear + conv1/Conv + add/Add", "CaskConvolution", BYTES, BYTES),
                row(copied, "Reformat", LINEAR, HALVES),
                row("{ForeignNode[pool/ReduceMean...fc/Gemm]}", "Myelin", HALVES, LINEAR),
            ]
        }
    )
    conv, copy, foreign = (row.layer for row in read(text))
    assert conv.name == "conv1/Conv"
    assert conv.nodes == ("weight_q", "conv1/QuantizeLinear", "conv1/Conv", "add/Add")
    assert (copy.name, copy.nodes) == (copied, ())
    assert foreign.nodes == ()


def test_nodes_are_those_of_the_graph(onnx_artifact: Artifact) -> None:
    graph = onnxfile.graph(onnx_artifact.path)
    conv = next(node for node in graph.nodes if node.weighted)
    text = json.dumps({"Layers": [row("x", "fusion", HALVES, HALVES, metadata=("no such node", conv.name))]})
    (found,) = read(text, graph)
    assert found.layer.nodes == (conv.name,)
    assert found.layer.weighted
    (alone,) = read(json.dumps({"Layers": [row("x", "fusion", HALVES, HALVES, metadata=("no such",))]}), graph)
    assert (alone.layer.name, alone.layer.nodes, alone.layer.weighted) == ("x", (), False)


def test_an_engine_that_holds_names_alone() -> None:
    """As one does that others built, with the default verbosity."""
    found = read('{"Layers": ["conv1/Conv + relu/Relu", "fc/Gemm"], "Bindings": ["input"]}')
    assert [row.layer.name for row in found] == ["conv1/Conv", "fc/Gemm"]
    assert {row.layer.precision for row in found} == {"unknown"}


def test_the_arithmetic_in_words() -> None:
    text = json.dumps({"Layers": [found for found, _, _ in CASES.values()]})
    words = summarise_precisions(row.layer for row in read(text))
    counts = {"float16": 3, "int8": 2, "float32": 1, "tfloat32": 1, "bfloat16": 1, "unknown": 1}
    assert words.split(", ") == [f"{precision} ({count} of 9)" for precision, count in counts.items()]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"Layers": [3]}', '{"Layers": [{}]}', '{"Layers": null}'])
def test_what_cannot_be_read(text: str) -> None:
    with refuses(ArtifactError, "inspector-text-unreadable"):
        read(text)


def test_a_layer_is_whole() -> None:
    (found,) = read(json.dumps({"Layers": [CASES["TensorFloat-32"][0]]}))
    assert found == EngineLayer(
        Layer("conv1/Conv", ("conv1/Conv",), "CaskConvolution", "tfloat32", True, None), "conv1/Conv", TF32
    )
