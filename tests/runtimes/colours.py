"""Small ONNX networks that tell red from green from blue, so that every answer is known; and images for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from runtimes import Classifier
from runtimes.images.preprocessing import Preprocessing

SIZE = 4
PLAIN = Preprocessing(None, (SIZE, SIZE), 0, (0.0,) * 3, (1.0,) * 3)
COLOURS = ("red", "green", "blue")


def network(
    path: Path,
    *,
    batch: int | str = "n",
    channels_last: bool = False,
    soft: bool = False,
    weights: NDArray[np.float32] | None = None,
    dtype: int = TensorProto.FLOAT,
    raw: bool = False,
) -> Path:
    """Means over the pixels times ``weights`` (classes, 3), by default 2 x identity; ``soft`` adds a softmax.

    ``raw`` takes bytes, which it divides by 255 itself.
    """
    matrix = np.eye(3, dtype=np.float32) * 2 if weights is None else weights
    shape = [batch, SIZE, SIZE, 3] if channels_last else [batch, 3, SIZE, SIZE]
    nodes = [
        helper.make_node("GlobalAveragePool", ["first"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("Gemm", ["means", "weights"], ["scores"], transB=1),
        helper.make_node("Softmax" if soft else "Identity", ["scores"], ["answer"]),
    ]
    turn = helper.make_node("Transpose", ["shares"], ["first"], perm=[0, 3, 1, 2])
    nodes.insert(0, turn if channels_last else helper.make_node("Identity", ["shares"], ["first"]))
    nodes.insert(0, helper.make_node("Div", ["floats", "whole"], ["shares"]))
    nodes.insert(0, helper.make_node("Cast", ["pixels"], ["floats"], to=dtype))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8 if raw else dtype, shape)],
        [helper.make_tensor_value_info("answer", dtype, [batch, len(matrix)])],
        [
            helper.make_tensor("weights", dtype, matrix.shape, matrix.ravel()),
            helper.make_tensor("whole", dtype, [], [255 if raw else 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def colour(*rgb: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(rgb, np.uint8), (SIZE, SIZE, 3)).copy()


RED, GREEN, BLUE = colour(255, 0, 0), colour(0, 255, 0), colour(0, 0, 255)


def open_classifier(
    path: Path, labels: tuple[str, ...] | None = COLOURS, preprocessing: Preprocessing = PLAIN
) -> Classifier:
    return Classifier.open(path, threads=1, preprocessing=preprocessing, labels=labels)
