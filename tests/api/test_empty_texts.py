"""An empty text for a path or a name is refused by the functions of Python as by the commands, and leaves no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rexport
import runtimes
from tests.refusals import refuses


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["model", "path", "variant", "weights", "calibration", "data", "labels", "transform"])
def test_an_export_refuses_an_empty_text(name: str) -> None:
    arguments: dict[str, Any] = {"model": "resnet20"} | {name: ""}
    with refuses(rexport.UsageError, "argument-empty", name):
        rexport.export(**arguments)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["models", "weights", "calibration", "data"])
def test_a_benchmark_refuses_an_empty_text(name: str) -> None:
    for text in ("", ["resnet20", ""]) if name == "models" else ("",):
        arguments: dict[str, Any] = {name: text}
        with refuses(rexport.UsageError, "argument-empty", name):
            rexport.benchmark(**arguments)


def test_opening_refuses_an_empty_text(onnx_artifact: rexport.Artifact) -> None:
    for open_path in (runtimes.open, runtimes.profile, rexport.Classifier.open, rexport.Artifact.read):
        with refuses(rexport.UsageError, "argument-empty", "path"):
            open_path("")
    for open_cached in (runtimes.open, rexport.Classifier.open):
        with refuses(rexport.UsageError, "argument-empty", "model_cache"):
            open_cached(onnx_artifact.path, backend="openvino", model_cache="")
    assert list(Path().iterdir()) == []


def test_a_report_refuses_an_empty_text() -> None:
    """It would be the current folder."""
    with refuses(rexport.UsageError, "argument-empty", "path"):
        rexport.Report(()).save("")
    assert list(Path().iterdir()) == []
