"""CUDA devices: streams, events, buffers and recorded graphs. Every error code of the CUDA runtime is checked.

The module uses ``cuda.bindings.runtime`` of NVIDIA's cuda-python, which has a size of some megabytes, brings the CUDA
runtime, and needs only the driver. PyTorch would be too large for an embedded runtime. PyCUDA is compiled during
installation and creates its own contexts, while all other libraries share the primary context.

Streams, events and buffers belong to the device that is current in the thread that creates them. ``current`` sets it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.util
import os
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.errors import (
    BackendUnavailableError,
    DeviceLostError,
    Reason,
    ResourceError,
    RexportError,
    quote,
)
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.spec import Array

_MODULE = "cuda.bindings.runtime"
_DRIVER = "cuda.bindings.driver"
_PIP = "pip install cuda-bindings"


_LOST = frozenset(
    f"cudaError{name}"
    for name in (
        "Assert",
        "Contained",
        "ContextIsDestroyed",
        "ECCUncorrectable",
        "ExternalDevice",
        "HardwareStackError",
        "IllegalAddress",
        "IllegalInstruction",
        "InvalidAddressSpace",
        "InvalidPc",
        "LaunchFailure",
        "LaunchTimeout",
        "MisalignedAddress",
        "MpsClientTerminated",
        "NvlinkUncorrectable",
        "TensorMemoryLeak",
        "Unknown",
    )
)
"""Errors after which the process must end, according to the reference of the CUDA runtime."""

_ABSENT = frozenset(
    f"cudaError{name}"
    for name in (
        "CompatNotSupportedOnDevice",
        "DevicesUnavailable",
        "DeviceNotLicensed",
        "InitializationError",
        "InsufficientDriver",
        "InvalidDevice",
        "NoDevice",
        "StubLibrary",
        "SystemDriverMismatch",
        "SystemNotReady",
    )
)
"""Errors that mean that there is no usable device."""

_DRIVER_TOO_OLD = frozenset(
    f"cudaError{name}"
    for name in ("CompatNotSupportedOnDevice", "InsufficientDriver", "StubLibrary", "SystemDriverMismatch")
)
"""The errors among ``_ABSENT`` that a newer driver solves."""


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        ordinal: The number of the GPU.
        name: The name of the GPU, for example ``NVIDIA H200``.
        compute_capability: The compute capability, for example ``9.0``.
        driver: The newest CUDA version that the driver supports, for example ``13.0``.
        memory_bytes: The total memory of the GPU.
        uuid: The unique identifier without a prefix, for example ``1e4b7c2d-...``. For a MIG device, its own.
        exclusive: Whether only one process at a time can use the GPU, by its compute mode.
    """

    ordinal: int
    name: str
    compute_capability: str
    driver: str
    memory_bytes: int
    uuid: str = ""
    exclusive: bool = False


def missing() -> Reason | None:
    """Return why no GPU can be used here and what to do about it, or ``None`` if a GPU can be used.

    The check creates no context and takes no memory on the device. It starts the driver in this process, so that a
    forked process cannot use CUDA afterwards.
    """
    try:
        if importlib.util.find_spec(_MODULE) is None:
            return _reason(_not_installed())
        there = count()
    except ModuleNotFoundError:
        return _reason(_not_installed())
    except RexportError as error:
        return _reason(error)
    except ValueError as error:  # from find_spec, for a module without a spec
        return Reason("cuda-bindings-not-found", f"cuda-bindings cannot be found: {quote(error)}")
    return None if there else _NO_GPU


def count() -> int:
    """Return the number of GPUs that this process sees.

    Raises:
        BackendUnavailableError: There is no GPU, or the driver or cuda-bindings is missing.
    """
    return int(_call_checked(_runtime(), "count the GPUs", "cudaGetDeviceCount"))


def _reason(error: RexportError) -> Reason:
    return Reason(error.code, str(error))


def _not_installed() -> BackendUnavailableError:
    return BackendUnavailableError("cuda-bindings is not installed", code="cuda-bindings-missing", hint=_PIP)


_NO_GPU = Reason("gpu-not-visible", "the driver reports no GPU (check that CUDA_VISIBLE_DEVICES is not empty)")


def device(ordinal: int = 0) -> Device:
    """Return the properties of the GPU with this number.

    Raises:
        BackendUnavailableError: The GPU does not exist, or the driver or cuda-bindings is missing.
    """
    runtime = _runtime()
    if not 0 <= ordinal < count():
        reason = describe_absence(ordinal)
        raise BackendUnavailableError(reason.sentence, code=reason.code)
    properties = _call_checked(runtime, f"describe GPU {ordinal}", "cudaGetDeviceProperties", ordinal)
    driver = int(_call_checked(runtime, "read the version of the driver", "cudaDriverGetVersion"))
    name = properties.name
    return Device(
        ordinal=ordinal,
        name=(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).rstrip("\0").strip(),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        memory_bytes=int(properties.totalGlobalMem),
        uuid=str(uuid.UUID(bytes=bytes(properties.uuid.bytes))),
        exclusive=_compute_mode(runtime, ordinal) == runtime.cudaComputeMode.cudaComputeModeExclusiveProcess,
    )


def free_bytes(ordinal: int) -> int:
    """Return the memory of a GPU that no process uses.

    The call creates a context on the GPU, which takes memory, if there is none yet.

    Raises:
        BackendUnavailableError: The GPU does not exist, cannot be used now, or the driver or cuda-bindings is missing.
    """
    with current(ordinal):
        return int(_call_checked(_runtime(), f"read the memory of GPU {ordinal}", "cudaMemGetInfo"))


def describe_absence(ordinal: int) -> Reason:
    """Return the reason why the GPU with this number cannot be used, with the GPUs that are there."""
    there = ", ".join(f"cuda:{number} {device(number).name}" for number in range(count())) or "none"
    return Reason("gpu-number-missing", f"there is no GPU cuda:{ordinal}; this process sees {there}")


def _compute_mode(runtime: ModuleType, ordinal: int) -> int:
    """Return which processes may use the GPU. The question creates no context."""
    attribute = runtime.cudaDeviceAttr.cudaDevAttrComputeMode
    return int(
        _call_checked(runtime, f"read the compute mode of GPU {ordinal}", "cudaDeviceGetAttribute", attribute, ordinal)
    )


@contextlib.contextmanager
def current(ordinal: int) -> Iterator[None]:
    """Make a device current in the calling thread for the ``with`` block, and restore the previous device after it.

    In the block, the thread is also ``apart_from_recordings``. The previous device is not touched: ``cudaSetDevice``
    would create a context on it, which takes some hundred megabytes, and would fail if another process has that device
    for itself.

    Raises:
        BackendUnavailableError: The GPU does not exist, or the driver or cuda-bindings is missing.
    """
    runtime = _runtime()
    before = int(_call_checked(runtime, "read the current GPU", "cudaGetDevice"))
    if before == ordinal:
        with apart_from_recordings():
            yield
        return
    driver = importlib.import_module(_DRIVER)
    context = _primary_context(runtime, driver, ordinal)
    _call_checked(runtime, f"use GPU {ordinal}", "cuCtxPushCurrent", context, library=driver)
    try:
        with apart_from_recordings():
            yield
    finally:
        driver.cuCtxPopCurrent()
        if runtime.cudaGetDevice()[1] != before:  # a library called cudaSetDevice meanwhile
            runtime.cudaSetDevice(before)


@contextlib.contextmanager
def apart_from_recordings() -> Iterator[None]:
    """Let the calling thread allocate, free and wait for events in the ``with`` block while another thread records.

    ONNX Runtime records in CUDA's global mode: until it ends, such a call of any other thread fails, and ends the
    recording. CUDA ignores recordings of other threads for a thread in the mode ``ThreadLocal``. The device of the work
    must be current. Without cuda-bindings or a driver, nothing is changed: what follows in the block gives the reason.
    """
    try:
        runtime = _runtime()
        code, before = runtime.cudaThreadExchangeStreamCaptureMode(
            runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
    except (BackendUnavailableError, RuntimeError):  # not installed; a library below cuda-bindings cannot be loaded
        yield
        return
    if code != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # otherwise the next check of the last error, in any library, reports this one
        yield
        return
    try:
        yield
    finally:
        runtime.cudaThreadExchangeStreamCaptureMode(before)


@functools.cache
def _primary_context(runtime: ModuleType, driver: ModuleType, ordinal: int) -> object:
    """Return the context of a device that all libraries of the process share. It is kept until the process ends."""
    call = functools.partial(_call_checked, runtime, f"use GPU {ordinal}", library=driver)
    call("cuInit", 0)
    return call("cuDevicePrimaryCtxRetain", call("cuDeviceGet", ordinal))


def _runtime() -> ModuleType:
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"cuda-bindings is installed but cannot be imported: {quote(error)}",
            code="cuda-bindings-not-importable",
            hint="pip install --force-reinstall cuda-bindings",
        ) from error


def _call_checked(
    runtime: ModuleType, doing: str, name: str, *arguments: object, library: ModuleType | None = None
) -> Any:
    """Call a function of the CUDA runtime and return its first result after the error code.

    ``library`` is the module of the CUDA driver for a function of the driver, whose errors have the same numbers.

    Raises:
        BackendUnavailableError: There is no usable device, or the CUDA runtime cannot be loaded.
        DeviceLostError: The device failed.
        ResourceError: The function reports another error.
    """
    try:
        code, *values = getattr(library or runtime, name)(*arguments)
    except RuntimeError as error:  # a library below cuda-bindings cannot be loaded, or lacks the function
        raise BackendUnavailableError(
            f"CUDA cannot {doing}: {quote(error)}", code="cuda-not-loadable", hint="update the NVIDIA driver"
        ) from error
    if int(code):
        raise _translate_error(runtime, runtime.cudaError_t(int(code)), doing)
    return values[0] if values else None


def _translate_error(runtime: ModuleType, code: Any, doing: str) -> RexportError:
    name = str(code.name)
    _, description = runtime.cudaGetErrorString(code)
    text = quote(description.decode("utf-8", "replace") if isinstance(description, bytes) else name)
    if name == "cudaErrorMemoryAllocation":
        return ResourceError(
            f"the GPU is out of memory: CUDA cannot {doing}",
            code="gpu-out-of-memory",
            hint="use a smaller batch",
        )
    if name == "cudaErrorNoDevice":
        return BackendUnavailableError(_NO_GPU.sentence, code=_NO_GPU.code)
    if name == "cudaErrorInsufficientDriver":
        text = "the NVIDIA driver is missing or too old for cuda-bindings"
    if name == "cudaErrorDevicesUnavailable":
        return _unavailable_error(runtime, text)
    if name in _ABSENT:
        old = name in _DRIVER_TOO_OLD
        hint = "cuda-bindings 13 needs NVIDIA driver 580 or later" if old else "run nvidia-smi for details"
        return BackendUnavailableError(f"no GPU can be used: {text}", code="gpu-unusable", hint=hint)
    if name in _LOST:
        return DeviceLostError(
            f"the GPU failed: CUDA cannot {doing}: {text}", code="gpu-failed", hint="restart the process"
        )
    return ResourceError(f"CUDA cannot {doing}: {name}, {text}", code="cuda-call-failed")


def unavailable_error(ordinal: int, text: str) -> BackendUnavailableError:
    """Return the error for a GPU that is there and cannot be used now, with the compute mode as the reason if it is.

    Args:
        ordinal: The number of the GPU.
        text: The words of the library that was refused.
    """
    busy = BackendUnavailableError(f"GPU {ordinal} cannot be used now: {text}", code="gpu-busy", hint="run nvidia-smi")
    try:
        modes, mode = _runtime().cudaComputeMode, _compute_mode(_runtime(), ordinal)
    except RexportError:
        return busy
    if mode == modes.cudaComputeModeExclusiveProcess:
        return BackendUnavailableError(
            f"GPU {ordinal} is in exclusive-process mode, and another process uses it",
            code="gpu-exclusive",
            hint="end that process, which nvidia-smi lists; or let an administrator run: nvidia-smi --compute-mode=0",
        )
    if mode == modes.cudaComputeModeProhibited:
        return BackendUnavailableError(
            f"GPU {ordinal} is in prohibited mode, in which no process may compute",
            code="gpu-prohibited",
            hint="let an administrator run: nvidia-smi --compute-mode=0",
        )
    return busy


def _unavailable_error(runtime: ModuleType, text: str) -> BackendUnavailableError:
    code, ordinal = runtime.cudaGetDevice()
    return unavailable_error(int(ordinal) if code == runtime.cudaError_t.cudaSuccess else 0, text)


def _release(process: int, ordinal: int, free: Callable[[], object]) -> None:
    def free_own() -> None:
        if os.getpid() != process:  # in a forked process, the parent owns it
            return
        # Freeing in a thread without a context would create one on the thread's current GPU.
        with contextlib.suppress(RexportError), current(ordinal):
            free()

    capture_lock().free(free_own)


class _Owned:
    """A CUDA object that is freed once: by ``close``, or when Python deletes the wrapper.

    An object that is closed or deleted during a recording, by any thread, is freed after the recording.

    Args:
        free: Frees the object. It must not raise an error: an object that cannot be freed is gone with its device.
    """

    def __init__(self, free: Callable[[], object]) -> None:
        ordinal = int(_call_checked(_runtime(), "read the current GPU", "cudaGetDevice"))
        self._freed = weakref.finalize(self, _release, os.getpid(), ordinal, free)
        self._freed.atexit = False  # at exit the driver may be unloaded, and it frees everything

    def close(self) -> None:
        """Free the object. A second call does nothing."""
        self._freed()


class DeviceBuffer(_Owned):
    """Device memory, aligned to 256 bytes.

    Attributes:
        pointer: The address in device memory.
        size_bytes: The size of the buffer.

    Raises:
        ResourceError: The device is out of memory.
    """

    def __init__(self, size_bytes: int) -> None:
        runtime = _runtime()
        doing = f"allocate {size_bytes:,} bytes"
        with capture_lock():
            self.pointer = int(_call_checked(runtime, doing, "cudaMalloc", max(size_bytes, 1)))
        self.size_bytes = size_bytes
        pointer = self.pointer
        super().__init__(lambda: runtime.cudaFree(pointer))


class PinnedBuffer(_Owned):
    """Pinned host memory, which the device can read and write directly.

    Attributes:
        pointer: The address in host memory.
        size_bytes: The size of the buffer.

    Raises:
        ResourceError: The host cannot pin so much memory.
    """

    def __init__(self, size_bytes: int) -> None:
        runtime = _runtime()
        with capture_lock():
            code, pointer = runtime.cudaHostAlloc(max(size_bytes, 1), runtime.cudaHostAllocDefault)
        if code == runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise ResourceError(
                f"the host cannot pin {size_bytes:,} bytes of memory for the GPU",
                code="pinned-memory-refused",
                hint="use a smaller batch, or raise the limit shown by ulimit -l",
            )
        if code != runtime.cudaError_t.cudaSuccess:
            raise _translate_error(runtime, code, f"pin {size_bytes:,} bytes of host memory")
        self.pointer = int(pointer)
        self.size_bytes = size_bytes
        address = self.pointer
        super().__init__(lambda: runtime.cudaFreeHost(address))

    def array(self, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return the beginning of the buffer as an array of this dtype and shape.

        The array is a view and must not be used after ``close``.

        Raises:
            ValueError: The array would be larger than the buffer.
        """
        element = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64))
        if size * element.itemsize > self.size_bytes:
            raise ValueError(f"an array {shape} of {element} is larger than the buffer of {self.size_bytes} bytes")
        memory = (ctypes.c_uint8 * (size * element.itemsize)).from_address(self.pointer)
        return np.ctypeslib.as_array(memory).view(element).reshape(shape)


def copy_to_host(target: int, source: int, size_bytes: int) -> None:
    """Copy ``size_bytes`` from device memory at ``source`` to any host memory at ``target``. The call blocks.

    Raises:
        ResourceError: The copy failed.
        DeviceLostError: The device failed.
    """
    runtime = _runtime()
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    with capture_lock():  # it waits for the default stream
        _call_checked(runtime, f"copy {size_bytes:,} bytes", "cudaMemcpy", target, source, size_bytes, kind)


def synchronize_device() -> None:
    """Block until all queued work of the current device is done. No thread of rexport records meanwhile.

    Raises:
        ResourceError: Queued work failed.
        DeviceLostError: The device failed.
    """
    with capture_lock():
        _call_checked(_runtime(), "finish the queued work", "cudaDeviceSynchronize")


class BorrowedStream:
    """A stream of another owner, who keeps it.

    Attributes:
        handle: The address of the stream, or CUDA's number of a default stream.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._runtime = _runtime()
        self._kinds = self._runtime.cudaMemcpyKind

    def synchronize(self) -> None:
        """Block until all queued work is done.

        Raises:
            ResourceError: Queued work failed.
            DeviceLostError: The device failed.
        """
        _call_checked(self._runtime, "finish the queued work", "cudaStreamSynchronize", self.handle)

    def to_device(self, target: int, source: int, size_bytes: int) -> None:
        """Queue a copy from host memory at ``source`` to device memory at ``target``, of ``size_bytes``.

        The caller keeps both until the copy is done.
        """
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyHostToDevice)

    def to_host(self, target: int, source: int, size_bytes: int) -> None:
        """Queue a copy from device memory at ``source`` to host memory at ``target``, of ``size_bytes``.

        The caller keeps both until the copy is done.
        """
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyDeviceToHost)

    def within_device(self, target: int, source: int, size_bytes: int) -> None:
        """Queue a copy of ``size_bytes`` from device memory at ``source`` to device memory at ``target``."""
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, size_bytes: int, kind: object) -> None:
        doing = f"copy {size_bytes:,} bytes"
        _call_checked(self._runtime, doing, "cudaMemcpyAsync", target, source, size_bytes, kind, self.handle)


class Stream(BorrowedStream, _Owned):
    """A queue of work on the device, which does not synchronise with the default stream.

    Attributes:
        handle: The address of the stream, for other libraries.
    """

    def __init__(self) -> None:
        runtime = _runtime()
        stream = _call_checked(runtime, "create a stream", "cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        BorrowedStream.__init__(self, int(stream))
        _Owned.__init__(self, lambda: runtime.cudaStreamDestroy(stream))


class Event(_Owned):
    """A marker in the queue of a stream.

    Args:
        timed: Whether the event records the time when the device reaches it. An event without time costs less.
    """

    def __init__(self, timed: bool = True) -> None:
        runtime = _runtime()
        flags = runtime.cudaEventDefault if timed else runtime.cudaEventDisableTiming
        event = _call_checked(runtime, "create an event", "cudaEventCreateWithFlags", flags)
        self._event = event
        self._runtime = runtime
        super().__init__(lambda: runtime.cudaEventDestroy(event))

    def record(self, stream: BorrowedStream) -> None:
        """Queue the event on the stream, which must be one of the event's device."""
        _call_checked(self._runtime, "record an event", "cudaEventRecord", self._event, stream.handle)

    def delay(self, stream: BorrowedStream) -> None:
        """Make later work of a stream wait until the device has reached the event. The call does not block."""
        flags = self._runtime.cudaEventWaitDefault
        _call_checked(self._runtime, "wait for an event", "cudaStreamWaitEvent", stream.handle, self._event, flags)

    def synchronize(self) -> None:
        """Block until the device has reached the event. The calling thread is ``apart_from_recordings`` meanwhile."""
        with apart_from_recordings():
            _call_checked(self._runtime, "wait for an event", "cudaEventSynchronize", self._event)

    def elapsed_s(self, since: Event) -> float:
        """Return the device time from ``since`` to this event in seconds, after waiting for both.

        The resolution is about half a microsecond (reference of ``cudaEventElapsedTime``).
        """
        since.synchronize()
        self.synchronize()
        doing = "read the time between two events"
        return float(_call_checked(self._runtime, doing, "cudaEventElapsedTime", since._event, self._event)) / 1e3


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable Python's garbage collection for the ``with`` block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class CudaGraph(_Owned):
    """Recorded work of a stream, which is launched as a whole and uses the recorded addresses.

    ``CudaGraph.capture`` records one.
    """

    def __init__(self, runtime: ModuleType, recorded: object) -> None:
        try:
            graph = _call_checked(runtime, "create a graph of the recorded work", "cudaGraphInstantiate", recorded, 0)
        finally:
            runtime.cudaGraphDestroy(recorded)
        self._graph = graph
        self._runtime = runtime
        super().__init__(lambda: runtime.cudaGraphExecDestroy(graph))

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], None]) -> CudaGraph:
        """Record the work that ``work`` queues on ``stream``, without running it. Other threads may use the device.

        The thread holds the capture lock meanwhile.

        Raises:
            DeviceLostError: The device failed.
            ResourceError: ``work`` called a function that cannot be recorded, for example one that allocates memory or
                waits for the device.
        """
        runtime = _runtime()
        try:
            with capture_lock():
                return cls._capture(runtime, stream, work)
        except ResourceError:
            runtime.cudaGetLastError()  # otherwise the next check of the last error, in any library, reports this one
            raise

    @classmethod
    def _capture(cls, runtime: ModuleType, stream: Stream, work: Callable[[], None]) -> CudaGraph:
        # In this mode, the restrictions during recording apply only to the calling thread.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call_checked(runtime, "start recording a graph", "cudaStreamBeginCapture", stream.handle, mode)
        try:
            with _without_garbage_collection():  # freeing device memory would invalidate the recording
                work()
        except BaseException:
            code, recorded = runtime.cudaStreamEndCapture(stream.handle)  # otherwise the stream stays unusable
            if code == runtime.cudaError_t.cudaSuccess:
                runtime.cudaGraphDestroy(recorded)
            raise
        return cls(runtime, _call_checked(runtime, "record a graph", "cudaStreamEndCapture", stream.handle))

    def launch(self, stream: Stream) -> None:
        """Queue the recorded work on ``stream``."""
        _call_checked(self._runtime, "launch a graph", "cudaGraphLaunch", self._graph, stream.handle)
