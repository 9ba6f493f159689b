"""A CUDA device as a session uses it: streams, events, buffers and recorded graphs, with every error code looked at.

Over ``cuda.bindings.runtime``, NVIDIA's own cuda-python: some megabytes that bring the CUDA runtime with them and need
nothing but the driver. PyTorch could do the same and is too large for an embedded runtime; PyCUDA is compiled where it
is installed and makes contexts of its own, beside the one that every other library shares.

What is made here belongs to the device that is current in the thread that makes it: ``current`` sets it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from runtimes.errors import BackendUnavailableError, DeviceLostError, Reason, ResourceError, RexportError, quote
from runtimes.protocol import Array

_MODULE = "cuda.bindings.runtime"
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
"""After these the process has to end, as the CUDA runtime's own reference says of each."""

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
"""There is no device, or none that can be used."""

_DRIVER_TOO_OLD = frozenset(
    f"cudaError{name}"
    for name in ("CompatNotSupportedOnDevice", "InsufficientDriver", "StubLibrary", "SystemDriverMismatch")
)
"""Of these, the ones that another driver mends."""


@dataclass(frozen=True)
class Device:
    """One GPU. ``compute_capability`` as ``9.0``; ``driver`` is the newest CUDA version that the driver runs, as
    ``13.0``."""

    ordinal: int
    name: str
    compute_capability: str
    driver: str
    memory_bytes: int


def missing() -> Reason | None:
    """Why no GPU can be used here, with what mends it; ``None`` if one can. Makes no context and takes no memory on
    the device, but starts the driver in this process: a fork of it cannot use CUDA."""
    try:
        if importlib.util.find_spec(_MODULE) is None:
            return _reason(_not_installed())
        count = _call_checked(_runtime(), "count the GPUs", "cudaGetDeviceCount")
    except ModuleNotFoundError:
        return _reason(_not_installed())
    except RexportError as error:
        return _reason(error)
    except ValueError as error:  # of find_spec, where a module without a spec stands
        return Reason("cuda-bindings-not-found", f"cuda-bindings cannot be found: {quote(error)}")
    return None if count else _NO_DEVICE


def _reason(error: RexportError) -> Reason:
    return Reason(error.code, str(error))


def _not_installed() -> BackendUnavailableError:
    return BackendUnavailableError("cuda-bindings is not installed", code="cuda-bindings-missing", hint=_PIP)


_NO_DEVICE = Reason("gpu-not-visible", "the driver shows no GPU (is CUDA_VISIBLE_DEVICES empty?)")


def device(ordinal: int = 0) -> Device:
    """What the driver tells of the GPU with that number.

    Raises:
        BackendUnavailableError: there is no such GPU, no driver, or no cuda-bindings.
    """
    runtime = _runtime()
    found = _call_checked(runtime, f"describe GPU {ordinal}", "cudaGetDeviceProperties", ordinal)
    driver = int(_call_checked(runtime, "ask the driver's version", "cudaDriverGetVersion"))
    name = found.name
    return Device(
        ordinal=ordinal,
        name=(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)).rstrip("\0").strip(),
        compute_capability=f"{found.major}.{found.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        memory_bytes=int(found.totalGlobalMem),
    )


@contextlib.contextmanager
def current(ordinal: int) -> Iterator[None]:
    """Makes the device the calling thread's own meanwhile; a caller who uses another gets it back."""
    runtime = _runtime()
    before = int(_call_checked(runtime, "ask for the current GPU", "cudaGetDevice"))
    if before != ordinal:
        _call_checked(runtime, f"use GPU {ordinal}", "cudaSetDevice", ordinal)
    try:
        yield
    finally:
        if before != ordinal:
            runtime.cudaSetDevice(before)


def _runtime() -> ModuleType:
    try:
        return importlib.import_module(_MODULE)
    except ModuleNotFoundError as error:
        raise _not_installed() from error
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(
            f"cuda-bindings is installed and cannot be imported: {quote(error)}",
            code="cuda-bindings-not-importable",
            hint="pip install --force-reinstall cuda-bindings",
        ) from error


def _call_checked(runtime: ModuleType, doing: str, name: str, *arguments: object) -> Any:
    """What the function of that name returns beside its error code.

    Raises:
        BackendUnavailableError, ResourceError, DeviceLostError: the code is not success.
    """
    try:
        code, *values = getattr(runtime, name)(*arguments)
    except RuntimeError as error:  # the library that it stands on cannot be loaded, or lacks the function
        raise BackendUnavailableError(
            f"CUDA cannot {doing}: {quote(error)}", code="cuda-not-loadable", hint="update the driver"
        ) from error
    if code != runtime.cudaError_t.cudaSuccess:
        raise _translate_error(runtime, code, doing)
    return values[0] if values else None


def _translate_error(runtime: ModuleType, code: Any, doing: str) -> RexportError:
    name = str(code.name)
    _, words = runtime.cudaGetErrorString(code)
    text = quote(words.decode("utf-8", "replace") if isinstance(words, bytes) else name)
    if name == "cudaErrorMemoryAllocation":
        return ResourceError(
            f"the GPU has no memory left: CUDA cannot {doing}",
            code="gpu-out-of-memory",
            hint="a smaller batch needs less",
        )
    if name == "cudaErrorNoDevice":
        return BackendUnavailableError(_NO_DEVICE.sentence, code=_NO_DEVICE.code)
    if name == "cudaErrorInsufficientDriver":
        text = "there is no NVIDIA driver, or one too old for cuda-bindings"
    if name in _ABSENT:
        old = name in _DRIVER_TOO_OLD
        hint = "cuda-bindings 13 wants the driver 580 or later" if old else "nvidia-smi tells more"
        return BackendUnavailableError(f"no GPU can be used: {text}", code="gpu-unusable", hint=hint)
    if name in _LOST:
        return DeviceLostError(
            f"the GPU failed: CUDA cannot {doing}: {text}", code="gpu-failed", hint="start the process again"
        )
    return ResourceError(f"CUDA cannot {doing}: {name}, {text}", code="cuda-call-failed")


def _release(process: int, free: Callable[[], object]) -> None:
    if os.getpid() == process:  # in a fork it is the parent's
        free()


class _Owned:
    """Something of the library's that is given back once: by ``close``, or when nobody holds it any more.

    ``free`` must not raise: what cannot be given back has gone with its device.
    """

    def __init__(self, free: Callable[[], object]) -> None:
        self._freed = weakref.finalize(self, _release, os.getpid(), free)
        self._freed.atexit = False  # the driver may have gone by then, and takes everything with it

    def close(self) -> None:
        """Gives it back. Calling it again does nothing."""
        self._freed()


class DeviceBuffer(_Owned):
    """Memory of the device, aligned to 256 bytes. ``pointer`` is its address there.

    Raises:
        ResourceError: there is not so much left.
    """

    def __init__(self, size_bytes: int) -> None:
        runtime = _runtime()
        doing = f"allocate {size_bytes:,} bytes on it"
        self.pointer = int(_call_checked(runtime, doing, "cudaMalloc", max(size_bytes, 1)))
        self.size_bytes = size_bytes
        pointer = self.pointer
        super().__init__(lambda: runtime.cudaFree(pointer))


class PinnedBuffer(_Owned):
    """Memory of the host that the device copies from and to on its own. ``pointer`` is its address.

    Raises:
        ResourceError: there is not so much left.
    """

    def __init__(self, size_bytes: int) -> None:
        runtime = _runtime()
        code, pointer = runtime.cudaHostAlloc(max(size_bytes, 1), runtime.cudaHostAllocDefault)
        if code == runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise ResourceError(
                f"the host gives no {size_bytes:,} bytes of memory that the GPU can copy from",
                code="pinned-memory-refused",
                hint="a smaller batch needs less, and ulimit -l may be raised",
            )
        if code != runtime.cudaError_t.cudaSuccess:
            raise _translate_error(runtime, code, f"pin {size_bytes:,} bytes of the host's memory")
        self.pointer = int(pointer)
        self.size_bytes = size_bytes
        address = self.pointer
        super().__init__(lambda: runtime.cudaFreeHost(address))

    def array(self, dtype: str, shape: tuple[int, ...]) -> Array:
        """Its beginning as an array, which must not be used after ``close``."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64))
        if size * kind.itemsize > self.size_bytes:
            raise ValueError(f"{shape} of {kind} is more than {self.size_bytes} bytes")
        memory = (ctypes.c_uint8 * (size * kind.itemsize)).from_address(self.pointer)
        return np.ctypeslib.as_array(memory).view(kind).reshape(shape)


class Stream(_Owned):
    """A queue of work on the device. It does not wait for the default stream, nor that for it.

    ``handle`` is the number by which other libraries take it.
    """

    def __init__(self) -> None:
        runtime = _runtime()
        made = _call_checked(runtime, "make a stream", "cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        self.handle = int(made)
        self._runtime = runtime
        self._kinds = runtime.cudaMemcpyKind
        super().__init__(lambda: runtime.cudaStreamDestroy(made))

    def synchronize(self) -> None:
        """Returns when all that was queued is done. An error of that work is raised here, too."""
        _call_checked(self._runtime, "finish the queued work", "cudaStreamSynchronize", self.handle)

    def to_device(self, target: int, source: int, size_bytes: int) -> None:
        """Queues a copy of host memory, which must stay until it is done."""
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyHostToDevice)

    def to_host(self, target: int, source: int, size_bytes: int) -> None:
        """Queues a copy into host memory, which must stay until it is done."""
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyDeviceToHost)

    def within_device(self, target: int, source: int, size_bytes: int) -> None:
        """Queues a copy on the device."""
        self._copy(target, source, size_bytes, self._kinds.cudaMemcpyDeviceToDevice)

    def _copy(self, target: int, source: int, size_bytes: int, kind: object) -> None:
        doing = f"copy {size_bytes:,} bytes"
        _call_checked(self._runtime, doing, "cudaMemcpyAsync", target, source, size_bytes, kind, self.handle)


class Event(_Owned):
    """A mark in a stream's queue, which keeps the time when the device came to it."""

    def __init__(self) -> None:
        runtime = _runtime()
        made = _call_checked(runtime, "make an event", "cudaEventCreateWithFlags", runtime.cudaEventDefault)
        self._made = made
        self._runtime = runtime
        super().__init__(lambda: runtime.cudaEventDestroy(made))

    def record(self, stream: Stream) -> None:
        """Queues the mark."""
        _call_checked(self._runtime, "record an event", "cudaEventRecord", self._made, stream.handle)

    def synchronize(self) -> None:
        """Returns when the device has come to it."""
        _call_checked(self._runtime, "wait for an event", "cudaEventSynchronize", self._made)

    def elapsed_s(self, since: Event) -> float:
        """Seconds on the device from ``since`` to this event; waits for both. CUDA tells half a microsecond apart."""
        since.synchronize()
        self.synchronize()
        doing = "tell the time between two events"
        return float(_call_checked(self._runtime, doing, "cudaEventElapsedTime", since._made, self._made)) / 1e3


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector of garbage rests meanwhile."""
    rested = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if rested:
            gc.enable()


class CudaGraph(_Owned):
    """Work that was recorded from a stream and is launched as a whole, with the addresses that it was recorded with.

    Made by ``capture``.
    """

    def __init__(self, runtime: ModuleType, recorded: object) -> None:
        try:
            made = _call_checked(runtime, "make a graph of the recorded work", "cudaGraphInstantiate", recorded, 0)
        finally:
            runtime.cudaGraphDestroy(recorded)
        self._made = made
        self._runtime = runtime
        super().__init__(lambda: runtime.cudaGraphExecDestroy(made))

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], None]) -> CudaGraph:
        """Records what ``work`` queues on ``stream``; none of it runs now. Other threads go on meanwhile.

        Raises:
            ResourceError: ``work`` did what cannot be recorded, as allocating memory or waiting for the device.
        """
        try:
            return cls._capture(stream, work)
        except ResourceError as error:
            if isinstance(error, DeviceLostError):
                raise
            raise ResourceError(
                error.what, code=error.code, hint=error.hint or "open it with cuda_graphs=False"
            ) from error

    @classmethod
    def _capture(cls, stream: Stream, work: Callable[[], None]) -> CudaGraph:
        runtime = _runtime()
        # In this mode, only the calling thread is kept from what cannot be recorded.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call_checked(runtime, "begin to record a graph", "cudaStreamBeginCapture", stream.handle, mode)
        try:
            with _no_collection():  # it might free memory of the device, which would void the recording
                work()
        except BaseException:
            code, recorded = runtime.cudaStreamEndCapture(stream.handle)  # else the stream can be used no more
            if code == runtime.cudaError_t.cudaSuccess:
                runtime.cudaGraphDestroy(recorded)
            raise
        return cls(runtime, _call_checked(runtime, "record a graph", "cudaStreamEndCapture", stream.handle))

    def launch(self, stream: Stream) -> None:
        """Queues the recorded work on ``stream``."""
        _call_checked(self._runtime, "launch a graph", "cudaGraphLaunch", self._made, stream.handle)
