"""The columns of a GPU on a real one: times without the launch, concurrent calls, copies, and names of kernels."""

from __future__ import annotations

import statistics
import time

import pytest

import runtimes
from benchmarks.worker import kernels
from benchmarks.worker.throughput import ConcurrentCalls
from benchmarks.worker.transfers import measure_transfers
from runtimes import Backend
from runtimes.tensors import cuda
from tests.gpu.conftest import Samples, images
from tests.gpu.test_cuda_backends import ROWS

NO_GPU = cuda.missing()

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

RUNS = 200


@pytest.fixture(scope="module", params=ROWS)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


def test_the_devices_time_is_less_than_start_run_and_wait(backend: Backend, samples: Samples) -> None:
    with runtimes.open(samples.of(backend.formats, "fp32").path, backend.name, "cuda") as runtime:
        run, timed = runtime.bind(images(7)), runtime.bind_timed(images(7))
        if timed is None:
            pytest.skip("this library waits for the device in each run")
        taken, found = [], []
        for _ in range(RUNS):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
            found.append(timed())
    device_s = statistics.median(each.device_s for each in found)
    assert 0 < device_s < statistics.median(taken)
    assert all(each.enqueue_s > 0 for each in found)


def test_calls_beside_others_give_their_own_answers(backend: Backend, samples: Samples) -> None:
    feeds = [images(3, seed) for seed in range(5)]
    with runtimes.open(samples.of(backend.formats, "fp32").path, backend.name, "cuda") as runtime:
        calls = ConcurrentCalls(runtime.infer, feeds, [runtime.infer(feed) for feed in feeds], 4)
        for _ in range(5):
            calls.turn(0.2)
    assert all(rate > 0 for rate in calls.series().rates_per_s)


def test_copies_take_longer_for_more_bytes() -> None:
    few, many = measure_transfers(images(1), images(1)), measure_transfers(images(1000), images(1000))
    assert few is not None
    assert many is not None
    for small_s, large_s in ((few.to_device_s, many.to_device_s), (few.to_host_s, many.to_host_s)):
        assert 0 < statistics.median(small_s) < statistics.median(large_s)


@pytest.mark.parametrize(("precision", "arithmetic"), [("fp32", "float32"), ("tf32", "tfloat32"), ("fp16", "float16")])
def test_the_kernels_say_in_what_they_compute(
    backend: Backend, samples: Samples, precision: str, arithmetic: str
) -> None:
    if not kernels.can_record():
        pytest.skip("PyTorch with CUDA records the kernels")
    path = samples.of(backend.formats, precision).path
    with runtimes.open(path, backend.name, "cuda", cuda_graphs=False) as runtime:
        run = runtime.bind(images(7))
        run()
        found = kernels.summarise_kernels(kernels.record_kernels(run))
    assert found is not None
    assert found.count >= 20  # of twenty layers
    if found.arithmetic is None:
        pytest.skip(f"the names do not tell: {found.names[:3]}")
    assert arithmetic in found.arithmetic
    assert precision != "fp32" or "tfloat32" not in found.arithmetic
