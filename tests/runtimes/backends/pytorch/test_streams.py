from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from runtimes.backends.pytorch import streams as lanes
from runtimes.backends.pytorch.streams import Lanes, Recording, Staging, TorchLane
from tests.runtimes.backends.pytorch.double import CPU, Recorder, installed


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return installed(monkeypatch)


def test_staging_is_pinned_once_for_what_fits(recorder: Recorder) -> None:
    staging = Staging()
    for size in (8, 3, 8):
        array = np.random.default_rng(size).standard_normal((size, 2), np.float32)
        np.testing.assert_array_equal(staging.fill(array).numpy(), array)
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    np.testing.assert_array_equal(staging.fill(pixels).numpy(), pixels)
    assert recorder.events == ["pin"]
    assert staging.fetch(torch.ones(40, 2)).sum() == 80
    assert recorder.events == ["pin", "pin"]


@pytest.mark.usefixtures("recorder")
def test_staging_takes_arrays_that_may_not_be_written() -> None:
    array = np.ones((2, 2), np.float32)
    array.flags.writeable = False
    assert Staging().fill(array).sum() == 4


@pytest.mark.usefixtures("recorder")
def test_no_more_lanes_than_asked_for_and_the_warm_one_first() -> None:
    pool = Lanes(2)
    with pool.borrow() as first:
        pass
    with pool.borrow() as again, pool.borrow() as second:
        assert again is first
        assert second is not first
        waiting: list[TorchLane] = []

        def wait() -> None:
            with pool.borrow() as lane:
                waiting.append(lane)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.05)
        assert waiting == []
    thread.join(5)
    assert waiting[0] in (first, second)


def test_a_lane_that_cannot_be_made_leaves_its_place(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Lanes(1)
    with monkeypatch.context() as broken:
        broken.setattr(lanes, "TorchLane", lambda: pool.nothing)  # type: ignore[attr-defined]
        with pytest.raises(AttributeError), pool.borrow():
            pass
    with pool.borrow():
        pass
    assert len(recorder.streams) == 1


def test_the_streams_of_closed_lanes_are_used_again(recorder: Recorder) -> None:
    """PyTorch has 32, and then gives out the first one again, which another lane may be recording on."""
    for _ in range(40):
        pool = Lanes(2)
        with pool.borrow() as first, pool.borrow() as second:
            assert first.stream is not second.stream
        pool.close()
    assert len(recorder.streams) == 2


def test_a_failed_call_gives_its_lane_back(recorder: Recorder) -> None:
    pool = Lanes(1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="kernel"), pool.borrow():
            raise RuntimeError("kernel")
    assert len(recorder.streams) == 1


def test_a_recording_replays_with_what_lies_in_its_input(recorder: Recorder) -> None:
    lane, calls = TorchLane(), list[int]()

    def call(x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return torch.relu_(x * 2 - 1).sum(1)

    with lane.current():
        recording = Recording(call, torch.ones(2, 3), CPU, lane)
        assert len(calls) == lanes.WARM_UPS + 1
        for value in (1.0, 5.0, 0.25):
            recording.input.fill_(value)
            replayed = recording.replay()
            assert isinstance(replayed, torch.Tensor)
            np.testing.assert_array_equal(replayed.numpy(), [max(0, 2 * value - 1) * 3] * 2)
    assert len(calls) == lanes.WARM_UPS + 1
    assert recorder.faults == []


def test_the_double_finds_who_waits_while_recording(recorder: Recorder) -> None:
    lane = TorchLane()

    def call(x: torch.Tensor) -> torch.Tensor:
        lane.stream.synchronize()
        return x + 1

    with lane.current():
        Recording(call, torch.ones(2), CPU, lane)
    assert recorder.faults == ["wait-during-recording"]
