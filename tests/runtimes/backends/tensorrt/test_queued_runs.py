"""Runs of an engine that nobody waits for, on the doubles: order of streams, recordings, and whose memory it is."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import cuda.bindings.runtime as real
import numpy as np
import pytest

from runtimes import TensorSpec
from runtimes.artifacts.manifest import Profile
from runtimes.errors import DeviceLostError, InputError, ResourceError
from runtimes.protocol import Array
from runtimes.tensors import output_memory
from runtimes.tensors.cuda_objects import Stream
from runtimes.tensors.device_output import DeviceOutput
from runtimes.tensors.dlpack import device_tensor
from runtimes.tensors.output_memory import mark_end
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import DEFAULT_STREAM, Recorder, Work
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.networks import NETWORK
from tests.runtimes.backends.tensorrt.test_session import expected, images


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


@pytest.fixture
def caller(recorder: Recorder) -> int:
    """A stream of the caller's."""
    return int(recorder.cuda.cudaStreamCreateWithFlags(real.cudaStreamNonBlocking)[1])


def logits(outputs: dict[str, DeviceOutput]) -> Array:
    return np.asarray(outputs["logits"])


def assert_right(outputs: dict[str, DeviceOutput], batch: Array) -> None:
    np.testing.assert_allclose(logits(outputs), expected(batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("profiles", [(Profile(1, 4, 8),), (Profile(2, 4, 8), Profile(16, 32, 64))])
def test_queued_batches_get_their_own_answers(
    recorder: Recorder, profiles: tuple[Profile, ...], cuda_graphs: bool
) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=profiles), cuda_graphs=cuda_graphs)
    kept = []
    for turn in range(4):
        for count in (1, 3, 8, 9, 17):
            batch = images(count, turn)
            on_device = device_tensor(DeviceArray(recorder.cuda.memory, batch, offset_bytes=4))
            kept.append((session.queue({"input": batch}, None), batch))
            kept.append((session.queue({"input": on_device}, None), batch))
    for outputs, batch in kept:
        assert (outputs["logits"].shape, outputs["logits"].dtype) == ((len(batch), 10), "float32")
        assert_right(outputs, batch)
    assert (recorder.count("cudaGraphLaunch") > 0) is cuda_graphs
    session.close()
    assert_right(*kept[0])
    kept.clear()
    del outputs
    gc.collect()
    arrays = {"blocks": 4 * 5}  # the tensors of the test itself
    assert recorder.cuda.left() == arrays


def test_several_inputs_and_outputs_are_queued(recorder: Recorder) -> None:
    two = replace(
        NETWORK,
        inputs=(TensorSpec("pixels", "uint8", ("batch", 5)), TensorSpec("scale", "float16", ("batch", 1))),
        outputs=(TensorSpec("a", "float32", ("batch", 2)), TensorSpec("b", "float16", ("batch", 3))),
    )
    session = double.session(recorder, two)
    pixels = np.arange(50, dtype=np.uint8).reshape(10, 5)
    feeds: dict[str, Array] = {"pixels": pixels, "scale": np.ones((10, 1), np.float16)}
    outputs = session.queue(feeds, None)
    assert [(output.shape, output.dtype) for output in outputs.values()] == [((10, 2), "float32"), ((10, 3), "float16")]
    np.testing.assert_array_equal(np.asarray(outputs["a"])[:, 0], pixels.mean(axis=1))


def test_a_run_waits_for_the_callers_stream_and_it_for_the_run(recorder: Recorder, caller: int) -> None:
    session, memory = double.session(recorder), recorder.cuda.memory
    batch = images(2)
    late = DeviceArray(memory, np.zeros_like(batch))
    for _ in range(3):  # as it comes, recorded, replayed
        memory.write(late.pointer, np.zeros_like(batch))
        recorder.cuda.queue(caller, Work(lambda: memory.write(late.pointer, batch), 0.0))
        waits = recorder.count("cudaStreamSynchronize") + recorder.count("cudaEventSynchronize")
        output = session.queue({"input": device_tensor(late)}, caller)["logits"]
        read = reader(recorder, caller, output)
        later = recorder.count("cudaStreamSynchronize") + recorder.count("cudaEventSynchronize")
        recorder.cuda.cudaStreamSynchronize(caller)
        np.testing.assert_allclose(read[0], expected(batch), rtol=1e-5, atol=1e-6)
    assert later == waits  # a replayed run does not block
    session.close()


def reader(recorder: Recorder, stream: int, output: DeviceOutput) -> list[Array]:
    """What work on a stream reads, once it is done."""
    read: list[Array] = []

    def act() -> None:
        read.append(recorder.cuda.memory.read(output.pointer, output.dtype, output.shape))

    recorder.cuda.queue(stream, Work(act, 0.0))
    return read


def test_the_double_finds_a_reader_that_does_not_wait(recorder: Recorder, caller: int) -> None:
    """Without the order of the streams, the caller's stream reads memory that is not written yet."""
    session = double.session(recorder)
    read = reader(recorder, caller, session.queue({"input": images(2)}, None)["logits"])
    recorder.cuda.cudaStreamSynchronize(caller)
    assert not np.allclose(read[0], expected(images(2)))
    session.close()


@pytest.mark.parametrize("stream", [None, DEFAULT_STREAM, "caller"])
def test_a_reader_by_dlpack_waits_for_the_run(recorder: Recorder, caller: int, stream: int | str | None) -> None:
    session = double.session(recorder)
    output = session.queue({"input": images(2)}, None)["logits"]
    handle = caller if stream == "caller" else DEFAULT_STREAM
    capsule = output.__dlpack__(stream=caller if stream == "caller" else stream)  # type: ignore[arg-type]
    read = reader(recorder, handle, output)
    recorder.cuda.cudaStreamSynchronize(handle)
    np.testing.assert_allclose(read[0], expected(images(2)), rtol=1e-5, atol=1e-6)
    del capsule


def test_an_output_is_the_input_of_another_runtime(recorder: Recorder) -> None:
    head = replace(
        NETWORK,
        inputs=(TensorSpec("features", "float32", ("batch", 10)),),
        outputs=(TensorSpec("logits", "float32", ("batch", 3)),),
    )
    trunk, heads = double.session(recorder), double.session(recorder, head)
    batch = images(4)
    for _ in range(4):
        features = trunk.queue({"input": batch}, None)["logits"]
        outputs = heads.queue({"features": device_tensor(features)}, None)
        means = expected(batch).mean(axis=1)
        np.testing.assert_allclose(logits(outputs), means[:, None] * np.arange(1, 4), rtol=1e-4, atol=1e-5)


# Memory


def test_memory_of_a_stream_is_used_again_on_it_alone(recorder: Recorder, caller: int) -> None:
    session = double.session(recorder)
    first = session.queue({"input": images(1)}, caller)["logits"]
    pointer = first.pointer
    del first
    gc.collect()
    assert session.queue({"input": images(1)}, None)["logits"].pointer != pointer
    second = session.queue({"input": images(1)}, caller)["logits"]
    assert second.pointer == pointer
    recorder.cuda.cudaStreamSynchronize(caller)


def test_a_capsule_keeps_the_memory_and_gives_it_back(recorder: Recorder) -> None:
    session = double.session(recorder)
    output = session.queue({"input": images(1)}, None)["logits"]
    pointer, capsule = output.pointer, output.__dlpack__(max_version=(1, 0))
    tensor = device_tensor(output)
    assert (tensor.pointer, tensor.shape, tensor.dtype) == (pointer, (1, 10), "float32")
    del output, tensor
    gc.collect()
    assert session.queue({"input": images(1)}, None)["logits"].pointer != pointer
    del capsule
    gc.collect()
    waits = recorder.count("cudaStreamWaitEvent")
    assert session.queue({"input": images(1)}, None)["logits"].pointer == pointer
    assert recorder.count("cudaStreamWaitEvent") == waits + 1  # for what the reader queued on the default stream
    session.close()


def test_memory_that_others_may_still_read_waits_for_the_device(recorder: Recorder, caller: int) -> None:
    session = double.session(recorder)
    seen: list[int] = []
    for number in range(30):
        output = session.queue({"input": images(1)}, None)["logits"]
        output.__dlpack__(stream=(caller, -1)[number % 2])
        seen.append(output.pointer)
        del output
    assert len(set(seen)) <= 10  # nothing is used again before the device has finished, and then all is
    assert len(set(seen[:8])) == 8
    assert 2 <= recorder.count("cudaDeviceSynchronize") <= 4
    assert recorder.count("cudaFree") == 0
    session.close()


def test_outputs_of_many_sizes_make_room_for_others(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_memory, "_KEPT_BYTES", 500)
    session = double.session(recorder)
    for _ in range(3):
        for count in range(1, 9):
            assert_right(session.queue({"input": images(count)}, None), images(count))
    sizes = recorder.cuda.left()["blocks"]
    assert sizes < 30
    assert recorder.count("cudaFree") > 0
    session.close()
    assert recorder.cuda.left() == {}


def test_nothing_is_allocated_for_runs_that_come_again(recorder: Recorder, caller: int) -> None:
    session = double.session(recorder)
    for _ in range(4):
        logits(session.queue({"input": images(3)}, caller))
    before = [recorder.count(name) for name in ("cudaMalloc", "cudaHostAlloc", "create_execution_context")]
    for turn in range(20):
        batch = images(3, turn)
        assert_right(session.queue({"input": batch}, caller), batch)
    assert [recorder.count(name) for name in ("cudaMalloc", "cudaHostAlloc", "create_execution_context")] == before


# Failures


def test_a_refused_or_misplaced_run_leaves_the_session_usable(recorder: Recorder) -> None:
    recorder.devices = 2
    session = double.session(recorder)
    with refuses(InputError, "tensor-on-other-device", "device 1", "device 0"):
        session.queue({"input": device_tensor(DeviceArray(recorder.cuda.memory, images(1), ordinal=1))}, None)
    recorder.refuse_runs = True
    with refuses(ResourceError, "engine-call-failed"):
        session.queue({"input": images(2)}, None)
    recorder.refuse_runs = False
    assert_right(session.queue({"input": images(2)}, None), images(2))


def test_a_lost_device_is_told_to_the_reader(recorder: Recorder) -> None:
    session = double.session(recorder)
    output = session.queue({"input": images(2)}, None)["logits"]
    recorder.codes["cudaEventSynchronize"] = [real.cudaError_t.cudaErrorIllegalAddress]
    with refuses(DeviceLostError, "gpu-failed"):
        np.asarray(output)
    with refuses(DeviceLostError, "gpu-failed"):
        session.queue({"input": images(2)}, None)
    session.close()


def test_an_event_marks_the_end_on_both_streams(recorder: Recorder, caller: int) -> None:
    stream, done = Stream(), list[str]()
    recorder.cuda.queue(stream.handle, Work(lambda: done.append("run"), 0.0))
    mark_end(stream, caller).synchronize()
    recorder.cuda.queue(caller, Work(lambda: done.append("reader"), 0.0))
    recorder.cuda.cudaStreamSynchronize(caller)
    assert done == ["run", "reader"]


def test_page_locked_inputs_own_their_memory(recorder: Recorder) -> None:
    session = double.session(recorder)
    array = session.empty_array((2, 3, 8, 8), "float32")
    view = array[1:]
    session.close()
    del array
    gc.collect()
    view[:] = 3
    assert recorder.cuda.left() == {"blocks": 1}
    del view
    gc.collect()
    assert recorder.cuda.left() == {}
