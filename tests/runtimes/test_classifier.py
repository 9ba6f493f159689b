"""``Classifier`` on small ONNX networks that tell red from green from blue, so that every answer is known."""

from __future__ import annotations

import errno
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import runtimes
from runtimes import Classifier, files, opening
from runtimes.artifacts.artifact import publish
from runtimes.artifacts.manifest import Manifest, Weights
from runtimes.class_outputs import Label, Prediction
from runtimes.errors import (
    ArtifactError,
    CheckFailedError,
    InputError,
    ModelMismatchError,
    ResourceError,
    RexportError,
    UsageError,
)
from runtimes.images.preprocessing import Preprocessing, fit_image
from runtimes.protocol import Arrays, Feeds, TensorSpec
from runtimes.tensors.activation import softmax
from tests.refusals import refuses
from tests.runtimes.colours import BLUE, COLOURS, GREEN, PLAIN, RED, SIZE, colour, network, open_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "colours.onnx")


def test_predictions_come_in_order_with_their_probabilities(model: Path) -> None:
    with open_classifier(model) as classifier:
        found = classifier.predict([GREEN, RED, BLUE], top=2)
    assert [prediction.label for prediction in found] == ["green", "red", "blue"]
    best = math.exp(2) / (math.exp(2) + 2)
    other = 1 / (math.exp(2) + 2)
    assert [label.name for label in found[0].labels] == ["green", "red"]  # of equals, the lower index first
    assert [label.index for label in found[0].labels] == [1, 0]
    np.testing.assert_allclose([label.probability for label in found[0].labels], [best, other], rtol=1e-6)
    assert found[0].probability == found[0].labels[0].probability


def test_predictions_are_frozen_values() -> None:
    assert Prediction((Label("cat", 3, 0.5),)) == Prediction((Label("cat", 3, 0.5),))


def test_every_kind_of_image_and_of_sequence(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    PIL.Image.fromarray(RED).save(path)
    with open_classifier(model) as classifier:
        for one in (path, str(path), path.read_bytes(), PIL.Image.fromarray(RED), RED):
            assert [found.label for found in classifier.predict(one)] == ["red"]
        several = np.stack([BLUE, RED])
        for images in (several, list(several), tuple(several), iter(several)):
            assert [found.label for found in classifier.predict(images)] == ["blue", "red"]
        assert classifier.predict([]) == []
        assert classifier.predict(several[:0]) == []


def test_preprocessing_is_applied(model: Path) -> None:
    bordered = np.zeros((12, 12, 3), np.uint8)
    bordered[:, :, 0] = 255
    bordered[4:8, 4:8] = (0, 255, 0)
    with open_classifier(model) as classifier:
        assert classifier.predict(bordered)[0].label == "green"  # the middle is cut out
    inverse = Preprocessing(None, (SIZE, SIZE), 0, (1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with open_classifier(model, preprocessing=inverse) as classifier:
        assert classifier.predict(RED)[0].labels[0].index == 0
        np.testing.assert_allclose(classifier.predict(RED)[0].probability, 1 / 3, rtol=1e-6)


def test_top_is_at_most_the_number_of_classes(model: Path) -> None:
    with open_classifier(model) as classifier:
        labels = classifier.predict(GREEN, top=9)[0].labels
    assert [label.name for label in labels] == ["green", "red", "blue"]
    np.testing.assert_allclose(sum(label.probability for label in labels), 1, rtol=1e-12)


def test_classes_without_labels_are_numbered(model: Path) -> None:
    with open_classifier(model, labels=None) as classifier:
        assert classifier.predict(BLUE)[0].label == "class 2"


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_batches_do_not_change_the_answers(model: Path, batch: int) -> None:
    images = [RED, GREEN, BLUE, GREEN, RED]
    with open_classifier(model) as classifier:
        assert classifier.predict(images, batch=batch) == classifier.predict(images)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_network_of_a_fixed_batch_is_filled_up(tmp_path: Path, batch: int) -> None:
    with open_classifier(network(tmp_path / "fixed.onnx", batch=batch)) as classifier:
        found = classifier.predict([RED, GREEN, BLUE], batch=3)
    assert [prediction.label for prediction in found] == ["red", "green", "blue"]


def test_a_network_with_channels_last(tmp_path: Path) -> None:
    with open_classifier(network(tmp_path / "last.onnx", channels_last=True)) as classifier:
        assert [found.label for found in classifier.predict([GREEN, BLUE])] == ["green", "blue"]


def test_a_network_of_half_precision(tmp_path: Path) -> None:
    with open_classifier(network(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)) as classifier:
        assert [found.label for found in classifier.predict([GREEN, BLUE])] == ["green", "blue"]


@pytest.mark.parametrize("batch", ["n", 1, 2, 4])
def test_a_network_of_raw_pixels(tmp_path: Path, batch: int | str) -> None:
    """What its graph does not do, as the mean here, is not done."""
    inverse = Preprocessing(None, (SIZE, SIZE), 0, (1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    mixed = [GREEN, BLUE, colour(40, 80, 120)]
    path = network(tmp_path / "raw.onnx", batch=batch, channels_last=True, raw=True)
    with (
        open_classifier(path, preprocessing=inverse) as raw,
        open_classifier(network(tmp_path / "floats.onnx")) as floats,
    ):
        found, expected = raw.predict(mixed, top=3), floats.predict(mixed, top=3)
    assert [prediction.label for prediction in found] == ["green", "blue", "blue"]
    for one, other in zip(found, expected, strict=True):
        assert [label.index for label in one.labels] == [label.index for label in other.labels]
        np.testing.assert_allclose(
            [label.probability for label in one.labels], [label.probability for label in other.labels], rtol=1e-6
        )


def test_pixels_go_into_a_raw_network_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[NDArray[np.uint8]] = []
    bordered = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    preprocessing = Preprocessing(3, (SIZE - 2, SIZE - 2), 1, (0.5,) * 3, (0.5,) * 3)
    path = network(tmp_path / "raw.onnx", batch=2, channels_last=True, raw=True)
    with open_classifier(path, preprocessing=preprocessing) as classifier:
        infer = classifier.runtime.infer

        def watched(feeds: Feeds) -> Arrays:
            fed.append(feeds["pixels"])
            return infer(feeds)

        monkeypatch.setattr(classifier.runtime, "infer", watched)
        classifier.predict(bordered)
    expected = np.stack([fit_image(bordered, preprocessing), np.zeros((SIZE, SIZE, 3), np.uint8)])
    np.testing.assert_array_equal(fed[0], expected, strict=True)
    assert fed[0].flags.c_contiguous


@pytest.mark.parametrize(
    ("options", "preprocessing", "error", "code", "values"),
    [
        ({"raw": True}, PLAIN, ArtifactError, "pixels-channels-first", ("pixels: uint8",)),
        (
            {"raw": True, "channels_last": True},
            Preprocessing(None, (5, 4), 0, (0.0,) * 3, (1.0,) * 3),
            ModelMismatchError,
            "preprocessing-mismatch",
            ("3 channels", "5 x 4", "pixels: uint8"),
        ),
        (
            {"raw": True, "channels_last": True},
            Preprocessing(None, (4, 4), 0, (0.0,), (1.0,)),
            ModelMismatchError,
            "preprocessing-mismatch",
            ("1 channels", "4 x 4"),
        ),
    ],
)
def test_raw_networks_that_do_not_fit_are_refused(
    options: dict[str, bool],
    preprocessing: Preprocessing,
    error: type[RexportError],
    code: str,
    values: tuple[str, ...],
    tmp_path: Path,
) -> None:
    path = network(tmp_path / "raw.onnx", **options)  # type: ignore[arg-type]
    with refuses(error, code, path, *values):
        open_classifier(path, preprocessing=preprocessing)


def publish_network(folder: Path, raw: bool = False) -> Path:
    """An artifact whose manifest tells labels and preprocessing, and whose logits happen to look like a softmax."""
    model = network(folder / "next", weights=np.eye(3, dtype=np.float32), channels_last=raw, raw=raw)
    specs = [
        TensorSpec("pixels", *(("uint8", ("n", SIZE, SIZE, 3)) if raw else ("float32", ("n", 3, SIZE, SIZE)))),
        TensorSpec("answer", "float32", ("n", 3)),
    ]
    manifest = Manifest(
        name="colours",
        format="onnx",
        sha256=files.sha256_of(model),
        size_bytes=model.stat().st_size,
        variant={},
        weights=Weights("file", True, "0" * 64),
        precision="fp32",
        inputs=(specs[0],),
        outputs=(specs[1],),
        labels=COLOURS,
        preprocessing=PLAIN,
        dataset=None,
        opset=17,
        producers={},
        parent=None,
        parity=None,
        vectors=None,
    )
    return publish(model, folder / "colours.onnx", manifest, None).path


@pytest.mark.parametrize("raw", [False, True])
def test_an_artifact_needs_its_path_alone(tmp_path: Path, raw: bool) -> None:
    path = publish_network(tmp_path, raw)
    with Classifier.open(path, threads=1) as classifier:
        found = classifier.predict(BLUE)[0]
        assert found.label == "blue"
        np.testing.assert_allclose(found.probability, math.e / (math.e + 2), rtol=1e-6)
    with Classifier.open(path, threads=1, labels=["a", "b", "c"]) as classifier:
        assert classifier.predict(BLUE)[0].label == "c"  # what is passed goes before the manifest


def test_a_foreign_networks_own_softmax_is_not_taken_twice(model: Path, tmp_path: Path) -> None:
    with open_classifier(model) as bare, open_classifier(network(tmp_path / "soft.onnx", soft=True)) as soft:
        for one, other in zip(bare.predict([RED, GREEN]), soft.predict([RED, GREEN]), strict=True):
            np.testing.assert_allclose(one.probability, other.probability, rtol=1e-6)


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4 - math.log(3), -np.inf]])), [[0.75, 0.25, 0]])
    assert np.isnan(softmax(np.array([[np.nan, 0.0], [np.inf, 0.0]]))).any(axis=1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_gives_no_numbers_is_named(tmp_path: Path, value: float) -> None:
    weights = np.eye(3, dtype=np.float32)
    weights[0, 0] = value
    path = network(tmp_path / "rotten.onnx", weights=weights)
    with open_classifier(path) as classifier, refuses(CheckFailedError, "output-not-finite", "image 0:"):
        classifier.predict(RED)


def test_a_broken_image_is_named_by_path_or_number(model: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with open_classifier(model) as classifier:
        with refuses(InputError, "image-format-unknown", "bad.png"):
            classifier.predict([RED, bad])
        with refuses(InputError, "image-file-empty", "image 3:"):
            classifier.predict([RED, RED, RED, b"", RED], batch=2)
        with refuses(InputError, "image-array-type", "image 1:", "float32"):
            classifier.predict([RED, RED.astype(np.float32)])
        with refuses(ResourceError, "file-access-failed", "gone.png", os.strerror(errno.ENOENT)):
            classifier.predict(tmp_path / "gone.png")
        with refuses(InputError, "image-kind-unknown", "image 0:", "not int"):
            classifier.predict([3])  # type: ignore[list-item]


@pytest.mark.parametrize(("top", "batch"), [(0, 1), (1, 0), ("3", 1), (2.0, 1), (1, "3"), (None, 1)])
def test_top_and_batch_are_integers_of_at_least_one(model: Path, top: Any, batch: Any) -> None:
    with open_classifier(model) as classifier, refuses(UsageError, "top-or-batch-invalid", repr(top), repr(batch)):
        classifier.predict(RED, top=top, batch=batch)


def test_integers_of_numpy_are_integers(model: Path) -> None:
    with open_classifier(model) as classifier:
        (prediction,) = classifier.predict(RED, top=np.int64(2), batch=np.int32(1))  # type: ignore[arg-type]
        assert len(prediction.labels) == 2
        with refuses(UsageError, "top-invalid", "2.5"):
            classifier.interpret({}, top=2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "code", "value"),
    [
        ({"red", "green", "blue"}, "labels-not-a-list", "set"),
        ({"red": 0, "green": 1, "blue": 2}, "labels-not-a-list", "dict"),
        ("red", "labels-not-a-list", "str"),
        (3, "labels-not-a-list", "int"),
        (("red", 1, "blue"), "labels-not-strings", "labels[1] is of type int"),
    ],
)
def test_labels_without_an_order_are_refused(labels: Any, code: str, value: str, model: Path) -> None:
    with refuses(UsageError, code, value):
        open_classifier(model, labels=labels)


def test_a_model_that_does_not_say_how_needs_preprocessing(model: Path) -> None:
    with refuses(UsageError, "preprocessing-required", "colours.onnx", "preprocessing="):
        Classifier.open(model, threads=1)


@pytest.mark.parametrize("count", [2, 4])
def test_labels_of_another_number_are_refused(model: Path, count: int) -> None:
    with refuses(ModelMismatchError, "labels-mismatch", f"{count} labels", "3 classes", "pass 3"):
        open_classifier(model, labels=("x",) * count)


@pytest.mark.parametrize(
    ("preprocessing", "values"),
    [
        (Preprocessing(None, (5, 4), 0, (0.0,) * 3, (1.0,) * 3), ("3 channels", "5 x 4", "pixels: float32")),
        (Preprocessing(None, (4, 4), 0, (0.0,), (1.0,)), ("1 channels", "4 x 4")),
        (Preprocessing(None, (4, 4), 1, (0.0,) * 3, (1.0,) * 3), ("3 channels", "6 x 6")),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(
    model: Path, preprocessing: Preprocessing, values: tuple[str, ...]
) -> None:
    with refuses(ModelMismatchError, "preprocessing-mismatch", *values):
        open_classifier(model, preprocessing=preprocessing)


def small_graph(path: Path, inputs: list[list[int]], output: list[int]) -> Path:
    """Adds its first input to its last and reshapes the sum."""
    names = [f"x{number}" for number in range(len(inputs))]
    graph = helper.make_graph(
        [
            helper.make_node("Sum", [names[0], names[-1]], ["y"]),
            helper.make_node("Reshape", ["y", "shape"], ["z"]),
        ],
        "other",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, inputs, strict=True)],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, output)],
        [helper.make_tensor("shape", TensorProto.INT64, [len(output)], output)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def test_networks_that_classify_no_images_are_refused(tmp_path: Path) -> None:
    image = [1, 3, SIZE, SIZE]
    for name, inputs, output, code, values in (
        ("flat", [[1, 48]], [1, 48], "input-not-images", ("x0: float32",)),
        ("two", [image, image], [1, 48], "input-not-images", ("x0: ", "x1: ")),
        ("map", [image], image, "output-not-classes", ("z: float32",)),
    ):
        path = small_graph(tmp_path / f"{name}.onnx", inputs, output)
        with refuses(ArtifactError, code, path, *values, "Runtime.infer"):
            open_classifier(path, labels=None)


def test_a_failed_open_closes_the_runtime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[runtimes.Runtime] = []
    original = runtimes.open

    def watched(*arguments: object, **options: object) -> runtimes.Runtime:
        made.append(original(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(opening, "open", watched)
    with refuses(ModelMismatchError, "labels-mismatch"):
        open_classifier(model, labels=("one",))
    with refuses(UsageError, "runtime-closed"):
        made[0].infer({"pixels": np.zeros((1, 3, SIZE, SIZE), np.float32)})


def test_after_closing_nothing_is_predicted(model: Path) -> None:
    with open_classifier(model) as classifier:
        pass
    with refuses(UsageError, "runtime-closed"):
        classifier.predict(RED)
    classifier.close()


def test_unknown_files_are_the_runtimes_errors(tmp_path: Path) -> None:
    with refuses(ResourceError, "file-access-failed", "read", os.strerror(errno.ENOENT)):
        open_classifier(tmp_path / "none.onnx")


def test_many_threads_at_once(model: Path) -> None:
    images = [RED, GREEN, BLUE]
    wrong: list[str] = []

    def work(number: int) -> None:
        for step in range(20):
            wanted = (number + step) % 3
            found = classifier.predict([images[wanted]] * (1 + step % 3))
            wrong.extend(one.label for one in found if one.label != COLOURS[wanted])

    with open_classifier(model) as classifier:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
