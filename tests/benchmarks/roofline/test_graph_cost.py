from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.roofline.graph_cost import Cost, cost, cost_of, count_cost
from exporter.models.layers import layers, multiply_adds
from exporter.models.resnet import build
from exporter.models.variants import Variant, customise, variant
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Engine, Profile
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError
from runtimes.protocol import Array
from tests.conftest import FakeFactory
from tests.refusals import refuses

if TYPE_CHECKING:
    import onnx

onnx_library = pytest.importorskip("onnx")

IMAGENET = [
    variant(name) for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "plain18", "plain34")
]

LATER = ("resnext50_32x4d", "resnetrs50", "ecaresnetlight", "resnetaa50", "resnet50_gn", "resnetv2_50")
"""Networks with the options that came after He et al. 2015. test_families counts a binomial blur."""


def folded_bytes(row: Variant, width: int = 4) -> int:
    """Of the weights and a bias a channel, as in a graph whose batch-norms are folded."""
    return width * sum(
        math.prod(layer.shape) + layer.out_channels * (layer.bias or bool(layer.norm)) for layer in layers(row)
    )


def traced(row: Variant, path: Path) -> Path:
    """The variant's graph as torch's older tracer writes it, which is quick and folds the batch-norms too.

    No two of its biases are the same, or the tracer would write them once.
    """
    import torch

    model = build(row).eval()
    with torch.no_grad():
        for values in model.parameters():
            values.uniform_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, row.in_channels, *row.size),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            dynamic_axes={"input": {0: "batch"}},
        )
    return path


@pytest.mark.parametrize("row", IMAGENET, ids=lambda row: row.name)
def test_the_graph_has_the_variants_multiply_adds(row: Variant, tmp_path: Path) -> None:
    """At full depth and size; all but the shallowest have narrower layers, which are traced sooner."""
    row = row if row.name == "resnet18" else replace(row, widths=tuple(width // 8 for width in row.widths))
    found = cost(traced(row, tmp_path / "graph.onnx"), 3)
    assert found.multiply_adds == 3 * multiply_adds(row)
    assert found.weights_bytes == folded_bytes(row)
    assert found.traffic_bytes == folded_bytes(row) + 3 * 4 * (3 * 224 * 224 + 1000)


@pytest.mark.parametrize("name", LATER)
def test_later_networks_have_their_multiply_adds(name: str, tmp_path: Path) -> None:
    row = replace(variant(name), depths=(1, 1, 1, 1), size=(64, 64))
    assert cost(traced(row, tmp_path / "graph.onnx"), 3).multiply_adds == 3 * multiply_adds(row)


def test_another_stride_gives_another_count(tmp_path: Path) -> None:
    row = replace(variant("resnet50"), depths=(1, 1), widths=(8, 16), size=(64, 64))
    found = cost(traced(customise(row, stride="v1"), tmp_path / "graph.onnx"), 1)
    assert found.multiply_adds == multiply_adds(customise(row, stride="v1")) < multiply_adds(row)


def test_an_exported_artifact_and_its_program_cost_the_same(onnx_artifact: Artifact, pt2_artifact: Artifact) -> None:
    row = variant("resnet20")
    ends = 8 * 4 * (3 * 32 * 32 + 10)
    expected = Cost(8 * multiply_adds(row), folded_bytes(row), folded_bytes(row) + ends)
    assert count_cost(pt2_artifact, 8) == expected
    found = count_cost(onnx_artifact, 8)
    bias = 4 * row.classes  # of untrained weights it is 0, and left out
    assert found.multiply_adds == expected.multiply_adds
    assert found.weights_bytes == expected.weights_bytes - bias
    assert found.traffic_bytes == expected.traffic_bytes - bias


NODES: dict[str, tuple[str, Sequence[Sequence[int]], dict[str, object], int]] = {
    "convolution": ("Conv", [(1, 4, 8, 8), (6, 4, 3, 3)], {"pads": [1, 1, 1, 1]}, 6 * 4 * 9 * 64),
    "stride": ("Conv", [(1, 4, 8, 8), (6, 4, 3, 3)], {"pads": [1] * 4, "strides": [2, 2]}, 6 * 4 * 9 * 16),
    "groups": ("Conv", [(1, 4, 8, 8), (6, 2, 1, 1)], {"group": 2}, 6 * 2 * 64),
    "transposed": ("ConvTranspose", [(1, 4, 8, 8), (4, 6, 2, 2)], {"strides": [2, 2]}, 4 * 6 * 4 * 64),
    "matrices": ("MatMul", [(1, 5, 7), (7, 3)], {}, 5 * 7 * 3),
    "stack of matrices": ("MatMul", [(1, 2, 5, 7), (2, 7, 3)], {}, 2 * 5 * 7 * 3),
    "matrix and vector": ("MatMul", [(1, 7), (7,)], {}, 7),
    "classifier": ("Gemm", [(1, 7), (3, 7)], {"transB": 1}, 7 * 3),
    "turned": ("Gemm", [(1, 5), (1, 3)], {"transA": 1}, 1 * 5 * 3),
}


def saved(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, Sequence[int | str], str]],
    held: dict[str, Array],
    domains: Sequence[str] = ("",),
) -> Path:
    """A graph from its parts, whose output is ``y``; an input is a name, a shape and onnx's name of its type."""
    from onnx import TensorProto, helper, numpy_helper

    values = [
        helper.make_tensor_value_info(name, TensorProto.DataType.Value(kind), shape) for name, shape, kind in inputs
    ]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        values,
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 18) for domain in domains])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("name", NODES)
def test_each_operator_counts_as_it_is_defined(name: str, tmp_path: Path) -> None:
    from onnx import helper

    operator, (data, weights), attributes, expected = NODES[name]
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    held = {"w": np.zeros(weights, np.float32)}
    found = cost(saved(tmp_path / "graph.onnx", [node], [("x", data, "FLOAT")], held), 1)
    assert found.multiply_adds == expected
    assert found.weights_bytes == 4 * np.prod(weights)


def test_operators_of_integers_count_as_the_same_of_floats(tmp_path: Path) -> None:
    from onnx import helper

    held: dict[str, Array] = {"w": np.zeros((6, 4, 3, 3), np.int8), "m": np.zeros((7, 3), np.int8)}
    held |= {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.uint8), "zero8": np.array(0, np.int8)}
    quantised = ["x", "scale", "zero", "w", "scale", "zero8", "scale", "zero"]
    product = ["x", "scale", "zero", "m", "scale", "zero8", "scale", "zero"]
    for operator, inputs, shape, expected in (
        ("QLinearConv", quantised, (2, 4, 8, 8), 2 * 6 * 4 * 9 * 36),
        ("ConvInteger", ["x", "w"], (2, 4, 8, 8), 2 * 6 * 4 * 9 * 36),
        ("QLinearMatMul", product, (2, 5, 7), 2 * 5 * 7 * 3),
        ("MatMulInteger", ["x", "m"], (2, 5, 7), 2 * 5 * 7 * 3),
    ):
        node = helper.make_node(operator, inputs, ["y"])
        path = saved(tmp_path / "graph.onnx", [node], [("x", shape, "UINT8")], held)
        assert cost(path, 2).multiply_adds == expected, operator


def test_quantised_tensors_count_one_byte_each(tmp_path: Path) -> None:
    """Conv, ReLU, Q, DQ, Conv, with the weights behind DQ nodes."""
    from onnx import helper

    def restored(name: str, zero: str) -> onnx.NodeProto:
        return helper.make_node("DequantizeLinear", [name, "scale", zero], [f"{name}_f"])

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x_q"]),
        restored("x_q", "zero"),
        restored("w", "zero8"),
        helper.make_node("Conv", ["x_q_f", "w_f"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("QuantizeLinear", ["r", "scale", "zero"], ["r_q"]),
        restored("r_q", "zero"),
        restored("v", "zero8"),
        helper.make_node("Conv", ["r_q_f", "v_f"], ["y"]),
    ]
    held: dict[str, Array] = {"w": np.zeros((6, 4, 3, 3), np.int8), "v": np.zeros((2, 6, 1, 1), np.int8)}
    held |= {"scale": np.array(0.5, np.float32), "zero": np.array(0, np.uint8), "zero8": np.array(0, np.int8)}
    found = cost(saved(tmp_path / "graph.onnx", nodes, [("x", ("n", 4, 8, 8), "FLOAT")], held), 5)
    weights = 6 * 4 * 9 + 2 * 6 + 4 + 1 + 1
    assert found == Cost(
        multiply_adds=5 * 36 * (6 * 4 * 9 + 2 * 6),
        weights_bytes=weights,
        traffic_bytes=weights + 5 * 4 * (4 * 64 + 2 * 36),
    )


def test_weights_beside_the_file_are_not_read(tmp_path: Path) -> None:
    from onnx import helper

    held = {"w": np.zeros((64, 4, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    inline = saved(tmp_path / "graph.onnx", [node], [("x", (1, 4, 8, 8), "FLOAT")], held)
    outside = tmp_path / "outside.onnx"
    onnx_library.save(
        onnx_library.load(inline), outside, save_as_external_data=True, location="weights", size_threshold=0
    )
    (tmp_path / "weights").unlink()
    assert cost(outside, 1) == cost(inline, 1)


CONV = ("Conv", ["x", "w"], ["y"])


@pytest.mark.parametrize(
    ("node", "shape", "code", "value"),
    [
        (CONV, (4, 4, 8, 8), "batch-fixed", "4"),
        (CONV, ("n", 4, "height", 8), "shape-open", "(n, 4, height, 8)"),
        (("MatMul", ["x", "w"], ["y"]), ("n", 4, 8, 8), "shapes-not-inferred", "graph.onnx"),
        (("Einsum", ["x", "w"], ["y"]), ("n", 4, 8, 8), "operator-not-counted", "Einsum"),
        (("FusedConv", ["x", "w"], ["y"]), ("n", 4, 8, 8), "operator-not-counted", "FusedConv"),
        (("NonZero", ["x"], ["y"]), ("n", 4, 8, 8), "tensor-shape-unknown", "'y'"),
    ],
)
def test_what_cannot_be_told_is_told_why(
    node: tuple[str, list[str], list[str]], shape: tuple[int | str, ...], code: str, value: str, tmp_path: Path
) -> None:
    from onnx import helper

    domain = "com.microsoft" if node[0] == "FusedConv" else ""
    made = helper.make_node(*node, domain=domain, **({"equation": "nchw,ocij->n"} if node[0] == "Einsum" else {}))
    held = {"w": np.zeros((6, 4, 3, 3), np.float32)}
    path = saved(tmp_path / "graph.onnx", [made], [("x", shape, "FLOAT")], held, ("", "com.microsoft"))
    with refuses(CompatibilityError, code, value):
        cost(path, 2)
    assert cost_of(Artifact.read(path), 2) is None


def test_behind_an_operator_of_others_no_shape_is_known(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Odd", ["x"], ["o"], domain="own"),
        helper.make_node("Relu", ["o"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"]),
    ]
    held = {"w": np.zeros((6, 4, 3, 3), np.float32)}
    path = saved(tmp_path / "graph.onnx", nodes, [("x", (1, 4, 8, 8), "FLOAT")], held, ("", "own"))
    with refuses(CompatibilityError, "tensor-shape-unknown", "'y'"):
        cost(path, 1)


def test_a_function_of_the_files_own_is_not_looked_into(tmp_path: Path) -> None:
    from onnx import helper

    call = helper.make_node("Twice", ["x"], ["y"], domain="own")
    path = saved(tmp_path / "graph.onnx", [call], [("x", (1, 4), "FLOAT")], {}, ("", "own"))
    model = onnx_library.load(path)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    path.write_bytes(model.SerializeToString())
    with refuses(CompatibilityError, "operator-not-counted", "Twice"):
        cost(path, 1)


def test_a_type_that_is_none_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    node = helper.make_node("Conv", ["x", "w"], ["y"])
    held = {"w": np.zeros((6, 4, 3, 3), np.float32)}
    path = saved(tmp_path / "graph.onnx", [node], [("x", (1, 4, 8, 8), "FLOAT")], held)
    model = onnx_library.load(path)
    model.graph.initializer.add(name="odd", data_type=9999, dims=[3])
    path.write_bytes(model.SerializeToString())
    with refuses(CompatibilityError, "element-type-unknown", "9999"):
        cost(path, 1)


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    with refuses(ResourceError, "file-access-failed", "missing.onnx"):
        cost(tmp_path / "missing.onnx", 1)
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x0a\x3a\xff\xff")
    with refuses(ArtifactError, "onnx-truncated", "torn.onnx"):
        cost(tmp_path / "torn.onnx", 1)


def test_what_names_no_variant_cannot_be_told(fake_artifact: FakeFactory) -> None:
    scripted = fake_artifact()
    with refuses(CompatibilityError, "variant-unknown-in-manifest"):
        count_cost(scripted, 1)
    with refuses(CompatibilityError, "foreign-file-unreadable"):
        count_cost(replace(scripted, manifest=None), 1)
    assert cost_of(scripted, 1) is None


def engine_of(artifact: Artifact, onnx: str, parent: str) -> Artifact:
    """An int8 engine that was built from the artifact, as far as its manifest tells."""
    assert artifact.manifest is not None
    engine = Engine(
        flavor="tensorrt",
        version="10.16",
        gpu="NVIDIA H200",
        compute_capability="9.0",
        driver="13.0",
        targets=(),
        profiles=(Profile(1, 8, 8),),
        opt_level=3,
        workspace_bytes=None,
        tf32=False,
        hardware_compat="none",
        version_compat=False,
        stripped=False,
        onnx=onnx,
        tolerance=None,
    )
    manifest = replace(artifact.manifest, format="engine", precision="int8", engine=engine, parent=parent)
    return Artifact(artifact.path.with_name("x.engine"), FORMATS["engine"], manifest)


def test_an_engine_costs_what_its_onnx_file_does(onnx_artifact: Artifact) -> None:
    assert onnx_artifact.manifest is not None
    same = engine_of(onnx_artifact, onnx_artifact.path.name, onnx_artifact.manifest.sha256)
    assert count_cost(same, 8) == count_cost(onnx_artifact, 8)


@pytest.mark.parametrize("name", ["gone.onnx", "", "..", "../resnet20.onnx"])
def test_without_that_file_an_engine_costs_what_its_variant_does(onnx_artifact: Artifact, name: str) -> None:
    row = variant("resnet20")
    weights = folded_bytes(row, width=1)
    expected = Cost(8 * multiply_adds(row), weights, weights + 8 * 4 * (3 * 32 * 32 + 10))
    assert count_cost(engine_of(onnx_artifact, name, "00" * 32), 8) == expected
    assert count_cost(engine_of(onnx_artifact, onnx_artifact.path.name, "00" * 32), 8) == expected, "another file's"
