"""What a session records and what it does where that fails, and how much memory its bound batches take."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace

import cuda.bindings.runtime as real
import numpy as np
import pytest

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.recorded_runs import GRAPHS
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.errors import DeviceLostError, InputError
from runtimes.protocol import Array
from runtimes.tensors.dlpack import DeviceTensor, device_tensor
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.networks import NETWORK
from tests.runtimes.backends.tensorrt.test_session import expected, images

SPOILED = real.cudaError_t.cudaErrorStreamCaptureInvalidated
RESNET50 = replace(NETWORK, profiles=(Profile(1, 8, 64),), scratch_bytes=500_000)
"""At a thousandth of the size: intermediate results of 64 images, as the engine asks for with its largest profile."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


# Memory of bound batches


def test_bound_batches_share_their_scratch_and_contexts(recorder: Recorder) -> None:
    """32 functions took 32 contexts and 32 times the memory of a batch of 64: 16 GB for ResNet-50 and batches of 1."""
    session = double.session(recorder, RESNET50)
    feeds = [{"input": images(1, seed)} for seed in range(16)]
    calls: list[Callable[[], object]] = [session.bind(arrays) for arrays in feeds]
    calls += [session.bind_timed(arrays) for arrays in feeds]
    for call in calls:
        call()
    assert recorder.count("create_execution_context") == 16
    assert recorder.cuda.left()["streams"] == 1
    tensors = 16 * (3 * 8 * 8 + 10) * 4
    assert recorder.cuda.memory.used_bytes == tensors + RESNET50.scratch_for(1)
    assert tensors + RESNET50.scratch_for(1) < RESNET50.scratch_bytes // 20


def test_a_larger_batch_gets_larger_scratch_and_both_run(recorder: Recorder) -> None:
    session = double.session(recorder, RESNET50)
    calls = [session.bind({"input": images(count)}) for count in (2, 64, 70, 1)]
    for call in calls * 2:
        call()
    assert recorder.faults == []
    used = recorder.cuda.memory.used_bytes
    del calls[1:3], call
    gc.collect()
    calls[0]()
    assert recorder.cuda.memory.used_bytes < used
    session.close()
    assert recorder.cuda.left() == {}


def test_equal_arrays_are_bound_once_and_others_are_not(recorder: Recorder) -> None:
    session = double.session(recorder)
    seen: list[Array] = []

    def compute(arrays: dict[str, Array]) -> dict[str, Array]:
        seen.append(arrays["input"])
        return {"logits": np.zeros((len(arrays["input"]), 10))}

    recorder.compute = compute
    first, other = images(2), images(2, 1)
    calls = [session.bind({"input": batch}) for batch in (first, first.copy(), other)]
    assert recorder.count("create_execution_context") == 2
    seen.clear()
    for call in calls:
        call()
    np.testing.assert_array_equal(seen, [first, first, other])


def test_a_lane_takes_the_scratch_of_its_own_profile(recorder: Recorder) -> None:
    profiles = (Profile(1, 1, 1), Profile(1, 8, 64))
    session = double.session(recorder, replace(RESNET50, profiles=profiles), cuda_graphs=False)
    session.run({"input": images(1)})
    assert recorder.cuda.memory.used_bytes < 10_000
    session.run({"input": images(40)})
    assert recorder.cuda.memory.used_bytes > RESNET50.scratch_bytes


# Tensors on the device


def replays(recorder: Recorder, session: EngineSession, tensor: DeviceArray, batch: Array) -> int:
    before = recorder.count("cudaGraphLaunch")
    found = session.run_tensors({"input": device_tensor(tensor)})["logits"]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-6)
    return recorder.count("cudaGraphLaunch") - before


def test_an_address_that_comes_again_is_replayed(recorder: Recorder) -> None:
    session = double.session(recorder)
    tensor = DeviceArray(recorder.cuda.memory, images(5))
    counts = []
    for turn in range(5):
        batch = images(5, turn)
        recorder.cuda.memory.write(tensor.pointer, batch)
        counts.append(replays(recorder, session, tensor, batch))
    assert counts == [0, 0, 1, 1, 1]
    assert len(tensor.asked) == 10  # each run waited for the tensor's owner


@pytest.mark.parametrize("count", [3, 20])
def test_copied_tensors_are_replayed_wherever_they_lie(recorder: Recorder, count: int) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=(Profile(4, 4, 8),)))
    counts = []
    for turn in range(4):
        batch = images(count, turn)
        tensor = DeviceArray(recorder.cuda.memory, batch, offset_bytes=4)
        counts.append(replays(recorder, session, tensor, batch))
    assert counts[2:] == ([1, 1] if count == 3 else [3, 3])


def test_ever_new_addresses_drop_no_recording(recorder: Recorder) -> None:
    session = double.session(recorder)
    for _ in range(2):
        session.run({"input": images(3)})
    for turn in range(3 * GRAPHS):
        batch = images(3, turn)
        assert replays(recorder, session, DeviceArray(recorder.cuda.memory, batch), batch) == 0
    launches = recorder.count("cudaGraphLaunch")
    session.run({"input": images(3)})
    assert recorder.count("cudaGraphLaunch") == launches + 1
    assert recorder.cuda.left()["graphs"] == 1


def test_a_refused_tensor_costs_no_lane(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=1)
    session.run({"input": images(2)})
    made = recorder.count("cudaStreamCreateWithFlags")

    class Refused(DeviceArray):
        def __dlpack__(self, *, stream: int | None = None) -> object:
            raise RuntimeError("it requires grad")

    source = Refused(recorder.cuda.memory, images(2))
    tensor = DeviceTensor(source, source.pointer, (2, 3, 8, 8), "float32", 0)
    for _ in range(2):
        with refuses(InputError, "dlpack-refused", "it requires grad"):
            session.run_tensors({"input": tensor})
    session.run({"input": images(2)})
    assert recorder.count("cudaStreamCreateWithFlags") == made


# Recordings that fail


def test_a_spoiled_recording_is_one_warning(recorder: Recorder, said: list[tuple[str, str]]) -> None:
    session = double.session(recorder)
    recorder.codes["cudaStreamEndCapture"] = [SPOILED]
    assert not session.description.unrecorded_batches
    for turn in range(5):
        batch = images(3, turn)
        np.testing.assert_allclose(session.run({"input": batch})["logits"], expected(batch), rtol=1e-5, atol=1e-6)
    ((code, sentence),) = said
    assert code == "graph-not-recorded"
    assert "batches of 3" in sentence
    assert "cudaErrorStreamCaptureInvalidated" in sentence
    assert session.description.unrecorded_batches == (3,)
    assert recorder.count("cudaGraphLaunch") == 0
    assert recorder.cuda.cudaGetLastError() == (real.cudaError_t.cudaSuccess,)
    for _ in range(3):
        session.run({"input": images(2)})
    assert recorder.count("cudaGraphLaunch") == 1  # other batch sizes are recorded
    session.close()
    assert session.description.unrecorded_batches == (3,)
    assert recorder.cuda.left() == {}


@pytest.mark.parametrize("name", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_bound_batches_run_without_their_graph(recorder: Recorder, name: str) -> None:
    session = double.session(recorder)
    recorder.codes[name] = [real.cudaError_t.cudaErrorMemoryAllocation]
    timed = session.bind_timed({"input": images(20)})
    assert [timed(), timed()] == pytest.approx([3 * recorder.run_s] * 2)
    assert session.description.unrecorded_batches == (20,)
    assert recorder.count("cudaGraphLaunch") == 0


def test_a_device_lost_while_recording_is_no_warning(recorder: Recorder) -> None:
    session = double.session(recorder)
    session.run({"input": images(3)})
    recorder.codes["cudaStreamEndCapture"] = [real.cudaError_t.cudaErrorIllegalAddress]
    with refuses(DeviceLostError, "gpu-failed", "illegal memory access"):
        session.run({"input": images(3)})
    assert not session.description.unrecorded_batches
