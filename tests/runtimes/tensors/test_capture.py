"""The lock around recordings, and memory that is freed while one is under way."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from runtimes.tensors.capture import CaptureLock, capture_lock
from runtimes.tensors.cuda_objects import CudaGraph, DeviceBuffer, Stream
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


def in_a_thread(act: object) -> None:
    thread = threading.Thread(target=act)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_what_goes_while_another_thread_records_is_freed_later(recorder: Recorder) -> None:
    buffers = [DeviceBuffer(8), DeviceBuffer(8)]
    with capture_lock():
        in_a_thread(buffers.pop().close)  # given back
        in_a_thread(buffers.pop)  # collected
        assert recorder.cuda.left() == {"blocks": 2}
    assert recorder.cuda.left() == {}


def test_what_goes_during_ones_own_recording_is_freed_later(recorder: Recorder) -> None:
    stream, buffer = Stream(), DeviceBuffer(8)
    CudaGraph.capture(stream, buffer.close).close()
    assert recorder.calls.index("cudaStreamEndCapture") < recorder.calls.index("cudaFree")
    assert recorder.cuda.left() == {"streams": 1}


def test_the_outermost_block_frees() -> None:
    lock, freed = CaptureLock(), list[int]()
    with lock:
        with lock:
            lock.free(lambda: freed.append(1))
        assert freed == []
    assert freed == [1]
    lock.free(lambda: freed.append(2))
    assert freed == [1, 2]


def test_a_fork_frees_nothing_that_was_left(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = DeviceBuffer(8)
    with capture_lock():
        buffer.close()
        monkeypatch.setattr("os.getpid", lambda: -1)
    assert recorder.cuda.left() == {"blocks": 1}


def test_nothing_is_lost_between_many_threads() -> None:
    lock, freed, before = CaptureLock(), list[int](), sys.getswitchinterval()
    alone: list[str] = []

    def work(number: int) -> None:
        for turn in range(200):
            lock.free(lambda turn=turn: freed.append(turn))  # type: ignore[misc]
            if number % 2:
                with lock:
                    alone.append("in")
                    lock.free(lambda turn=turn: freed.append(turn))  # type: ignore[misc]
                    alone.append("out")

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(freed) == 200 * 12
    assert alone == ["in", "out"] * (200 * 4)
