"""What the releases of ONNX Runtime do, by their numbers."""

from __future__ import annotations

import onnxruntime
import pytest

from runtimes.backends.onnxruntime.providers import CudaProvider, TensorrtProvider
from runtimes.backends.onnxruntime.releases import notes, queues_runs

RECORDED, PLAIN, TENSORRT = CudaProvider(enable_cuda_graph=True), CudaProvider(), TensorrtProvider()


@pytest.mark.parametrize(
    ("provider", "version", "queues"),
    [
        (RECORDED, "1.24.1", False),
        (RECORDED, "1.26.0", False),
        (RECORDED, "1.27.0", True),
        (RECORDED, "1.31.0.dev20261001", True),
        (RECORDED, "2.0", True),
        (PLAIN, "1.24.1", True),
        (TENSORRT, "1.31.1", False),
    ],
)
def test_runs_are_queued_from_a_release_on(
    provider: CudaProvider | TensorrtProvider, version: str, queues: bool
) -> None:
    assert queues_runs(provider, version) == queues


@pytest.mark.parametrize(
    ("provider", "version", "kinds", "codes"),
    [
        (RECORDED, "1.31.1", ("float32",), []),
        (RECORDED, "1.26.0", ("float32",), ["device-time-includes-host"]),
        (RECORDED, "1.31.1", ("float32", "int8"), ["int8-computed-in-float"]),
        (TENSORRT, "1.26.0", ("float16",), ["device-time-includes-host"]),
        (TENSORRT, "1.31.1", ("float32",), ["device-time-includes-host"]),
        (TENSORRT, "1.31.1", ("float16",), ["device-time-includes-host", "provider-weakly-typed"]),
        (TENSORRT, "1.31.1", ("int8",), ["device-time-includes-host", "provider-weakly-typed"]),
    ],
)
def test_the_reader_is_told(
    provider: CudaProvider | TensorrtProvider, version: str, kinds: tuple[str, ...], codes: list[str]
) -> None:
    assert [note.code for note in notes(provider, version, kinds)] == codes


def test_the_installed_release_queues_runs() -> None:
    assert queues_runs(RECORDED, onnxruntime.__version__)
