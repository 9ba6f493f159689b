"""The commands on a real terminal, with real libraries: one line that changes, and nothing but our own words."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from runtimes import Artifact
from tests.screens import Session, watch

SHORT = ("--duration", "0.02", "--rounds", "2", "--limit", "20", "--threads", "1", "--backend", "onnxruntime")
POSITION = re.compile(r"\[[\d/-]+\] ")
MOVING = re.compile(r"\d+:\d\d( left)?|[▓░]+|\[[\d/-]+\]|\d[\d,.]*")
"""What changes in a line while the same is at work."""

PLAN = r"Plan: .*, \d+ process(es)? each; about \d[\d.]* (s|min|h) \(at most \d[\d.]* (s|min|h)\)"
UNTRAINED = r"warning\[untrained\]: .*random.*"


def check(session: Session, permanent: tuple[str, ...], subjects: tuple[str, ...]) -> None:
    """Only these lines have stayed, each once; above them stood one line at a time, about these subjects."""
    assert session.code == 0, session.lines
    assert len(session.lines) == len(permanent), session.lines
    for line, form in zip(session.lines, permanent, strict=True):
        assert re.fullmatch(form, line), line
    statuses = session.statuses()
    assert statuses
    for status in statuses:
        assert POSITION.sub("", status).startswith(subjects), status
        assert len(status) < 200
    for frame in session.frames:
        assert sum(line not in session.lines for line in frame) <= 1, frame
    assert len(set(statuses)) == len(statuses) or all(MOVING.search(status) for status in statuses)
    assert (session.hidden, session.column) == (False, 0)


def rbench(folder: Path, *arguments: str, columns: int = 200) -> Session:
    command = [sys.executable, "-m", "benchmarks.cli", *arguments]
    return watch(command, columns, stdout=folder / "stdout")


def test_an_export_in_int8(tmp_path: Path) -> None:
    arguments = ("onnx", "resnet20", "--precision", "int8", "--size", "8", "--calibration-images", "4")
    session = watch(
        [sys.executable, "-m", "exporter.cli", *arguments, "-o", str(tmp_path)], 200, stdout=tmp_path / "stdout"
    )
    check(
        session,
        (UNTRAINED, r"int8: .*"),
        ("starting", "loading", "computing", "exporting", "reading", "calibrating", "checking", "comparing", "writing"),
    )
    assert (tmp_path / "stdout").read_text() == f"{tmp_path}/resnet20.onnx\n"


def test_a_run(tmp_path: Path, onnx_artifact: Artifact) -> None:
    session = rbench(
        tmp_path, "run", str(onnx_artifact.path), *SHORT, "--baseline", "pytorch", "--processes", "2", "--no-roofline"
    )
    check(session, (PLAN,), ("resnet20.onnx", "pytorch fp32 · batch", "onnxruntime fp32 · batch", "batch"))
    statuses = session.statuses()
    assert any(status.startswith("[1-2/2] batch 1  ") and "process 2 of 2" in status for status in statuses)
    assert any("left" in status for status in statuses)
    assert "onnxruntime" in (tmp_path / "stdout").read_text()


def test_a_load(tmp_path: Path, onnx_artifact: Artifact) -> None:
    arguments = ("--duration", "0.2", "--threads", "1", "--backend", "onnxruntime", "--clients", "1", "--clients", "2")
    session = rbench(tmp_path, "load", str(onnx_artifact.path), "--shape", "clients", "--shape", "cold", *arguments)
    check(session, (PLAN,), ("onnxruntime · clients", "onnxruntime · cold", "resnet20.onnx"))
    assert {status.split("]")[0] for status in session.statuses() if status[0] == "["} >= {"[1/3", "[3/3"}


@pytest.mark.slow
def test_a_search(tmp_path: Path, onnx_artifact: Artifact) -> None:
    out = tmp_path / "best.onnx"
    session = rbench(tmp_path, "tune", str(onnx_artifact.path), "--precision", "fp32", *SHORT, "-o", str(out))
    check(session, (PLAN,), ("resnet20.onnx", "pytorch fp32 · batch", "onnxruntime fp32 · batch"))
    assert (tmp_path / "stdout").read_text().splitlines()[-1] == str(out)


@pytest.mark.parametrize("columns", [80, 40, 20])
def test_no_status_exceeds_the_terminal_or_survives_ctrl_c(columns: int, onnx_artifact: Artifact) -> None:
    typed: list[str] = []

    def interrupt(frame: tuple[str, ...], master: int) -> None:
        if not typed and frame[-1].startswith("[1"):
            typed.append(frame[-1])
            os.write(master, b"\x03")

    command = ("run", str(onnx_artifact.path), "--backend", "onnxruntime", "--no-roofline")
    session = watch([sys.executable, "-m", "benchmarks.cli", *command], columns, act=interrupt)
    assert session.code == 130
    assert [status for status in typed if len(status) >= columns] == []
    assert session.lines[-1].startswith("interrupted")
    assert (session.hidden, session.column) == (False, 0)
    assert typed[0] not in session.lines
