"""What holds for PyTorch on a GPU: its settings, its memory, its layout, and the backends that compile for minutes."""

from __future__ import annotations

from typing import Any

import pytest

import runtimes
from runtimes.backends.registry import find_backend
from runtimes.parity import compare
from runtimes.tensors import cuda
from scripts.inventory import absent
from tests.gpu.conftest import Samples, images

NO_GPU = cuda.missing() or absent(find_backend("pytorch"), "cuda")

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU for PyTorch: {NO_GPU}")]

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 1e-2}
"""Of the largest logit."""


@pytest.mark.parametrize(("precision", "notes"), [("fp32", ["layout-measured"]), ("fp16", [])])
def test_the_layout_is_measured_for_float32(samples: Samples, precision: str, notes: list[str]) -> None:
    with runtimes.open(samples.programs[precision].path, "pytorch", "cuda") as runtime:
        about = runtime.description
    assert [note.code for note in about.notes] == notes
    assert about.provider in (("eager", "eager channels-last") if notes else ("eager channels-last",))


@pytest.mark.parametrize("name", ["pytorch", "pytorch-cudagraphs", "inductor"])
def test_the_apps_settings_are_as_before(samples: Samples, name: str) -> None:
    import torch

    backends: Any = torch.backends
    before = torch.get_float32_matmul_precision(), backends.cudnn.benchmark, backends.cuda.matmul.allow_tf32
    for precision in ("tf32", "fp32"):
        with runtimes.open(samples.programs[precision].path, name, "cuda") as runtime:
            runtime.infer(images(2))
            runtime.bind(images(2))()
    after = torch.get_float32_matmul_precision(), backends.cudnn.benchmark, backends.cuda.matmul.allow_tf32
    assert after == before


def test_bound_recordings_share_their_memory(samples: Samples) -> None:
    """Sixteen take little more than one: their inputs and outputs, and not the results of all layers."""
    import torch

    with runtimes.open(samples.programs["fp32"].path, "pytorch-cudagraphs", "cuda") as runtime:
        bound = [runtime.bind(images(64))]
        one = torch.cuda.memory_reserved()
        bound += [runtime.bind(images(64, seed)) for seed in range(1, 16)]
        sixteen = torch.cuda.memory_reserved()
        for run_once in bound:
            run_once()
    assert sixteen - one < max(64 << 20, one // 2)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("name", ["inductor-max-autotune", "torch-tensorrt"])
def test_what_compiles_for_minutes_answers_the_vectors(samples: Samples, name: str, precision: str) -> None:
    if (reason := absent(find_backend(name), "cuda")) is not None:
        pytest.skip(str(reason))
    artifact = samples.programs[precision]
    vectors = artifact.vectors()
    with runtimes.open(artifact.path, name, "cuda") as runtime:
        results, _ = compare(runtime, vectors, largest_batch=1)
        assert runtime.description.unrecorded_batches == ()
    assert results["logits"].relative_difference <= TOLERANCE[precision]
