"""The networks of the ImageNet table, and the bundled one, as real engines, in every precision where that differs.

TensorRT-RTX parses and builds them as it does for users, without a GPU. What is saved is PyTorch's and NNCF's time
alone: a network is traced once for all precisions, images are small and few.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import onnx as onnx_library
import pytest

from exporter.export_request import ExportRequest
from exporter.models.layers import parameters
from exporter.models.variants import customise, variant
from exporter.network import Network, prepare
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file, publish, tensorrt_engine
from runtimes import Artifact, files
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.builder import build
from runtimes.backends.tensorrt.flavors import flavor
from runtimes.errors import ArtifactError, CompatibilityError
from tests.exporter.small import LARGE, SILENT

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
"""Of one weight."""

TYPED = ("bundled", "resnet18", "resnet50")
"""The networks of each kind of block that are built in every precision. Deeper ones repeat their operators."""

BUILT = ("bundled", *(name for name in LARGE if name != "resnet101"))
"""ResNet-101 only has more blocks of a kind than ResNet-50, and fewer than ResNet-152."""

FAST = ("bundled", "resnet18")
"""The networks that are built in seconds, and so by `make test`, as is ResNet-50 in int8."""

CASES = [
    pytest.param(
        name,
        precision,
        marks=()
        if (name in FAST and precision != "fp8") or (name, precision) == ("resnet50", "int8")
        else pytest.mark.slow,
    )
    for name in BUILT
    for precision in BYTES
    if name in TYPED or precision == "fp32" or (name, precision) == ("resnet152", "fp8")
]


@dataclass(frozen=True)
class Traced:
    """A network, and its graph as ``torch.onnx.export`` gave it once, in the opset that fp32 is usually written in."""

    network: Network
    graph: bytes
    folder: Path

    def exported(self, precision: str) -> Artifact:
        """The network in the precision, checked as every export is."""
        precision_spec = PrecisionSpec(precision, gate_images=2, calibration_images=2)
        if precision_spec.row.calibrated:
            precision_spec = replace(precision_spec, target="tensorrt")
        return onnx_file.export_network(
            self.network, publish.ExportTarget(self.folder / f"{precision}.onnx"), precision_spec, SILENT
        )

    def trace(self, network: Network, batch: int | None, opset: int) -> onnx_library.ModelProto:
        """In place of ``exporter.targets.onnx_file._trace``. These networks' operators are the same in all opsets from
        18 on, but for the types that they take: the version is another number in the file, checked like any other."""
        assert network is self.network
        assert batch is None
        graph = onnx_library.load_from_string(self.graph)
        graph.opset_import[0].version = opset
        return graph


@pytest.fixture(scope="module")
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bundled":
        wanted = ExportRequest(variant("resnet20"), f"{folder}/", weights="bundled")
    else:
        wanted = ExportRequest(customise(variant(request.param), size=(64, 64)), f"{folder}/")
    network = prepare(wanted, SILENT)
    yield Traced(network, onnx_file._trace(network, None, onnx_file.DEFAULT_OPSET).SerializeToString(), folder)
    shutil.rmtree(folder)  # pytest keeps folders, and these are gigabytes


@pytest.mark.parametrize(("traced", "precision"), CASES, indirect=["traced"])
def test_every_network_is_built_in_its_precisions(
    traced: Traced, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_trace", traced.trace)
    parent = traced.exported(precision)
    artifact = tensorrt_engine.build_artifact(parent.path, tensorrt_engine.EngineRequest("rtx"), SILENT)
    assert artifact.path == parent.path.with_suffix(".engine")
    manifest = Artifact.read(artifact.path).manifest
    assert manifest is not None
    assert parent.manifest is not None
    assert manifest.engine is not None
    assert (manifest.format, manifest.precision) == ("engine", precision)
    assert manifest.parent == parent.manifest.sha256 == files.sha256_of(parent.path)
    assert (manifest.inputs, manifest.outputs) == (parent.manifest.inputs, parent.manifest.outputs)
    assert manifest.engine.profiles == (Profile(1, 8, 64),)
    assert not manifest.engine.tf32
    if precision == "fp32":
        assert parent.manifest.parity is not None
        assert parent.manifest.parity.relative_difference < 1e-5
    assert artifact.path.read_bytes()[:4] == b"vtrt"
    # The weights lie in it in the graph's own type: a wider one's would not fit, and kernels take some megabytes.
    assert traced.network.variant is not None
    weights = parameters(traced.network.variant) * BYTES[precision]
    assert 0.95 * weights < manifest.size_bytes < 1.5 * weights + 4e6
    for place in (artifact.path, parent.path):
        place.unlink()


def test_a_graph_that_contradicts_its_types_is_refused(tmp_path: Path, onnx_artifact: Artifact) -> None:
    """A strongly typed network takes no graph whose types do not fit: what is built has the precisions that it says."""
    graph = onnx_library.load(onnx_artifact.path)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == "layer1.0.conv1.weight")
    half = onnx_library.numpy_helper.to_array(weight).astype("float16")
    weight.CopyFrom(onnx_library.numpy_helper.from_array(half, weight.name))
    (tmp_path / "mixed.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises((ArtifactError, CompatibilityError), match=r"layer1\.0\.conv1/Conv"):
        build(tmp_path / "mixed.onnx", Settings(), flavor("rtx"))
