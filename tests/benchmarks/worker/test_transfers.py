from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.worker.transfers import COPIES, WARM_UPS, measure_transfers
from runtimes.errors import ResourceError
from runtimes.protocol import Arrays
from runtimes.tensors import cuda
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt.cudadouble import COPY_S, Recorder

INPUTS: Arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.uint8)}
OUTPUTS: Arrays = {"y": np.zeros((2, 10), np.float32)}


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", found.cuda)
    return found


def test_each_direction_is_timed_by_the_device(recorder: Recorder) -> None:
    """On the double's clock a copy takes ``COPY_S``, whatever its size; two inputs are two copies."""
    found = measure_transfers(INPUTS, OUTPUTS)
    assert found is not None
    assert found.to_device_s == pytest.approx([2 * COPY_S] * COPIES)
    assert found.to_host_s == pytest.approx([COPY_S] * COPIES)
    assert recorder.count("cudaMemcpyAsync") == (WARM_UPS + COPIES) * 2 * (2 + 1)  # each is queued once ahead
    assert recorder.faults == []
    assert recorder.cuda.left() == {}


def test_memory_that_cannot_be_had_is_given_back(recorder: Recorder) -> None:
    recorder.memory_bytes = 8
    with refuses(ResourceError, "gpu-out-of-memory"):
        measure_transfers(INPUTS, OUTPUTS)
    assert recorder.cuda.left() == {}


def test_without_a_gpu_there_is_nothing_to_measure() -> None:
    if cuda.missing() is None:
        pytest.skip("there is a GPU here")
    assert measure_transfers(INPUTS, OUTPUTS) is None
