"""GPUs by their numbers, on a real machine: one number for all libraries, and no context where nobody asked for one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import runtimes
from benchmarks.machine import gpu
from runtimes import Backend
from runtimes.errors import BackendUnavailableError
from runtimes.tensors import cuda
from tests.gpu.conftest import Samples, images
from tests.gpu.test_cuda_backends import NO_GPU, ROWS, backend
from tests.refusals import refuses

__all__ = ["backend"]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

COUNT = 0 if NO_GPU is not None else cuda.count()
SEVERAL = pytest.mark.skipif(COUNT < 2, reason=f"needs two GPUs, and there are {COUNT}")
assert ROWS


@pytest.mark.parametrize("index", range(max(1, COUNT)))
def test_nvml_finds_the_gpu_that_cuda_means(index: int) -> None:
    there, meter = cuda.device(index), gpu.gauge(f"cuda:{index}")
    if meter is None:
        pytest.skip(f"NVML does not tell: {gpu.missing()}")
    assert meter.state().uuid.endswith(there.uuid)


def test_a_number_that_is_not_there(backend: Backend, samples: Samples) -> None:
    path = samples.of(backend.formats, "fp32").path
    with refuses(BackendUnavailableError, "gpu-number-missing", f"cuda:{COUNT}", "cuda:0"):
        runtimes.open(path, backend.name, f"cuda:{COUNT}")


@SEVERAL
def test_the_last_gpu_answers_like_the_first(backend: Backend, samples: Samples) -> None:
    import torch

    path, found = samples.of(backend.formats, "fp32").path, []
    for index in (0, COUNT - 1):
        before = torch.cuda.current_device()
        with runtimes.open(path, backend.name, f"cuda:{index}") as runtime:
            found.append(runtime.infer(images(3))["logits"])
            assert runtime.description.gpu_uuid == str(torch.cuda.get_device_properties(index).uuid)
        assert torch.cuda.current_device() == before
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-3)


USES_THE_LAST = """
import sys
import numpy as np
import pynvml
import runtimes
with runtimes.open(sys.argv[1], sys.argv[2], f"cuda:{sys.argv[3]}") as runtime:
    for _ in range(3):
        runtime.infer({"input": np.zeros((2, 3, 32, 32), np.float32)})
    from benchmarks.machine import gpu
    import os
    for index in range(int(sys.argv[3]) + 1):
        print(os.getpid() in (gpu.gauge(f"cuda:{index}").processes() or {}))
"""


@SEVERAL
def test_other_gpus_get_no_context(backend: Backend, samples: Samples) -> None:
    arguments = (str(samples.of(backend.formats, "fp32").path), backend.name, str(COUNT - 1))
    done = subprocess.run([sys.executable, "-c", USES_THE_LAST, *arguments], capture_output=True, text=True, check=True)
    *others, last = done.stdout.split()
    if last == "False":
        pytest.skip("the driver lists no processes here")
    assert set(others) == {"False"}
