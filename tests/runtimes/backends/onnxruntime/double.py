"""A stand-in for ONNX Runtime on a GPU, and for the stream and the events of one: there is no GPU to test on.

It computes with the real library on the processor, and keeps the rules of the real one on CUDA, which were looked up by
running onnxruntime-gpu 1.31.1 over an empty CUDA library: what it records, it keeps for each thread, and replays with
the addresses that it was recorded with, whatever is bound; it takes one call at a time.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime
import pytest

from runtimes.backends.onnxruntime.serialised import GPU_LOCK
from runtimes.tensors import cuda, cuda_objects, dlpack
from runtimes.tensors.dlpack import DeviceTensor
from tests.runtimes.backends.tensorrt.cudadouble import holds_capture_lock

HANDLE = 4096
"""Of every stream."""


@dataclass
class Recorder:
    """What the library was asked for.

    Attributes:
        opened: the provider, its options and the session's entries, of each session.
        runs: ``plain``, ``recorded`` or ``replayed``, of each run, with a ``+`` where it did not wait for the device.
        threads: in which the sessions ran.
        faults: what the real library would have answered wrongly or with an error.
        events: ``record`` for each event that was recorded.
        ordered: handle of the stream that a tensor's owner was told of, and in which thread.
        waits: pairs of handles, the stream that was made to wait and the one that it waits for.
        copies: the direction of each copy between memories that was queued.
        unloadable: what ``preload_dlls`` prints.
        gives: the provider that a session has in the end; else the one that was asked for.
        refuses: what opening a session raises.
        used: the GPUs that were current where a session, an event or a run began.
        version: what the library calls itself.
        recording: threads that record a run at this moment: in no other may the library do anything.
        unrecordable: whether another thread ends every recording.
    """

    opened: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    ordered: list[tuple[int, int]] = field(default_factory=list)
    waits: list[tuple[int, int]] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    unloadable: str = ""
    gives: str | None = None
    refuses: Exception | None = None
    used: set[int] = field(default_factory=set)
    version: str = onnxruntime.__version__
    recording: list[int] = field(default_factory=list)
    unrecordable: bool = False

    def acts(self) -> None:
        """Something that allocates or waits, in this thread."""
        self.used.add(current_ordinal())
        if any(thread != threading.get_ident() for thread in list(self.recording)):
            self.faults.append("call-during-capture")


class _Settings(onnxruntime.SessionOptions):  # type: ignore[misc]  # without annotations
    """Remembers its entries, which the real one does not give back as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value
        super().add_session_config_entry(key, value)


class _Binding:
    """Of tensors on the device, which lie in the host's memory."""

    def __init__(self, native: onnxruntime.InferenceSession) -> None:
        self.real = native.io_binding()
        self.addresses: dict[str, int] = {}

    def bind_ortvalue_input(self, name: str, value: onnxruntime.OrtValue) -> None:
        self.addresses[name] = value.data_ptr()
        self.real.bind_ortvalue_input(name, value)

    def bind_ortvalue_output(self, name: str, value: onnxruntime.OrtValue) -> None:
        self.addresses[name] = value.data_ptr()
        self.real.bind_ortvalue_output(name, value)

    def bind_input(self, name: str, device: str, ordinal: int, kind: type, shape: Sequence[int], address: int) -> None:
        assert (device, ordinal) == ("cuda", current_ordinal())
        self.real.bind_input(name, "cpu", 0, kind, shape, address)

    def bind_output(self, name: str, device: str, ordinal: int) -> None:
        assert (device, ordinal) == ("cuda", current_ordinal())
        self.real.bind_output(name, "cpu", 0)

    def get_outputs(self) -> list[onnxruntime.OrtValue]:
        found: list[onnxruntime.OrtValue] = self.real.get_outputs()
        return found


class _OrtValue:
    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], kind: type, device: str, ordinal: int
    ) -> onnxruntime.OrtValue:
        assert (device, ordinal) == ("cuda", current_ordinal())
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)


class Double(ModuleType):
    """The module."""

    RunOptions = onnxruntime.RunOptions
    SessionOptions = _Settings
    OrtValue = _OrtValue

    def __init__(self, recorder: Recorder, providers: Sequence[str]) -> None:
        super().__init__("onnxruntime")
        self.__spec__ = onnxruntime.__spec__
        self.recorder = recorder
        self._providers = providers

    @property
    def __version__(self) -> str:
        return self.recorder.version

    def get_available_providers(self) -> list[str]:
        return [*self._providers, "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        print(self.recorder.unloadable)  # noqa: T201

    def InferenceSession(self, path: str, settings: _Settings, providers: Any, enable_fallback: bool) -> _Session:  # noqa: N802
        assert not enable_fallback
        ((provider, options),) = providers
        assert options["user_compute_stream"] == str(HANDLE)
        self.recorder.acts()
        if not GPU_LOCK.locked():
            self.recorder.faults.append("opened-during-recording")
        if int(options["device_id"]) != current_ordinal():
            self.recorder.faults.append("callers-gpu-changed")
        self.recorder.opened.append((provider, options, settings.entries))
        if self.recorder.refuses is not None:
            raise self.recorder.refuses
        return _Session(Path(path), self.recorder, self.recorder.gives or provider, options)


class _Session:
    def __init__(self, path: Path, recorder: Recorder, provider: str, options: dict[str, str]) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        self._real = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self._recorder = recorder
        self._provider = provider
        self._recording = options.get("enable_cuda_graph") == "True"
        self._records: dict[tuple[int, str], tuple[_Binding, dict[str, int]]] = {}
        self._busy = threading.Lock()
        self.get_inputs = self._real.get_inputs
        self.get_outputs = self._real.get_outputs
        self.get_session_options = self._real.get_session_options

    def __del__(self) -> None:
        if not GPU_LOCK.locked():
            self._recorder.faults.append("freed-during-recording")

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def io_binding(self) -> _Binding:
        return _Binding(self._real)

    def run_with_iobinding(self, binding: _Binding, options: onnxruntime.RunOptions) -> None:
        if not self._busy.acquire(blocking=False):
            self._recorder.faults.append("concurrent-calls")
            raise RuntimeError("concurrent-calls")
        try:
            self._run(binding, options)
        finally:
            self._busy.release()

    def _run(self, binding: _Binding, options: onnxruntime.RunOptions) -> None:
        time.sleep(0)  # so that another thread comes by
        self._recorder.acts()
        number, me = options.get_run_config_entry("gpu_graph_id"), threading.get_ident()
        queued = "+" if _entry(options, "disable_synchronize_execution_providers") == "1" else ""
        self._recorder.threads.add(me)
        if not self._recording or number == "-1":
            self._recorder.runs.append(f"plain{queued}")
            self._real.run_with_iobinding(binding.real)
            return
        if (me, number) not in self._records:
            self._record(me)
        known = self._records.setdefault((me, number), (binding, dict(binding.addresses)))
        if known[1] != binding.addresses:
            self._recorder.faults.append(f"record-{number}-addresses-differ")
        self._recorder.runs.append(f"{'replayed' if known[0] is binding else 'mistaken'}{queued}")
        self._real.run_with_iobinding(known[0].real)

    def _record(self, me: int) -> None:
        """Takes some time, in which other threads come by."""
        self._recorder.acts()
        if not holds_capture_lock():
            self._recorder.faults.append("capture-lock-not-held")
        if self._recorder.unrecordable:
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")
        self._recorder.recording.append(me)
        time.sleep(1e-3)
        self._recorder.recording.remove(me)


def _entry(options: onnxruntime.RunOptions, key: str) -> str | None:
    try:
        return str(options.get_run_config_entry(key))
    except Exception:  # the library's own, where there is none
        return None


class Stream:
    """Of the device. Its copies are done at once."""

    def __init__(self, recorder: Recorder | None = None, handle: int = HANDLE) -> None:
        self.handle = handle
        self._recorder = recorder or Recorder()

    def synchronize(self) -> None:
        self._recorder.events.append(f"wait {self.handle}")

    def within_device(self, target: int, source: int, size: int) -> None:
        self._recorder.copies.append("within")
        ctypes.memmove(target, source, size)


class _Buffer:
    """Memory of the device or pinned, which is the host's."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._memory = ctypes.create_string_buffer(max(size_bytes, 1))
        self.pointer = ctypes.addressof(self._memory)

    def close(self) -> None:
        """Of a buffer that is too many."""


class _Event:
    def __init__(self, recorder: Recorder, timed: bool) -> None:
        self._recorder, self._timed = recorder, timed
        self._stream = 0
        recorder.used.add(current_ordinal())

    def record(self, stream: Stream) -> None:
        assert isinstance(stream, Stream)
        self._stream = stream.handle
        if self._timed:
            self._recorder.events.append("record")
            self._recorder.runs.append("|")

    def delay(self, stream: Stream) -> None:
        self._recorder.waits.append((stream.handle, self._stream))

    def synchronize(self) -> None:
        self._recorder.events.append("finished")

    def elapsed_s(self, since: _Event) -> float:
        assert since is not self
        return 0.25


_THREAD = threading.local()


def current_ordinal() -> int:
    """The GPU that is current in the calling thread."""
    return getattr(_THREAD, "ordinal", 0)


@contextmanager
def current(ordinal: int) -> Iterator[None]:
    """As ``cuda.current``."""
    before, _THREAD.ordinal = current_ordinal(), ordinal
    try:
        yield
    finally:
        _THREAD.ordinal = before


def _device(ordinal: int = 0) -> cuda.Device:
    return cuda.Device(ordinal, "NVIDIA Double", "9.0", "13.0", 1 << 30, f"uuid-{ordinal}")


CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def installed(monkeypatch: pytest.MonkeyPatch, *providers: str) -> Recorder:
    """A GPU, and an ONNX Runtime that has the providers for it, by default both."""
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "onnxruntime", Double(recorder, providers or (TENSORRT, CUDA)))
    monkeypatch.setattr(cuda, "missing", lambda: None)
    monkeypatch.setattr(cuda, "current", current)
    monkeypatch.setattr(cuda, "count", lambda: 2)
    monkeypatch.setattr(cuda, "device", _device)
    monkeypatch.setattr(cuda_objects, "Stream", lambda: Stream(recorder))
    monkeypatch.setattr(cuda_objects, "BorrowedStream", lambda handle: Stream(recorder, handle))
    monkeypatch.setattr(cuda_objects, "Event", lambda timed=True: _Event(recorder, timed))
    monkeypatch.setattr(cuda_objects, "DeviceBuffer", _Buffer)
    monkeypatch.setattr(cuda_objects, "copy_to_host", ctypes.memmove)
    monkeypatch.setattr(cuda_objects, "synchronize_device", lambda: recorder.events.append("wait device"))
    monkeypatch.setattr(cuda_objects, "PinnedBuffer", _Buffer)

    def ordered(tensor: DeviceTensor, stream: int) -> None:
        assert tensor.pointer
        if not GPU_LOCK.locked():
            recorder.faults.append("wait-during-recording")
        recorder.ordered.append((stream, threading.get_ident()))

    monkeypatch.setattr(dlpack, "wait_for_producer", ordered)
    return recorder
