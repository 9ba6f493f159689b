"""Artifacts that many tests share: made once a session by the exporter itself, and not to be changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.export_request import ExportListener, ExportRequest
from exporter.models.variants import variant
from exporter.targets import onnx_file, torch_program
from runtimes import Artifact
from runtimes.backends.fake import Script
from tests.exporter.tracing import traced_once
from tests.samples import SCRIPT, publish_script

SLOWEST_FIRST = (
    "exporter/test_engines.py",
    "exporter/test_cli.py",
    "test_docs.py",
    "exporter/test_cli_tensorrt.py",
    "benchmarks/harness/test_subjects.py",
    "test_status_lines.py",
    "api/test_export.py",
    "api/test_notebook.py",
    "benchmarks/paper/test_command.py",
    "benchmarks/tuning/test_search.py",
    "benchmarks/test_gpu_check.py",
    "exporter/targets/test_onnx_file.py",
    "exporter/test_cli_precision.py",
    "benchmarks/harness/test_harness.py",
    "benchmarks/test_cli.py",
)
"""The slowest files below ``tests/``. They come first, so that no process is left alone with one in the end."""

SILENT = ExportListener(step=lambda _: None, notice=lambda _: None)

FakeFactory = Callable[..., Artifact]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the slowest files first, the slowest of all at the head; within a file, and after them, nothing changes."""
    folder = Path(__file__).parent
    ranks = {folder / name: rank for rank, name in enumerate(SLOWEST_FIRST)}
    if missing := [path for path in ranks if not path.exists()]:
        raise pytest.UsageError(f"SLOWEST_FIRST in {__file__} names what is not there: {', '.join(map(str, missing))}")
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session", autouse=True)
def _cheap_exports_of_the_same() -> Iterator[None]:
    with traced_once():
        yield


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


@pytest.fixture
def notice_codes() -> Iterator[list[str]]:
    """The codes of the notices on the logger of rexport."""
    codes: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("rexport")
    handler.emit = lambda record: codes.append(vars(record)["code"])  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield codes
    logger.removeHandler(handler)
    logger.setLevel(level)
