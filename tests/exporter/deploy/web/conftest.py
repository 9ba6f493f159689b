"""What tests of pages share: a model with heat maps, a runtime that nobody runs, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.deploy.web_runtime import CODE, WASM
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file
from runtimes import Artifact
from tests.benchmarks.report_html import browser
from tests.exporter.small import SILENT

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture(scope="session")
def labelling(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The bundled ResNet-20 with the outputs logits and cam. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("labelling")
    request = ExportRequest(
        variant("resnet20"), f"{folder}/resnet20.onnx", weights="bundled", outputs=("logits", "cam")
    )
    return onnx_file.export(request, SILENT)


@pytest.fixture
def unused_runtime(tmp_path: Path) -> Path:
    """A folder with the names of ONNX Runtime Web's files, for pages that no browser opens."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / CODE).write_text("export {};")
    (folder / WASM).write_bytes(b"\0asm")
    return folder


@pytest.fixture(scope="session")
def driver() -> Iterator[WebDriver]:
    """One browser for all tests of a process."""
    if (reason := browser.missing()) is not None:
        pytest.skip(reason)
    with browser.browser() as found:
        found.set_script_timeout(120)
        yield found
