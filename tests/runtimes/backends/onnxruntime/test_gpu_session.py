"""Runs on a GPU, by a stand-in that says what it is: names, order, threads, and every answer its own."""

from __future__ import annotations

import inspect
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import runtimes
from runtimes import Artifact
from runtimes.artifacts.manifest import TF32
from runtimes.backends.onnxruntime import backend as onnxrt
from runtimes.backends.onnxruntime.bound_tensors import Slot
from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession, Running
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    InputError,
    Reason,
    ResourceError,
    RexportError,
)
from runtimes.protocol import Array, DeviceSession, Options
from runtimes.tensors import cuda
from runtimes.tensors.dlpack import DeviceTensor
from tests.refusals import refuses
from tests.runtimes import typed
from tests.runtimes.backends.onnxruntime import double, graphs

GPU = Options("cuda", 1)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> double.Recorder:
    return double.installed(monkeypatch)


@pytest.fixture
def twice(tmp_path: Path) -> Artifact:
    return Artifact.read(graphs.written(tmp_path / "twice.onnx"))


def open_session(artifact: Artifact, options: Options = GPU) -> OnnxRuntimeDeviceSession:
    session = onnxrt.BACKEND.open(artifact, options)
    assert isinstance(session, OnnxRuntimeDeviceSession)
    assert isinstance(session, DeviceSession)
    return session


def rows(*values: float) -> Array:
    return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)


def test_what_the_double_offers_is_in_the_real_library() -> None:
    modules: list[tuple[Any, Any]] = [
        (double.Double, onnxruntime),
        (double._Session, onnxruntime.InferenceSession),
        (double._Binding, onnxruntime.IOBinding),
        (double._OrtValue, onnxruntime.OrtValue),
    ]
    for mine, real in modules:
        offered = [name for name in vars(mine) if not name.startswith("_") and name != "real"]
        assert offered
        assert [name for name in offered if not hasattr(real, name)] == []
    for name in ("bind_input", "bind_output", "bind_ortvalue_input", "bind_ortvalue_output"):
        mine, real = (
            len(inspect.signature(getattr(kind, name)).parameters) for kind in (double._Binding, onnxruntime.IOBinding)
        )
        assert mine <= real


def test_every_answer_is_its_own(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    for values in ((1, 2), (3, 4), (5,), (1, 2)):
        np.testing.assert_array_equal(session.run({"x": rows(*values)})["y"], 2 * rows(*values))
    assert recorder.runs == ["replayed"] * 4
    assert recorder.faults == []
    session.close()


@pytest.mark.parametrize("caller", [0, 1])
def test_it_runs_on_its_gpu_and_leaves_the_callers(recorder: double.Recorder, twice: Artifact, caller: int) -> None:
    with double.current(caller):
        session = open_session(twice, replace(GPU, device_index=1))
        np.testing.assert_array_equal(session.run({"x": rows(1, 2)})["y"], 2 * rows(1, 2))
        in_thread = threading.Thread(target=session.run, args=({"x": rows(3)},))
        in_thread.start()
        in_thread.join()
        session.bind({"x": rows(1)})()
        timed = session.bind_timed({"x": rows(1)})
        assert timed is None or timed().device_s == 0.25
        session.close()
        assert double.current_ordinal() == caller
    assert (recorder.used, recorder.faults) == ({1}, [])
    assert [options["device_id"] for _, options, _ in recorder.opened] == ["1"]
    assert session.description.device == "cuda:1"


def test_its_arena_has_the_limit_of_the_user(recorder: double.Recorder, twice: Artifact) -> None:
    for limit in (None, 1 << 30):
        open_session(twice, replace(GPU, gpu_mem_limit=limit)).close()
    assert [options.get("gpu_mem_limit") for _, options, _ in recorder.opened] == [None, str(1 << 30)]


def test_what_it_is_asked_for(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    ((provider, told, entries),) = recorder.opened
    assert provider == "CUDAExecutionProvider"
    chosen = {name: told[name] for name in ("use_tf32", "prefer_nhwc", "enable_cuda_graph", "user_compute_stream")}
    assert chosen == {
        "use_tf32": "False",
        "prefer_nhwc": "False",
        "enable_cuda_graph": "True",
        "user_compute_stream": str(double.HANDLE),
    }
    assert entries == {"session.disable_cpu_ep_fallback": "1", "session.disable_quant_qdq": "1"}
    about = session.description
    assert (about.backend, about.device, about.provider) == ("onnxruntime", "cuda", "CUDAExecutionProvider")
    session.close()


def test_graphs_are_left_out_when_they_are_not_wanted(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice, replace(GPU, cuda_graphs=False))
    assert recorder.opened[0][1]["enable_cuda_graph"] == "False"
    np.testing.assert_array_equal(session.run({"x": rows(1)})["y"], rows(2))
    session.bind({"x": rows(1)})()
    assert recorder.runs == ["plain", "plain"]
    session.close()


@pytest.mark.parametrize(("precision", "told", "computed"), [("fp32", "False", "float32"), (TF32, "True", "tfloat32")])
def test_tensorfloat_is_for_artifacts_that_allow_it(
    recorder: double.Recorder, onnx_artifact: Artifact, precision: str, told: str, computed: str
) -> None:
    assert onnx_artifact.manifest is not None
    artifact = replace(onnx_artifact, manifest=replace(onnx_artifact.manifest, precision=precision))
    session = open_session(artifact)
    assert recorder.opened[0][1]["use_tf32"] == told
    assert session.description.precision == computed
    session.close()


def test_half_precision_goes_with_channels_last(
    recorder: double.Recorder, onnx_artifact: Artifact, tmp_path: Path
) -> None:
    typed.cast(onnx_artifact.path, tmp_path / "half.onnx", TensorProto.FLOAT16)
    for path, told in ((onnx_artifact.path, "False"), (tmp_path / "half.onnx", "True")):
        open_session(Artifact.read(path)).close()
        assert recorder.opened[-1][1]["prefer_nhwc"] == told


def test_what_branches_is_not_recorded(recorder: double.Recorder, tmp_path: Path) -> None:
    path = graphs.written(tmp_path / "branching.onnx")
    model = onnx.load(path)
    given = helper.make_tensor_value_info("b", TensorProto.FLOAT, ("n", 4))
    ways = [
        helper.make_graph([helper.make_node(kind, ["twice"], ["b"])], kind, [], [given]) for kind in ("Relu", "Neg")
    ]
    model.graph.node.append(helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", 9, [], [1])))
    model.graph.node.append(helper.make_node("If", ["yes"], ["b"], then_branch=ways[0], else_branch=ways[1]))
    model.graph.output.append(given)
    onnx.save(model, path)
    open_session(Artifact.read(path)).close()
    assert recorder.opened[0][1]["enable_cuda_graph"] == "False"


def test_what_is_bound_stays_and_does_not_disturb_the_rest(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    calls = [session.bind({"x": rows(1, 2)}), session.bind({"x": rows(3, 4)})]
    for call in (*calls, *calls):
        call()
    np.testing.assert_array_equal(session.run({"x": rows(5, 6)})["y"], rows(10, 12))
    calls[0]()
    assert recorder.runs == ["replayed"] * 6
    assert recorder.faults == []
    session.close()


def test_the_device_times_a_run_between_two_events(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    timed = session.bind_timed({"x": rows(1, 2)})
    assert timed is not None
    assert recorder.runs == ["replayed"]  # what it records, it does before the clock runs
    assert [timed().device_s, timed().device_s] == [0.25, 0.25]
    assert recorder.runs[1:] == ["replayed+", "|", "replayed+", "|"] * 2  # the device is at work before the first event
    session.close()


@pytest.mark.parametrize(
    ("version", "cuda_graphs", "timed"), [("1.26.0", True, False), ("1.26.0", False, True), ("1.27.0", True, True)]
)
def test_a_replay_that_waits_gives_no_device_time(
    recorder: double.Recorder, twice: Artifact, version: str, cuda_graphs: bool, timed: bool
) -> None:
    recorder.version = version
    session = open_session(twice, replace(GPU, cuda_graphs=cuda_graphs))
    assert (session.bind_timed({"x": rows(1)}) is not None) == timed
    assert [note.code for note in session.description.notes] == ([] if timed else ["device-time-includes-host"])
    session.close()
    with runtimes.open(twice.path, "onnxruntime", "cuda", 1, cuda_graphs) as runtime:
        assert (runtime.bind_timed({"x": rows(1)}) is not None) == timed
        assert runtime.description.notes == session.description.notes


def tensor(array: Array, device: int = 0) -> DeviceTensor:
    class Owner:
        def __dlpack__(self, *, stream: int | None = None) -> object:
            raise AssertionError(f"the double orders: {stream} {array.shape}")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, device

    return DeviceTensor(Owner(), array.ctypes.data, array.shape, str(array.dtype), device)


@pytest.mark.parametrize(("graphs", "runs", "copies"), [(True, "replayed", 3), (False, "plain", 0)])
def test_tensors_are_read_in_place_or_replayed_from_a_copy(
    recorder: double.Recorder, twice: Artifact, graphs: bool, runs: str, copies: int
) -> None:
    session = open_session(twice, replace(GPU, cuda_graphs=graphs))
    for values in ((1, 2, 3), (4, 5, 6), (7,)):
        array = rows(*values)
        answers = session.run_tensors({"x": tensor(array)})
        np.testing.assert_array_equal(answers["y"], 2 * array)
    assert recorder.runs == [runs] * 3
    assert recorder.copies == ["within"] * copies
    assert recorder.ordered == [(double.HANDLE, threading.get_ident())] * 3
    asked: list[int] = []

    def ask() -> None:
        asked.append(threading.get_ident())
        session.run_tensors({"x": tensor(rows(8))})

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert recorder.ordered[3:] == [(double.HANDLE, asked[0])]  # the queue of the thread that asks
    assert recorder.faults == []
    with refuses(InputError, "tensor-on-other-gpu", "'x'", "GPU 1", "GPU 0"):
        session.run_tensors({"x": tensor(rows(1), device=1)})
    session.close()


CALLER = 7
"""The handle of a stream of the caller."""


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("stream", [None, CALLER])
def test_queued_outputs_stay_and_are_ordered(
    recorder: double.Recorder, twice: Artifact, graphs: bool, stream: int | None
) -> None:
    session = open_session(twice, replace(GPU, cuda_graphs=graphs))
    kept = []
    for values in ((1, 2), (3, 4), (5, 6)):
        array = rows(*values)
        for feeds in ({"x": array}, {"x": tensor(array)}):
            recorder.waits.clear()
            kept.append((session.queue(feeds, stream)["y"], 2 * array))
            ordered = [(double.HANDLE, CALLER), (CALLER, double.HANDLE)]
            assert recorder.waits == ([] if stream is None else ordered)
    assert recorder.ordered == ([(double.HANDLE, threading.get_ident())] * 3 if stream is None else [])
    assert {run[-1] for run in recorder.runs} == {"+"}  # none waits for the device
    for output, expected in kept:
        assert (output.shape, output.dtype, output.device) == ((2, 4), "float32", 0)
        np.testing.assert_array_equal(np.asarray(output), expected)
    assert recorder.faults == []
    session.close()
    np.testing.assert_array_equal(np.asarray(kept[0][0]), kept[0][1])


def test_host_arrays_are_not_copied_over_queued_ones(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    wait = f"wait {double.HANDLE}"
    session.run({"x": rows(1)})
    session.queue({"x": tensor(rows(2))}, CALLER)
    assert wait not in recorder.events
    session.queue({"x": rows(3)}, CALLER)
    assert recorder.events.count(wait) == 1
    session.run({"x": rows(4)})
    assert recorder.events.count(wait) == 2
    session.run({"x": rows(5)})
    assert recorder.events.count(wait) == 2
    session.queue({"x": rows(6)}, None)
    session.close()
    assert recorder.events.count(wait) == 3


def test_memory_of_outputs_is_used_again(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    first = session.queue({"x": rows(1)}, CALLER)["y"]
    pointer = first.pointer
    assert session.queue({"x": rows(1)}, CALLER)["y"].pointer != pointer
    first.owner.delay(CALLER)
    del first
    again = session.queue({"x": rows(2)}, CALLER)["y"]
    assert again.pointer == pointer
    again.owner.delay(99)  # a reader of another stream, of which nothing is known later
    del again
    assert session.queue({"x": rows(3)}, CALLER)["y"].pointer != pointer
    assert (99, double.HANDLE) in recorder.waits
    session.close()


def test_queued_batches_above_the_most_are_whole(recorder: double.Recorder, twice: Artifact) -> None:
    whole = open_session(twice)
    session = OnnxRuntimeDeviceSession(
        whole._model,
        whole.description,
        double.Stream(recorder),  # type: ignore[arg-type]
        Running(False, max_batch=3),
    )
    for count in (1, 3, 4, 7):
        array = rows(*range(count))
        for feeds in ({"x": array}, {"x": tensor(array)}):
            np.testing.assert_array_equal(np.asarray(session.queue(feeds, None)["y"]), 2 * array)
    with refuses(InputError, "tensor-on-other-gpu"):
        session.queue({"x": tensor(rows(1), device=1)}, None)
    session.close()
    whole.close()


@pytest.mark.usefixtures("recorder")
def test_page_locked_arrays_own_their_memory(twice: Artifact) -> None:
    session = open_session(twice)
    array = session.empty_array((2, 4), "float32")
    assert (array.shape, array.dtype.name) == ((2, 4), "float32")
    session.close()
    array[:] = 5
    assert array.sum() == 40


def test_batches_above_the_most_are_run_in_parts(recorder: double.Recorder, twice: Artifact) -> None:
    whole = open_session(twice)
    session = OnnxRuntimeDeviceSession(whole._model, whole.description, double.Stream(), Running(False, max_batch=3))  # type: ignore[arg-type]
    for count in (1, 3, 4, 7):
        array = rows(*range(count))
        recorder.runs.clear()
        np.testing.assert_array_equal(session.run({"x": array})["y"], 2 * array)
        np.testing.assert_array_equal(session.run_tensors({"x": tensor(array)})["y"], 2 * array)
        session.bind({"x": array})()
        parts = (count + 2) // 3
        assert len(recorder.runs) == 3 * parts
        timed = session.bind_timed({"x": array})
        assert timed is not None
        recorder.runs.clear()
        timed()
        assert [run[-1] for run in recorder.runs] == [*"+" * parts, "|", *"+" * parts, "|"]
    session.close()
    whole.close()


def ask_from_eight_threads(session: OnnxRuntimeDeviceSession, turns: int) -> list[str]:
    """What went wrong while eight threads asked for batches of their own."""
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for turn in range(turns):
            array = rows(*(100 * number + turn + row for row in range(1 + (number + turn) % 5)))
            try:
                np.testing.assert_array_equal(session.run({"x": array})["y"], 2 * array)
            except (AssertionError, RexportError, RuntimeError) as error:
                wrong.append(f"thread {number}, turn {turn}: {error}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    return wrong


def test_many_threads_get_their_own_answers(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    assert ask_from_eight_threads(session, 250) == []
    assert recorder.faults == []
    assert set(recorder.runs) == {"replayed"}
    assert len(recorder.threads) <= 2  # the library keeps what it records for each thread that it meets
    session.close()


def test_without_turns_the_double_sees_it(
    recorder: double.Recorder, twice: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(twice)
    monkeypatch.setattr(session._calls, "call", lambda act: act())
    assert ask_from_eight_threads(session, 250)
    assert "concurrent-calls" in recorder.faults
    session.close()


def test_other_addresses_under_a_records_number_are_seen(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    for values in ((1, 2), (3, 4)):
        slot = Slot(session._model, ((2, 4),), record=0)
        slot.fill({"x": rows(*values)})
        slot.run()
    assert "record-0-addresses-differ" in recorder.faults
    session.close()


def test_a_bound_run_outlives_its_session(recorder: double.Recorder, twice: Artifact) -> None:
    session = open_session(twice)
    call = session.bind({"x": rows(1)})
    slots = session._fill_new_slots({"x": rows(2)})
    session.close()
    slots[0].run()
    np.testing.assert_array_equal(slots[0].results()["y"], rows(4))
    call()
    assert recorder.faults == []


def test_through_the_face_of_the_package(recorder: double.Recorder, onnx_artifact: Artifact) -> None:
    images = np.random.default_rng(0).standard_normal((5, 3, 32, 32), np.float32)
    with runtimes.open(onnx_artifact.path, "onnxruntime", device="cuda", threads=1) as runtime:
        given = runtime.infer({"input": images})["logits"]
        assert runtime.infer({"input": images[:0]})["logits"].shape == (0, 10)
        timed = runtime.bind_timed({"input": images})
        assert timed is not None
        assert timed().device_s == 0.25
        assert "CUDAExecutionProvider" in repr(runtime)
    assert recorder.faults == []
    vectors = onnx_artifact.vectors()
    with runtimes.open(onnx_artifact.path, "onnxruntime", device="cuda", threads=1) as runtime:
        logits = runtime.infer({"input": vectors.inputs})["logits"]
    np.testing.assert_allclose(logits, vectors.logits, rtol=0, atol=5e-5 * np.abs(vectors.logits).max())
    assert given.shape == (5, 10)


class Fail(Exception):  # noqa: N818
    """As onnxruntime names its errors."""


class NotImplemented(Exception):  # noqa: N818
    """As onnxruntime names its errors."""


REFUSALS: dict[str, tuple[Exception, type[RexportError], str, tuple[object, ...]]] = {
    "partly": (
        Fail("This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP "),
        CompatibilityError,
        "provider-runs-partly",
        ("CUDA", "--opset 20"),
    ),
    "recorded partly": (
        Fail("cannot use the graph capture feature as requested by the user  as all the graph nodes have not been"),
        CompatibilityError,
        "provider-runs-partly",
        ("CUDA",),
    ),
    "no provider": (
        Fail("x.cc:253 Provider type for MaxPool node with name 'maxpool/MaxPool' is not set."),
        CompatibilityError,
        "provider-lacks-kernel",
        ("CUDA", "MaxPool", "'maxpool/MaxPool'"),
    ),
    "no kernel": (
        NotImplemented("Could not find an implementation for Conv(22) node with name 'conv1/Conv'"),
        CompatibilityError,
        "provider-lacks-kernel",
        ("CUDA", "Conv", "'conv1/Conv'"),
    ),
    "control flow": (
        Fail("This session cannot use the graph capture feature as requested by the user as the model has control"),
        CompatibilityError,
        "provider-cannot-record",
        ("cuda_graphs=False",),
    ),
    "memory": (Fail("CUDA failure 2: out of memory ; GPU=0"), ResourceError, "onnxruntime-out-of-memory", ()),
    "buffer": (
        Fail("Failed to allocate memory for requested buffer of size 9"),
        ResourceError,
        "onnxruntime-out-of-memory",
        (),
    ),
    "device": (
        Fail("CUDA failure 700: an illegal memory access"),
        ResourceError,
        "onnxruntime-gpu-failed",
        ("failure 700", "restart the process"),
    ),
    "disk": (
        Fail("Load model from twice.onnx failed:system error number 5"),
        ResourceError,
        "file-access-failed",
        ("cannot read: Input/output error",),
    ),
    "weights": (
        Fail("SystemError : 5"),
        ResourceError,
        "file-access-failed",
        ("cannot read: Input/output error",),
    ),
    "anything": (Fail("anything"), ArtifactError, "onnxruntime-refused-file", ("anything",)),
}
"""What the library says, and the error that it becomes."""


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(recorder: double.Recorder, twice: Artifact, case: str) -> None:
    recorder.refuses, kind, code, values = REFUSALS[case]
    with refuses(kind, code, *values) as caught:
        open_session(twice)
    assert caught.value.path == twice.path


def test_a_silent_fall_back_to_the_processor_is_an_error(recorder: double.Recorder, twice: Artifact) -> None:
    recorder.gives = "CPUExecutionProvider"
    values = ("CUDAExecutionProvider", "CPUExecutionProvider", "rexport[gpu]")
    with refuses(BackendUnavailableError, "provider-not-loadable", *values):
        open_session(twice)


def test_a_library_that_cannot_be_loaded_explains_more(
    recorder: double.Recorder, twice: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder.unloadable = "Failed to load libcublas.so.13: no such file\nPlease follow ..."
    recorder.refuses = Fail("nodes that are assigned to the default CPU EP, but fallback to CPU EP has been")
    with refuses(BackendUnavailableError, "provider-not-loadable", "libcublas.so.13"):
        open_session(twice)
    assert capsys.readouterr().out == ""  # stdout is for results
    recorder.refuses = Fail("Load model failed: opset 99")
    with refuses(CompatibilityError, "onnxruntime-cannot-run", "opset 99"):
        open_session(twice)
    recorder.refuses = None
    open_session(twice).close()  # what it could not load, it did not need


@pytest.mark.parametrize(
    ("library", "code"),
    [
        ("libcufft.so.12", "provider-runs-partly"),
        ("/opt/lib/libnvrtc.so.13", "provider-runs-partly"),
        ("libcublasLt.so.13", "provider-not-loadable"),
        ("/opt/nvidia/cudnn/lib/libcudnn.so.9", "provider-not-loadable"),
    ],
)
def test_an_optional_library_is_no_reason(recorder: double.Recorder, twice: Artifact, library: str, code: str) -> None:
    recorder.unloadable = f"Failed to load {library}: cannot open shared object file"
    recorder.refuses = REFUSALS["partly"][0]
    kind = BackendUnavailableError if code == "provider-not-loadable" else CompatibilityError
    with refuses(kind, code):
        open_session(twice)


def test_bfloat16_is_not_sent_to_another_opset(
    recorder: double.Recorder, onnx_artifact: Artifact, tmp_path: Path
) -> None:
    typed.cast(onnx_artifact.path, tmp_path / "half.onnx", TensorProto.BFLOAT16)
    recorder.refuses = REFUSALS["partly"][0]
    for path, sent in ((tmp_path / "half.onnx", False), (onnx_artifact.path, True)):
        with refuses(CompatibilityError, "provider-runs-partly") as caught:
            open_session(Artifact.read(path))
        assert ("--opset" in str(caught.value)) == sent


def test_without_a_gpu_or_the_gpu_build(
    recorder: double.Recorder, twice: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "missing", lambda: Reason("driver-missing", "no driver (install one)"))
    with refuses(BackendUnavailableError, "provider-without-gpu", "no driver (install"):
        open_session(twice)
    assert recorder.opened == []
    double.installed(monkeypatch, double.TENSORRT)
    with refuses(BackendUnavailableError, "provider-not-compiled", "CUDAExecutionProvider", "rexport[gpu]"):
        open_session(twice)
