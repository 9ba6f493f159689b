from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import runtimes
from benchmarks.process.job import Job
from benchmarks.records.plan import ArrivalPlan
from benchmarks.worker import inputs
from benchmarks.worker.inputs import ROTATION, make_encoded_call, oddities, subnormals
from exporter.data.dataset import Dataset
from exporter.data.noise import noise, noise_pixels
from exporter.data.opening import open_dataset
from runtimes import Runtime
from runtimes.class_outputs import Prediction
from runtimes.classifier import Classifier
from runtimes.errors import CompatibilityError, InputError
from runtimes.images.preprocessing import Image, fit_image
from runtimes.protocol import Array, Arrays, TensorSpec
from tests.benchmarks.scripts import JOB, RAW, SCRIPT, artifact, foreign, read, with_batch
from tests.refusals import refuses


def test_inputs_rotate_and_differ(tmp_path: Path) -> None:
    with runtimes.open(foreign(tmp_path), "fake") as runtime:
        found = inputs.rotation(JOB, runtime)
    assert len(found) == ROTATION
    assert len({arrays["input"].tobytes() for arrays in found}) == ROTATION
    assert all(arrays["input"].shape == (2, 3, 8, 8) for arrays in found)


@pytest.mark.parametrize(
    ("spec", "code", "value"),
    [
        (TensorSpec("x", "float32", (4, 3)), "batch-fixed", "4"),
        (TensorSpec("x", "float32", ("n", 3, "height")), "shape-open", "height"),
        (TensorSpec("x", "float32", ()), "shape-open", "x"),
    ],
)
def test_shapes_that_no_input_can_be_made_for(spec: TensorSpec, code: str, value: str) -> None:
    with refuses(CompatibilityError, code, value):
        inputs.concrete_shape(spec, 1)


def test_inputs_that_are_no_floats_are_refused() -> None:
    with refuses(InputError, "input-dtype-unsupported", "x: int64 (n)"):
        inputs.as_input(TensorSpec("x", "int64", ("n",)), np.zeros(1, np.float32))


def test_an_assumed_preprocessing_is_doubted(tmp_path: Path) -> None:
    made = read(artifact(tmp_path))
    assert made.manifest is not None
    assert made.manifest.preprocessing is not None
    assert inputs.list_assumptions(replace(JOB, data="photos"), made) == ()
    view = replace(made.manifest.preprocessing, assumed=("resize", "mean"))
    assumed = replace(made, manifest=replace(made.manifest, preprocessing=view))
    (warning,) = inputs.list_assumptions(replace(JOB, data="photos"), assumed)
    assert warning.code == "accuracy-preprocessing-assumed"
    assert "(resize, mean)" in warning.sentence
    assert inputs.list_assumptions(replace(JOB, data=None), assumed) == ()


def test_a_raw_input_is_fed_pixels(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path, RAW), "fake") as runtime:
        fed = inputs.rotation(JOB, runtime)
        evaluation = inputs.evaluation(replace(JOB, limit=3), runtime, [])
        (_, images), *_ = evaluation.batches
    assert {(arrays["input"].dtype.name, arrays["input"].shape) for arrays in fed} == {("uint8", (2, 8, 8, 3))}
    assert len({arrays["input"].tobytes() for arrays in fed}) == ROTATION
    assert (images.dtype.name, images.shape) == ("uint8", (3, 8, 8, 3))
    assert evaluation.targets is None


def test_noise_is_never_more_than_tells_something(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path), "fake") as runtime:
        totals = [inputs.evaluation(replace(JOB, limit=limit), runtime, []).total for limit in (None, 3, 2000)]
    assert totals == [inputs.NOISE_IMAGES, 3, inputs.NOISE_IMAGES]


def test_a_raw_input_is_fed_real_images_as_they_are(tmp_path: Path) -> None:
    path = artifact(tmp_path, RAW, dataset="fashion-mnist")
    job = replace(JOB, data="fashion-mnist", limit=4)
    with runtimes.open(path, "fake") as runtime:
        first = inputs.rotation(job, runtime)[0]["input"]
        evaluation = inputs.evaluation(job, runtime, [])
        ((indices, images),) = evaluation.batches
    bundled = open_dataset("fashion-mnist", 4)
    preprocessing = read(path).manifest.preprocessing  # type: ignore[union-attr]
    assert preprocessing is not None
    expected = np.stack([fit_image(bundled.image(index), preprocessing) for index in range(4)])
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(indices, np.arange(4))
    np.testing.assert_array_equal(evaluation.targets, bundled.targets)
    assert first.dtype == np.uint8


def test_large_inputs_rotate_less_but_still_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "INPUTS_LIMIT_BYTES", 1)
    with runtimes.open(foreign(tmp_path), "fake") as runtime:
        assert len(inputs.rotation(JOB, runtime)) == 2


def test_the_evaluations_batch() -> None:
    assert inputs.evaluation_batch(SCRIPT.inputs[0], JOB) == 100
    assert inputs.evaluation_batch(with_batch(SCRIPT, 3).inputs[0], JOB) == 3
    assert inputs.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 224, 224)), JOB) == 13
    assert inputs.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 4000, 4000)), JOB) == 1


@pytest.mark.parametrize(
    ("runtime", "device", "batch"),
    [
        ("onnxruntime", "cpu", 100),
        ("onnxruntime", "cuda", 2),
        ("inductor", "cpu", 100),
        ("inductor", "cuda", 2),
        ("inductor-max-autotune", "cuda", 2),
        ("pytorch", "cuda", 100),
        ("tensorrt", "cuda", 100),
    ],
)
def test_no_batch_size_is_prepared_for_the_evaluation(runtime: str, device: str, batch: int) -> None:
    job = replace(JOB, runtime=runtime, device=device, batch=2)
    assert inputs.evaluation_batch(SCRIPT.inputs[0], job) == batch
    assert inputs.evaluation_batch(with_batch(SCRIPT, 3).inputs[0], job) == 3


# What would make a time unusual


def feeds(*arrays: Array) -> list[Arrays]:
    return [{"input": array} for array in arrays]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_noise_is_not_odd(dtype: str) -> None:
    """Of half-precision noise some values are subnormal by nature."""
    arrays = [noise((2, 3, 64, 64), seed).astype(dtype) for seed in range(16)]
    assert (sum(map(subnormals, arrays)) > 0) is (dtype == "float16")
    assert oddities(feeds(*arrays)) == ()


def test_pixels_are_not_odd() -> None:
    assert oddities(feeds(*(noise_pixels((1, 8, 8, 3), seed) for seed in range(4)))) == ()


def test_subnormal_inputs_are_counted() -> None:
    one, other = noise((1, 4), 0), noise((1, 4), 1)
    one[0, :3] = (1e-40, -1e-45, 0.0)
    (reason,) = oddities(feeds(one, other))
    assert (reason.code, reason.sentence.startswith("2 of 8 ")) == ("inputs-subnormal", True)


@pytest.mark.parametrize(
    ("value", "dtype", "count"),
    [
        (np.finfo(np.float32).tiny, "float32", 0),
        (np.nextafter(np.finfo(np.float32).tiny, np.float32(0)), "float32", 1),
        (-1e-310, "float64", 1),
        (6e-8, "float16", 1),
        (0.0, "float32", 0),
        (np.nan, "float32", 0),
        (np.inf, "float32", 0),
        (1, "uint8", 0),
    ],
)
def test_what_counts_as_subnormal(value: float, dtype: str, count: int) -> None:
    assert subnormals(np.array([value], dtype)) == count


def test_constant_inputs_are_told() -> None:
    flat = np.full((1, 3, 8, 8), 0.5, np.float32)
    for other, count in ((noise(flat.shape, 0), 1), (flat + 1, 2)):
        (reason,) = oddities(feeds(flat, other))
        assert (reason.code, f" {count} of 2 " in reason.sentence) == ("inputs-flat", True)


def test_inputs_that_are_all_the_same_are_told() -> None:
    array = noise((1, 8), 0)
    assert [reason.code for reason in oddities(feeds(array, array.copy(), array.copy()))] == ["inputs-equal"]
    assert oddities(feeds(array, array.copy(), array + 1)) == ()
    assert oddities(feeds(array)) == ()  # one input is not several


def test_fewer_different_inputs_than_are_wanted_are_told() -> None:
    arrays = [noise((1, 8), seed) for seed in range(16)]
    assert oddities(feeds(*arrays), 16) == ()
    (reason,) = oddities(feeds(*arrays[:3]), 16)
    assert (reason.code, "only 3 " in reason.sentence, "16" in reason.sentence) == ("inputs-too-few", True, True)
    assert oddities(feeds(*(arrays[number % 3] for number in range(16))), 16) == (reason,)
    assert [same.code for same in oddities(feeds(*arrays[:1] * 2), 16)] == ["inputs-equal"]


def test_inputs_without_values_or_with_one_are_no_oddity() -> None:
    assert oddities(feeds(np.empty((0, 3), np.float32), np.ones((1,), np.float32))) == ()


# Encoded images


ONE = replace(JOB, batch=1, data="fashion-mnist", limit=ROTATION)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return runtimes.open(artifact(tmp_path, RAW))


@pytest.fixture
def seen(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The mean pixel of each image that the runtime got."""
    means: list[float] = []
    honest = runtime.infer

    def infer(feeds: Arrays) -> Arrays:
        means.append(float(feeds["input"].mean()))
        return honest(feeds)

    monkeypatch.setattr(runtime, "infer", infer)
    return means


def grey(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


def png(value: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(grey(value)).save(file, "PNG")
    return file.getvalue()


def of(images: list[Image] | np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Makes the job's data these images; gives what was asked for."""
    asked: list[tuple[str, int | None]] = []
    labels = [str(number) for number in range(len(images))]
    dataset = Dataset("test", tuple("0123456789"), np.zeros(len(images), np.int64), images, labels)

    def opened(spec: str, limit: int | None = None) -> Dataset:
        asked.append((spec, limit))
        return dataset

    monkeypatch.setattr(inputs, "open_dataset", opened)
    return asked


def call_of(job: Job, runtime: Runtime) -> Callable[[], object]:
    call = make_encoded_call(job, runtime)
    assert call is not None
    return call


def label(answer: object) -> str:
    assert isinstance(answer, list)
    (prediction,) = answer
    assert isinstance(prediction, Prediction)
    return prediction.label


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the classifier was given."""
    given: list[object] = []
    honest = Classifier.predict

    def predict(self: Classifier, images: Image) -> list[Prediction]:
        given.append(images)
        return honest(self, images)

    monkeypatch.setattr(Classifier, "predict", predict)
    return given


@pytest.mark.parametrize("colours", [True, False])
def test_arrays_are_answered_from_their_png_one_after_another(
    runtime: Runtime, seen: list[float], predicted: list[object], monkeypatch: pytest.MonkeyPatch, colours: bool
) -> None:
    values = [0, 40, 200]
    arrays = np.stack([grey(value) if colours else grey(value)[:, :, 0] for value in values])
    asked = of(arrays, monkeypatch)
    call = call_of(ONE, runtime)
    assert asked == [("fashion-mnist", ROTATION)]
    assert seen == values, "each was tried"
    seen.clear()
    assert [label(call()) for _ in range(5)] == ["class 0", "class 9", "class 9", "class 0", "class 9"]
    assert seen == [0, 40, 200, 0, 40]
    for content, value in zip(predicted, values, strict=False):
        assert isinstance(content, bytes)
        with PIL.Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            np.testing.assert_array_equal(np.asarray(image), arrays[values.index(value)])


def test_files_are_read_before_and_answered_from_their_bytes(
    tmp_path: Path, runtime: Runtime, seen: list[float], predicted: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / f"{value}.png" for value in (10, 20)]
    for place, value in zip(places, (10, 20), strict=True):
        place.write_bytes(png(value))
    of([places[0], str(places[1])], monkeypatch)
    call = call_of(ONE, runtime)
    for place in places:
        place.unlink()
    call()
    call()
    assert seen[2:] == [10, 20]
    assert predicted[2:] == [png(10), png(20)]


def test_a_broken_image_is_left_out(
    tmp_path: Path, runtime: Runtime, seen: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    of([png(10), png(20)[:40], b"", tmp_path / "missing.png", b"no image at all", png(30)], monkeypatch)
    call = call_of(ONE, runtime)
    for _ in range(3):
        call()
    assert seen == [10, 30, 10, 30, 10]


def test_where_no_image_can_be_read_there_is_no_clock(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    of([b"", b"no image"], monkeypatch)
    assert make_encoded_call(ONE, runtime) is None


def test_the_bundled_images_are_answered(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path, SCRIPT)) as opened:
        assert label(call_of(ONE, opened)()).startswith("class ")


@pytest.mark.parametrize(
    "job", [replace(ONE, batch=2), replace(ONE, data=None), replace(ONE, load=ArrivalPlan("single-stream", 0.01))]
)
def test_only_single_images_of_real_data_are_answered(job: Job, runtime: Runtime) -> None:
    assert make_encoded_call(job, runtime) is None


def test_without_pillow_there_is_no_clock(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", asked.append)
    assert make_encoded_call(ONE, runtime) is None
    assert asked == ["PIL"]


def test_without_preprocessing_there_is_no_clock(tmp_path: Path) -> None:
    with runtimes.open(foreign(tmp_path, name="other.fake")) as opened:
        assert make_encoded_call(ONE, opened) is None
