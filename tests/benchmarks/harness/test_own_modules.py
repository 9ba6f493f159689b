"""Files of modules that are no variants, whose other precisions only the user can export."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.harness import subjects
from benchmarks.records.request import BenchmarkRequest, Refusal, RunListener
from exporter.export_request import ExportRequest
from exporter.targets import onnx_file
from exporter.weights.modules import NamedModule, from_module
from exporter.weights.recognition import VariantOptions
from tests.exporter.small import SILENT


def test_a_module_names_the_command_for_each_missing_file(tmp_path: Path) -> None:
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    named = NamedModule(torch.nn.Sequential(*layers).eval(), "nets:build")
    found = from_module(named, VariantOptions(size=(8, 8), in_channels=3), 0, lambda _: None)
    request = ExportRequest(found.network, f"{tmp_path}/", weights=found.weights, name="net")
    path = onnx_file.export(request, SILENT).path
    wanted = BenchmarkRequest(subjects=(str(path),), precisions=("fp32", "bf16", "int8"))
    (subject,) = subjects.subjects(wanted, tmp_path, RunListener(lambda *_: None, lambda _: None))
    said = {each.precision: str(each.made.reason) for each in subject.typed if isinstance(each.made, Refusal)}
    command = "rexport onnx nets:build --in-channels 3 --size 8x8 --precision"
    assert set(said) == {"bf16", "int8"}
    assert f"{command} bf16 -o {tmp_path}/net.bf16.onnx" in said["bf16"]
    assert f"{command} int8 --calibration DIR -o {tmp_path}/net.int8.onnx" in said["int8"]
