"""Memory, streams, CUDA graphs and the sessions of engines on a real GPU, without TensorRT.

A stand-in for an execution context launches a kernel of PyTorch on the stream that it is given: it doubles the first
ten values of each image. What is tested is what surrounds a context: lanes, pools, padding, pieces and recordings.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.protocol import Description
from runtimes.tensors import cuda
from runtimes.tensors.cuda_objects import CudaGraph, DeviceBuffer, Event, PinnedBuffer, Stream
from runtimes.tensors.spec import Array, TensorSpec
from tests.gpu.conftest import images

torch = pytest.importorskip("torch")

NO_GPU = cuda.missing() or (None if torch.cuda.is_available() else "PyTorch finds no GPU")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

CLASSES = 10
INPUT = TensorSpec("input", "float32", ("batch", 3, 32, 32))
LOGITS = TensorSpec("logits", "float32", ("batch", CLASSES))


def view(pointer: int, shape: tuple[int, ...]) -> Any:
    """Device memory at an address as a tensor of PyTorch."""
    interface = {"shape": shape, "typestr": "<f4", "data": (pointer, False), "version": 3}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device="cuda")


@dataclass
class Doubling:
    """Stands in for an execution context of TensorRT, with the methods that a session calls."""

    nvtx_verbosity: object = None
    active_optimization_profile: int = 0
    images: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    views: tuple[Any, Any] | None = None

    def update_device_memory_size_for_shapes(self) -> int:
        return 1 << 20

    def set_device_memory(self, pointer: int, size_bytes: int) -> None:
        assert pointer % 256 == 0
        assert size_bytes >= 1 << 20

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.images = shape[0]
        return name == INPUT.name

    def get_tensor_shape(self, name: str) -> tuple[int, int]:
        assert name == LOGITS.name
        return (self.images, CLASSES)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self.addresses[name], self.views = pointer, None
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if self.views is None:
            pixels = view(self.addresses[INPUT.name], (self.images, 3, 32, 32)).view(self.images, -1)
            self.views = pixels[:, :CLASSES], view(self.addresses[LOGITS.name], (self.images, CLASSES))
        source, target = self.views
        with torch.cuda.stream(torch.cuda.ExternalStream(handle)):
            torch.mul(source, 2, out=target)
        return True


class Engine:
    """Stands in for an engine."""

    device_memory_size_v2 = 1 << 20

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        assert profile == 0
        return self.device_memory_size_v2

    def create_execution_context(self, strategy: object) -> Doubling:
        del strategy
        return Doubling()


LIBRARY = SimpleNamespace(
    __name__="stand-in",
    ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=1),
    ProfilingVerbosity=SimpleNamespace(NONE=0),
)


@pytest.fixture(params=[True, False], ids=["graphs", "no-graphs"])
def session(request: pytest.FixtureRequest) -> Iterator[EngineSession]:
    opened = EngineSession(
        cast("Any", LIBRARY),
        Engine(),
        Description("stand-in", "1", "cuda", "stand-in", "float32", 1),
        (Profile(1, 4, 8),),
        request.param,
        (INPUT,),
        (LOGITS,),
    )
    yield opened
    opened.close()


def doubled(pixels: Array) -> Array:
    return 2 * pixels.reshape(len(pixels), -1)[:, :CLASSES]


def test_a_recorded_copy_reads_the_memory_of_the_moment() -> None:
    size = 1 << 20
    stream, source, target, device = Stream(), PinnedBuffer(size), PinnedBuffer(size), DeviceBuffer(size)
    there, back = source.array("uint8", (size,)), target.array("uint8", (size,))

    def work() -> None:
        stream.to_device(device.pointer, source.pointer, size)
        stream.to_host(target.pointer, device.pointer, size)

    work()
    stream.synchronize()
    graph = CudaGraph.capture(stream, work)
    for value in (1, 2, 3):
        there[:], back[:] = value, 0
        graph.launch(stream)
        stream.synchronize()
        assert (back == value).all()
    before, after = Event(), Event()
    before.record(stream)
    graph.launch(stream)
    after.record(stream)
    stream.synchronize()
    assert 0 < after.elapsed_s(before) < 0.1


def test_batches_of_all_sizes_are_right_again_and_again(session: EngineSession) -> None:
    for turn in range(4):
        for batch in (1, 3, 8, 13):
            feeds = images(batch, turn)
            np.testing.assert_array_equal(session.run(feeds)["logits"], doubled(feeds["input"]))
    assert session.description.unrecorded_batches == ()


def test_threads_get_the_answers_to_their_own_images(session: EngineSession) -> None:
    wrong: list[tuple[int, int]] = []

    def ask(number: int) -> None:
        for turn in range(60):
            feeds = images(1 + (number + turn) % 9, 100 * number + turn)
            if not np.array_equal(session.run(feeds)["logits"], doubled(feeds["input"])):
                wrong.append((number, turn))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_tensors_on_the_gpu_are_read_where_they_lie(session: EngineSession) -> None:
    from runtimes.tensors.validation import check_tensors

    for turn in range(3):
        pixels = images(5, turn)["input"]
        tensors = check_tensors((INPUT,), {"input": torch.from_numpy(pixels).cuda()})
        np.testing.assert_array_equal(session.run_tensors(tensors)["logits"], doubled(pixels))


def test_bound_batches_share_their_memory_and_are_timed(session: EngineSession) -> None:
    calls = [session.bind_timed(images(batch, batch)) for batch in (1, 3, 8, 13)]
    free_before, _ = torch.cuda.mem_get_info()
    more = [session.bind_timed(images(8, 20 + number)) for number in range(8)]
    free_after, _ = torch.cuda.mem_get_info()
    for call in (*calls, *more):
        call()
        assert call().device_s > 0
    assert free_before - free_after < 8 << 20  # eight more inputs of 96 KiB, and no scratch of their own
