"""Commands that create a folder for their output: where they fail, it does not stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.cli import main as rbench
from exporter.cli import main as rexport
from runtimes import Artifact
from tests.exporter.command_line import here

FAILING = {
    "rexport": (
        "onnx resnet20 --weights junk -o new/",
        "torch resnet20 --weights junk -o new/",
        "tensorrt resnet20 --weights junk --flavor rtx -o new/",
        "tensorrt changed.onnx --flavor rtx -o new/",
        "web changed.onnx -o new/",
        "triton changed.onnx -o new/",
        "label empty --artifact changed.onnx -o new/labels",
        "label empty --artifact resnet20.onnx -o new/labels",
        "predict resnet20.onnx junk.png --cam new/",
    ),
    "rbench": (
        "run changed.onnx -o new",
        "run resnet20.onnx --data empty -o new",
        "load changed.onnx -o new",
        "tune changed.onnx -o new/",
        "paper gradients resnet20 --data empty -o new",
        "paper identity plain20=junk --data empty -o new",
        "paper degradation --data empty -o new",
        "paper train resnet20 --data empty -o new",
    ),
}
"""Command lines whose input cannot be used, and whose output is in a folder that they would create."""


@pytest.fixture
def desk(tmp_path: Path, onnx_artifact: Artifact) -> Path:
    """A folder with an artifact, a changed copy of it, files of no format and an empty folder."""
    for path in onnx_artifact.path.parent.iterdir():
        shutil.copy(path, tmp_path)
    shutil.copy(tmp_path / "resnet20.onnx.json", tmp_path / "changed.onnx.json")
    (tmp_path / "changed.onnx").write_bytes(onnx_artifact.path.read_bytes()[:-1])
    for name in ("junk", "junk.png"):
        (tmp_path / name).write_text("junk")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(("program", "line"), [(program, line) for program in FAILING for line in FAILING[program]])
def test_a_command_that_fails_leaves_no_new_folder(desk: Path, program: str, line: str) -> None:
    before = sorted(path.relative_to(desk) for path in desk.rglob("*"))
    result = here(rexport if program == "rexport" else rbench, *line.split(), cwd=desk)
    assert result.code in (1, 2, 3), result.stderr
    assert "[usage]" not in result.stderr  # it came as far as its input
    assert sorted(path.relative_to(desk) for path in desk.rglob("*")) == before
