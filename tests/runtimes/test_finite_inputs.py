"""NaN and infinity in the inputs: refused alike by every backend and every way in, and let through where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import runtimes
from runtimes import Artifact, Runtime
from runtimes.errors import InputError
from runtimes.tensors.finiteness import first_non_finite, is_finite
from runtimes.tensors.spec import Array
from tests.conftest import FakeFactory
from tests.refusals import refuses

BACKENDS = ("onnxruntime", "openvino", "pytorch", "fake")

WAYS: dict[str, Any] = {
    "infer": lambda runtime, feeds: runtime.infer(feeds),
    "device outputs": lambda runtime, feeds: runtime.infer(feeds, device_outputs=True),
    "infer_async": lambda runtime, feeds: runtime.infer_async(feeds).result(),
    "bind": lambda runtime, feeds: runtime.bind(feeds)(),
    "a list": lambda runtime, feeds: runtime.infer({name: array.tolist() for name, array in feeds.items()}),
    "a view": lambda runtime, feeds: runtime.infer({name: array[:, :, ::-1] for name, array in feeds.items()}),
}


@pytest.fixture(scope="module")
def opened(onnx_artifact: Artifact, pt2_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Opens the same network on a backend, each once; with a key of options, others."""
    from tests.samples import publish_script

    scripted = publish_script(tmp_path_factory.mktemp("fake") / "scripted.fake")
    paths = {"pytorch": pt2_artifact.path, "fake": scripted.path}
    kept: dict[tuple[str, bool], Runtime] = {}

    def get(backend: str, check_finite: bool = True) -> Runtime:
        key = (backend, check_finite)
        if key not in kept:
            path: Path = paths.get(backend, onnx_artifact.path)
            kept[key] = runtimes.open(path, backend, threads=1, check_finite=check_finite)
        return kept[key]

    yield get
    for runtime in kept.values():
        runtime.close()


def image_with(runtime: Runtime, value: float) -> dict[str, Array]:
    (spec,) = runtime.inputs
    array = np.zeros((2, *(size for size in spec.shape[1:] if isinstance(size, int))), np.float32)
    array[1, 2, 3, 4] = value
    return {spec.name: array}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_refuses_alike(opened: Any, backend: str, value: float) -> None:
    runtime = opened(backend)
    with refuses(InputError, "input-not-finite", "(1, 2, 3, 4)", value):
        runtime.infer(image_with(runtime, value))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_refuses(opened: Any, way: str) -> None:
    runtime = opened("onnxruntime")
    with refuses(InputError, "input-not-finite"):
        WAYS[way](runtime, image_with(runtime, np.nan))
    WAYS[way](runtime, image_with(runtime, 1e38))  # finite, although the sum of such numbers would not be


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_check_can_be_switched_off(opened: Any, backend: str) -> None:
    runtime = opened(backend, check_finite=False)
    assert runtime.infer(image_with(runtime, np.nan))["logits"].shape == (2, 10)


FLOATS = st.sampled_from([np.float16, np.float32, np.float64])
VALUES = [0.0, -0.0, 1.0, -65504.0, 6e-8, np.nan, np.inf, -np.inf]


@settings(max_examples=60, deadline=None)
@given(FLOATS.flatmap(lambda dtype: arrays.arrays(dtype, st.integers(0, 9), elements=st.sampled_from(VALUES))))
def test_the_fast_test_is_exact(array: Array) -> None:
    expected = bool(np.isfinite(array).all())
    assert is_finite(array) is expected
    if not expected:
        assert not np.isfinite(array[first_non_finite(array)])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_largest_finite_numbers_pass_without_warning(dtype: str) -> None:
    array = np.full(400_000, np.finfo(dtype).max, dtype)  # more than one block; the sum would overflow
    assert is_finite(array)
    array[-1] = -np.inf
    assert not is_finite(array)
    assert first_non_finite(array) == (399_999,)


@pytest.mark.parametrize("bits", [0x7C01, 0x7E00, 0x7FFF, 0xFC01, 0xFE00, 0xFFFF, 0x7C00, 0xFC00])
def test_each_kind_of_nan_in_float16_is_seen(bits: int) -> None:
    assert not is_finite(np.array([0, bits, 0x7BFF, 0xFBFF], np.uint16).view(np.float16))


@pytest.mark.parametrize("array", [np.array([255], np.uint8), np.array([True]), np.array([-(2**62)])])
def test_integers_are_always_finite(array: Array) -> None:
    assert is_finite(array)


def test_a_classifier_of_its_own_images_is_not_refused(fake_artifact: FakeFactory) -> None:
    with runtimes.Classifier.open(fake_artifact().path) as classifier:
        assert classifier.predict(np.zeros((8, 8, 3), np.uint8))
