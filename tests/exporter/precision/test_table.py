from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import runtimes
from exporter.export_request import ExportRequest
from exporter.precision.spec import PrecisionSpec
from exporter.precision.table import PRECISIONS
from exporter.targets import onnx_file
from tests.exporter.small import BASIC, SILENT, reason_codes, recording


def test_tf32_is_fp32s_graph_under_another_name(tmp_path: Path) -> None:
    notices, listener = recording()
    plain = onnx_file.export(ExportRequest(BASIC, f"{tmp_path}/plain.onnx"), SILENT)
    rounded = onnx_file.export(
        ExportRequest(BASIC, f"{tmp_path}/rounded.onnx"), listener, precision_spec=PrecisionSpec("tf32")
    )
    graphs = [onnx.load(artifact.path).graph.SerializeToString() for artifact in (plain, rounded)]
    assert graphs[0] == graphs[1]
    assert (plain.allows_tf32, rounded.allows_tf32) == (False, True)
    assert "precision-needs-device" in reason_codes(notices)
    manifest = rounded.manifest
    assert manifest is not None
    assert manifest.parity is not None
    assert manifest.gate is not None
    assert (manifest.precision, manifest.parity.tolerance) == ("tf32", PRECISIONS["tf32"].tolerance)
    with runtimes.open(rounded.path, "onnxruntime") as runtime:
        assert runtime.description.precision == "float32"


@pytest.mark.parametrize("name", PRECISIONS)
def test_two_precisions_are_none_of_a_processor(name: str) -> None:
    assert set(PRECISIONS[name].devices) <= {"cpu", "cuda"}
    assert ("cpu" in PRECISIONS[name].devices) == (name not in ("tf32", "fp8"))


def test_all_but_the_calibrated_precisions_have_a_float() -> None:
    assert [row.name for row in PRECISIONS.values() if row.element is None] == [
        row.name for row in PRECISIONS.values() if row.calibrated
    ]
