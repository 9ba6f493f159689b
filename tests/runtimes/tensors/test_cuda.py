"""The CUDA runtime as sessions use it: every error code looked at, everything given back, and what a machine without a
GPU says. The device is a double, held to the true module's names; where there is none, the true module is asked too."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import cuda.bindings.driver as driver
import cuda.bindings.runtime as real
import numpy as np
import pytest

from runtimes.errors import BackendUnavailableError, DeviceLostError, ResourceError
from runtimes.tensors import cuda
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda_objects import CudaGraph, DeviceBuffer, Event, PinnedBuffer, Stream
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import CudaDouble, Recorder, gpu_uuid
from tests.runtimes.backends.tensorrt.driverdouble import DriverDouble, install

REPO = Path(__file__).resolve().parents[3]
CODES = real.cudaError_t


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return install(monkeypatch, Recorder())


def test_the_double_has_the_true_modules_names_and_arguments() -> None:
    functions = [name for name, item in vars(CudaDouble).items() if name.startswith("cuda") and callable(item)]
    functions = [name for name in functions if not isinstance(vars(CudaDouble)[name], type)]
    assert len(functions) > 20
    for name in functions:
        mine = list(inspect.signature(getattr(CudaDouble, name)).parameters)[1:]
        assert mine == list(inspect.signature(getattr(real, name)).parameters), name


def test_the_double_of_the_driver_has_true_names_too() -> None:
    functions = [name for name in vars(DriverDouble) if name.startswith("cu")]
    for name in functions:
        mine = list(inspect.signature(getattr(DriverDouble, name)).parameters)[1:]
        assert mine == list(inspect.signature(getattr(driver, name)).parameters), name
    unavailable = driver.CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE, CODES.cudaErrorDevicesUnavailable
    assert int(unavailable[0]) == int(unavailable[1])  # errors of both have the same numbers


def test_the_codes_that_it_knows_are_true_ones() -> None:
    known = set(CODES.__members__)
    assert known >= cuda._LOST
    assert known >= cuda._ABSENT
    assert not cuda._LOST & cuda._ABSENT


# What is there


def test_without_a_driver_the_true_module_says_so() -> None:
    if real.cudaGetDeviceCount()[0] != CODES.cudaErrorInsufficientDriver:
        pytest.skip("there is a driver here")
    reason = cuda.missing()
    assert reason is not None
    assert (reason.code, "driver 580" in reason.sentence) == ("gpu-unusable", True)
    with refuses(BackendUnavailableError, "gpu-unusable", "driver 580"):
        cuda.device()


def test_the_true_module_takes_the_arguments_as_they_are_passed() -> None:
    if real.cudaGetDeviceCount()[0] != CODES.cudaErrorInsufficientDriver:
        pytest.skip("there is a driver here, which would use the made-up handles")
    stream, kind = 4711, real.cudaMemcpyKind.cudaMemcpyHostToDevice
    event, graph, launchable = real.cudaEvent_t(1), real.cudaGraph_t(2), real.cudaGraphExec_t(3)
    mode = real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    for result in (
        real.cudaMemcpyAsync(1, 2, 3, kind, stream),
        real.cudaStreamSynchronize(stream),
        real.cudaEventCreateWithFlags(real.cudaEventDefault),
        real.cudaEventRecord(event, stream),
        real.cudaEventSynchronize(event),
        real.cudaEventElapsedTime(event, event),
        real.cudaStreamBeginCapture(stream, mode),
        real.cudaStreamEndCapture(stream),
        real.cudaGraphInstantiate(graph, 0),
        real.cudaGraphLaunch(launchable, stream),
        real.cudaStreamCreateWithFlags(real.cudaStreamNonBlocking),
        real.cudaMalloc(8),
        real.cudaFree(8),
        real.cudaHostAlloc(8, real.cudaHostAllocDefault),
        real.cudaFreeHost(8),
        real.cudaGetDeviceProperties(0),
        real.cudaSetDevice(0),
        real.cudaGetDevice(),
        real.cudaThreadExchangeStreamCaptureMode(mode),
    ):
        assert result[0] == CODES.cudaErrorInsufficientDriver


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cuda":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from runtimes.tensors import cuda
print(*cuda.missing())
print([name for name in sys.modules if name.startswith("cuda")])
try:
    cuda.device()
except cuda.BackendUnavailableError as error:
    print(error.code, error)
"""


def test_without_cuda_bindings_it_names_the_pip_line() -> None:
    done = subprocess.run([sys.executable, "-c", HIDDEN], cwd=REPO, capture_output=True, text=True, check=True)
    first, loaded, last = done.stdout.splitlines()
    assert (loaded, last) == ("[]", first)
    assert first.startswith("cuda-bindings-missing ")
    assert "pip install cuda-bindings" in first


def test_with_a_gpu_nothing_is_missing_and_no_context_is_made(recorder: Recorder) -> None:
    assert cuda.missing() is None
    assert recorder.calls == ["cudaGetDeviceCount"]


def test_a_hidden_gpu_is_missing(recorder: Recorder) -> None:
    recorder.devices = 0
    reason = cuda.missing()
    assert reason is not None
    assert (reason.code, "CUDA_VISIBLE_DEVICES" in reason.sentence) == ("gpu-not-visible", True)


@pytest.mark.parametrize("name", ["cudaErrorSystemDriverMismatch", "cudaErrorUnknown", "cudaErrorInvalidValue"])
def test_missing_never_raises(recorder: Recorder, name: str) -> None:
    recorder.codes["cudaGetDeviceCount"] = [getattr(CODES, name)]
    assert cuda.missing()


def test_a_broken_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(ModuleType):
        def cudaGetDeviceCount(self) -> None:  # noqa: N802
            raise RuntimeError("Failed to dlopen libcudart")

    broken = Broken("runtime")
    broken.__spec__ = real.__spec__
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", broken)
    reason = cuda.missing()
    assert reason is not None
    assert (reason.code, "dlopen libcudart (" in reason.sentence) == ("cuda-not-loadable", True)


def test_a_module_without_a_spec_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", ModuleType("runtime"))
    reason = cuda.missing()
    assert reason is not None
    assert (reason.code, "__spec__ is None" in reason.sentence) == ("cuda-bindings-not-found", True)


def test_a_device_is_described(recorder: Recorder) -> None:
    recorder.memory_bytes = 5 << 30
    assert cuda.device() == cuda.Device(0, "NVIDIA Double", "9.0", "13.0", 5 << 30, str(gpu_uuid(0)))
    with refuses(BackendUnavailableError, "gpu-number-missing", "cuda:1", "cuda:0 NVIDIA Double"):
        cuda.device(1)
    recorder.devices, recorder.compute_mode = 2, real.cudaComputeMode.cudaComputeModeExclusiveProcess
    assert (cuda.device(1).uuid, cuda.device(1).exclusive) == (str(gpu_uuid(1)), True)
    assert recorder.contexts == set()  # no question takes memory on a GPU


def test_the_callers_device_comes_back(recorder: Recorder) -> None:
    recorder.devices = 4
    recorder.cuda.cudaSetDevice(3)
    with cuda.current(0):
        assert recorder.cuda.cudaGetDevice()[1] == 0
    assert recorder.cuda.cudaGetDevice()[1] == 3
    with pytest.raises(KeyError), cuda.current(0):
        raise KeyError
    assert recorder.cuda.cudaGetDevice()[1] == 3
    with cuda.current(1):
        recorder.cuda.cudaSetDevice(1)  # as ONNX Runtime does in each run
    assert recorder.cuda.cudaGetDevice()[1] == 3


def test_recordings_of_other_threads_do_not_matter(recorder: Recorder) -> None:
    """ONNX Runtime's would otherwise be ended by a wait for an event, which fails as well."""
    modes = real.cudaStreamCaptureMode

    def mode() -> object:
        _, found = recorder.cuda.cudaThreadExchangeStreamCaptureMode(modes.cudaStreamCaptureModeGlobal)
        recorder.cuda.cudaThreadExchangeStreamCaptureMode(found)
        return found

    recorder.devices = 2
    assert mode() == modes.cudaStreamCaptureModeGlobal
    for ordinal in (0, 1):
        with cuda.current(ordinal):
            assert mode() == modes.cudaStreamCaptureModeThreadLocal
            with cuda.current(0):
                assert mode() == modes.cudaStreamCaptureModeThreadLocal
            assert mode() == modes.cudaStreamCaptureModeThreadLocal
        assert mode() == modes.cudaStreamCaptureModeGlobal
    with pytest.raises(KeyError), cuda.current(0):
        raise KeyError
    assert mode() == modes.cudaStreamCaptureModeGlobal


def test_a_mode_that_cannot_be_changed_is_left(recorder: Recorder) -> None:
    recorder.codes["cudaThreadExchangeStreamCaptureMode"] = [CODES.cudaErrorNotSupported]
    with cuda.current(0):
        assert recorder.cuda.cudaGetLastError() == (CODES.cudaSuccess,)


def test_the_double_finds_who_would_end_a_recording(recorder: Recorder) -> None:
    event = Event()
    recorder.cuda.cudaEventSynchronize(event._event)
    assert recorder.faults == ["wait-ends-recordings-of-others"]


def test_a_gpu_that_is_not_used_gets_no_context(recorder: Recorder) -> None:
    """``cudaSetDevice`` creates one, some hundred megabytes, even to go back to a GPU that nobody used."""
    recorder.devices = 2
    for _ in range(2):
        with cuda.current(1), cuda.current(1):
            Stream().close()
    assert recorder.contexts == {1}
    assert recorder.used["cudaStreamCreateWithFlags"] == {1}
    assert recorder.cuda.ordinal() == 0


@pytest.mark.parametrize(
    ("mode", "code", "value"),
    [
        ("ExclusiveProcess", "gpu-exclusive", "exclusive-process mode"),
        ("Prohibited", "gpu-prohibited", "prohibited mode"),
        ("Default", "gpu-busy", "busy or unavailable"),
    ],
)
def test_a_refused_context_names_the_compute_mode(recorder: Recorder, mode: str, code: str, value: str) -> None:
    recorder.devices, recorder.compute_mode = 2, getattr(real.cudaComputeMode, f"cudaComputeMode{mode}")
    recorder.codes["cudaStreamCreateWithFlags"] = [CODES.cudaErrorDevicesUnavailable]
    with refuses(BackendUnavailableError, code, "GPU 0", value):
        Stream()
    recorder.codes["cuDevicePrimaryCtxRetain"] = [driver.CUresult.CUDA_ERROR_DEVICE_UNAVAILABLE]
    with refuses(BackendUnavailableError, code, value), cuda.current(1):
        pass


# Errors


def test_missing_memory_is_named_with_its_size(recorder: Recorder) -> None:
    recorder.memory_bytes = 1_000_000
    with refuses(ResourceError, "gpu-out-of-memory", "1,000,001 bytes"):
        DeviceBuffer(1_000_001)
    recorder.codes["cudaHostAlloc"] = [CODES.cudaErrorMemoryAllocation]
    with refuses(ResourceError, "pinned-memory-refused", "64 bytes", "ulimit -l"):
        PinnedBuffer(64)
    recorder.codes["cudaHostAlloc"] = [CODES.cudaErrorNotSupported]
    with refuses(ResourceError, "cuda-call-failed", "pin 64 bytes", "cudaErrorNotSupported"):
        PinnedBuffer(64)


def test_a_lost_device_fails_every_later_call(recorder: Recorder) -> None:
    stream = Stream()
    recorder.codes["cudaStreamSynchronize"] = [CODES.cudaErrorIllegalAddress]
    with refuses(DeviceLostError, "gpu-failed", "queued work", "illegal memory access"):
        stream.synchronize()
    with refuses(DeviceLostError, "gpu-failed", "8 bytes"):
        DeviceBuffer(8)


def test_any_other_code_is_named(recorder: Recorder) -> None:
    recorder.codes["cudaEventRecord"] = [CODES.cudaErrorInvalidResourceHandle]
    with refuses(ResourceError, "cuda-call-failed", "record an event", "cudaErrorInvalidResourceHandle"):
        Event().record(Stream())


# Memory, streams, events


def test_bytes_go_there_and_back(recorder: Recorder) -> None:
    stream, device, other, host = Stream(), DeviceBuffer(24), DeviceBuffer(24), PinnedBuffer(24)
    view = host.array("float32", (2, 3))
    view[:] = np.arange(6).reshape(2, 3)
    stream.to_device(device.pointer, host.pointer, 24)
    stream.within_device(other.pointer, device.pointer, 24)
    stream.synchronize()
    view[:] = -1
    stream.to_host(host.pointer, other.pointer, 24)
    assert view[0, 0] == -1  # not before it is waited for
    stream.synchronize()
    np.testing.assert_array_equal(view, np.arange(6).reshape(2, 3))
    assert recorder.faults == []


def test_an_array_does_not_reach_past_its_memory(recorder: Recorder) -> None:
    with pytest.raises(ValueError, match=r"\(3, 3\).*\b24 bytes"):
        PinnedBuffer(24).array("float32", (3, 3))
    assert PinnedBuffer(0).array("uint8", (0, 3)).shape == (0, 3)
    assert recorder.faults == []


def test_events_keep_the_devices_time(recorder: Recorder) -> None:
    stream, device, host = Stream(), DeviceBuffer(8), PinnedBuffer(8)
    before, after = Event(), Event()
    before.record(stream)
    for _ in range(3):
        stream.to_device(device.pointer, host.pointer, 8)
    after.record(stream)
    assert after.elapsed_s(before) == pytest.approx(3e-4)
    assert recorder.faults == []


def test_everything_is_given_back_once(recorder: Recorder) -> None:
    owned = [Stream(), Event(), DeviceBuffer(8), PinnedBuffer(8)]
    for item in owned:
        item.close()
        item.close()
    assert recorder.cuda.left() == {}
    owned = [Stream(), Event(), DeviceBuffer(8), PinnedBuffer(8)]
    assert recorder.cuda.left() == {"streams": 1, "events": 1, "blocks": 2}
    del owned, item
    gc.collect()
    assert recorder.cuda.left() == {}
    assert recorder.faults == []


def test_a_fork_gives_nothing_back(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = DeviceBuffer(8)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    buffer.close()
    assert recorder.cuda.left() == {"blocks": 1}


# Graphs


def test_a_graph_does_again_what_was_recorded(recorder: Recorder) -> None:
    stream, device, host = Stream(), DeviceBuffer(4), PinnedBuffer(4)
    view = host.array("int32", (1,))
    graph = CudaGraph.capture(stream, lambda: stream.to_device(device.pointer, host.pointer, 4))
    for value in (5, 7):
        view[0] = value
        graph.launch(stream)
        stream.synchronize()
        assert recorder.cuda.memory.read(device.pointer, "int32", (1,)) == value
    graph.close()
    assert recorder.count("cudaGraphDestroy") == 1
    assert recorder.cuda.left() == {"streams": 1, "blocks": 2}
    assert recorder.faults == []


def _broken() -> None:
    raise KeyError("the caller's own")


def test_a_failed_recording_leaves_the_stream_usable(recorder: Recorder) -> None:
    stream = Stream()
    code = "cudaErrorStreamCaptureUnsupported"
    with refuses(ResourceError, "cuda-call-failed", "queued work", code):
        CudaGraph.capture(stream, stream.synchronize)
    assert recorder.cuda.cudaGetLastError() == (CODES.cudaSuccess,)  # no library finds it later
    with refuses(ResourceError, "cuda-call-failed", code):
        CudaGraph.capture(stream, lambda: DeviceBuffer(8).close())
    with pytest.raises(KeyError):
        CudaGraph.capture(stream, _broken)
    stream.synchronize()
    recorder.codes["cudaGraphInstantiate"] = [CODES.cudaErrorMemoryAllocation]
    with refuses(ResourceError, "gpu-out-of-memory", "recorded work", "smaller batch"):
        CudaGraph.capture(stream, lambda: None)
    assert recorder.cuda.left()["graphs"] == 1  # the double's own, which it made before it failed
    assert recorder.faults == []


# The double catches what it is there for


def test_the_double_catches_misuse_of_memory(recorder: Recorder) -> None:
    stream, device, host = Stream(), DeviceBuffer(8), PinnedBuffer(8)
    stream.to_device(device.pointer, host.pointer, 9)  # past the end
    stream.synchronize()
    stream.to_device(device.pointer, host.pointer, 8)
    device.close()  # while it is still to be filled
    stream.synchronize()
    with capture_lock():
        recorder.cuda.cudaFree(device.pointer)
    assert len(recorder.faults) == 3


def test_the_double_catches_misused_streams(recorder: Recorder) -> None:
    stream, device, host = Stream(), DeviceBuffer(8), PinnedBuffer(8)
    thread = threading.Thread(target=lambda: stream.to_device(device.pointer, host.pointer, 8))
    thread.start()
    thread.join()
    stream.to_device(device.pointer, host.pointer, 8)
    stream.close()
    assert recorder.faults == ["stream-shared-by-threads", "stream-destroyed-busy"]
