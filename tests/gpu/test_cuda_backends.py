"""What holds for every backend on a real GPU. A new one is tested by existing.

The batches are 1, 2, 3 and 7 throughout: what compiles for each size does so for seconds.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import runtimes
from benchmarks.machine import gpu
from benchmarks.process import worker_process
from benchmarks.process.job import Job
from benchmarks.records.plan import Plan
from runtimes import Backend, Runtime
from runtimes.errors import InputError, RexportError
from runtimes.parity import LogitComparison, compare
from runtimes.protocol import Array
from runtimes.tensors import cuda
from scripts.inventory import absent
from tests.gpu.conftest import Samples, images

NO_GPU = cuda.missing()

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2}
"""Of the largest logit. TensorFloat-32 has 10 bits of mantissa and misses the first by far: fp32 proves to be fp32."""


def _row(backend: Backend) -> pytest.param:  # type: ignore[valid-type]
    reason = NO_GPU or absent(backend, "cuda")
    marks = [pytest.mark.skipif(reason is not None, reason=str(reason))]
    if "engine" in backend.formats:
        marks.append(pytest.mark.tensorrt)
    return pytest.param(backend, id=backend.name, marks=marks)


ONLY_TF32 = ("onnxruntime-tensorrt", "onnxruntime-rtx")
"""The backends that refuse true float32, and that have no clock of the device."""

ON_GPU = [backend for backend in runtimes.available_backends() if "cuda" in backend.devices]
GRAPHS_ONLY = "pytorch-cudagraphs"
"""The backend that refuses to run without CUDA graphs."""

MINUTES = ("inductor-max-autotune", "torch-tensorrt")
"""The backends that compile too long for all of these tests; ``test_pytorch.py`` has those for them."""

ROWS = [_row(backend) for backend in ON_GPU if backend.name not in (*ONLY_TF32, *MINUTES)]


@pytest.fixture(scope="module", params=ROWS)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


@pytest.fixture(scope="module", params=[True, False], ids=["graphs", "no-graphs"])
def runtime(request: pytest.FixtureRequest, backend: Backend, samples: Samples) -> Iterator[Runtime]:
    """The fp32 artifact, opened by each backend with CUDA graphs and without; shared: compiling takes long."""
    if backend.name == GRAPHS_ONLY and not request.param:
        pytest.skip("it runs only with CUDA graphs")
    artifact = samples.of(backend.formats, "fp32")
    with runtimes.open(artifact.path, backend.name, "cuda", cuda_graphs=request.param) as opened:
        yield opened


def logits(runtime: Runtime, feeds: dict[str, Array]) -> Array:
    return runtime.infer(feeds)["logits"]


def assert_near(found: Array, expected: Array, tolerance: float = TOLERANCE["fp32"]) -> None:
    assert found.shape == expected.shape
    assert LogitComparison.compare(found, expected).relative_difference <= tolerance


def test_it_runs_on_the_gpu_and_says_so(runtime: Runtime, backend: Backend) -> None:
    about = runtime.description
    assert (about.backend, about.device, about.skipped_backends) == (backend.name, "cuda", ())
    assert "CPU" not in about.provider


def test_the_vectors_are_answered_in_true_float32(runtime: Runtime) -> None:
    results, _ = compare(runtime, runtime.artifact.vectors())
    result = results["logits"]
    assert result.relative_difference <= TOLERANCE["fp32"]


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("row", [_row(backend) for backend in ON_GPU if backend.name not in MINUTES])
def test_other_precisions_answer_within_their_tolerance(row: Backend, samples: Samples, precision: str) -> None:
    artifact = samples.of(row.formats, precision)
    with runtimes.open(artifact.path, row.name, "cuda") as opened:
        results, _ = compare(opened, artifact.vectors())
        result = results["logits"]
    assert result.relative_difference <= TOLERANCE[precision]


@pytest.mark.parametrize("batch", [0, 1, 2, 7])
def test_any_batch_gives_as_many_rows(runtime: Runtime, batch: int) -> None:
    result = logits(runtime, images(batch))
    assert result.shape == (batch, 10)
    assert np.isfinite(result).all()


def test_an_image_is_answered_alike_in_any_batch(runtime: Runtime) -> None:
    feeds = images(7)
    together = logits(runtime, feeds)
    for number in range(7):
        assert_near(logits(runtime, {"input": feeds["input"][number : number + 1]}), together[number : number + 1])


def test_a_replayed_run_reads_its_own_images(runtime: Runtime) -> None:
    """A recorded run has addresses in it: fed from elsewhere it would answer for the images of the first call."""
    cases = [images(batch, seed) for seed in range(4) for batch in (1, 3, 7)]
    first = [logits(runtime, feeds) for feeds in cases]
    for _ in range(2):
        for feeds, expected in zip(cases, first, strict=True):
            assert_near(logits(runtime, feeds), expected)
    assert LogitComparison.compare(first[0], first[3]).relative_difference > 0.01


def test_results_are_fresh_and_the_callers(runtime: Runtime) -> None:
    first = logits(runtime, images(2))
    before = first.copy()
    logits(runtime, images(2, seed=1))
    np.testing.assert_array_equal(first, before)


def test_many_threads_get_their_own_answers(runtime: Runtime) -> None:
    cases = [images(batch, seed) for seed, batch in enumerate((1, 2, 3, 7, 2, 1, 3, 7))]
    expected = [logits(runtime, feeds) for feeds in cases]
    wrong: list[str] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        barrier.wait()
        for turn in range(50):
            which = (number + turn) % len(cases)
            try:
                assert_near(logits(runtime, cases[which]), expected[which])
            except (AssertionError, RexportError) as error:
                wrong.append(f"thread {number}, turn {turn}: {error}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_bound_is_timed_by_the_devices_own_clock(runtime: Runtime) -> None:
    runtime.bind(images(3))()
    call = runtime.bind_timed(images(3))
    assert call is not None
    call()
    for _ in range(5):
        start = time.perf_counter()
        times = call()
        assert 0 < times.device_s < time.perf_counter() - start
        assert times.enqueue_s > 0


def test_tensors_on_the_gpu_are_taken_where_they_lie(runtime: Runtime) -> None:
    torch = pytest.importorskip("torch", reason="a library with CUDA tensors is needed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    feeds = images(3)
    expected = logits(runtime, feeds)
    tensor = torch.from_numpy(feeds["input"]).cuda()
    assert_near(runtime.infer({"input": tensor})["logits"], expected)
    np.testing.assert_array_equal(tensor.cpu().numpy(), feeds["input"])
    with pytest.raises(InputError):
        runtime.infer({"input": tensor.half()})
    with pytest.raises(InputError):
        runtime.infer({"input": tensor.transpose(2, 3)})


def test_what_a_stream_has_still_to_compute_is_waited_for(runtime: Runtime) -> None:
    torch = pytest.importorskip("torch", reason="a library with CUDA tensors is needed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    feeds = images(2, seed=5)
    expected = logits(runtime, feeds)
    ready = torch.from_numpy(feeds["input"]).cuda()
    stream = torch.cuda.Stream()
    large = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        tensor = torch.full_like(ready, float("nan"))
        for _ in range(20):
            large = large @ large / 4096
        tensor.copy_(ready + 0 * large.flatten()[0].nan_to_num(0, 0, 0))
        found = runtime.infer({"input": tensor})["logits"]
    assert_near(found, expected)


def cuda_torch() -> ModuleType:
    torch: ModuleType = pytest.importorskip("torch", reason="a library with CUDA tensors is needed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    return torch


def test_outputs_stay_on_the_gpu_and_others_read_them_there(runtime: Runtime) -> None:
    torch = cuda_torch()
    feeds = images(3)
    expected = logits(runtime, feeds)
    for feed in (feeds["input"], torch.from_numpy(feeds["input"]).cuda()):
        for _ in range(3):
            output = runtime.infer({"input": feed}, device_outputs=True)["logits"]
            tensor = torch.from_dlpack(output)
            assert (tensor.device.type, tensor.data_ptr()) == ("cuda", output.pointer)
            assert_near(tensor.cpu().numpy(), expected)
            assert_near(np.asarray(output), expected)


def test_outputs_are_not_overwritten_while_others_read_them(runtime: Runtime) -> None:
    """Every tensor is dropped while work that reads it is still queued, and the next run follows at once."""
    torch = cuda_torch()
    large = torch.randn(4096, 4096, device="cuda")
    for stream in (None, torch.cuda.Stream(), torch.cuda.Stream()):
        sums, expected = [], []
        with torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext():
            for seed in range(20):
                feeds = images(2, seed)
                expected.append(logits(runtime, feeds))
                tensor = torch.from_dlpack(runtime.infer(feeds, device_outputs=True)["logits"])
                delay = (large @ large).flatten()[0].nan_to_num(0, 0, 0)
                sums.append(tensor + 0 * delay)
                del tensor
            torch.cuda.synchronize()
        for found, answer in zip(sums, expected, strict=True):
            assert_near(found.cpu().numpy(), answer)


def test_a_run_is_ordered_on_the_callers_stream(runtime: Runtime) -> None:
    torch = cuda_torch()
    cases = [images(2, seed) for seed in range(10)]
    expected = [logits(runtime, feeds) for feeds in cases]
    ready = [torch.from_numpy(feeds["input"]).cuda() for feeds in cases]
    large, stream = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()
    torch.cuda.synchronize()
    found = []
    with torch.cuda.stream(stream):
        tensor = torch.full_like(ready[0], float("nan"))
        for values in ready:
            for _ in range(5):
                large = large @ large / 4096
            tensor.copy_(values + 0 * large.flatten()[0].nan_to_num(0, 0, 0))
            outputs = runtime.infer({"input": tensor}, device_outputs=True, stream=stream)
            found.append(torch.from_dlpack(outputs["logits"]).clone())
    stream.synchronize()
    for answer, wanted in zip(found, expected, strict=True):
        assert_near(answer.cpu().numpy(), wanted)


def test_futures_get_their_own_answers(runtime: Runtime) -> None:
    cases = [images(1 + seed % 3, seed) for seed in range(24)]
    expected = [logits(runtime, feeds) for feeds in cases]
    futures = [runtime.infer_async(feeds, device_outputs=seed % 2 == 0) for seed, feeds in enumerate(cases)]
    for future, wanted in zip(futures, expected, strict=True):
        assert_near(np.asarray(future.result(60)["logits"]), wanted)


def test_page_locked_inputs_are_read(runtime: Runtime) -> None:
    arrays = runtime.empty_inputs(3)
    arrays["input"][:] = images(3)["input"]
    assert_near(logits(runtime, arrays), logits(runtime, images(3)))


def test_several_models_are_chained_on_the_gpu(backend: Backend, samples: Samples) -> None:
    artifact = samples.of(backend.formats, "fp32")
    with (
        runtimes.open(artifact.path, backend.name, "cuda") as first,
        runtimes.open(artifact.path, backend.name, "cuda") as second,
    ):
        torch, feeds = cuda_torch(), images(2)
        expected = logits(second, feeds)
        for _ in range(4):
            stream = torch.cuda.Stream()
            output = first.infer(feeds, device_outputs=True, stream=stream)["logits"]
            with torch.cuda.stream(stream):
                again = torch.from_numpy(feeds["input"]).cuda() + 0 * torch.from_dlpack(output).sum()
                assert_near(logits(second, {"input": again}), expected)


def test_an_address_that_is_filled_anew_is_read_anew(runtime: Runtime) -> None:
    torch = cuda_torch()
    tensor = torch.empty((3, 3, 32, 32), device="cuda")
    for seed in range(5):
        feeds = images(3, seed)
        tensor.copy_(torch.from_numpy(feeds["input"]))
        assert_near(runtime.infer({"input": tensor})["logits"], logits(runtime, feeds))


def test_a_recording_that_another_library_ends_costs_no_answer(backend: Backend, samples: Samples) -> None:
    """A thread that knows no lock waits for the whole device again and again, which ends the recordings of others."""
    driver = pytest.importorskip("cuda.bindings.runtime")
    done = threading.Event()

    def wait_for_the_device() -> None:
        with cuda.current(0):
            while not done.is_set():
                driver.cudaDeviceSynchronize()
                driver.cudaGetLastError()

    with runtimes.open(samples.of(backend.formats, "fp32").path, backend.name, "cuda") as opened:
        disturber = threading.Thread(target=wait_for_the_device)
        disturber.start()
        try:
            found = [[logits(opened, images(batch)) for batch in (1, 2, 3)] for _ in range(4)]
            opened.bind(images(2))()
        finally:
            done.set()
            disturber.join()
    for later in found[1:]:
        for before, after in zip(found[0], later, strict=True):
            assert_near(after, before)


def test_backends_record_beside_each_other(samples: Samples) -> None:
    """Each batch size is recorded in its second call, at a time when other libraries allocate, record and wait."""
    rows = [row for row in ON_GPU if row.name not in (*ONLY_TF32, *MINUTES) and absent(row, "cuda") is None]
    opened = [runtimes.open(samples.of(row.formats, "fp32").path, row.name, "cuda") for row in rows]
    wrong: list[str] = []
    barrier = threading.Barrier(len(opened))

    def ask(runtime: Runtime) -> None:
        feeds = [images(batch) for batch in range(1, 7)]
        barrier.wait()
        for turn in range(4):
            for each in feeds:
                try:
                    assert np.isfinite(logits(runtime, each)).all()
                except (AssertionError, RexportError) as error:
                    wrong.append(f"{runtime.description.backend}, turn {turn}: {error}")

    threads = [threading.Thread(target=ask, args=(runtime,), daemon=True) for runtime in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    unrecorded = [runtime.description.unrecorded_batches for runtime in opened]
    for runtime in opened:
        runtime.close()
    assert wrong == []
    assert unrecorded == [()] * len(opened)


def test_with_graphs_and_without_the_answers_are_the_same(backend: Backend, samples: Samples) -> None:
    if backend.name == GRAPHS_ONLY:
        pytest.skip("it runs only with CUDA graphs")
    artifact, feeds = samples.of(backend.formats, "fp32"), images(3)
    answers = []
    for graphs in (True, False):
        with runtimes.open(artifact.path, backend.name, "cuda", cuda_graphs=graphs) as opened:
            answers.append([logits(opened, feeds) for _ in range(3)][-1])
    assert_near(answers[0], answers[1])  # cuDNN finds its algorithms by timing them, for each session anew


def test_what_is_closed_gives_its_memory_back(backend: Backend, samples: Samples) -> None:
    meter, artifact = gpu.gauge("cuda"), samples.of(backend.formats, "fp32")
    if meter is None:
        pytest.skip(f"the GPU's memory cannot be read: {gpu.missing()}")

    def opened_and_closed() -> int:
        with runtimes.open(artifact.path, backend.name, "cuda") as opened:
            logits(opened, images(7))
        processes = meter.processes() or {}
        if processes and processes.get(os.getpid()) is None:
            pytest.skip("the memory of this process is not reported, and other processes use the GPU")
        return processes.get(os.getpid()) or meter.used_bytes() or 0  # some containers hide all processes

    opened_and_closed()
    after_two = opened_and_closed()
    for _ in range(4):
        last = opened_and_closed()
    assert last - after_two < 256 << 20


def test_auto_takes_a_backend_of_the_gpu(samples: Samples) -> None:
    with runtimes.open(samples.onnx["fp32"].path, "auto", "cuda") as opened:
        able = [row for row in runtimes.available_backends() if "cuda" in row.devices and absent(row, "cuda") is None]
        if any("onnx" in row.formats for row in able):
            assert opened.description.device == "cuda"
        else:
            assert opened.description.skipped_backends


def test_the_driver_tells_of_the_gpu_that_cuda_uses() -> None:
    if gpu.missing() is not None:
        pytest.skip(str(gpu.missing()))
    meter = gpu.gauge("cuda")
    assert meter is not None
    state = meter.state()
    assert state.name == cuda.device().name
    assert (state.memory_used_bytes or 0) > 0
    assert any(one.uuid == state.uuid for one in gpu.gpus())


def test_a_job_of_the_benchmark_has_the_devices_figures(backend: Backend, samples: Samples, tmp_path: Path) -> None:
    job = Job(
        artifact=str(samples.of(backend.formats, "fp32").path),
        runtime=backend.name,
        device="cuda",
        threads=1,
        batch=2,
        data=None,
        limit=None,
        evaluate=True,
        seed=0,
        plan=Plan(duration_s=0.1),
    )
    outcome, _ = worker_process.run(job, tmp_path, lambda _: None, 300.0)
    assert (outcome.status, outcome.reason) == ("ok", None)
    sitting = outcome.sitting
    assert sitting is not None
    assert sitting.device is not None
    medians = [np.median(one.samples_s) for one in (sitting.device, sitting.compute, sitting.latency)]
    assert 0 < medians[0] <= medians[1] * 1.1
    assert medians[0] <= medians[2] * 1.1
    if gpu.missing() is None:
        assert outcome.gpu_after is not None
        assert (outcome.device_peak_bytes or 0) > 0


def test_the_command_measures_on_the_gpu(samples: Samples, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cli", "run", str(samples.onnx["fp32"].path), "--device", "cuda"]
    command += ["--backend", "pytorch", "--duration", "0.05", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "device" in done.stdout.split()
