"""Exports of modules that are no variants, through the same gates as those of variants."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx as onnx_library
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from exporter.cli import main
from exporter.explain.explanation import ExplanationRequest, explain
from exporter.export_request import ExportRequest
from exporter.inspect import manifest_view
from exporter.models.tracing import trace
from exporter.precision.cast import cast
from exporter.precision.fold import narrow, traced_norms
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, rebuild, tensorrt_engine, torch_program
from exporter.weights.modules import NamedModule, from_module
from exporter.weights.recognition import VariantOptions
from runtimes import Artifact
from runtimes.errors import CheckFailedError, CompatibilityError
from tests.exporter.command_line import errors, here
from tests.exporter.own_networks import (
    CLASSES,
    SHAPE,
    DenseNet,
    FunctionalResNet,
    MobileNet,
    Transformer,
    Vgg,
    filled,
)
from tests.exporter.small import SILENT, content
from tests.refusals import error_codes, refuses

NAME = "nets:build"


def request(network: type[nn.Module], folder: Path) -> ExportRequest:
    """A request whose weights count as untrained, so that int8 is calibrated on noise."""
    named = NamedModule(filled(network), NAME)
    options = VariantOptions(size=SHAPE[2:], in_channels=SHAPE[1])
    found = from_module(named, options, 0, lambda _: None)
    weights = replace(found.weights, record=replace(found.weights.record, trained=False))
    return ExportRequest(found.network, f"{folder}/", weights=weights, name=network.__name__)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder with an fp32 file of each format and an int8 file of the same module, by format or precision."""
    folder = tmp_path_factory.mktemp("exported")
    wanted = request(MobileNet, folder)
    int8 = replace(wanted, name="int8")
    return {
        "onnx": onnx_file.export(wanted, SILENT).path,
        "pt2": torch_program.export(wanted, SILENT).path,
        "int8": onnx_file.export(int8, SILENT, precision_spec=PrecisionSpec("int8", gate_images=8)).path,
    }


def test_the_manifest_says_that_there_is_no_variant(exported: dict[str, Path]) -> None:
    manifest = Artifact.read(exported["onnx"]).manifest
    assert manifest is not None
    assert (manifest.name, manifest.variant, manifest.weights.origin) == (NAME, {}, "module")
    assert manifest.inputs[0].shape == ("batch", *SHAPE[1:])
    assert manifest.outputs[0].shape == ("batch", CLASSES)
    assert manifest.parity is not None
    assert manifest.parity.batches == (1, 2, 3, 7)
    assert exported["onnx"].name == "MobileNet.onnx"
    assert NAME in manifest_view.as_text(exported["onnx"]).splitlines()[0]


def test_layers_keep_the_names_of_the_module(exported: dict[str, Path]) -> None:
    names = {tensor.name for tensor in onnx_library.load(exported["onnx"]).graph.initializer}
    assert {"stem.0.weight", "stem.0.bias", "block.5.reduce.weight", "head.bias"} <= names


def test_a_narrow_file_is_explained_by_the_one_beside_it(exported: dict[str, Path], tmp_path: Path) -> None:
    found = explain(ExplanationRequest(exported["int8"]), SILENT)
    assert found.errors is not None
    assert found.errors.reference == "MobileNet.onnx"
    for path in exported["int8"].parent.glob("int8.onnx*"):
        shutil.copy(path, tmp_path)
    alone = explain(ExplanationRequest(tmp_path / "int8.onnx"), SILENT)
    assert alone.no_errors is not None
    assert alone.no_errors.code == "module-not-rebuilt"
    assert all(word in alone.no_errors.sentence for word in (NAME, "--in-channels 3", "--size 24x24"))


def test_the_reference_is_the_program_beside_the_file(exported: dict[str, Path], tmp_path: Path) -> None:
    int8 = Artifact.read(exported["int8"])
    assert rebuild.reference(int8, tmp_path).path == exported["pt2"]
    with refuses(CompatibilityError, "module-unknown-in-manifest", NAME, "rexport onnx"):
        rebuild.network_of(int8, SILENT)


@pytest.mark.parametrize(
    ("precision", "format", "said"),
    [
        ("int8", "onnx", ("rexport onnx", "--precision int8", "-o {}/MobileNet.int8.onnx")),
        ("fp16", "pt2", ("rexport torch", "--precision fp16", "-o {}/MobileNet.fp16.pt2")),
        ("fp32", "onnx", ("rexport onnx", "-o {}/MobileNet.fp32.onnx")),
    ],
)
def test_the_hint_exports_what_is_missing(
    exported: dict[str, Path], precision: str, format: str, said: tuple[str, ...]
) -> None:
    error = rebuild.module_unknown(Artifact.read(exported["onnx"]), precision, format)
    assert all(words.format(exported["onnx"].parent) in str(error.hint) for words in said)
    assert ("--precision" in str(error.hint)) == (precision != "fp32")


def test_other_weights_are_no_reference(exported: dict[str, Path], tmp_path: Path) -> None:
    wanted = request(MobileNet, tmp_path)
    assert not isinstance(wanted.weights, str)
    other = replace(wanted.weights, record=replace(wanted.weights.record, sha256="0" * 64))
    torch_program.export(replace(wanted, weights=other), SILENT)
    for path in exported["int8"].parent.glob("int8.onnx*"):
        shutil.copy(path, tmp_path)
    with refuses(CompatibilityError, "module-not-rebuilt", "rexport torch", "int8.onnx"):
        rebuild.reference(Artifact.read(tmp_path / "int8.onnx"), tmp_path)


@pytest.mark.parametrize(("network", "precision"), [(Transformer, "fp16"), (DenseNet, "bf16")])
def test_a_module_is_exported_in_each_float_type(network: type[nn.Module], precision: str, tmp_path: Path) -> None:
    artifact = onnx_file.export(request(network, tmp_path), SILENT, precision_spec=PrecisionSpec(precision))
    assert artifact.manifest is not None
    assert artifact.manifest.gate is not None


def test_a_program_takes_raw_pixels_and_computes_narrow(tmp_path: Path) -> None:
    wanted = replace(request(Vgg, tmp_path), raw=True)
    manifest = torch_program.export(wanted, SILENT, PrecisionSpec("fp16")).manifest
    assert manifest is not None
    assert manifest.inputs[0].shape == ("batch", 24, 24, 3)


def test_an_engine_is_built_of_a_module(tmp_path: Path) -> None:
    from runtimes.backends.tensorrt.flavors import FLAVORS

    if FLAVORS["rtx"].missing() is not None:
        pytest.skip("TensorRT-RTX is not installed")
    order = tensorrt_engine.EngineRequest(flavor="rtx")
    manifest = tensorrt_engine.export(request(FunctionalResNet, tmp_path), order, SILENT).manifest
    assert manifest is not None
    assert (manifest.name, manifest.variant) == (NAME, {})


# Batch norms ----------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """Runs one convolution and its batch norm two times, so that neither may change."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.other, self.last = nn.Conv2d(3, CLASSES, 1), nn.BatchNorm2d(CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.layer(self.norm(self.layer(x))))
        return self.last(self.other(x)).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "folded"),
    [
        (FunctionalResNet, {"norm": "stem", "first_norm": "first", "second_norm": "second"}),
        (Vgg, {"features.1": "features.0", "features.5": "features.4"}),
        (DenseNet, {}),
        (Twice, {"last": "other"}),
    ],
)
def test_batch_norms_are_found_in_the_program(network: type[nn.Module], folded: dict[str, str]) -> None:
    module = filled(network).eval()
    images = torch.randn(2, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    assert traced_norms(trace(module, images, None), module) == folded
    with torch.inference_mode():
        expected = module(images)
        torch.testing.assert_close(narrow(module, folded, torch.float32)(images), expected)
        half = narrow(module, folded, torch.float16)(images)
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half, expected, atol=2e-2)


def test_a_batch_norm_that_could_be_folded_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = onnx_file._trace

    def unfolded(*arguments: object) -> onnx_library.ModelProto:
        graph = traced(*arguments)  # type: ignore[arg-type]
        number = next(index for index, node in enumerate(graph.graph.node) if node.op_type == "Conv")
        convolution = graph.graph.node[number]
        output = convolution.output[0]
        convolution.output[0] = "plain"
        ones = [f"ones{index}" for index in range(4)]
        for name in ones:
            graph.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [8], [1.0] * 8))
        norm = helper.make_node("BatchNormalization", ["plain", *ones], [output])
        graph.graph.node.insert(number + 1, norm)
        return graph

    monkeypatch.setattr(onnx_file, "_trace", unfolded)
    with refuses(CheckFailedError, "batch-norm-unfolded", "1"):
        onnx_file.export(request(DenseNet, tmp_path), SILENT)
    assert content(tmp_path) == {}


# What cannot be exported ----------------------------------------------------------------------------------------------


class Deciding(Vgg):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * 2 if logits.sum() > 0 else logits


class Counting(Vgg):
    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return torch.cat([logits[index : index + 1] for index in range(int(images.shape[0]))])


class Leaving(Vgg):
    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(super().forward(images).numpy()))


class Mixing(Vgg):
    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).float())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("network", "code"),
    [(Deciding, "module-data-dependent"), (Counting, "module-batch-fixed"), (Leaving, "module-untraceable")],
)
def test_a_module_without_a_graph_is_refused(network: type[nn.Module], code: str) -> None:
    with refuses(CompatibilityError, code, network.__name__) as caught:
        trace(filled(network).eval(), torch.zeros(2, *SHAPE[1:]), None)
    assert "\n" not in str(caught.value)


def test_a_fixed_batch_is_traced_where_any_batch_is_not() -> None:
    program = trace(filled(Counting).eval(), torch.zeros(2, *SHAPE[1:]), 2)
    assert program.module()(torch.zeros(2, *SHAPE[1:])).shape == (2, CLASSES)


def test_a_module_that_mixes_float_types_has_no_narrow_program(tmp_path: Path) -> None:
    with refuses(CompatibilityError, "module-not-narrow", NAME, "float16", "rexport onnx"):
        torch_program.export(request(Mixing, tmp_path), SILENT, PrecisionSpec("fp16"))


def test_constants_and_conversions_of_a_graph_become_narrow() -> None:
    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Constant", [], ["one"], value=helper.make_tensor("v", full, [1], [1.0])),
        helper.make_node("Resize", ["input", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Cast", ["large"], ["wide"], to=full),
        helper.make_node("Add", ["wide", "one"], ["sum"]),
        helper.make_node("Flatten", ["sum"], ["logits"]),
    ]
    scales = helper.make_tensor("scales", full, [4], [1.0, 1.0, 2.0, 2.0])
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes, "g", [value("input", full, [1, 3, 4, 4])], [value("logits", full, [1, 192])], [scales]
    )
    graph = cast(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)]), "float16")
    onnx_library.checker.check_model(graph, full_check=True)
    inside = {node.op_type: node for node in graph.graph.node[1:-1]}
    assert inside["Constant"].attribute[0].t.data_type == half
    assert inside["Cast"].attribute[0].i == half
    assert graph.graph.initializer[0].data_type == full


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_exports_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from tests.exporter.own_networks import Vgg, filled\n\ndef build():\n    return filled(Vgg)\n"
    (tmp_path / "own_nets.py").write_text(code)
    monkeypatch.setattr(sys, "path", sys.path[:])
    torch.save(filled(Vgg, 3).state_dict(), tmp_path / "best.pth")
    arguments = ("torch", "own_nets:build", "--weights", "best.pth", "--size", "24")
    result = here(main, *arguments, cwd=tmp_path)
    assert (result.code, result.stdout) == (0, "build.pt2\n"), result.stderr
    assert "own_nets.py" in result.stderr
    manifest = Artifact.read(tmp_path / "build.pt2").manifest
    assert manifest is not None
    assert (manifest.name, manifest.weights.origin, manifest.weights.source) == ("own_nets:build", "file", "best.pth")
    refused = here(main, *arguments[:2], "--weights", "bundled", cwd=tmp_path)
    assert (refused.code, error_codes(refused.stderr)) == (2, ["module-weights-not-file"])
    gone = here(main, "onnx", "own_gone:build", cwd=tmp_path)
    assert (gone.code, len(errors(gone)), error_codes(gone.stderr)) == (2, 1, ["code-not-found"])
    sys.modules.pop("own_nets")
