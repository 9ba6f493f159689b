"""The files about an engine's layers, as trtexec writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.cli import main
from runtimes import Artifact
from runtimes.backends.tensorrt import trtexec_files
from runtimes.errors import UsageError
from tests.exporter.command_line import here
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.engines import publish_script_engine
from tests.runtimes.backends.tensorrt.networks import NETWORK

INFORMATION = '{"Layers": [{"Name": "one"}, {"Name": "two"}], "Bindings": ["input", "logits"]}'
LAYERED = replace(NETWORK, layers=("one", "two"), information=INFORMATION)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


def test_the_profile_has_trtexecs_fields(recorder: Recorder, tmp_path: Path) -> None:
    recorder.run_s = 0.004
    first, *rows = json.loads(trtexec_files.profile_layers(publish_script_engine(tmp_path, LAYERED)))
    assert first == {"count": trtexec_files.PROFILED_RUNS}
    assert [row["name"] for row in rows] == ["one", "two"]
    for row in rows:
        assert row["averageMs"] == row["medianMs"] == pytest.approx(2)
        assert row["timeMs"] == pytest.approx(2 * trtexec_files.PROFILED_RUNS)
        assert row["percentage"] == pytest.approx(50)
    assert recorder.count("execute_async_v3") == 1 + trtexec_files.PROFILED_RUNS


@pytest.mark.usefixtures("recorder")
def test_the_command_writes_both_beside_its_text(tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path, LAYERED)
    layers, profile = tmp_path / "layers.json", tmp_path / "profile.json"
    done = here(main, "inspect", artifact.path, "--export-layer-info", layers, "--export-profile", profile)
    assert done.code == 0, done.stderr
    assert "TensorRT" in done.stdout
    assert layers.read_text() == INFORMATION
    assert len(json.loads(profile.read_text())) == 3


def test_other_files_have_no_such_layers(onnx_artifact: Artifact, tmp_path: Path) -> None:
    with refuses(UsageError, "layers-need-engine", "onnx"):
        trtexec_files.describe_layers(onnx_artifact)
    done = here(main, "inspect", onnx_artifact.path, "--export-profile", tmp_path / "profile.json")
    assert (done.code, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []
