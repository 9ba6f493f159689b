"""A provider that is slower than its library is named, and no other row."""

from __future__ import annotations

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.provider_speed import LIBRARIES, list_slower_providers
from benchmarks.report.run import remarks
from runtimes.backends.onnxruntime.rtx_backend import BACKEND as RTX
from runtimes.backends.onnxruntime.tensorrt_backend import BACKEND as PROVIDER
from runtimes.backends.tensorrt.flavors import FLAVORS
from tests.benchmarks.results import ON_A_GPU, change, estimate


def row(backend: str, run_s: float, **changes: object) -> Figures:
    return change(ON_A_GPU, backend=backend, compute_p50=estimate(run_s), precision="fp16", **changes)


@pytest.mark.parametrize("provider", LIBRARIES)
def test_a_provider_is_compared_with_its_library(provider: str) -> None:
    library = row(LIBRARIES[provider], 0.001)
    found = [list_slower_providers([library, row(provider, run_s)]) for run_s in (0.0013, 0.0031)]
    ((figures, reason),) = [each for group in found for each in group]
    assert (figures.result.identity.backend, reason.code) == (provider, "provider-slower-than-library")
    assert "3.1 times" in reason.sentence
    assert "3.10 ms against 1.00 ms" in reason.sentence


@pytest.mark.parametrize(
    "change_", [{"batch": 8}, {"precision": "fp32"}, {"asked_device": "cuda:1"}, {"cuda_graphs": False}]
)
def test_rows_of_another_configuration_are_not_compared(change_: dict[str, object]) -> None:
    other = change(row("tensorrt", 0.001), **change_)
    assert list(list_slower_providers([other, row("onnxruntime-tensorrt", 0.01)])) == []


def test_the_report_says_it() -> None:
    said = list(remarks([row("tensorrt", 0.001), row("onnxruntime-tensorrt", 0.002)]))
    assert "provider-slower-than-library" in [remark.code for remark in said]


def test_the_names_are_those_of_backends() -> None:
    assert set(LIBRARIES) == {PROVIDER.name, RTX.name}
    assert set(LIBRARIES.values()) == {flavor.backend for flavor in FLAVORS.values()}
