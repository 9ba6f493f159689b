"""Each option that came after He et al. 2015 on its way through the exporter, in small networks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx as onnx_library
import pytest

import runtimes
from benchmarks.roofline.graph_cost import cost
from exporter.explain.explanation import ExplanationRequest, explain
from exporter.models.layers import foldable_norms, layers, multiply_adds
from exporter.models.variants import FAMILIES, Variant
from exporter.network import reference_logits
from exporter.precision.spec import PrecisionSpec
from exporter.targets import rebuild
from runtimes import Artifact, parity
from runtimes.parity import LogitComparison
from scripts import family_matrix
from tests.exporter.small import LATER, SILENT, export


@pytest.fixture(scope="module", params=LATER)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(LATER[request.param], tmp_path_factory.mktemp(request.param))


def row_of(artifact: Artifact) -> Variant:
    return LATER[artifact.path.stem]


def test_every_option_is_exported(exported: Artifact) -> None:
    row = row_of(exported)
    nodes = Counter(node.op_type for node in onnx_library.load(exported.path).graph.node)
    norms = {layer.norm for layer in layers(row) if layer.norm}
    stay = norms - foldable_norms(row).keys() if row.norm == "batch" else set()
    assert nodes["BatchNormalization"] == len(stay)
    assert nodes["Conv"] == sum(layer.name != "fc" for layer in layers(row))
    assert cost(exported.path, 2).multiply_adds == 2 * multiply_adds(row)
    assert exported.manifest is not None
    assert exported.manifest.parity is not None
    assert exported.manifest.parity.relative_difference < 1e-5
    with runtimes.open(exported.path, "openvino") as runtime:
        parity.check(runtime, exported.vectors(), 5e-5, "PyTorch", "noise")


def test_fp32_is_rebuilt_from_the_file(exported: Artifact) -> None:
    vectors = exported.vectors()
    logits = reference_logits(rebuild.network_of(exported, SILENT).model, vectors.inputs)
    assert LogitComparison.compare(logits, vectors.logits).relative_difference < 1e-5


@pytest.mark.parametrize(
    ("name", "kind"),
    [("small-rs", "float"), ("small-eca", "float"), ("small-preactivation", "float"), ("small-group-norm", "weighted")],
)
def test_what_int8_leaves_in_floats_is_explained(name: str, kind: str, tmp_path: Path) -> None:
    """Attention and norms that read a sum run in floats; behind a group norm, so do the convolutions."""
    int8 = PrecisionSpec("int8", calibration_images=8, gate_images=8)
    artifact = export(LATER[name], tmp_path, precision_spec=int8)
    found = explain(ExplanationRequest(artifact.path, "onnxruntime"), SILENT)
    assert found.execution is not None
    assert found.errors is not None, found.no_errors
    weighted = sum(found.execution.precisions.values())
    assert (found.execution.kept > weighted / 2) == (kind == "float")
    assert kind in {remark.kind for stage in found.execution.stages for remark in stage.remarks}


def test_the_input_of_a_blur_has_one_scale(tmp_path: Path) -> None:
    """ONNX Runtime refuses a scale for each channel, and the export runs the file there."""
    int8 = PrecisionSpec("int8", calibration_images=4, gate_images=4)
    manifest = export(LATER["small-blur"], tmp_path, precision_spec=int8).manifest
    assert manifest is not None
    assert manifest.parity is not None
    assert manifest.parity.runtime.startswith("onnxruntime")


def test_a_group_norm_is_compared_with_that_of_another_opset(tmp_path: Path) -> None:
    """bf16 needs an opset in which group norm is an operator, and fp32 has an opset in which it is several."""
    artifact = export(LATER["small-group-norm"], tmp_path, precision_spec=PrecisionSpec("bf16", gate_images=8))
    found = explain(ExplanationRequest(artifact.path, "openvino"), SILENT)
    assert found.errors is not None, found.no_errors
    assert found.errors.written is not None
    assert 0 < found.errors.written < 0.05


def test_every_family_has_a_network_in_the_matrix() -> None:
    rows = [family_matrix.representative(family) for family in FAMILIES]
    assert [row.name for row in rows] == [variants[0].name for variants in FAMILIES.values()]
    assert {row.depths for row in rows} == {(1, 1)}
    found = family_matrix.Case("ResNet", "resnet18", "fp32", ("1e-07", "2e-07"), "0 of 6", "1e-07", "1e-07", "built")
    (table,) = family_matrix.document([found]).blocks
    assert "resnet18" in str(table)
