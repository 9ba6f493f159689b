"""Arguments that a type checker would refuse are errors of rexport, which name the parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, Classifier
from runtimes.errors import InputError, ResourceError, RexportError, UsageError
from tests.refusals import refuses

PIXELS = np.zeros((32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def classifier(onnx_artifact: Artifact) -> Iterator[Any]:
    with Classifier.open(onnx_artifact.path, "onnxruntime") as opened:
        yield opened


@pytest.mark.parametrize(
    ("call", "kind", "code", "word"),
    [
        (lambda each: each.interpret({}), InputError, "output-missing", "outputs"),
        (lambda each: each.interpret([[0.0] * 10]), InputError, "output-missing", "outputs"),
        (lambda each: each.interpret({"logits": np.zeros(10)}), InputError, "output-shape-mismatch", "(10,)"),
        (lambda each: each.interpret({"logits": np.zeros((1, 10, 1))}), InputError, "output-shape-mismatch", "outputs"),
        (lambda each: each.interpret({"logits": np.zeros((1, 7))}), InputError, "output-shape-mismatch", "(1, 7)"),
        (lambda each: each.interpret({"logits": [["a"] * 10]}), InputError, "output-shape-mismatch", "outputs"),
        (lambda each: each.answer(PIXELS), InputError, "pixels-shape", "pixels"),
        (lambda each: each.answer(PIXELS[None].astype("f4")), InputError, "pixels-shape", "float32"),
        (lambda each: each.answer("a.png"), InputError, "pixels-shape", "str"),
        (lambda each: each.predict({"a.png", "b.png"}), UsageError, "images-unordered", "images"),
        (lambda each: each.embed(frozenset({"a.png"})), UsageError, "images-unordered", "images"),
        (lambda each: each.runtime.empty_inputs(2**60), UsageError, "number-too-large", "batch"),
        (lambda each: each.runtime.empty_inputs(2**31 - 1), ResourceError, "array-memory-insufficient", "float32"),
        (lambda each: each.runtime.empty_inputs("2"), InputError, "batch-mismatch", "batch"),
    ],
)
def test_a_wrong_argument_is_named(
    classifier: Any, call: Callable[[Any], object], kind: type[RexportError], code: str, word: str
) -> None:
    with refuses(kind, code, word):
        call(classifier)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("check_finite", "no", "truth-value-invalid"),
        ("check_finite", 1, "truth-value-invalid"),
        ("cuda_graphs", None, "truth-value-invalid"),
    ],
)
def test_a_truth_value_is_no_text(onnx_artifact: Artifact, name: str, value: object, code: str) -> None:
    arguments: dict[str, Any] = {name: value}
    with refuses(UsageError, code, name):
        runtimes.open(onnx_artifact.path, "onnxruntime", **arguments)


def test_a_preprocessing_is_no_text(onnx_artifact: Artifact) -> None:
    wrong: Any = "imagenet"
    with refuses(UsageError, "preprocessing-type", "preprocessing"):
        Classifier.open(onnx_artifact.path, preprocessing=wrong)


def test_what_the_network_returns_is_interpreted(classifier: Any) -> None:
    outputs = classifier.runtime.infer(classifier.prepare(PIXELS))
    assert classifier.interpret(outputs) == classifier.predict(PIXELS)
    listed = {name: array.tolist() for name, array in outputs.items()}
    assert classifier.interpret(listed)[0].label == classifier.predict(PIXELS)[0].label
