"""ONNX files of a node or two, good ones and ones that a parser refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def tensor(name: str, shape: tuple[int | str, ...] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """An input or output; dimensions that vary have names."""
    return helper.make_tensor_value_info(name, kind, shape)


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """Writes a graph of the nodes, whose last gives ``y`` of the type ``kind``."""
    values = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", inputs, [tensor("y", None, kind)], values)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


IMAGES: tuple[int | str, ...] = ("images", 3, 8, 8)


def relu(path: Path, shape: tuple[int | str, ...] = IMAGES, kind: int = TensorProto.FLOAT) -> Path:
    """``y``, the positive part of ``x`` of that shape."""
    return save_graph(path, [helper.make_node("Relu", ["x"], ["y"], "relu")], [tensor("x", shape, kind)], kind=kind)


def addition(path: Path, second: tuple[int | str, ...] = IMAGES) -> Path:
    """``y``, the sum of ``x`` and ``z`` of the shape ``second``."""
    node = helper.make_node("Add", ["x", "z"], ["y"], "add")
    return save_graph(path, [node], [tensor("x", IMAGES), tensor("z", second)])


def convolution(path: Path, weights: np.ndarray) -> Path:
    """``y``, the images ``x`` convolved with ``weights``."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    return save_graph(path, [node], [tensor("x", IMAGES)], {"w": weights})


def unknown(path: Path, count: int = 1) -> Path:
    """A chain of operators that nobody knows."""
    names = ["x", *(f"step{index}" for index in range(1, count)), "y"]
    nodes = [
        helper.make_node("Frobnicate", [names[index]], [names[index + 1]], f"frob{index}", domain="acme")
        for index in range(count)
    ]
    return save_graph(path, nodes, [tensor("x", IMAGES)])


def asymmetric(path: Path) -> Path:
    """8-bit integers whose zero is not 0, as they suit processors: valid ONNX, and nothing for TensorRT."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "dequantise"),
    ]
    weights: dict[str, np.ndarray] = {"scale": np.array(0.1, np.float32), "zero": np.array(5, np.int8)}
    return save_graph(path, nodes, [tensor("x", IMAGES)], weights)


def text(path: Path) -> Path:
    """An operator of the standard that TensorRT does not have."""
    nodes = [helper.make_node("StringNormalizer", ["x"], ["z"], "norm"), helper.make_node("Relu", ["z"], ["y"], "relu")]
    return save_graph(path, nodes, [tensor("x", IMAGES)])


def cast(path: Path) -> Path:
    """``y``, the bytes ``x`` as float32."""
    node = helper.make_node("Cast", ["x"], ["y"], "cast", to=TensorProto.FLOAT)
    return save_graph(path, [node], [tensor("x", ("images", 8, 8, 3), TensorProto.UINT8)])
