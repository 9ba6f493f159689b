"""Objects on a CUDA device: buffers, streams, events and recorded graphs, each freed once.

They belong to the device that is current in the thread that creates them. ``runtimes.tensors.cuda.current`` sets it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

from runtimes.errors import ResourceError, RexportError
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.cuda import apart_from_recordings, call_checked, current, load_runtime, translate_error
from runtimes.tensors.spec import Array


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
        ordinal = int(call_checked(load_runtime(), "read the current GPU", "cudaGetDevice"))
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
        runtime = load_runtime()
        doing = f"allocate {size_bytes:,} bytes"
        with capture_lock():
            self.pointer = int(call_checked(runtime, doing, "cudaMalloc", max(size_bytes, 1)))
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
        runtime = load_runtime()
        with capture_lock():
            code, pointer = runtime.cudaHostAlloc(max(size_bytes, 1), runtime.cudaHostAllocDefault)
        if code == runtime.cudaError_t.cudaErrorMemoryAllocation:
            raise ResourceError(
                f"the host cannot pin {size_bytes:,} bytes of memory for the GPU",
                code="pinned-memory-refused",
                hint="use a smaller batch, or raise the limit shown by ulimit -l",
            )
        if code != runtime.cudaError_t.cudaSuccess:
            raise translate_error(runtime, code, f"pin {size_bytes:,} bytes of host memory")
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
    runtime = load_runtime()
    kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    with capture_lock():  # it waits for the default stream
        call_checked(runtime, f"copy {size_bytes:,} bytes", "cudaMemcpy", target, source, size_bytes, kind)


def synchronize_device() -> None:
    """Block until all queued work of the current device is done. No thread of rexport records meanwhile.

    Raises:
        ResourceError: Queued work failed.
        DeviceLostError: The device failed.
    """
    with capture_lock():
        call_checked(load_runtime(), "finish the queued work", "cudaDeviceSynchronize")


class BorrowedStream:
    """A stream of another owner, who keeps it.

    Attributes:
        handle: The address of the stream, or CUDA's number of a default stream.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._runtime = load_runtime()
        self._kinds = self._runtime.cudaMemcpyKind

    def synchronize(self) -> None:
        """Block until all queued work is done.

        Raises:
            ResourceError: Queued work failed.
            DeviceLostError: The device failed.
        """
        call_checked(self._runtime, "finish the queued work", "cudaStreamSynchronize", self.handle)

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
        call_checked(self._runtime, doing, "cudaMemcpyAsync", target, source, size_bytes, kind, self.handle)


class Stream(BorrowedStream, _Owned):
    """A queue of work on the device, which does not synchronise with the default stream.

    Attributes:
        handle: The address of the stream, for other libraries.
    """

    def __init__(self) -> None:
        runtime = load_runtime()
        stream = call_checked(runtime, "create a stream", "cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
        BorrowedStream.__init__(self, int(stream))
        _Owned.__init__(self, lambda: runtime.cudaStreamDestroy(stream))


class Event(_Owned):
    """A marker in the queue of a stream.

    Args:
        timed: Whether the event records the time when the device reaches it. An event without time costs less.
    """

    def __init__(self, timed: bool = True) -> None:
        runtime = load_runtime()
        flags = runtime.cudaEventDefault if timed else runtime.cudaEventDisableTiming
        event = call_checked(runtime, "create an event", "cudaEventCreateWithFlags", flags)
        self._event = event
        self._runtime = runtime
        super().__init__(lambda: runtime.cudaEventDestroy(event))

    def record(self, stream: BorrowedStream) -> None:
        """Queue the event on the stream, which must be one of the event's device."""
        call_checked(self._runtime, "record an event", "cudaEventRecord", self._event, stream.handle)

    def delay(self, stream: BorrowedStream) -> None:
        """Make later work of a stream wait until the device has reached the event. The call does not block."""
        flags = self._runtime.cudaEventWaitDefault
        call_checked(self._runtime, "wait for an event", "cudaStreamWaitEvent", stream.handle, self._event, flags)

    def synchronize(self) -> None:
        """Block until the device has reached the event. The calling thread is ``apart_from_recordings`` meanwhile."""
        with apart_from_recordings():
            call_checked(self._runtime, "wait for an event", "cudaEventSynchronize", self._event)

    def elapsed_s(self, since: Event) -> float:
        """Return the device time from ``since`` to this event in seconds, after waiting for both.

        The resolution is about half a microsecond (reference of ``cudaEventElapsedTime``).
        """
        since.synchronize()
        self.synchronize()
        doing = "read the time between two events"
        return float(call_checked(self._runtime, doing, "cudaEventElapsedTime", since._event, self._event)) / 1e3


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
            graph = call_checked(runtime, "create a graph of the recorded work", "cudaGraphInstantiate", recorded, 0)
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
        runtime = load_runtime()
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
        call_checked(runtime, "start recording a graph", "cudaStreamBeginCapture", stream.handle, mode)
        try:
            with _without_garbage_collection():  # freeing device memory would invalidate the recording
                work()
        except BaseException:
            code, recorded = runtime.cudaStreamEndCapture(stream.handle)  # otherwise the stream stays unusable
            if code == runtime.cudaError_t.cudaSuccess:
                runtime.cudaGraphDestroy(recorded)
            raise
        return cls(runtime, call_checked(runtime, "record a graph", "cudaStreamEndCapture", stream.handle))

    def launch(self, stream: Stream) -> None:
        """Queue the recorded work on ``stream``."""
        call_checked(self._runtime, "launch a graph", "cudaGraphLaunch", self._graph, stream.handle)
