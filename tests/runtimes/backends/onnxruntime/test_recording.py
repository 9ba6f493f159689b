"""Several sessions on one GPU, by the stand-in: what one records, no other may spoil."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from runtimes import Artifact
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.backends.onnxruntime import bound_tensors, gpu_session, profiling
from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession
from runtimes.backends.onnxruntime.serialised import GPU_LOCK
from runtimes.protocol import Layer, Options
from tests.runtimes.backends.onnxruntime import double
from tests.runtimes.backends.onnxruntime.test_gpu_session import open_session, recorder, rows, twice

__all__ = ["recorder", "twice"]


def of_two(twice: Artifact) -> None:
    """Two sessions at once, which record a run at every turn."""
    _run_together([open_session(twice) for _ in range(2)], twice)


def of_two_without_locks(twice: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bound_tensors, gpu_session):
        monkeypatch.setattr(module, "capture_lock", contextlib.nullcontext)
    sessions = [open_session(twice) for _ in range(2)]
    for session in sessions:
        session._calls._lock = threading.Lock()
    _run_together(sessions, twice)


def _run_together(sessions: list[OnnxRuntimeDeviceSession], twice: Artifact) -> None:
    barrier = threading.Barrier(3)

    def ask(number: int) -> None:
        barrier.wait()
        for images in range(1, 30):
            sessions[number].run({"x": rows(*range(images))})

    def come_and_go() -> None:
        barrier.wait()
        for _ in range(5):
            open_session(twice).close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=come_and_go))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for session in sessions:
        session.close()


def test_the_gpu_rests_while_another_session_records(recorder: double.Recorder, twice: Artifact) -> None:
    of_two(twice)
    assert recorder.faults == []


def test_the_double_sees_sessions_that_share_no_lock(
    recorder: double.Recorder, twice: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_two_without_locks(twice, monkeypatch)
    assert recorder.faults


def test_a_spoiled_recording_is_a_run_without_one(
    recorder: double.Recorder, twice: Artifact, said: list[tuple[str, str]]
) -> None:
    session = open_session(twice)
    recorder.unrecordable = True
    for value in (1, 2, 3):
        np.testing.assert_array_equal(session.run({"x": rows(value)})["y"], 2 * rows(value))
    timed = session.bind_timed({"x": rows(4)})
    assert timed is not None
    assert timed() == 0.25
    assert set(recorder.runs) == {"plain", "plain+", "|"}
    assert [code for code, _ in said] == ["graph-not-recorded"]
    assert session.description.unrecorded_batches == (1,)
    recorder.unrecordable = False
    session.run({"x": rows(1, 2)})
    assert recorder.runs[-1] == "replayed"
    session.close()
    assert session.description.unrecorded_batches == (1,)
    assert recorder.faults == []


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
