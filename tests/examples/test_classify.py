"""The examples in C++ and Node.js: the labels and probabilities of Python, on JPEG files of many sizes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from exporter.data.opening import BUNDLED_NAME
from exporter.deploy.web import SiteRequest, write_site
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.preprocessing.options import PreprocessingOptions
from exporter.targets import onnx_file
from exporter.weights.sources import resolve
from runtimes import Artifact, Classifier
from scripts.consumers.compilers import compile_program, onnxruntime_options, openvino_options
from scripts.figures import examples
from scripts.figures.examples import EXAMPLES
from tests.compilers import require_compiler
from tests.conftest import SILENT
from tests.peers import peer

IMAGES = 100


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    target = tmp_path_factory.mktemp("trained") / "resnet20.onnx"
    return onnx_file.export(ExportRequest(variant("resnet20"), str(target), weights="bundled"), SILENT)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return examples.write_images(tmp_path_factory.mktemp(BUNDLED_NAME), IMAGES)


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_compiler()
    folder = tmp_path_factory.mktemp("cpp")
    return compile_program(EXAMPLES / "classify.cpp", folder / "classify", *onnxruntime_options(folder))


def check(artifact: Artifact, backend: str, command: Sequence[str], images: Sequence[Path]) -> None:
    figure = examples.compare("example", artifact.path, backend, command, images)
    assert figure.holds, figure


def test_cpp_on_onnx_runtime_labels_as_python(trained: Artifact, images: list[Path], cpp: Path) -> None:
    check(trained, "onnxruntime", (str(cpp), str(trained.path)), images)


@pytest.mark.peers
def test_cpp_on_openvino_labels_as_python(trained: Artifact, images: list[Path], tmp_path: Path) -> None:
    require_compiler()
    program = compile_program(EXAMPLES / "classify.cpp", tmp_path / "classify", *openvino_options())
    check(trained, "openvino", (str(program), str(trained.path)), images)


@pytest.mark.peers
def test_node_labels_as_python(trained: Artifact, images: list[Path], tmp_path: Path) -> None:
    write_site(SiteRequest(trained.path, f"{tmp_path}/site/", peer("node")), SILENT)
    command = ("node", str(EXAMPLES / "classify.mjs"), f"{tmp_path}/site")
    check(trained, "onnxruntime", command, images)


@pytest.fixture(scope="module")
def binary(trained: Artifact, images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """One output for two classes, which is the difference of two outputs of the bundled network."""
    assert trained.manifest is not None
    folder = tmp_path_factory.mktemp("binary")
    state = dict(resolve("bundled", variant("resnet20"), 0, lambda _: None).state)
    state |= {name: state[name][6:7] - state[name][4:5] for name in ("fc.weight", "fc.bias")}
    torch.save(state, folder / "binary.pth")
    request = ExportRequest(
        replace(variant("resnet20"), classes=1),
        f"{folder}/binary.onnx",
        weights=str(folder / "binary.pth"),
        labels=("coat", "shirt"),
        preprocessing=PreprocessingOptions(base=trained.manifest.preprocessing, source="the bundled network"),
    )
    artifact = onnx_file.export(request, SILENT)
    with Classifier.open(artifact.path) as classifier:
        found = [prediction.label for prediction in classifier.predict(list(map(str, images)))]
    assert min(found.count("coat"), found.count("shirt")) >= 10
    return artifact


def test_cpp_decides_between_two_classes_as_python(binary: Artifact, images: list[Path], cpp: Path) -> None:
    check(binary, "onnxruntime", (str(cpp), str(binary.path)), images)


@pytest.mark.peers
def test_node_decides_between_two_classes_as_python(binary: Artifact, images: list[Path], tmp_path: Path) -> None:
    write_site(SiteRequest(binary.path, f"{tmp_path}/site/", peer("node")), SILENT)
    check(binary, "onnxruntime", ("node", str(EXAMPLES / "classify.mjs"), f"{tmp_path}/site"), images)


def test_another_probability_is_found(trained: Artifact, images: list[Path], cpp: Path, tmp_path: Path) -> None:
    """The comparison fails for a program that prepares images in another way."""
    model = Path(shutil.copy(trained.path, tmp_path))
    text = Path(f"{trained.path}.json").read_text(encoding="utf-8")
    Path(f"{model}.json").write_text(text.replace('"pad": 2', '"pad": 2, "interpolation": "nearest"'), encoding="utf-8")
    assert not examples.compare("changed", trained.path, "onnxruntime", (str(cpp), str(model)), images).holds


def test_cpp_names_what_is_wrong(cpp: Path, images: list[Path], tmp_path: Path) -> None:
    usage = subprocess.run([str(cpp)], capture_output=True, text=True)
    assert (usage.returncode, usage.stdout) == (2, "")
    missing = subprocess.run([str(cpp), f"{tmp_path}/no.onnx", str(images[0])], capture_output=True, text=True)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no.onnx.json" in missing.stderr
