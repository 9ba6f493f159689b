"""Networks that mix the images of a batch: what comes back has one row for each image, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import Classifier, Preprocessing, Runtime, parity
from runtimes.errors import CheckFailedError
from runtimes.serving.batcher import Batcher, NetworkBatch
from runtimes.serving.settings import ServingSettings
from tests.refusals import refuses
from tests.samples import SCRIPT, publish_script

SIDE = 8
VIEW = Preprocessing(resize=SIDE, crop=(SIDE, SIDE), pad=0, mean=(0.5,) * 3, std=(0.5,) * 3)
FIVE = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)


def save_network(path: Path, last: list[Any], initializers: list[Any]) -> Path:
    """Write a network of the means of each channel, after which come the ``last`` nodes, from ``f`` to ``logits``."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["input"], ["f"], axes=[2, 3], keepdims=0), *last],
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


SHAPE = helper.make_tensor("shape", TensorProto.INT64, [2], [1, -1])

MIXING: dict[str, tuple[list[Any], list[Any]]] = {
    "the mean over the batch": ([helper.make_node("ReduceMean", ["f"], ["logits"], axes=[0], keepdims=1)], []),
    "a hard-coded reshape": ([helper.make_node("Reshape", ["f", "shape"], ["logits"])], [SHAPE]),
    "the batch twice": ([helper.make_node("Concat", ["f", "f"], ["logits"], axis=0)], []),
}


@pytest.fixture(params=[(name, backend) for name in MIXING for backend in ("onnxruntime", "openvino")], ids=str)
def mixing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    name, backend = request.param
    with runtimes.open(save_network(tmp_path / "mixing.onnx", *MIXING[name]), backend, threads=1) as runtime:
        yield runtime


def test_a_classifier_refuses_other_rows_than_images(mixing: Runtime) -> None:
    classifier = Classifier(mixing, VIEW, None)
    with refuses(CheckFailedError, "output-rows-mismatch", "5 images"):
        classifier.predict(FIVE)


def test_figures_are_not_taken_from_other_rows(mixing: Runtime) -> None:
    with refuses(CheckFailedError, "output-rows-mismatch"):
        parity.logits_of(mixing, np.zeros((4, 3, SIDE, SIDE), np.float32), 4)


def test_a_batcher_gives_no_answer_to_another_request() -> None:
    answers: list[Any] = []
    network = NetworkBatch(lambda feeds: {"y": feeds["x"].mean(axis=0, keepdims=True)}, 8, None)
    batcher = Batcher(network, ServingSettings())
    batcher.add(batcher.admit(answers.append), {"x": np.zeros((3, 2), np.float32)})
    (answer,) = answers
    assert isinstance(answer, CheckFailedError)
    assert answer.code == "output-rows-mismatch"


def test_a_promise_of_the_manifest_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = publish_script(tmp_path / "net.fake", SCRIPT)
    with closing(runtimes.open(artifact.path)) as runtime:
        run = runtime._session.run
        monkeypatch.setattr(runtime._session, "run", lambda arrays: {"logits": run(arrays)["logits"][:1]})
        feeds = {"input": np.zeros((5, 3, 8, 8), np.float32)}
        for act in (runtime.infer, lambda feeds: runtime.infer_async(feeds).result()):
            with refuses(CheckFailedError, "output-rows-mismatch", "(1, 10)"):
                act(feeds)
        assert runtime.infer({"input": feeds["input"][:1]})["logits"].shape == (1, 10)


def test_a_set_of_images_has_one_answer_as_array(mixing: Runtime) -> None:
    """Without the promise of a manifest, a network may answer a batch as a whole, for who asks it so."""
    assert len(mixing.infer({"input": np.zeros((5, 3, SIDE, SIDE), np.float32)})["logits"]) != 5
