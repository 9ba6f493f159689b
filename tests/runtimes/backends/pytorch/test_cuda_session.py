from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from runtimes import Artifact
from runtimes.artifacts.manifest import TF32
from runtimes.backends.pytorch import cuda_session
from runtimes.backends.pytorch import streams as lanes
from runtimes.backends.pytorch.batch_sizes import FIXED_BATCHES
from runtimes.backends.pytorch.cuda_session import CudaTorchSession, ProgramExecution
from runtimes.backends.pytorch.streams import Lanes, TorchLane
from runtimes.errors import ArtifactError, DeviceLostError, InputError, ResourceError, RexportError
from runtimes.protocol import Array, Description, DeviceSession
from runtimes.tensors.capture import capture_lock
from runtimes.tensors.dlpack import DeviceTensor
from tests.refusals import refuses
from tests.runtimes.backends.pytorch.double import CPU, Pending, Recorder, installed

ABOUT = Description("pytorch", "0", "cuda", "eager", "float32", 1)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return installed(monkeypatch)


def double_of(x: Tensor) -> Tensor:
    """(n, 10): a network of which every answer tells the image that it is for."""
    return x.flatten(1)[:, :10] * 2 + x.mean((1, 2, 3), keepdim=False)[:, None]


def make_session(
    artifact: Artifact, call: Callable[[Tensor], Tensor] = double_of, recorded: Callable[[int], bool] | None = None
) -> CudaTorchSession:
    return CudaTorchSession(call, artifact, ABOUT, ProgramExecution(recorded or (lambda _: False)))


def images(batch: int, seed: int = 0) -> dict[str, Array]:
    return {"input": np.random.default_rng(seed).standard_normal((batch, 3, 32, 32), np.float32)}


def expected(feeds: dict[str, Array]) -> Array:
    return double_of(torch.from_numpy(feeds["input"])).numpy()


@pytest.mark.parametrize("graphs", [False, True])
def test_answers_are_fresh_and_right_at_any_batch(pt2_artifact: Artifact, recorder: Recorder, graphs: bool) -> None:
    session = make_session(pt2_artifact, recorded=lambda batch: graphs and batch < 5)
    assert isinstance(session, DeviceSession)
    kept = []
    for seed, batch in enumerate((1, 3, 7, 3, 1)):
        feeds = images(batch, seed)
        answer = session.run(feeds)["logits"]
        np.testing.assert_array_equal(answer, expected(feeds))
        assert answer.flags.writeable
        kept.append((answer, answer.copy()))
    for answer, before in kept:
        np.testing.assert_array_equal(answer, before)
    assert recorder.events.count("record") == (1 + 2 if graphs else 0)  # the first keeps the pool
    assert recorder.events.count("replay") == (4 if graphs else 0)
    assert len(recorder.streams) == 1
    assert recorder.faults == []


def asked(session: CudaTorchSession, turns: int) -> list[str]:
    """What eight threads got wrong, each with requests of its own."""
    cases = [images(batch, seed) for seed, batch in enumerate((1, 2, 3, 5, 2, 1, 3, 4))]
    answers = [expected(feeds) for feeds in cases]
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for turn in range(turns):
            which = (number + turn) % len(cases)
            try:
                np.testing.assert_array_equal(session.run(cases[which])["logits"], answers[which])
            except (AssertionError, RexportError) as error:
                wrong.append(f"thread {number}, turn {turn}: {error}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return wrong


@pytest.mark.parametrize("graphs", [False, True])
def test_many_threads_get_their_own_answers(pt2_artifact: Artifact, recorder: Recorder, graphs: bool) -> None:
    session = make_session(pt2_artifact, recorded=lambda batch: graphs and batch != 4)
    assert asked(session, 60) == []
    assert recorder.faults == []
    assert len(recorder.streams) <= cuda_session.LANES


def test_runs_with_shared_memory_take_turns(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = CudaTorchSession(double_of, pt2_artifact, ABOUT, ProgramExecution(lambda _: True, concurrent=False))
    session.bind(images(2))()
    assert asked(session, 10) == []
    assert len(recorder.streams) == 1
    assert recorder.faults == []


def test_a_pool_that_shares_a_lane_is_caught(
    pt2_artifact: Artifact, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[TorchLane] = []

    @contextmanager
    def one(_: Lanes) -> Iterator[TorchLane]:
        if not shared:
            shared.append(TorchLane())
        yield shared[0]

    monkeypatch.setattr(Lanes, "borrow", one)
    session, wrong = make_session(pt2_artifact, recorded=lambda _: True), list[str]()
    for _ in range(20):  # which threads meet is the scheduler's choice: on a busy machine none may, for one round
        wrong += asked(session, 60)
        if wrong and recorder.faults:
            break
    assert wrong
    assert recorder.faults


def test_what_is_bound_is_on_the_device_once_and_finished(pt2_artifact: Artifact, recorder: Recorder) -> None:
    seen: list[int] = []

    def call(x: Tensor) -> Tensor:
        seen.append(x.data_ptr())
        return double_of(x)

    session = make_session(pt2_artifact, call)
    run_once = session.bind(images(2))
    recorder.events.clear()
    for _ in range(3):
        run_once()
    assert recorder.events == ["synchronize"] * 3
    assert len(set(seen)) == 1
    timed = session.bind_timed(images(2))
    recorder.events.clear()
    assert timed().device_s == 0.002
    assert recorder.events == ["event", "event", "synchronize"]
    assert len(recorder.streams) == 1


def test_what_is_bound_is_replayed_where_it_is_recorded(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact, recorded=lambda _: True)
    run_once, timed = session.bind(images(2)), session.bind_timed(images(3))
    recorder.events.clear()
    run_once()
    timed()
    assert recorder.events == ["replay", "synchronize", "replay", "event", "replay", "event", "synchronize"]
    assert recorder.faults == []


@pytest.mark.parametrize("graphs", [False, True])
def test_bound_runs_share_a_stream_and_keep_their_images(
    pt2_artifact: Artifact, recorder: Recorder, graphs: bool
) -> None:
    answers: list[Tensor] = []

    def call(x: Tensor) -> Tensor:
        answers.append(double_of(x))
        return answers[-1]

    session = make_session(pt2_artifact, call, lambda _: graphs)
    cases = [images(2, seed) for seed in range(4)]
    bound = [session.bind(feeds) for feeds in cases]
    recorded = answers[lanes.WARM_UPS :: lanes.WARM_UPS + 1]
    for number in (2, 0, 3, 1, 2):
        bound[number]()
        answer = recorded[number] if graphs else answers[-1]
        np.testing.assert_array_equal(answer.numpy(), expected(cases[number]))
    session.run(images(1))
    assert len(recorder.streams) == 2  # one of the bound runs, and one of the others
    assert recorder.faults == []


def test_bound_runs_share_the_memory_of_one_pool(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact, recorded=lambda _: True)
    bound = [bind(images(2, seed)) for seed in range(16) for bind in (session.bind, session.bind_timed)]
    for run_once in bound:
        run_once()
    assert len(recorder.pools) == 1 + len(bound)
    assert len(set(recorder.pools)) == 1
    assert recorder.faults == []


def test_bound_runs_are_recorded_anew_when_the_others_have_gone(pt2_artifact: Artifact, recorder: Recorder) -> None:
    """PyTorch records nothing more in a pool whose recordings have all gone: a small one of the lane stays."""
    session = make_session(pt2_artifact, recorded=lambda _: True)
    for _ in range(3):
        session.bind(images(2))()
        gc.collect()
    assert [len(recordings) for recordings in recorder.recordings.values()] == [1]
    assert recorder.faults == []


def test_the_double_finds_a_pool_without_recordings(recorder: Recorder) -> None:
    lane = TorchLane()
    with lane.current(), capture_lock():
        lane.record(lambda: torch.ones(1), CPU)
        lane._anchor = None
        gc.collect()
        lane._capture(lambda: torch.ones(1))
    assert recorder.faults == ["pool-without-recordings"]


def test_bound_runs_of_many_threads_take_turns(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact, recorded=lambda batch: batch == 1)
    bound = [session.bind(images(1 + number % 2, number)) for number in range(4)]
    barrier = threading.Barrier(4)

    def run(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            bound[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.faults == []
    assert len(recorder.streams) == 1


@dataclass(frozen=True)
class _Tensor:
    """Counts who takes it; lies on the processor, which the double takes for the device."""

    values: Tensor
    taken: list[int]

    def __dlpack__(self, *, stream: int | None = None, **_: object) -> object:
        self.taken.append(self.values.data_ptr())
        return self.values.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self.values.__dlpack_device__()
        return int(kind), int(number)


def on_device(values: Tensor) -> tuple[dict[str, DeviceTensor], list[int]]:
    source = _Tensor(values, [])
    return {"input": DeviceTensor(source, values.data_ptr(), tuple(values.shape), "float32", 0)}, source.taken


@pytest.mark.parametrize("graphs", [False, True])
def test_a_tensor_of_the_device_is_not_copied_to_the_host(
    pt2_artifact: Artifact, recorder: Recorder, graphs: bool
) -> None:
    seen: list[int] = []

    def call(x: Tensor) -> Tensor:
        seen.append(x.data_ptr())
        return double_of(x)

    feeds = images(2)
    values = torch.from_numpy(feeds["input"])
    tensors, taken = on_device(values)
    session = make_session(pt2_artifact, call, lambda _: graphs)
    for _ in range(3):
        np.testing.assert_array_equal(session.run_tensors(tensors)["logits"], expected(feeds))
    assert set(taken) == {values.data_ptr()}
    assert (values.data_ptr() in seen) is not graphs  # a recorded run reads a copy, and is replayed
    assert recorder.events.count("record") == 2 * graphs  # the first keeps the pool
    assert recorder.events.count("replay") == 3 * graphs


@pytest.mark.parametrize("own", [False, True])
def test_a_tensor_that_is_still_being_computed_is_waited_for(
    pt2_artifact: Artifact, recorder: Recorder, own: bool
) -> None:
    """Also where the caller has made a stream of its own the current one."""
    feeds = images(2)
    pending = Pending(recorder, torch.from_numpy(feeds["input"]))
    tensor = DeviceTensor(pending, pending.memory.data_ptr(), feeds["input"].shape, "float32", 0)
    session = make_session(pt2_artifact)
    with torch.cuda.stream(torch.cuda.Stream()) if own else contextlib.nullcontext():  # type: ignore[no-untyped-call]
        answer = session.run_tensors({"input": tensor})["logits"]
    np.testing.assert_array_equal(answer, expected(feeds))
    assert recorder.faults == []


def test_the_double_finds_who_has_the_wrong_stream_waited_for(recorder: Recorder) -> None:
    pending, lane = Pending(recorder, torch.ones(2)), TorchLane()
    with lane.current():
        pending.__dlpack__(stream=lane.stream.cuda_stream)
    assert pending.memory.isnan().all()
    pending.__dlpack__(stream=lane.stream.cuda_stream)
    assert pending.memory.tolist() == [1, 1]


CALLER = 77
"""The handle of a stream of the caller."""


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize(("stream", "home"), [(None, 0), (1, 0), (CALLER, CALLER)])
def test_queued_outputs_stay_and_are_ordered(
    pt2_artifact: Artifact, recorder: Recorder, graphs: bool, stream: int | None, home: int
) -> None:
    session = make_session(pt2_artifact, recorded=lambda _: graphs)
    kept = []
    for seed in range(3):
        feeds = images(2, seed)
        tensors, taken = on_device(torch.from_numpy(feeds["input"]))
        for given in (feeds, tensors):
            recorder.waits.clear()
            kept.append((session.queue(given, stream)["logits"], expected(feeds)))
            lane = recorder.streams[0].cuda_stream
            assert recorder.waits == [(lane, home), (home, lane)]
        assert len(taken) == (1 if stream is not None else 2)  # without a stream, the owner is told of the lane
    assert recorder.events.count("replay") == (6 if graphs else 0)
    for output, answer in kept:
        assert (output.shape, output.dtype, output.device) == ((2, 10), "float32", 0)
        np.testing.assert_array_equal(np.asarray(output), answer)
    assert recorder.faults == []
    session.close()
    np.testing.assert_array_equal(np.asarray(kept[0][0]), kept[0][1])


def test_readers_of_an_output_are_known_to_pytorch(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact)
    output = session.queue(images(1), CALLER)["logits"]
    lane = recorder.streams[0].cuda_stream
    recorder.waits.clear()
    for stream in (CALLER, -1):
        output.__dlpack__(stream=stream)
    assert (recorder.waits, recorder.readers) == ([], [])
    output.__dlpack__(stream=99)
    output.__dlpack__()
    assert recorder.waits == [(99, lane), (0, lane)]
    assert recorder.readers == [99, 0]
    session.close()


def test_staging_memory_is_not_overwritten_while_it_is_read(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact)
    for act, waits in ((lambda: session.queue(images(1), None), 1), (lambda: session.run(images(1)), 2)):
        session.queue(images(1), None)
        before = recorder.events.count("synchronize")
        act()
        assert recorder.events.count("synchronize") == before + waits  # the second for its own output
    session.queue(images(1), None)
    recorder.events.clear()
    session.close()
    assert recorder.events == ["synchronize", "empty_cache"]


@pytest.mark.usefixtures("recorder")
def test_page_locked_inputs_own_their_memory(pt2_artifact: Artifact) -> None:
    session = make_session(pt2_artifact)
    array = session.empty_array((2, 3), "uint8")
    session.close()
    array[:] = 7
    assert (array.shape, array.dtype.name, int(array.sum())) == ((2, 3), "uint8", 42)


@pytest.mark.usefixtures("recorder")
def test_a_tensor_of_another_device_is_refused(pt2_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session(pt2_artifact)
    monkeypatch.setattr(session, "_device", torch.device("cuda", 1))
    with refuses(InputError, "program-on-other-gpu", "cuda:0", "cuda:1"):
        session.run_tensors(on_device(torch.zeros(1, 3, 32, 32))[0])


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_kernels_are_launched_in_the_artifacts_arithmetic(
    pt2_artifact: Artifact, recorder: Recorder, tf32: bool, graphs: bool
) -> None:
    seen, searched = set[str](), set[bool]()

    def call(x: Tensor) -> Tensor:
        seen.add(torch.backends.cuda.matmul.fp32_precision)
        searched.add(torch.backends.cudnn.benchmark)
        return double_of(x)

    assert pt2_artifact.manifest is not None
    precision = TF32 if tf32 else "fp32"
    artifact = replace(pt2_artifact, manifest=replace(pt2_artifact.manifest, precision=precision))
    before = torch.backends.cuda.matmul.fp32_precision
    session = make_session(artifact, call, lambda _: graphs)
    session.run(images(2))
    session.bind(images(1))()
    session.bind_timed(images(1))()
    assert seen == {"tf32" if tf32 else "ieee"}
    assert searched == {True}
    assert (torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.benchmark) == (before, False)
    assert recorder.faults == []


def test_late_batch_sizes_are_not_searched_for_and_said(
    pt2_artifact: Artifact, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: dict[int, bool] = {}
    logged: list[str] = []
    monkeypatch.setattr(logging.getLogger("rexport"), "warning", lambda *_, extra: logged.append(extra["code"]))

    def call(x: Tensor) -> Tensor:
        searched[len(x)] = torch.backends.cudnn.benchmark
        return double_of(x)

    session, first = make_session(pt2_artifact, call), range(1, FIXED_BATCHES + 1)
    for batch in first:
        session.run(images(batch))
    assert [*session.description.notes] == []
    for batch in (FIXED_BATCHES + 1, FIXED_BATCHES + 2, 1):
        session.run(images(batch))
    assert searched == {**dict.fromkeys(first, True), FIXED_BATCHES + 1: False, FIXED_BATCHES + 2: False}
    (note,) = session.description.notes
    assert note.code == "batch-unprepared"
    assert ", ".join(map(str, first)) in note.sentence
    assert logged == [note.code]
    assert recorder.faults == []


FAULTS: dict[str, tuple[str, type[RexportError], str]] = {
    "memory": ("CUDA out of memory. Tried to allocate 2 GiB", ResourceError, "pytorch-out-of-memory"),
    "lost": ("CUDA error: an illegal memory access was encountered", DeviceLostError, "pytorch-device-failed"),
    "other": ("CUDA error: invalid argument", ArtifactError, "pytorch-cannot-run"),
}
"""What PyTorch says, and the error that it becomes."""


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize("case", FAULTS)
def test_what_pytorch_raises_becomes_an_error_of_rexport(pt2_artifact: Artifact, case: str) -> None:
    text, kind, code = FAULTS[case]

    def call(_: Tensor) -> Tensor:
        raise RuntimeError(text)

    session = make_session(pt2_artifact, call)
    for act in (session.run, lambda feeds: session.bind(feeds)(), lambda feeds: session.bind_timed(feeds)()):
        with refuses(kind, code, text):
            act(images(1))


def test_a_closed_session_gives_its_memory_back(pt2_artifact: Artifact, recorder: Recorder) -> None:
    session = make_session(pt2_artifact)
    session.run(images(1))
    session.close()
    assert recorder.events[-1] == "empty_cache"


@pytest.mark.usefixtures("recorder")
def test_threads_are_set_for_each_call(pt2_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    session, asked_for = make_session(pt2_artifact), list[int]()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setattr(torch, "set_num_threads", asked_for.append)
    session.run(images(1))
    assert asked_for == [ABOUT.threads]


def test_a_spoiled_recording_is_a_run_without_one(
    pt2_artifact: Artifact, recorder: Recorder, said: list[tuple[str, str]]
) -> None:
    session = make_session(pt2_artifact, recorded=lambda _: True)
    recorder.unrecordable = True
    for seed in range(3):
        np.testing.assert_array_equal(session.run(images(2, seed))["logits"], expected(images(2, seed)))
    session.bind(images(2))()
    assert [code for code, _ in said] == ["graph-not-recorded"]
    assert session.description.unrecorded_batches == (2,)
    assert recorder.events.count("record") == 2  # the lane's and the bound one's
    assert "replay" not in recorder.events
    recorder.unrecordable = False
    session.run(images(3))
    assert recorder.events.count("replay") == 1
    recorder.unrecordable = True  # now where the lane has recordings
    session.run(images(4))
    recorder.unrecordable = False
    for batch in (5, 3):
        np.testing.assert_array_equal(session.run(images(batch))["logits"], expected(images(batch)))
    assert recorder.events.count("replay") == 3
    assert recorder.faults == []
