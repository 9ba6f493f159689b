"""fp8 and the search for a deviation, on a real GPU with the libraries' own engines."""

from __future__ import annotations

from pathlib import Path

import pytest

import runtimes
from exporter.explain.explanation import ExplanationRequest, explain
from exporter.export_request import ExportRequest
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, tensorrt_engine
from exporter.targets.tensorrt_engine import EngineRequest
from runtimes import Artifact
from runtimes.backends.tensorrt.flavors import FLAVORS, Flavor
from runtimes.errors import CompatibilityError
from runtimes.tensors import cuda
from tests.exporter.precision.test_float8 import WIDE
from tests.gpu.conftest import SILENT, Samples
from tests.refusals import refuses

NO_GPU = cuda.missing()

pytestmark = [pytest.mark.tensorrt, pytest.mark.skipif(NO_GPU is not None, reason=f"no GPU: {NO_GPU}")]

each = pytest.mark.parametrize(
    "flavor",
    [
        pytest.param(
            flavor, id=flavor.name,
            marks=pytest.mark.skipif(flavor.missing() is not None, reason=str(flavor.missing())),
        )
        for flavor in FLAVORS.values()
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def float8(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    request = ExportRequest(WIDE, f"{tmp_path_factory.mktemp('float8')}/wide.onnx")
    return onnx_file.export(request, SILENT, precision_spec=PrecisionSpec("fp8", calibration_images=8, gate_images=8))


def engine_of(source: Artifact, flavor: Flavor, folder: Path) -> Artifact:
    """An engine for this GPU. A GPU that the library does not know is a reason to skip."""
    order = EngineRequest(flavor.name, out=f"{folder}/", force=True)
    try:
        return tensorrt_engine.build_artifact(source.path, order, SILENT)
    except CompatibilityError as error:
        pytest.skip(str(error))


@each
def test_an_fp8_engine_passes_parity_and_the_gate(float8: Artifact, flavor: Flavor, tmp_path: Path) -> None:
    if tuple(map(int, cuda.device().compute_capability.split("."))) < tensorrt_engine.FLOAT8_CAPABILITY:
        with refuses(CompatibilityError, "gpu-without-float8"):
            tensorrt_engine.build_artifact(float8.path, EngineRequest("tensorrt", out=f"{tmp_path}/"), SILENT)
        return
    manifest = engine_of(float8, flavor, tmp_path).manifest
    assert manifest is not None
    if manifest.parity is None:
        pytest.skip(f"{flavor.title} does not run on this GPU")
    assert manifest.gate is not None
    kinds = {layer.precision for layer in runtimes.profile(tmp_path / "wide.engine") if layer.weighted}
    assert "float8" in kinds


@each
def test_an_engine_is_searched_for_a_deviation(samples: Samples, flavor: Flavor) -> None:
    """In float16, where each block is within the limit."""
    source = samples.onnx["fp16"]
    found = explain(ExplanationRequest(source.path, flavor.backend, "cuda", find_deviation=True), SILENT)
    if found.execution is None:
        pytest.skip(str(found.no_execution))
    assert found.deviation is not None
    assert (found.deviation.first, found.deviation.bisected, found.deviation.engines) == (None, False, 2)
    assert any(step.tactic for stage in found.execution.stages for block in stage.blocks for step in block.steps)
