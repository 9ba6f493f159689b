"""Outputs that stay where they are computed, and calls that nobody waits for, as an app uses them.

On the CPU for real; on a device by the doubles of TensorRT and CUDA."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import cuda.bindings.runtime as real
import numpy as np
import pytest
from torch.utils.dlpack import from_dlpack

import runtimes
from runtimes import Artifact, Runtime
from runtimes.errors import InputError, ResourceError, UsageError
from runtimes.protocol import Array, Arrays
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import device_tensor
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.test_session import expected, images
from tests.samples import SCRIPT, foreign_script


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


@pytest.fixture
def on_gpu(recorder: Recorder, tmp_path: Path) -> Runtime:
    return Runtime(foreign_script(tmp_path / "scripted.fake"), double.session(recorder))


def logits(outputs: dict[str, Any]) -> Array:
    return np.asarray(outputs["logits"])


# Outputs on the device


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_on_the_cpu_the_same_code_gets_arrays(onnx_artifact: Artifact, backend: str) -> None:
    feeds = {"input": np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)}
    with runtimes.open(onnx_artifact.path, backend) as runtime:
        outputs = runtime.infer(feeds, device_outputs=True)
        tensor = from_dlpack(outputs["logits"])
        np.testing.assert_array_equal(tensor.numpy(), runtime.infer(feeds)["logits"])
        np.testing.assert_array_equal(logits(outputs), tensor.numpy())


def test_on_a_gpu_outputs_stay_there(on_gpu: Runtime, recorder: Recorder) -> None:
    for count in (1, 8, 11):
        batch = images(count)
        for feed in (batch, DeviceArray(recorder.cuda.memory, batch)):
            output = on_gpu.infer({"input": feed}, device_outputs=True)["logits"]
            assert isinstance(output, DeviceOutput)
            assert (len(output), output.ndim, output.__dlpack_device__()) == (count, 2, (2, 0))
            found = recorder.cuda.memory.read(output.pointer, output.dtype, output.shape)  # the call waited for it
            np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(np.asarray(output), found)
            assert np.asarray(output, np.float64).dtype == np.float64
    on_gpu.close()


def test_an_output_is_shared_as_a_tensor_on_the_device(on_gpu: Runtime) -> None:
    output = on_gpu.infer({"input": images(2)}, device_outputs=True)["logits"]
    for options in ({}, {"max_version": (1, 0)}, {"dl_device": (2, 0)}, {"copy": False}):
        capsule = output.__dlpack__(stream=1, **options)
        assert "versioned" in repr(capsule) if "max_version" in options else "versioned" not in repr(capsule)
    tensor = device_tensor(output)
    assert (tensor.pointer, tensor.shape, tensor.dtype, tensor.device) == (output.pointer, (2, 10), "float32", 0)
    for refused in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError):
            output.__dlpack__(**refused)
    with pytest.raises(ValueError, match="device memory"):
        np.asarray(output, copy=False)


def test_no_images_give_no_rows_on_the_device(on_gpu: Runtime, recorder: Recorder) -> None:
    calls = recorder.count("execute_async_v3")
    for feed in (images(0), DeviceArray(recorder.cuda.memory, images(0))):
        output = on_gpu.infer({"input": feed}, device_outputs=True)["logits"]
        output.synchronize()
        assert (output.shape, np.asarray(output).shape) == ((0, 10), (0, 10))
        assert device_tensor(output).shape == (0, 10)
    assert recorder.count("execute_async_v3") == calls


# The caller's stream


def test_with_a_stream_the_call_does_not_wait(on_gpu: Runtime, recorder: Recorder) -> None:
    stream = int(recorder.cuda.cudaStreamCreateWithFlags(real.cudaStreamNonBlocking)[1])
    tensor = DeviceArray(recorder.cuda.memory, images(3))
    for _ in range(3):
        tensor.asked.clear()
        waits = recorder.count("cudaEventSynchronize") + recorder.count("cudaStreamSynchronize")
        output = on_gpu.infer({"input": tensor}, device_outputs=True, stream=stream)["logits"]
        later = recorder.count("cudaEventSynchronize") + recorder.count("cudaStreamSynchronize")
        assert tensor.asked == [stream]  # its owner is told once, and of the caller's stream
        recorder.cuda.cudaStreamSynchronize(stream)
        found = recorder.cuda.memory.read(output.pointer, output.dtype, output.shape)
        np.testing.assert_allclose(found, expected(images(3)), rtol=1e-5, atol=1e-6)
    assert later == waits
    on_gpu.close()


def test_a_stream_is_for_outputs_on_a_gpu(on_gpu: Runtime, fake_artifact: FakeFactory) -> None:
    with refuses(UsageError, "stream-needs-device-outputs", "infer_async"):
        on_gpu.infer({"input": images(1)}, stream=1)  # type: ignore[call-overload]
    with refuses(UsageError, "stream-invalid", "a str"):
        on_gpu.infer({"input": images(1)}, device_outputs=True, stream="main")
    with runtimes.open(fake_artifact().path) as runtime:
        with refuses(UsageError, "stream-without-gpu", "fake", "cpu"):
            runtime.infer({"input": images(1)}, device_outputs=True, stream=1)
        with refuses(UsageError, "stream-without-gpu"):
            runtime.infer_async({"input": images(1)}, stream=1)


# Futures


class _Gate:
    """A session whose runs wait until the test lets them go."""

    def __init__(self, runtime: Runtime) -> None:
        self._real = runtime._session
        self.started: list[float] = []
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.inputs, self.outputs, self.description = self._real.inputs, self._real.outputs, self._real.description
        self.closed = False

    def run(self, arrays: Arrays) -> Arrays:
        self.started.append(float(arrays["input"][0].mean()))
        self.entered.release()
        assert self.open.acquire(timeout=30)
        assert not self.closed
        return self._real.run(arrays)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def gated(fake_artifact: FakeFactory) -> tuple[Runtime, _Gate]:
    gate = _Gate(runtimes.open(fake_artifact().path))
    return Runtime(fake_artifact(), gate), gate  # type: ignore[arg-type]


def full(value: float) -> dict[str, Array]:
    return {"input": np.full((1, 3, 8, 8), value, np.float32)}


def test_a_future_gives_what_infer_gives(onnx_artifact: Artifact) -> None:
    cases = [{"input": np.random.default_rng(seed).standard_normal((seed, 3, 32, 32), np.float32)} for seed in range(5)]
    with runtimes.open(onnx_artifact.path, "onnxruntime", threads=1) as runtime:
        futures = [runtime.infer_async(feeds) for feeds in cases]
        for feeds, future in zip(cases, futures, strict=True):
            np.testing.assert_array_equal(future.result(30)["logits"], runtime.infer(feeds)["logits"])
        tensor = from_dlpack(runtime.infer_async(cases[2], device_outputs=True).result(30)["logits"])
        assert tensor.shape == (2, 10)


def test_calls_on_the_cpu_run_one_after_the_other(gated: tuple[Runtime, _Gate]) -> None:
    runtime, gate = gated
    futures = [runtime.infer_async(full(value)) for value in (1, 2, 3)]
    assert gate.entered.acquire(timeout=30)
    assert not gate.entered.acquire(blocking=False)
    assert not any(future.done() for future in futures)
    gate.open.release(3)
    assert [float(future.result(30)["logits"][0, 0]) for future in futures] == [1, 2, 3]
    assert gate.started == [1, 2, 3]
    runtime.close()


def test_streams_are_as_many_calls_at_once(fake_artifact: FakeFactory) -> None:
    gate = _Gate(runtimes.open(fake_artifact().path))
    runtime = Runtime(fake_artifact(), gate, streams=2)  # type: ignore[arg-type]
    futures = [runtime.infer_async(full(value)) for value in (1, 2, 3)]
    assert gate.entered.acquire(timeout=30)
    assert gate.entered.acquire(timeout=30)
    assert not gate.entered.acquire(blocking=False)
    gate.open.release(3)
    assert [float(future.result(30)["logits"][0, 0]) for future in futures] == [1, 2, 3]
    runtime.close()


def test_what_waits_can_be_cancelled_and_what_runs_not(gated: tuple[Runtime, _Gate]) -> None:
    runtime, gate = gated
    running, waiting = runtime.infer_async(full(1)), runtime.infer_async(full(2))
    assert gate.entered.acquire(timeout=30)
    assert (running.cancel(), waiting.cancel()) == (False, True)
    gate.open.release(2)
    assert running.result(30)["logits"][0, 0] == 1
    with pytest.raises(CancelledError):
        waiting.result(30)
    runtime.close()
    assert gate.started == [1]


def test_closing_waits_for_futures(gated: tuple[Runtime, _Gate]) -> None:
    runtime, gate = gated
    futures = [runtime.infer_async(full(value)) for value in (1, 2)]
    assert gate.entered.acquire(timeout=30)
    closing = threading.Thread(target=runtime.close)
    closing.start()
    gate.open.release(2)
    closing.join(30)
    assert not closing.is_alive()
    assert gate.closed
    assert [future.done() for future in futures] == [True, True]
    with refuses(UsageError, "runtime-closed"):
        runtime.infer_async(full(3))


def test_the_last_future_may_close_the_runtime(gated: tuple[Runtime, _Gate]) -> None:
    runtime, gate = gated
    closed = threading.Event()

    def close(_: Future[Any]) -> None:
        runtime.close()
        closed.set()

    runtime.infer_async(full(1)).add_done_callback(close)
    gate.open.release()
    assert closed.wait(30)
    assert gate.closed


def test_wrong_feeds_are_refused_at_once_failures_by_the_future(fake_artifact: FakeFactory) -> None:
    with runtimes.open(fake_artifact(replace(SCRIPT, fail_at=0)).path) as runtime:
        with refuses(InputError, "input-shape-mismatch"):
            runtime.infer_async({"input": np.zeros((1, 3, 9, 9), np.float32)})
        future = runtime.infer_async(full(1))
        with refuses(ResourceError, "script-call-fails"):
            future.result(30)
        assert runtime.infer_async(full(2)).result(30)["logits"][0, 0] == 2
        assert runtime.infer_async({"input": images(0)}).result(30)["logits"].shape == (0, 10)


@pytest.mark.parametrize("device_outputs", [False, True])
def test_a_run_on_the_device_is_queued_before_its_future(
    on_gpu: Runtime, recorder: Recorder, device_outputs: bool
) -> None:
    tensor = DeviceArray(recorder.cuda.memory, images(4))
    future = on_gpu.infer_async({"input": tensor}, device_outputs=device_outputs)
    assert recorder.count("execute_async_v3") == 1
    outputs = future.result(30)
    assert isinstance(outputs["logits"], DeviceOutput if device_outputs else np.ndarray)
    np.testing.assert_allclose(logits(outputs), expected(images(4)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        on_gpu.infer_async({"input": images(4)}).result(30)["logits"], expected(images(4)), rtol=1e-5, atol=1e-6
    )
    on_gpu.close()


# Inputs


def test_empty_inputs_fit_the_model(onnx_artifact: Artifact, on_gpu: Runtime, fake_artifact: FakeFactory) -> None:
    with runtimes.open(onnx_artifact.path, "onnxruntime") as runtime:
        arrays = runtime.empty_inputs(3)
        assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {
            "input": ((3, 3, 32, 32), "float32")
        }
        arrays["input"][:] = 0
        assert runtime.infer(arrays)["logits"].shape == (3, 10)
        with refuses(InputError, "batch-mismatch", "at least 1", "not 0"):
            runtime.empty_inputs(0)
    arrays = on_gpu.empty_inputs(2)
    arrays["input"][:] = images(2)
    np.testing.assert_allclose(on_gpu.infer(arrays)["logits"], expected(images(2)), rtol=1e-5, atol=1e-6)
    on_gpu.close()
    assert arrays["input"].sum() == pytest.approx(images(2).sum(), abs=1e-3)
    two = (runtimes.TensorSpec("input", "float32", (4, 3, 8, 8)), runtimes.TensorSpec("x", "float32", ("n", "m")))
    for spec, code in zip(two, ("batch-mismatch", "input-size-unknown"), strict=True):
        script = replace(SCRIPT, inputs=(spec,))
        with runtimes.open(fake_artifact(script, f"{spec.name}.fake").path) as runtime, refuses(InputError, code):
            runtime.empty_inputs(2)
