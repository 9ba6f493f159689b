"""A double of ``torch.cuda``, because the tests run where there is no GPU: its device memory is the host's.

Kernels run at once, so it says nothing about time. What it does hold the code to:

- a stream is current in one thread at a time, and nobody waits for it while a run on it is recorded;
- a recorded run is not executed, and what it leaves in its output is no number until it is replayed;
- a replay reads and writes the very tensors of the recording, and needs its stream to be current;
- a replay has the arithmetic of its recording, and kernels that of the moment of their launch;
- nothing more is recorded in a pool whose recordings have all gone, or in which a recording failed;
- a tensor that has still to be computed is waited for by the stream that its owner is told of, if that is another than
  the current one.

``installed`` puts it in place; ``Recorder.faults`` must be empty at the end.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from runtimes.backends.pytorch import cuda_session, streams
from tests.runtimes.backends.tensorrt.cudadouble import holds_capture_lock

CPU = torch.device("cpu")


@dataclass
class Recorder:
    """What was done. ``events`` names it in order; ``faults`` is what no GPU would forgive, ``pools`` the memory that
    each recording was given, ``unrecordable`` whether another thread ends every recording, ``spoiled`` the pools of
    those, ``devices`` the numbers of the GPUs of sessions."""

    events: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    pools: list[object] = field(default_factory=list)
    recordings: dict[object, weakref.WeakSet[Graph]] = field(default_factory=dict)
    waits: list[tuple[int, int]] = field(default_factory=list)
    readers: list[int] = field(default_factory=list)
    unrecordable: bool = False
    spoiled: set[object] = field(default_factory=set)
    devices: list[int] = field(default_factory=list)


class Stream:
    """Who may queue on it: the thread in which it is current."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.users: list[int] = []
        self.recording = False
        recorder.streams.append(self)
        self.cuda_stream = 4096 + len(recorder.streams)

    def synchronize(self) -> None:
        self._recorder.events.append("synchronize")
        if self.recording:
            self._recorder.faults.append("wait-during-recording")

    def wait_stream(self, stream: Stream) -> None:
        self._recorder.waits.append((self.cuda_stream, stream.cuda_stream))

    def wait_event(self, event: Event) -> None:
        assert event.stream is not None
        self._recorder.waits.append((self.cuda_stream, event.stream.cuda_stream))


class Pending:
    """A tensor that the caller's stream has still to compute, and that gives itself away as PyTorch's own do: see
    ``torch.Tensor.__dlpack__``. Who does not wait for it reads no numbers."""

    def __init__(self, recorder: Recorder, values: torch.Tensor) -> None:
        self._recorder, self._values = recorder, values
        self.memory = torch.full_like(values, torch.nan)

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        current = [one.cuda_stream for one in self._recorder.streams if threading.get_ident() in one.users]
        known = [one.cuda_stream for one in self._recorder.streams]
        if stream in known and stream not in current:
            self.memory.copy_(self._values)
        return self.memory.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self.memory.__dlpack_device__()
        return int(kind), int(number)


class Event:
    """A point in a stream; every two are 2 ms apart."""

    def __init__(self, recorder: Recorder, enable_timing: bool) -> None:
        self._recorder = recorder
        self._timed = enable_timing
        self.stream: Stream | None = None

    def record(self, stream: Stream | None = None) -> None:
        self.stream = stream
        self._recorder.events.append("event" if self._timed else "mark")

    def synchronize(self) -> None:
        self._recorder.events.append("synchronize")

    def elapsed_time(self, other: Event) -> float:
        assert self._timed
        assert other._timed
        return 2.0


@dataclass(frozen=True)
class _Step:
    operator: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: torch.Tensor


class _Steps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps every operator with the tensors that it read and made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[_Step] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.found.append(_Step(func, args, kwargs or {}, result))
        return result


class Graph:
    """A recorded run."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.steps: list[_Step] = []

    def replay(self) -> None:
        self._recorder.events.append("replay")
        if not any(threading.get_ident() in stream.users for stream in self._recorder.streams):
            self._recorder.faults.append("replay-on-shared-stream")
        for step in self.steps:
            values = step.operator(*step.arguments, **step.options)
            if values.data_ptr() != step.result.data_ptr():
                step.result.copy_(values)


def installed(patch: pytest.MonkeyPatch) -> Recorder:
    """Puts the double in the place of ``torch.cuda``; what is done through it is recorded."""
    recorder = Recorder()
    plain, handles = torch.empty, itertools.count()

    @contextmanager
    def current(stream: Stream) -> Iterator[None]:
        me = threading.get_ident()
        if any(user != me for user in stream.users):
            recorder.faults.append("stream-shared-by-threads")
        stream.users.append(me)
        try:
            yield
        finally:
            stream.users.remove(me)

    @contextmanager
    def recording(
        graph: Graph, pool: tuple[int, int] | None, stream: Stream, capture_error_mode: str
    ) -> Iterator[None]:
        recorder.pools.append(pool)
        if not recorder.recordings.setdefault(pool, weakref.WeakSet([graph])):
            recorder.faults.append("pool-without-recordings")
        recorder.recordings[pool].add(graph)
        assert capture_error_mode == "thread_local"
        recorder.events.append("record")
        if not holds_capture_lock():
            recorder.faults.append("capture-lock-not-held")
        if pool in recorder.spoiled:
            recorder.faults.append("pool-already-recording")  # PyTorch up to 2.12
        if recorder.unrecordable:
            recorder.spoiled.add(pool)
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        if any(other.recording for other in recorder.streams):
            recorder.faults.append("concurrent-recordings")
        stream.recording = True
        try:
            with current(stream), _Steps() as steps:
                yield
        finally:
            stream.recording = False
        graph.steps = steps.found
        for step in steps.found:
            if step.result.is_floating_point() and step.operator is not torch.ops.aten.detach.default:
                step.result.fill_(torch.nan)

    @contextmanager
    def device(_: torch.device) -> Iterator[None]:
        yield

    def device_of(index: int) -> torch.device:
        recorder.devices.append(index)
        return CPU

    def empty(*size: Any, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory:
            recorder.events.append("pin")
        return plain(*size, **options)

    known: dict[int, Stream] = {}

    def of_handle(handle: int) -> Stream:
        if handle not in known:
            known[handle] = Stream(recorder)
            recorder.streams.remove(known[handle])  # the caller's own
            known[handle].cuda_stream = handle
        return known[handle]

    def current_stream(_: object = None) -> Stream:
        me = threading.get_ident()
        return next((stream for stream in reversed(recorder.streams) if me in stream.users), of_handle(0))

    def record_stream(_: torch.Tensor, stream: Stream) -> None:
        recorder.readers.append(stream.cuda_stream)

    patch.setattr(streams, "_IDLE_STREAMS", {})
    patch.setattr(torch.Tensor, "record_stream", record_stream)
    patch.setattr(torch, "empty", empty)
    patch.setattr(cuda_session, "device_of", device_of)
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "device_count": lambda: 2,
        "Stream": lambda: Stream(recorder),
        "Event": lambda enable_timing=False: Event(recorder, enable_timing),
        "ExternalStream": lambda handle, device: of_handle(handle),  # noqa: ARG005
        "current_stream": current_stream,
        "default_stream": lambda _: of_handle(0),
        "CUDAGraph": lambda: Graph(recorder),
        "graph": recording,
        "graph_pool_handle": lambda: (0, next(handles)),
        "stream": current,
        "device": device,
        "synchronize": lambda: recorder.events.append("synchronize"),
        "empty_cache": lambda: recorder.events.append("empty_cache"),
    }.items():
        assert hasattr(torch.cuda, name)  # a name that PyTorch does not have would be no double of anything
        patch.setattr(torch.cuda, name, value)
    return recorder
