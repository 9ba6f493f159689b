"""Graphs of every precision, and one that takes pixels, made from a float32 file without the exporter's own ways."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter.models.variants import Variant
from runtimes import Artifact
from tests.exporter import small

BASIC = Variant("typed-basic", "basic", (1, 1, 1), (16, 32, 64), "cifar", "A", classes=10, size=(16, 16))
BOTTLENECK = Variant("typed-bottleneck", "bottleneck", (2, 1), (16, 32), "imagenet", "B", classes=10, size=(32, 32))
"""As wide as libraries want it for their blocked layouts, in which they rename what they fuse."""

OPSET = 22
"""The first in which a convolution takes bfloat16."""


@dataclass(frozen=True)
class Typed:
    """Files of the same network by precision: ``fp32``, which is the artifact's, ``fp16``, ``bf16`` and ``int8``."""

    variant: Variant
    artifact: Artifact
    paths: dict[str, Path]

    def feeds(self, batch: int = 2) -> dict[str, np.ndarray[Any, Any]]:
        """Noise."""
        shape = (batch, 3, *self.variant.size)
        return {"input": np.random.default_rng(1).standard_normal(shape, np.float32)}

    def convolutions(self, precision: str) -> list[str]:
        """Names of the file's convolutions and matrix products, in their order."""
        nodes = onnx.load(self.paths[precision]).graph.node
        return [node.name for node in nodes if node.op_type in ("Conv", "Gemm")]


def make_typed_network(variant: Variant, folder: Path) -> Typed:
    """The variant with random weights in every precision."""
    artifact = small.export(variant, folder, opset=OPSET)
    paths = {"fp32": artifact.path} | {name: folder / f"{name}.onnx" for name in ("fp16", "bf16", "int8")}
    cast(artifact.path, paths["fp16"], TensorProto.FLOAT16)
    cast(artifact.path, paths["bf16"], TensorProto.BFLOAT16)
    quantise(artifact.path, paths["int8"], variant.size)
    return Typed(variant, artifact, paths)


def cast(source: Path, target: Path, kind: int) -> None:
    """The graph with weights of another float; what goes in and comes out stays float32."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            narrow = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for node in model.graph.node:
        node.input[:] = ["narrow" if name == "input" else name for name in node.input]
        node.output[:] = ["wide" if name == "logits" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["narrow"], "entry/Cast", to=kind))
    model.graph.node.append(helper.make_node("Cast", ["wide"], ["logits"], "exit/Cast", to=TensorProto.FLOAT))
    target.write_bytes(model.SerializeToString())


def quantise(source: Path, target: Path, size: tuple[int, int], but: Sequence[str] = ()) -> None:
    """The graph with Q/DQ nodes around every convolution, matrix product and addition, calibrated on noise; the nodes
    in ``but`` are left alone."""
    os.environ.setdefault("NNCF_CI", "1")  # else it reports to its maker over the network
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    dice = np.random.default_rng(0)
    images = [dice.standard_normal((1, 3, *size), np.float32) for _ in range(4)]
    calibration = nncf.Dataset(images, lambda image: {"input": image})
    model = nncf.quantize(
        onnx.load(source),
        calibration,
        subset_size=len(images),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        ignored_scope=nncf.IgnoredScope(names=list(but)),
    )
    target.write_bytes(model.SerializeToString())


def take_pixels(source: Path, target: Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """The graph with uint8 pixels (batch, height, width, channels) for its input, which it normalises."""
    model = onnx.load(source)
    for node in model.graph.node:
        node.input[:] = ["pixels/t" if name == "input" else name for name in node.input]
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    model.graph.initializer.extend([numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(shift, "shift")])
    steps = (
        helper.make_node("Cast", ["input"], ["pixels/c"], "pixels/Cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels/c", "scale"], ["pixels/m"], "pixels/Mul"),
        helper.make_node("Add", ["pixels/m", "shift"], ["pixels/a"], "pixels/Add"),
        helper.make_node("Transpose", ["pixels/a"], ["pixels/t"], "pixels/Transpose", perm=[0, 3, 1, 2]),
    )
    for place, step in enumerate(steps):
        model.graph.node.insert(place, step)
    given = model.graph.input[0]
    batch, channels, *size = (dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim)
    given.CopyFrom(helper.make_tensor_value_info("input", TensorProto.UINT8, [batch, *size, channels]))
    target.write_bytes(model.SerializeToString())
