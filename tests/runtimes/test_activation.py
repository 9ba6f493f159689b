"""From outputs to probabilities and classes, also of one output, which decides between two classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtimes import Classifier, Preprocessing
from runtimes.errors import UsageError
from runtimes.parity import LogitComparison
from runtimes.tensors.activation import check_activation, class_probabilities, top_classes
from tests.activations import CASES
from tests.refusals import refuses

HOW = Preprocessing(None, (2, 2), 0, (0.5,) * 3, (0.5,) * 3)
RED, BLUE = (np.full((2, 2, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))


def network(path: Path, weights: np.ndarray, bias: np.ndarray) -> Path:
    """Write a network whose logits (n, classes) are the means of its maps ``cam`` and a bias."""
    classes = len(bias)
    tensors = {
        "weights": weights.reshape(classes, 3, 1, 1).astype(np.float32),
        "bias": bias.astype(np.float32),
        "axes": np.array([2, 3]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "weights"], ["cam"]),
            helper.make_node("ReduceMean", ["cam", "axes"], ["means"], keepdims=0),
            helper.make_node("Add", ["means", "bias"], ["logits"]),
        ],
        "maps",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 2, 2])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, ["batch", classes, 2, 2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_outputs_become_probabilities(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    values = np.array(case.values)
    path = network(tmp_path / "constant.onnx", np.zeros((len(values), 3)), values)
    with Classifier.open(path, preprocessing=HOW, labels=case.labels, activation=case.activation) as classifier:
        (found,) = classifier.predict(RED, top=len(case.expected))
    probabilities = {label.index: label.probability for label in found.labels}
    assert [probabilities[index] for index in range(len(case.expected))] == pytest.approx(case.expected, abs=1e-7)


@pytest.mark.parametrize("values", [(21.0, -19.2), (-0.5, 0.5), (0.5, 1.5), (3.0,)], ids=str)
def test_logits_are_not_taken_as_probabilities(values: tuple[float, ...], tmp_path: Path) -> None:
    path = network(tmp_path / "constant.onnx", np.zeros((len(values), 3)), np.array(values))
    with Classifier.open(path, preprocessing=HOW, activation="none") as classifier:
        for answer in (classifier.predict, lambda image: classifier.answer(image[None])):
            with refuses(UsageError, "output-not-probability", "constant.onnx", "--activation sigmoid"):
                answer(RED)


def test_rounded_probabilities_are_taken(tmp_path: Path) -> None:
    path = network(tmp_path / "constant.onnx", np.zeros((2, 3)), np.array([1.0005, -0.0005]))
    with Classifier.open(path, preprocessing=HOW, activation="none") as classifier:
        assert classifier.predict(RED)[0].probability == pytest.approx(1.0005)


def test_one_output_chooses_and_explains_both_classes(tmp_path: Path) -> None:
    path = network(tmp_path / "warm.onnx", np.array([1.0, 0.0, -1.0]), np.zeros(1))
    with Classifier.open(path, preprocessing=HOW, labels=("cool", "warm"), activation="sigmoid") as classifier:
        assert [found.label for found in classifier.predict([RED, BLUE])] == ["warm", "cool"]
        np.testing.assert_allclose(classifier.explain(RED), np.full((2, 2), 2.0))
        np.testing.assert_allclose(classifier.explain(BLUE), np.full((2, 2), 2.0))  # it speaks for cool
        np.testing.assert_allclose(classifier.explain(RED, "cool"), np.full((2, 2), -2.0))
        np.testing.assert_allclose(classifier.explain(RED, 1), np.full((2, 2), 2.0))


def test_one_output_without_names_is_one_class(tmp_path: Path) -> None:
    path = network(tmp_path / "warm.onnx", np.array([1.0, 0.0, -1.0]), np.zeros(1))
    with Classifier.open(path, preprocessing=HOW, activation="sigmoid") as classifier:
        np.testing.assert_allclose(classifier.explain(RED, 0), np.full((2, 2), 2.0))
        with refuses(UsageError, "class-unknown", "1 classes"):
            classifier.explain(RED, 1)


def test_a_softmax_of_one_output_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "warm.onnx", np.array([1.0, 0.0, -1.0]), np.zeros(1))
    with refuses(UsageError, "softmax-of-one", "sigmoid"):
        Classifier.open(path, preprocessing=HOW, activation="softmax")
    check_activation("softmax", 2)
    check_activation("none", 1)


def test_one_output_has_two_classes_in_comparisons() -> None:
    """Else the best class would be the first one of every image, and all comparisons would agree."""
    reference, given = np.array([[-1.0], [2.0], [0.25]], np.float32), np.array([[-1.0], [-2.0], [0.75]], np.float32)
    assert LogitComparison.compare(given, reference).agreement == pytest.approx(2 / 3)
    assert LogitComparison.compare(given[2:], reference[2:], "none").agreement == 0
    assert top_classes(reference, None).tolist() == [0, 1, 1]
    assert top_classes(np.array([[1.0, 3.0], [3.0, 1.0]]), "softmax").tolist() == [1, 0]
    np.testing.assert_allclose(class_probabilities(np.array([[0.25]]), "none"), [[0.75, 0.25]])
