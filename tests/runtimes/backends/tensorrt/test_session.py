"""An opened engine on the doubles of TensorRT and CUDA, which write down what a real device would answer with garbage:
no test may leave a fault. What an engine computes and how fast needs a GPU and is tested there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace

import cuda.bindings.runtime as real
import numpy as np
import pytest

from runtimes import TensorSpec
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.batch_pieces import Piece, pieces
from runtimes.backends.tensorrt.recorded_runs import GRAPHS
from runtimes.errors import CompatibilityError, DeviceLostError, InputError, ResourceError
from runtimes.protocol import Array, DeviceSession
from runtimes.tensors.dlpack import device_tensor
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.networks import NETWORK

CODES = real.cudaError_t


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


def images(count: int, seed: int = 0) -> Array:
    found: Array = np.random.default_rng((seed, count)).standard_normal((count, 3, 8, 8), np.float32)
    return found


def expected(batch: Array) -> Array:
    means = batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float64)
    found: Array = (means[:, None] * np.arange(1, 11)).astype(np.float32)
    return found


# Batches and profiles

ONE = Profile(1, 1, 1)
SMALL = Profile(1, 4, 8)
LARGE = Profile(16, 32, 64)


@pytest.mark.parametrize(
    ("count", "profiles", "found"),
    [
        (1, (SMALL,), [(0, 1, 0)]),
        (8, (SMALL,), [(0, 8, 0)]),
        (9, (SMALL,), [(0, 8, 0), (8, 1, 0)]),
        (24, (SMALL,), [(0, 8, 0), (8, 8, 0), (16, 8, 0)]),
        (1, (SMALL, ONE), [(0, 1, 1)]),
        (2, (SMALL, ONE), [(0, 2, 0)]),
        (9, (SMALL, LARGE), [(0, 9, 1)]),
        (66, (SMALL, LARGE), [(0, 64, 1), (64, 2, 0)]),
        (74, (SMALL, LARGE), [(0, 64, 1), (64, 10, 1)]),
        (3, (LARGE,), [(0, 3, 0)]),
        (5, (Profile(4, 4, 8), Profile(5, 16, 16)), [(0, 5, 0)]),
        (0, (SMALL,), []),
    ],
)
def test_a_batch_goes_to_the_profiles_that_compute_least(
    count: int, profiles: tuple[Profile, ...], found: list[tuple[int, int, int]]
) -> None:
    assert pieces(count, profiles) == tuple(Piece(*piece) for piece in found)


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("profiles", [(SMALL,), (SMALL, LARGE), (ONE, Profile(3, 4, 5)), (LARGE,)])
def test_every_batch_gets_its_own_answers(recorder: Recorder, profiles: tuple[Profile, ...], cuda_graphs: bool) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=profiles), cuda_graphs=cuda_graphs)
    assert isinstance(session, DeviceSession)
    for turn in range(4):
        for count in (1, 2, 3, 5, 8, 9, 17, 66, 130):
            batch = images(count, turn)
            np.testing.assert_allclose(session.run({"input": batch})["logits"], expected(batch), rtol=1e-5, atol=1e-6)
    session.close()
    assert recorder.cuda.left() == {}


def test_a_fixed_batch_is_one_profile(recorder: Recorder) -> None:
    fixed = replace(
        NETWORK,
        inputs=(TensorSpec("input", "float32", (4, 3, 8, 8)),),
        outputs=(TensorSpec("logits", "float32", (4, 10)),),
        profiles=(Profile(4, 4, 4),),
    )
    session = double.session(recorder, fixed)
    for turn in range(3):
        batch = images(4, turn)
        np.testing.assert_allclose(session.run({"input": batch})["logits"], expected(batch), rtol=1e-5, atol=1e-6)


def test_the_outputs_are_the_callers(recorder: Recorder) -> None:
    session = double.session(recorder)
    first = session.run({"input": images(2)})["logits"]
    kept = first.copy()
    for turn in range(3):
        session.run({"input": images(2, turn)})
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata
    assert first.flags.writeable


def test_two_inputs_and_outputs_and_raw_pixels(recorder: Recorder) -> None:
    two = replace(
        NETWORK,
        inputs=(TensorSpec("pixels", "uint8", ("batch", 5)), TensorSpec("scale", "float16", ("batch", 1))),
        outputs=(TensorSpec("a", "float32", ("batch", 2)), TensorSpec("b", "float16", ("batch", 3))),
    )
    session = double.session(recorder, two)
    pixels = np.arange(50, dtype=np.uint8).reshape(10, 5)
    for _ in range(3):
        found = session.run({"pixels": pixels, "scale": np.ones((10, 1), np.float16)})
        assert (found["a"].shape, found["b"].shape) == ((10, 2), (10, 3))
        assert [found[name].dtype.name for name in found] == ["float32", "float16"]
        np.testing.assert_array_equal(found["a"][:, 0], pixels.mean(axis=1))


def test_another_varying_dimension_is_refused(recorder: Recorder) -> None:
    odd = replace(NETWORK, inputs=(TensorSpec("input", "float32", ("batch", 3, "height", 8)),))
    with refuses(CompatibilityError, "engine-dimensions-vary", odd.inputs[0]):
        double.session(recorder, odd)


# Memory and graphs


def test_nothing_is_allocated_after_the_first_calls(recorder: Recorder) -> None:
    session = double.session(recorder)
    for _ in range(2):
        session.run({"input": images(3)})
    before = [recorder.count(name) for name in ("cudaMalloc", "cudaHostAlloc", "create_execution_context")]
    for _ in range(20):
        session.run({"input": images(3)})
        session.run({"input": images(3)})
    assert [recorder.count(name) for name in ("cudaMalloc", "cudaHostAlloc", "create_execution_context")] == before


def test_a_batch_that_comes_again_is_recorded_and_replayed(recorder: Recorder) -> None:
    session = double.session(recorder)
    counts = []
    for _ in range(5):
        session.run({"input": images(3)})
        counts.append((recorder.count("execute_async_v3"), recorder.count("cudaGraphLaunch")))
    # First as it comes; then in a context of its own, which is recorded after it has run; then replayed.
    assert counts == [(1, 0), (3, 0), (3, 1), (3, 2), (3, 3)]


def test_recorded_batches_survive_other_batches_in_between(recorder: Recorder) -> None:
    session = double.session(recorder)
    for turn in range(6):
        for count in (2, 7, 4):
            batch = images(count, turn)
            np.testing.assert_allclose(session.run({"input": batch})["logits"], expected(batch), rtol=1e-5, atol=1e-6)
    assert recorder.count("cudaGraphLaunch") == 3 * 4


def test_the_batch_that_came_longest_ago_makes_room(recorder: Recorder) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=(Profile(1, 8, 64),)))
    for count in range(1, GRAPHS + 1):
        for _ in range(2):
            session.run({"input": images(count)})
    assert recorder.cuda.left()["graphs"] == GRAPHS
    session.run({"input": images(1)})  # now 2 is the one
    for _ in range(2):
        session.run({"input": images(40)})
    assert recorder.cuda.left()["graphs"] == GRAPHS
    launches = recorder.count("cudaGraphLaunch")
    session.run({"input": images(1)})
    assert recorder.count("cudaGraphLaunch") == launches + 1
    session.run({"input": images(2)})
    assert recorder.count("cudaGraphLaunch") == launches + 1


def test_without_graphs_nothing_is_recorded(recorder: Recorder) -> None:
    session = double.session(recorder, cuda_graphs=False)
    for _ in range(4):
        session.run({"input": images(3)})
    session.bind({"input": images(3)})()
    assert recorder.count("cudaStreamBeginCapture") == 0
    assert recorder.count("create_execution_context") == 2


def test_calls_one_after_another_share_a_lane(recorder: Recorder) -> None:
    session = double.session(recorder, cuda_graphs=False)
    for _ in range(5):
        session.run({"input": images(3)})
    assert recorder.cuda.left()["streams"] == 1


def test_tensorrt_rtx_compiles_kernels_before_it_records(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_rtx

    recorder = double.installed(monkeypatch, "rtx")
    configs: list[double.IRuntimeConfig] = []

    def config(self: double.ICudaEngine) -> double.IRuntimeConfig:  # noqa: ARG001
        configs.append(double.IRuntimeConfig(recorder))
        return configs[-1]

    monkeypatch.setattr(double.ICudaEngine, "create_runtime_config", config)
    session = double.session(recorder)
    for turn in range(4):
        batch = images(5, turn)
        np.testing.assert_allclose(session.run({"input": batch})["logits"], expected(batch), rtol=1e-5, atol=1e-6)
    eager = tensorrt_rtx.DynamicShapesKernelSpecializationStrategy.EAGER
    assert [made.dynamic_shapes_kernel_specialization_strategy for made in configs] == [eager, eager]
    assert recorder.count("create_runtime_cache") == 1  # what is compiled for one context serves the others
    assert configs[0].get_runtime_cache() is configs[1].get_runtime_cache() is not None
    assert recorder.faults == []


# Tensors on the device


def test_a_tensor_on_the_device_is_read_where_it_lies(recorder: Recorder) -> None:
    session = double.session(recorder)
    for turn in range(3):
        batch = images(5, turn)
        tensor = DeviceArray(recorder.cuda.memory, batch)
        before = recorder.count("cudaMemcpyAsync")
        found = session.run_tensors({"input": device_tensor(tensor)})["logits"]
        np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-6)
        assert recorder.count("cudaMemcpyAsync") == before + 1  # the output
        assert len(tensor.asked) == 2
        assert tensor.asked[1] != -1  # the lane's stream was to wait


@pytest.mark.parametrize(("count", "offset"), [(5, 4), (2, 0), (20, 0), (19, 4)])
def test_tensors_that_do_not_suit_are_copied_on_the_device(recorder: Recorder, count: int, offset: int) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=(Profile(4, 4, 8),)))
    batch = images(count)
    found = session.run_tensors(
        {"input": device_tensor(DeviceArray(recorder.cuda.memory, batch, offset_bytes=offset))}
    )["logits"]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-5, atol=1e-6)
    assert session.run({"input": batch})["logits"].shape == (count, 10)


def test_a_tensor_of_another_gpu_is_refused(recorder: Recorder) -> None:
    recorder.devices = 2
    session = double.session(recorder)
    with refuses(InputError, "tensor-on-other-device", "input", "device 1", "device 0", "tensor.to("):
        session.run_tensors({"input": device_tensor(DeviceArray(recorder.cuda.memory, images(1), ordinal=1))})


# Bound calls


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("count", [1, 3, 8, 20])
def test_what_is_bound_runs_on_the_device_alone(recorder: Recorder, count: int, cuda_graphs: bool) -> None:
    session = double.session(recorder, replace(NETWORK, profiles=(Profile(2, 4, 8),)), cuda_graphs=cuda_graphs)
    seen: list[Array] = []

    def compute(arrays: dict[str, Array]) -> dict[str, Array]:
        seen.append(arrays["input"])
        return {"logits": np.zeros((len(arrays["input"]), 10))}

    recorder.compute = compute
    batch = images(count)
    call = session.bind({"input": batch})
    seen.clear()
    copies, waits = recorder.count("cudaMemcpyAsync"), recorder.count("cudaStreamSynchronize")
    call()
    call()
    assert recorder.count("cudaMemcpyAsync") == copies
    assert recorder.count("cudaStreamSynchronize") == waits + 2
    np.testing.assert_array_equal(np.concatenate(seen)[:count], batch)
    assert recorder.count("cudaGraphLaunch") == (2 if cuda_graphs else 0)


def test_the_devices_own_time_holds_the_runs_alone(recorder: Recorder) -> None:
    session = double.session(recorder)
    recorder.run_s = 0.004
    assert session.bind_timed({"input": images(8)})().device_s == pytest.approx(0.004)
    call = session.bind_timed({"input": images(20)})  # three pieces
    assert [call().device_s, call().device_s] == pytest.approx([0.012, 0.012])


def test_bound_calls_need_no_lane_and_go_with_their_caller(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=1)
    calls = [session.bind({"input": images(count)}) for count in (1, 2, 3)]
    session.run({"input": images(2)})
    for call in calls:
        call()
    del calls, call
    gc.collect()
    assert recorder.cuda.left()["streams"] == 1
    session.close()
    assert recorder.cuda.left() == {}


def test_closing_frees_what_is_still_bound(recorder: Recorder) -> None:
    session = double.session(recorder)
    kept = [session.bind({"input": images(2)}), session.bind({"input": images(2)})]
    kept[0]()
    session.close()
    assert recorder.cuda.left() == {}


# Failures


def test_a_refused_run_quotes_the_library_and_the_next_one_works(recorder: Recorder) -> None:
    session = double.session(recorder)
    session.run({"input": images(2)})
    with refuses(ResourceError, "engine-call-failed", "tensorrt", "batch of 9", (9, 3, 8, 8)):
        session._pools[0]._idle[0]._runs.context.place(9, {})
    recorder.refuse_runs = True
    with refuses(ResourceError, "engine-call-failed", "tensorrt", "queue a run", "enqueueV3"):
        session.run({"input": images(3)})
    recorder.refuse_runs = False
    np.testing.assert_allclose(session.run({"input": images(3)})["logits"], expected(images(3)), rtol=1e-5, atol=1e-6)
    session.close()
    assert recorder.cuda.left() == {}


def test_a_lane_that_failed_is_not_used_again(recorder: Recorder) -> None:
    session = double.session(recorder, contexts=1)
    session.run({"input": images(2)})
    before = recorder.count("cudaStreamCreateWithFlags")
    recorder.codes["cudaMemcpyAsync"] = [CODES.cudaErrorInvalidValue]
    with refuses(ResourceError, "cuda-call-failed", "copy 1,536 bytes", "cudaErrorInvalidValue"):
        session.run({"input": images(2)})
    assert recorder.cuda.left() == {}
    session.run({"input": images(2)})
    assert recorder.count("cudaStreamCreateWithFlags") == before + 1


def test_no_memory_for_the_first_lane_leaves_nothing(recorder: Recorder) -> None:
    recorder.memory_bytes = 8_000
    session = double.session(recorder)
    for _ in range(2):
        with refuses(ResourceError, "gpu-out-of-memory", "4,096 bytes"):
            session.run({"input": images(2)})
        gc.collect()
        assert recorder.cuda.left() == {}
    recorder.memory_bytes = 1 << 20
    session.run({"input": images(2)})


def test_a_lost_device_breaks_the_session_for_good(recorder: Recorder) -> None:
    session = double.session(recorder)
    bound = session.bind({"input": images(2)})
    session.run({"input": images(2)})
    recorder.codes["cudaStreamSynchronize"] = [CODES.cudaErrorLaunchFailure]
    with refuses(DeviceLostError, "gpu-failed", "restart the process"):
        session.run({"input": images(2)})
    calls = len(recorder.calls)
    for act in (lambda: session.run({"input": images(2)}), lambda: session.bind({"input": images(2)}), bound):
        with refuses(DeviceLostError, "gpu-failed-earlier"):
            act()
    assert len(recorder.calls) == calls  # nothing is asked of it any more
    session.close()


def test_a_run_refused_because_the_device_is_lost_says_so(recorder: Recorder) -> None:
    session = double.session(recorder)
    session.run({"input": images(2)})
    recorder.refuse_runs = True
    recorder.codes["cudaStreamSynchronize"] = [CODES.cudaErrorIllegalAddress]
    with refuses(DeviceLostError, "gpu-failed", "illegal memory access"):
        session.run({"input": images(3)})
    with refuses(DeviceLostError, "gpu-failed-earlier"):
        session.run({"input": images(3)})
