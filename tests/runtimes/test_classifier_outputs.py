"""``Classifier.embed`` and ``explain`` on a small network whose features are the mean colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import TensorProto, helper

from runtimes import Classifier
from runtimes.errors import ArtifactError, CheckFailedError, InputError, UsageError
from runtimes.images.preprocessing import Preprocessing
from tests.refusals import refuses
from tests.runtimes.colours import BLUE, COLOURS, GREEN, PLAIN, RED, SIZE, open_classifier

BIAS = (0.5, 0.0, -0.5)
SHAPES = {"logits": 2, "features": 2, "stage1": 4, "cam": 4}


def network(path: Path, *outputs: str, batch: int | str = "n", factor: float = 2.0) -> Path:
    """Features are the mean colours of an image of 4 x 4 pixels, divided by 255; classes are ``factor`` times these."""
    matrix = np.diag(np.full(3, factor, np.float32))
    nodes = [
        helper.make_node("Identity", ["pixels"], ["stage1"]),
        helper.make_node("GlobalAveragePool", ["stage1"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"], transB=1),
        helper.make_node("Conv", ["stage1", "kernel"], ["cam"]),
    ]
    shapes = {2: [batch, 3], 4: [batch, 3, SIZE, SIZE]}
    graph = helper.make_graph(
        nodes,
        "mean colours",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shapes[4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[SHAPES[name]]) for name in outputs],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, (3, 3), matrix.ravel()),
            helper.make_tensor("kernel", TensorProto.FLOAT, (3, 3, 1, 1), matrix.ravel()),
            helper.make_tensor("bias", TensorProto.FLOAT, (3,), BIAS),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "all.onnx", "logits", "features", "stage1", "cam")


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("trunk") / "trunk.onnx", "features")


def test_features_come_in_the_order_of_the_images(model: Path) -> None:
    with open_classifier(model) as classifier:
        found = classifier.embed([GREEN, RED, BLUE], batch=2)
        assert [each.label for each in classifier.predict([GREEN, RED])] == ["green", "red"]
    assert found.dtype == np.float32
    assert found.flags.owndata
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_one_image_and_none(model: Path) -> None:
    with open_classifier(model) as classifier:
        assert classifier.embed(RED).shape == (1, 3)
        assert classifier.embed([]).shape == (0, 3)


def test_a_fixed_batch_is_filled_up(tmp_path: Path) -> None:
    with open_classifier(network(tmp_path / "fixed.onnx", "features", "cam", batch=4)) as classifier:
        np.testing.assert_array_equal(classifier.embed([RED] * 5), [[1, 0, 0]] * 5)
        np.testing.assert_array_equal(classifier.explain(RED, "red"), np.full((SIZE, SIZE), 2, np.float32))


def test_a_heat_map_shows_where_the_class_is(model: Path) -> None:
    image = GREEN.copy()
    image[:2, :2] = (255, 0, 0)
    expected = np.zeros((SIZE, SIZE), np.float32)
    expected[:2, :2] = 2
    with open_classifier(model) as classifier:
        for label in ("red", 0):
            np.testing.assert_array_equal(classifier.explain(image, label), expected)
        np.testing.assert_array_equal(classifier.explain(image), 2 - expected)  # green, the most probable class


def test_the_mean_of_the_map_and_the_bias_are_the_logit(model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with open_classifier(model) as classifier:
        outputs = classifier.runtime.infer({"pixels": image.transpose(2, 0, 1)[None].astype(np.float32) / 255})
        for index, bias in enumerate(BIAS):
            heat = classifier.explain(image, index)
            assert heat.mean() + bias == pytest.approx(outputs["logits"][0, index], abs=1e-6)


def test_a_heat_map_has_the_size_of_the_image(model: Path, tmp_path: Path) -> None:
    PIL.Image.fromarray(np.repeat(np.repeat(RED, 4, 0), 8, 1)).save(tmp_path / "wide.png")
    squashed = Preprocessing((SIZE, SIZE), (SIZE, SIZE), 0, PLAIN.mean, PLAIN.std)
    with open_classifier(model, preprocessing=squashed) as classifier:
        heat = classifier.explain(tmp_path / "wide.png")
    assert heat.shape == (16, 32)
    np.testing.assert_allclose(heat, 2)


def test_a_trunk_embeds_and_predicts_nothing(trunk: Path) -> None:
    with open_classifier(trunk, labels=None) as classifier:
        np.testing.assert_array_equal(classifier.embed([RED]), [[1, 0, 0]])
        with refuses(ArtifactError, "output-absent", "logits", "--output logits", "trunk.onnx"):
            classifier.predict(RED)
        with refuses(ArtifactError, "output-absent", "cam", "--output cam"):
            classifier.explain(RED)


def test_a_map_without_logits_needs_a_label(tmp_path: Path) -> None:
    with open_classifier(network(tmp_path / "cam.onnx", "cam")) as classifier:
        assert classifier.explain(RED, "red").shape == (SIZE, SIZE)
        with refuses(ArtifactError, "output-absent", "--output logits"):
            classifier.explain(RED)


@pytest.mark.parametrize("label", ["yellow", "", 3, -1])
def test_an_unknown_class_is_refused(model: Path, label: str | int) -> None:
    with open_classifier(model) as classifier, refuses(UsageError, "class-unknown", label):
        classifier.explain(RED, label)


def test_a_name_of_two_classes_is_refused(model: Path) -> None:
    with open_classifier(model, labels=("crane", "dove", "crane")) as classifier:
        with refuses(UsageError, "class-ambiguous", "0 and 2", "crane"):
            classifier.explain(RED, "crane")
        assert classifier.explain(RED, 2).shape == (SIZE, SIZE)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = network(tmp_path / "broken.onnx", "logits", "cam", factor=float("inf"))
    with open_classifier(broken) as classifier, refuses(CheckFailedError, "output-not-finite", "image 0"):
        classifier.explain(RED, "red")


def test_a_bad_image_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with open_classifier(model) as classifier:
        with refuses(InputError, "image-format-unknown", "broken.png"):
            classifier.embed([RED, tmp_path / "broken.png"])
        with refuses(UsageError, "batch-invalid"):
            classifier.embed(RED, batch=0)


def test_maps_of_the_wrong_form_are_refused(tmp_path: Path) -> None:
    model = onnx.load(network(tmp_path / "net.onnx", "features"))
    model.graph.node[2].output[0] = "cam"
    model.graph.node[3].input[0] = "cam"
    model.graph.output[0].name = "cam"
    del model.graph.node[4]
    onnx.save(model, tmp_path / "net.onnx")
    with refuses(ArtifactError, "output-not-classes", "cam"):
        Classifier.open(tmp_path / "net.onnx", preprocessing=PLAIN, labels=COLOURS)
