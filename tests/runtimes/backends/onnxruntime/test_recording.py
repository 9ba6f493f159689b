"""Several sessions on one GPU, by the stand-in: what one records, no other may spoil."""

from __future__ import annotations

import threading

import pytest

from runtimes import Artifact
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.backends.onnxruntime import profiling
from runtimes.backends.onnxruntime.serialised import GPU_LOCK
from runtimes.protocol import Layer, Options
from tests.runtimes.backends.onnxruntime import double
from tests.runtimes.backends.onnxruntime.test_gpu_session import open_session, recorder, rows, twice

__all__ = ["recorder", "twice"]


def of_two(twice: Artifact, lock: bool) -> None:
    """Two sessions at once, which record a run at every turn."""
    sessions = [open_session(twice) for _ in range(2)]
    barrier = threading.Barrier(3)

    def ask(number: int) -> None:
        barrier.wait()
        for images in range(1, 30):
            sessions[number].run({"x": rows(*range(images))})

    def come_and_go() -> None:
        barrier.wait()
        for _ in range(5):
            open_session(twice).close()

    if not lock:
        for session in sessions:
            session._calls._lock = threading.Lock()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=come_and_go))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in sessions:
        session.close()


@pytest.mark.parametrize("lock", [True, False])
def test_the_gpu_rests_while_another_session_records(recorder: double.Recorder, twice: Artifact, lock: bool) -> None:
    """And with a lock for each session, the double sees it."""
    of_two(twice, lock)
    assert (recorder.faults == []) == lock


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_profile_on_the_gpu_waits_for_its_turn(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    held: list[bool] = []
    double.installed(monkeypatch)

    def profile(*_: object) -> tuple[Layer, ...]:
        held.append(GPU_LOCK.locked())
        return ()

    monkeypatch.setattr(profiling, "profile", profile)
    assert onnxrt.BACKEND.profile is not None
    onnxrt.BACKEND.profile(onnx_artifact, Options(device, 1), {})
    assert held == [device == "cuda"]
