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
from benchmarks.worker import image_latency
from benchmarks.worker.inputs import ROTATION
from exporter.data.dataset import Dataset
from runtimes import Runtime
from runtimes.classifier import Classifier, Prediction
from runtimes.images.preprocessing import Image
from runtimes.protocol import Arrays
from tests.benchmarks.scripts import JOB, RAW, SCRIPT, artifact, foreign

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

    monkeypatch.setattr(image_latency, "open_dataset", opened)
    return asked


def call_of(job: Job, runtime: Runtime) -> Callable[[], object]:
    call = image_latency.make_encoded_call(job, runtime)
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
    assert image_latency.make_encoded_call(ONE, runtime) is None


def test_the_bundled_images_are_answered(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path, SCRIPT)) as opened:
        assert label(call_of(ONE, opened)()).startswith("class ")


@pytest.mark.parametrize(
    "job", [replace(ONE, batch=2), replace(ONE, data=None), replace(ONE, load=ArrivalPlan("closed", 0.01))]
)
def test_only_single_images_of_real_data_are_answered(job: Job, runtime: Runtime) -> None:
    assert image_latency.make_encoded_call(job, runtime) is None


def test_without_pillow_there_is_no_clock(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", asked.append)
    assert image_latency.make_encoded_call(ONE, runtime) is None
    assert asked == ["PIL"]


def test_without_preprocessing_there_is_no_clock(tmp_path: Path) -> None:
    with runtimes.open(foreign(tmp_path, name="other.fake")) as opened:
        assert image_latency.make_encoded_call(ONE, opened) is None
