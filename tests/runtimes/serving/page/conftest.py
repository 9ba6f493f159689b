"""A server of a small network with heat maps, and a browser."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import uvicorn
from fastapi import FastAPI
from onnx import TensorProto, helper, numpy_helper

import runtimes
from runtimes import Classifier, Preprocessing
from runtimes.serving import ServedModel
from tests.benchmarks.report_html import browser

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

COLOURS = ("red", "green", "blue")
PREPROCESSING = Preprocessing(8, (8, 8), 0, mean=(0.0,) * 3, std=(0.1,) * 3)


def colour_model(path: Path, name: str, heat: bool = True, labels: tuple[str, ...] = COLOURS) -> ServedModel:
    """A network whose class is the strongest colour of an image, and whose heat maps are where the colour is."""
    pixels = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    maps = helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", 3, 4, 4])
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["cam"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("ReduceMean", ["cam", "axes"], ["logits"], keepdims=0),
        ],
        "colours",
        [pixels],
        [logits, maps] if heat else [logits],
        [numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    runtime = runtimes.open(path, "onnxruntime", threads=1)
    return ServedModel(name, runtime, Classifier(runtime, PREPROCESSING, labels))


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Yields the address of an app of one's own, without a slash at its end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def models(tmp_path: Path) -> Iterator[list[ServedModel]]:
    """Two models of colours; the second has no heat maps."""
    found = [colour_model(tmp_path / "a.onnx", "first"), colour_model(tmp_path / "b.onnx", "second", heat=False)]
    yield found
    for model in found:
        model.close()


@pytest.fixture(scope="session")
def driver() -> Iterator[WebDriver]:
    """One browser for all tests of a process."""
    if (reason := browser.missing()) is not None:
        pytest.skip(reason)
    with browser.browser() as found:
        yield found
