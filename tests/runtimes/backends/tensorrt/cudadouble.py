"""A double of ``cuda.bindings.runtime``, for machines without a GPU: the memory of its device is the host's.

It runs nothing when it is told to, but keeps it in the stream's queue until somebody waits for the stream, as late as a
device may. So what is read before it was waited for is garbage, and what is freed before it was used is noticed. What a
real device would answer with garbage or a crash is written down in ``Recorder.faults``: memory that is not allocated or
has been freed, a stream that two threads fill at once, a stream that goes with work in it.

Enumerations, flags and records are the true module's own, as are the words of its errors.
"""

# ruff: noqa: N802, N803, N815 - the names are the library's

from __future__ import annotations

import ctypes
import itertools
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cuda.bindings.runtime as real

from runtimes.protocol import Arrays
from runtimes.tensors import capture
from tests.runtimes.backends.tensorrt.devicememory import Memory

COPY_S = 1e-4
"""What a copy takes on the double's clock; a run takes ``Recorder.run_s``."""

Code = Any
Result = tuple[Any, ...]
OK = real.cudaError_t.cudaSuccess


@dataclass
class Recorder:
    """What the doubles of CUDA and of TensorRT saw, and how they are to behave.

    Attributes:
        faults: what would be garbage, a race or a crash on a real device. A test ends with ``faults == []``.
        calls: names of the CUDA functions, and of TensorRT's that matter, in their order.
        deserialised: the plans that reached the library.
        compute: what the network answers; ``None`` is as ``runtimes.backends.fake``: a row's mean times (class + 1).
        run_s: what one run takes on the device's clock.
        memory_bytes: that the device has.
        codes: the error code of a function's next calls, by its name; a fatal one stays for all calls, as on a device.
        refuse_runs: makes TensorRT refuse to run.
        devices: how many GPUs there are.
        gpu, compute_capability: what they are.
        driver: the CUDA version that the driver runs, as CUDA writes it: 13000 is 13.0.
        compute_mode: which processes may use the GPUs.
        used: the GPUs that were current when a function was called, by its name.
        contexts: the GPUs on which a context was created.
        cuda: the double of the CUDA runtime.
    """

    faults: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    deserialised: list[bytes] = field(default_factory=list)
    compute: Callable[[Arrays], Arrays] | None = None
    run_s: float = 1e-3
    memory_bytes: int = 1 << 30
    codes: dict[str, list[Code]] = field(default_factory=dict)
    refuse_runs: bool = False
    devices: int = 1
    gpu: str = "NVIDIA Double"
    compute_capability: tuple[int, int] = (9, 0)
    driver: int = 13000
    compute_mode: Any = real.cudaComputeMode.cudaComputeModeDefault
    used: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    contexts: set[int] = field(default_factory=set)
    cuda: CudaDouble = field(init=False)

    def __post_init__(self) -> None:
        self.cuda = CudaDouble(self)

    def fault(self, code: str) -> None:
        """Writes down what must not happen."""
        self.faults.append(code)

    def count(self, name: str) -> int:
        """How often the function was called."""
        return self.calls.count(name)


@dataclass
class Work:
    """One thing in a stream's queue. ``check`` gives what is wrong with it if it is launched from a graph now."""

    run: Callable[[], None]
    duration_s: float
    check: Callable[[], str | None] = lambda: None


@dataclass
class _Queue:
    """A stream. ``thread`` filled it since it was empty last."""

    work: list[Work] = field(default_factory=list)
    thread: int | None = None
    captured: list[Work] | None = None
    capturing_thread: int | None = None
    broken: bool = False
    clock_s: float = 0.0


class CudaDouble:
    """Stands for the module: each function has the true one's name and arguments, and gives its error code first."""

    cudaError_t = real.cudaError_t
    cudaComputeMode = real.cudaComputeMode
    cudaDeviceAttr = real.cudaDeviceAttr
    cudaMemcpyKind = real.cudaMemcpyKind
    cudaStreamCaptureMode = real.cudaStreamCaptureMode
    cudaStreamNonBlocking = real.cudaStreamNonBlocking
    cudaEventDefault = real.cudaEventDefault
    cudaEventDisableTiming = real.cudaEventDisableTiming
    cudaEventWaitDefault = real.cudaEventWaitDefault
    cudaHostAllocDefault = real.cudaHostAllocDefault
    __spec__ = real.__spec__
    __name__ = real.__name__

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.memory = Memory(recorder.fault)
        self._lock = threading.RLock()
        self._numbers = itertools.count(0x1000, 0x10)
        self._queues: dict[int, _Queue] = {DEFAULT_STREAM: _Queue()}
        self._events: dict[int, tuple[_Queue, list[float]] | None] = {}
        self._untimed: set[int] = set()
        self._graphs: dict[int, list[Work]] = {}
        self._launchable: dict[int, list[Work]] = {}
        self._current = threading.local()
        self._last = threading.local()
        self._lost: Code | None = None

    @contextmanager
    def _called(self, name: str) -> Iterator[Code]:
        """The code that the call is to fail with, or success; one call at a time."""
        with self._lock:
            self._recorder.calls.append(name)
            self._recorder.used[name].add(self.ordinal())
            if name in _CONTEXT_MAKERS:
                self._recorder.contexts.add(self.ordinal())
            planned = self._recorder.codes.get(name)
            code = self._lost or (planned.pop(0) if planned else OK)
            if code.name in FATAL:
                self._lost = code
            yield self._keep(code)

    @contextmanager
    def _exclusive(self, name: str) -> Iterator[Code]:
        """As ``_called``, of what records, or ends the recording of another library in another thread."""
        if not holds_capture_lock():
            self._recorder.fault(f"capture-lock-not-held: {name}")
        with self._called(name) as code:
            yield code

    def _keep(self, code: Code) -> Code:
        """The code, which a thread's next ``cudaGetLastError`` gives if it is an error."""
        if code != OK:
            self._last.code = code
        return code

    # Devices

    def ordinal(self) -> int:
        """The GPU that is current in the calling thread: that of its context, else the one that was set."""
        stack = getattr(self._current, "stack", [])
        return stack[-1] if stack else getattr(self._current, "ordinal", 0)

    def push(self, ordinal: int) -> None:
        """Makes the context of a GPU current in the calling thread."""
        self._current.__dict__.setdefault("stack", []).append(ordinal)

    def pop(self) -> int:
        """Makes the context before that current again."""
        return int(self._current.stack.pop())

    def cudaGetDeviceCount(self) -> Result:
        with self._called("cudaGetDeviceCount") as code:
            if code == OK and not self._recorder.devices:
                code = real.cudaError_t.cudaErrorNoDevice
            return code, self._recorder.devices if code == OK else None

    def cudaGetDevice(self) -> Result:
        with self._called("cudaGetDevice") as code:
            return code, self.ordinal()

    def cudaSetDevice(self, device: int) -> Result:
        with self._called("cudaSetDevice") as code:
            if code == OK and device >= self._recorder.devices:
                return (real.cudaError_t.cudaErrorInvalidDevice,)
            stack = getattr(self._current, "stack", [])
            if stack:  # it replaces the context that is current
                stack[-1] = device
            self._current.ordinal = device
            self._recorder.contexts.add(device)  # since CUDA 12
            return (code,)

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> Result:  # noqa: ARG002
        with self._called("cudaDeviceGetAttribute") as code:
            assert attr == real.cudaDeviceAttr.cudaDevAttrComputeMode
            return code, int(self._recorder.compute_mode) if code == OK else None

    def cudaDriverGetVersion(self) -> Result:
        with self._called("cudaDriverGetVersion") as code:
            return code, self._recorder.driver

    def cudaGetDeviceProperties(self, device: int) -> Result:
        with self._called("cudaGetDeviceProperties") as code:
            if code == OK and device >= self._recorder.devices:
                code = real.cudaError_t.cudaErrorInvalidDevice
            found = real.cudaDeviceProp()
            found.name = self._recorder.gpu.encode().ljust(256, b"\0")
            found.major, found.minor = self._recorder.compute_capability
            found.totalGlobalMem = self._recorder.memory_bytes
            ctypes.memmove(found.uuid.getPtr(), gpu_uuid(device).bytes, 16)
            return code, found if code == OK else None

    def cudaGetErrorString(self, error: Code) -> Result:
        return tuple(real.cudaGetErrorString(error))

    def cudaGetLastError(self) -> Result:
        with self._called("cudaGetLastError"):
            last, self._last.code = getattr(self._last, "code", OK), OK
            return (last,)

    def cudaThreadExchangeStreamCaptureMode(self, mode: Any) -> Result:
        with self._called("cudaThreadExchangeStreamCaptureMode") as code:
            before = getattr(self._current, "mode", real.cudaStreamCaptureMode.cudaStreamCaptureModeGlobal)
            if code == OK:
                self._current.mode = mode
            return code, before

    def _is_apart(self) -> bool:
        """Whether a recording of ONNX Runtime in another thread is of no concern to calls of this thread."""
        return bool(getattr(self._current, "mode", None) == real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    # Memory

    def cudaMalloc(self, size: int) -> Result:
        with self._exclusive("cudaMalloc") as code:
            if code == OK and self._capturing():
                code = real.cudaError_t.cudaErrorStreamCaptureUnsupported
            if code == OK and self.memory.used_bytes + size > self._recorder.memory_bytes:
                code = real.cudaError_t.cudaErrorMemoryAllocation
            return code, self.memory.take(size, "device") if code == OK else None

    def cudaMemGetInfo(self) -> Result:
        with self._called("cudaMemGetInfo") as code:
            if code == OK and not self._recorder.devices:
                code = real.cudaError_t.cudaErrorNoDevice
            free = self._recorder.memory_bytes - self.memory.used_bytes
            return code, free if code == OK else None, self._recorder.memory_bytes

    def cudaFree(self, devPtr: int) -> Result:
        with self._exclusive("cudaFree") as code:
            self.memory.give(devPtr, "device")
            return (code,)

    def cudaHostAlloc(self, size: int, flags: int) -> Result:  # noqa: ARG002
        with self._exclusive("cudaHostAlloc") as code:
            return code, self.memory.take(size, "host") if code == OK else None

    def cudaFreeHost(self, ptr: int) -> Result:
        with self._exclusive("cudaFreeHost") as code:
            self.memory.give(ptr, "host")
            return (code,)

    def cudaMemcpy(self, dst: int, src: int, count: int, kind: Any) -> Result:
        """To memory of the host that need not be pinned."""
        with self._called("cudaMemcpy") as code:
            if kind != real.cudaMemcpyKind.cudaMemcpyDeviceToHost:
                self._recorder.fault("copy-not-to-host")
            if code == OK and self.memory.holds(src, count, "device"):
                ctypes.memmove(dst, src, count)
            return (code,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: int) -> Result:
        with self._called("cudaMemcpyAsync") as code:
            if code == OK:
                self.queue(stream, Work(lambda: self._copy(dst, src, count, kind), COPY_S))
            return (code,)

    def _copy(self, target: int, source: int, count: int, kind: Any) -> None:
        there = "device" if kind.name.endswith("ToDevice") else "host"
        here = "host" if kind.name.startswith("cudaMemcpyHost") else "device"
        if self.memory.holds(source, count, here) and self.memory.holds(target, count, there):
            ctypes.memmove(target, source, count)

    # Streams

    def cudaStreamCreateWithFlags(self, flags: int) -> Result:
        with self._called("cudaStreamCreateWithFlags") as code:
            if flags != real.cudaStreamNonBlocking:
                self._recorder.fault("stream-waits-for-default")
            number = next(self._numbers)
            self._queues[number] = _Queue()
            return code, real.cudaStream_t(number) if code == OK else None

    def cudaStreamDestroy(self, stream: Any) -> Result:
        with self._called("cudaStreamDestroy") as code:
            queue = self._queues.pop(int(stream), None)
            if queue is None:
                self._recorder.fault("stream-unknown")
            elif queue.work and self._lost is None:
                self._recorder.fault("stream-destroyed-busy")
            return (code,)

    def cudaStreamSynchronize(self, stream: int) -> Result:
        with self._called("cudaStreamSynchronize") as code:
            queue = self._queues[int(stream)]
            if code == OK and queue.captured is not None:
                queue.broken = True
                code = real.cudaError_t.cudaErrorStreamCaptureUnsupported
            if code == OK:
                self._drain(queue)
            return (code,)

    def cudaDeviceSynchronize(self) -> Result:
        with self._called("cudaDeviceSynchronize") as code:
            if any(queue.captured is not None for queue in self._queues.values()):
                self._recorder.fault("device-wait-during-recording")
            if code == OK:
                for queue in self._queues.values():
                    self._drain(queue)
            return (code,)

    def queue(self, stream: int, work: Work) -> None:
        """Puts work into the stream, or into what is recorded from it."""
        with self._lock:
            queue = self._queues.get(int(stream))
            if queue is None:
                self._recorder.fault(f"stream-unknown: {int(stream):#x}")
                return
            thread = threading.get_ident()
            if queue.captured is not None:
                if queue.capturing_thread != thread:
                    self._recorder.fault("recording-disturbed")
                queue.captured.append(work)
                return
            if queue.work and queue.thread != thread:
                self._recorder.fault("stream-shared-by-threads")
            queue.thread = thread
            queue.work.append(work)

    def is_capturing(self, stream: int) -> bool:
        """Whether the stream's work is being recorded."""
        with self._lock:
            queue = self._queues.get(int(stream))
            return queue is not None and queue.captured is not None

    def _capturing(self) -> bool:
        mine = threading.get_ident()
        with self._lock:
            return any(queue.capturing_thread == mine for queue in self._queues.values())

    def _drain(self, queue: _Queue) -> None:
        while queue.work:
            self._do_next(queue)

    def _do_next(self, queue: _Queue) -> None:
        work = queue.work.pop(0)
        work.run()
        queue.clock_s += work.duration_s
        if not queue.work:
            queue.thread = None

    # Events

    def cudaEventCreateWithFlags(self, flags: int) -> Result:
        with self._called("cudaEventCreateWithFlags") as code:
            number = next(self._numbers)
            if flags & real.cudaEventDisableTiming:
                self._untimed.add(number)
            self._events[number] = None
            return code, real.cudaEvent_t(number) if code == OK else None

    def cudaEventDestroy(self, event: Any) -> Result:
        with self._called("cudaEventDestroy") as code:
            if self._events.pop(int(event), 0) == 0:
                self._recorder.fault("event-unknown")
            return (code,)

    def cudaEventRecord(self, event: Any, stream: int) -> Result:
        with self._called("cudaEventRecord") as code:
            queue, times = self._queues[int(stream)], list[float]()
            self._events[int(event)] = (queue, times)
            self.queue(stream, Work(lambda: times.append(queue.clock_s), 0.0))
            return (code,)

    def cudaEventSynchronize(self, event: Any) -> Result:
        with self._called("cudaEventSynchronize") as code:
            if not self._is_apart():
                self._recorder.fault("wait-ends-recordings-of-others")
            found = self._events[int(event)]
            if code == OK and found is not None:
                self._reach(*found)
            return (code,)

    def cudaStreamWaitEvent(self, stream: int, event: Any, flags: int) -> Result:
        with self._called("cudaStreamWaitEvent") as code:
            found = self._events[int(event)]
            if flags != real.cudaEventWaitDefault:
                self._recorder.fault("wait-with-flags")
            if code == OK and found is not None:
                self.queue(stream, Work(lambda: self._reach(*found), 0.0))
            return (code,)

    def _reach(self, queue: _Queue, times: list[float]) -> None:
        """Does the work of a queue as far as an event in it."""
        while queue.work and not times:
            self._do_next(queue)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> Result:
        with self._called("cudaEventElapsedTime") as code:
            if self._untimed & {int(start), int(end)}:
                self._recorder.fault("event-without-time")
            first, last = self._events[int(start)], self._events[int(end)]
            if first is None or last is None:
                return real.cudaError_t.cudaErrorInvalidResourceHandle, None
            if not first[1] or not last[1]:
                return real.cudaError_t.cudaErrorNotReady, None
            return code, (last[1][0] - first[1][0]) * 1e3

    # Graphs

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> Result:
        with self._exclusive("cudaStreamBeginCapture") as code:
            queue = self._queues[int(stream)]
            if mode != real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal:
                self._recorder.fault("recording-not-thread-local")
            if queue.work:
                self._recorder.fault("recording-on-busy-stream")
            if code == OK:
                queue.captured, queue.capturing_thread, queue.broken = [], threading.get_ident(), False
            return (code,)

    def cudaStreamEndCapture(self, stream: int) -> Result:
        with self._called("cudaStreamEndCapture") as code:
            queue = self._queues[int(stream)]
            captured, queue.captured, queue.capturing_thread = queue.captured, None, None
            if code == OK and (captured is None or queue.broken):
                code = real.cudaError_t.cudaErrorStreamCaptureInvalidated
            if code != OK:
                return self._keep(code), None
            number = next(self._numbers)
            self._graphs[number] = captured or []
            return code, real.cudaGraph_t(number)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Result:  # noqa: ARG002
        with self._called("cudaGraphInstantiate") as code:
            number = next(self._numbers)
            self._launchable[number] = list(self._graphs[int(graph)])
            return code, real.cudaGraphExec_t(number) if code == OK else None

    def cudaGraphDestroy(self, graph: Any) -> Result:
        with self._called("cudaGraphDestroy") as code:
            if self._graphs.pop(int(graph), None) is None:
                self._recorder.fault("graph-unknown")
            return (code,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Result:
        with self._called("cudaGraphExecDestroy") as code:
            if self._launchable.pop(int(graphExec), None) is None:
                self._recorder.fault("graph-unknown")
            return (code,)

    def cudaGraphLaunch(self, graphExec: Any, stream: int) -> Result:
        with self._called("cudaGraphLaunch") as code:
            for work in self._launchable[int(graphExec)] if code == OK else ():
                wrong = work.check()
                if wrong:
                    self._recorder.fault(wrong)
                self.queue(stream, work)
            return (code,)

    def left(self) -> dict[str, int]:
        """How much of each kind is still there: nothing, when all has been given back."""
        kinds = {
            "streams": len(self._queues) - 1,
            "events": len(self._events),
            "graphs": len(self._graphs) + len(self._launchable),
            "blocks": len(self.memory),
        }
        return {kind: count for kind, count in kinds.items() if count}


def holds_capture_lock() -> bool:
    """Whether this thread may record and allocate."""
    return bool(capture.capture_lock()._lock._is_owned())  # type: ignore[attr-defined]


def gpu_uuid(ordinal: int) -> uuid.UUID:
    """The identifier of the double's GPU with this number."""
    return uuid.UUID(int=0xD0B1E << 64 | ordinal)


_CONTEXT_MAKERS = ("cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags")
"""Functions that create a context on the current GPU if it has none."""

DEFAULT_STREAM = 1
"""CUDA's number of the default stream, which is always there."""

FATAL = ("cudaErrorIllegalAddress", "cudaErrorLaunchFailure", "cudaErrorECCUncorrectable")
"""Of the codes that a test plans, those after which every call fails."""
