from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks.worker import inputs
from exporter.data.dataset import open_dataset
from runtimes.errors import CompatibilityError, InputError
from runtimes.images.preprocessing import fit_image
from runtimes.protocol import TensorSpec
from tests.benchmarks.scripts import JOB, RAW, SCRIPT, artifact, foreign, read, with_batch
from tests.refusals import refuses


def test_inputs_rotate_and_differ(tmp_path: Path) -> None:
    with runtimes.open(foreign(tmp_path), "fake") as runtime:
        found = inputs.rotation(JOB, runtime)
    assert len(found) == inputs.ROTATION
    assert len({arrays["input"].tobytes() for arrays in found}) == inputs.ROTATION
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


def test_a_raw_input_is_fed_pixels(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path, RAW), "fake") as runtime:
        noise = inputs.rotation(JOB, runtime)
        evaluation = inputs.evaluation(replace(JOB, limit=3), runtime, [])
        (_, images), *_ = evaluation.batches
    assert {(arrays["input"].dtype.name, arrays["input"].shape) for arrays in noise} == {("uint8", (2, 8, 8, 3))}
    assert len({arrays["input"].tobytes() for arrays in noise}) == inputs.ROTATION
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
    assert inputs.evaluation_batch(SCRIPT.inputs[0]) == 100
    assert inputs.evaluation_batch(with_batch(SCRIPT, 3).inputs[0]) == 3
    assert inputs.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 224, 224))) == 13
    assert inputs.evaluation_batch(TensorSpec("x", "float32", ("n", 3, 4000, 4000))) == 1
