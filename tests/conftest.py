"""Artifacts that many tests share: made once a session by the exporter itself, and not to be changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.models.variants import variant
from exporter.network import ExportListener, ExportRequest
from exporter.targets import onnx_file, torch_program
from runtimes import Artifact
from runtimes.backends.fake import Script
from tests.samples import SCRIPT, publish_script

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)

FakeFactory = Callable[..., Artifact]


@pytest.fixture(scope="session")
def onnx_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An untrained ResNet-20: ``input`` (batch, 3, 32, 32), ``logits`` (batch, 10). Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("onnx")
    return onnx_file.export(ExportRequest(variant("resnet20"), f"{folder}/resnet20.onnx"), SILENT)


@pytest.fixture(scope="session")
def pt2_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The same network with the same weights as a ``.pt2`` program. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("pt2")
    return torch_program.export(ExportRequest(variant("resnet20"), f"{folder}/resnet20.pt2"), SILENT)


@pytest.fixture
def fake_artifact(tmp_path: Path) -> FakeFactory:
    """Makes a scripted artifact: ``fake_artifact(script, name)`` publishes one in the test's own folder."""

    def make(script: Script = SCRIPT, name: str = "scripted.fake") -> Artifact:
        return publish_script(tmp_path / name, script)

    return make
