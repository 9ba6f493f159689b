"""The model in a user's hands on a device: tensors that lie there already, and calls that are timed by its clock.

On the doubles of TensorRT and CUDA. Backends on the CPU say that they have neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import runtimes
from runtimes import Artifact, Runtime
from runtimes.errors import InputError, UsageError
from runtimes.protocol import RunTimes
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.test_session import expected, images
from tests.samples import foreign_script


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


@pytest.fixture
def on_gpu(recorder: Recorder, tmp_path: Path) -> Runtime:
    return Runtime(foreign_script(tmp_path / "scripted.fake"), double.session(recorder))


def test_a_tensor_on_the_device_is_answered_like_an_array(on_gpu: Runtime, recorder: Recorder) -> None:
    for count in (1, 8, 11):
        batch = images(count)
        found = on_gpu.infer({"input": DeviceArray(recorder.cuda.memory, batch)})["logits"]
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found, on_gpu.infer({"input": batch})["logits"])


def test_no_images_on_the_device_give_no_rows(on_gpu: Runtime, recorder: Recorder) -> None:
    calls = recorder.count("execute_async_v3")
    assert on_gpu.infer({"input": DeviceArray(recorder.cuda.memory, images(0))})["logits"].shape == (0, 10)
    assert recorder.count("execute_async_v3") == calls


@pytest.mark.parametrize(
    ("batch", "code", "values"),
    [
        (np.zeros((2, 3, 8, 8), np.float16), "input-dtype-mismatch", ("input:", "float16")),
        (
            np.zeros((2, 8, 8, 3), np.float32),
            "input-shape-mismatch",
            ((2, 8, 8, 3), "channels last", f"transpose{(0, 3, 1, 2)}"),
        ),
        (np.zeros((3, 8, 8), np.float32), "input-rank-mismatch", (3, (3, 8, 8), "batch axis")),
    ],
)
def test_a_tensor_on_the_device_is_checked_like_an_array(
    on_gpu: Runtime, recorder: Recorder, batch: runtimes.protocol.Array, code: str, values: tuple[object, ...]
) -> None:
    with refuses(InputError, code, *values):
        on_gpu.infer({"input": DeviceArray(recorder.cuda.memory, batch)})


def test_names_are_checked_too(on_gpu: Runtime, recorder: Recorder) -> None:
    with refuses(InputError, "input-names-mismatch", "'input'", "'pixels'"):
        on_gpu.infer({"pixels": DeviceArray(recorder.cuda.memory, images(1))})


def test_a_tensor_that_is_not_handed_over_is_named(on_gpu: Runtime, recorder: Recorder) -> None:
    class Learning(DeviceArray):
        def __dlpack__(self, *, stream: int | None = None) -> object:
            raise BufferError(f"it learns, on {stream}")

    with refuses(InputError, "dlpack-refused", on_gpu.inputs[0], "it learns"):
        on_gpu.infer({"input": Learning(recorder.cuda.memory, images(1))})


def test_arrays_and_tensors_do_not_mix(recorder: Recorder, tmp_path: Path) -> None:
    spec = double.NETWORK.inputs[0]
    two = replace(double.NETWORK, inputs=(spec, replace(spec, name="other")))
    with Runtime(foreign_script(tmp_path / "scripted.fake"), double.session(recorder, two)) as runtime:
        feeds = {"input": DeviceArray(recorder.cuda.memory, images(1)), "other": images(1)}
        with refuses(InputError, "feeds-mixed-devices", "other: ", "ndarray", "NumPy arrays"):
            runtime.infer(feeds)  # type: ignore[arg-type]


def test_a_model_on_the_cpu_takes_no_tensors_of_a_gpu(fake_artifact: FakeFactory, recorder: Recorder) -> None:
    refused = refuses(InputError, "feeds-on-wrong-device", "fake", "on cpu", "NumPy arrays", "device='cuda'")
    with runtimes.open(fake_artifact().path) as runtime, refused:
        runtime.infer({"input": DeviceArray(recorder.cuda.memory, images(1))})


def test_a_tensor_on_the_cpu_is_no_array(on_gpu: Runtime) -> None:
    with refuses(InputError, "input-not-array", "Tensor"):
        on_gpu.infer({"input": torch.zeros(1, 3, 8, 8)})


def test_bind_takes_arrays_alone(on_gpu: Runtime, recorder: Recorder) -> None:
    for act in (on_gpu.bind, on_gpu.bind_timed):
        with refuses(InputError, "input-not-array", "DeviceArray", "tensor.cpu().numpy()"):
            act({"input": DeviceArray(recorder.cuda.memory, images(1))})  # type: ignore[dict-item]


def test_timed_calls_give_the_devices_seconds(on_gpu: Runtime, recorder: Recorder) -> None:
    recorder.run_s = 0.002
    call = on_gpu.bind_timed({"input": images(8)})
    assert call is not None
    assert [call().device_s, call().device_s] == pytest.approx([0.002, 0.002])
    empty = on_gpu.bind_timed({"input": images(0)})
    assert empty is not None
    assert empty() == RunTimes(0.0, 0.0)
    on_gpu.close()
    for closed in (call, empty):
        with refuses(UsageError, "runtime-closed"):
            closed()
    with refuses(UsageError, "runtime-closed"):
        on_gpu.bind_timed({"input": images(1)})


def test_timed_calls_keep_the_batch_that_they_were_given(on_gpu: Runtime, recorder: Recorder) -> None:
    seen: list[float] = []

    def compute(arrays: dict[str, runtimes.protocol.Array]) -> dict[str, runtimes.protocol.Array]:
        seen.append(float(arrays["input"].max()))
        return {"logits": np.zeros((1, 10))}

    recorder.compute = compute
    batch = np.ones((1, 3, 8, 8), np.float32)
    call = on_gpu.bind_timed({"input": batch})
    batch[:] = 5
    assert call is not None
    call()
    assert set(seen) == {1.0}


def test_the_processor_keeps_no_time_of_its_own(onnx_artifact: Artifact, fake_artifact: FakeFactory) -> None:
    feeds = {"input": np.zeros((1, 3, 32, 32), np.float32)}
    with runtimes.open(onnx_artifact.path, "onnxruntime") as runtime:
        assert runtime.bind_timed(feeds) is None
        with refuses(InputError, "input-shape-mismatch"):
            runtime.bind_timed({"input": feeds["input"][:, :1]})
    with runtimes.open(fake_artifact().path) as runtime:
        assert runtime.bind_timed({"input": images(1)}) is None
