"""The table of other runtimes: a crash, a wrong answer and a hang are cells, and the real runtimes answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from runtimes import Artifact
from scripts.consumers import consumer as consumers
from scripts.consumers.consumer import Answer, Consumer, ask
from scripts.consumers.models import FORMS, Form, Model
from scripts.consumers.rows import PROGRAMS, PYTHON_ROWS
from scripts.consumers.table import cell, write
from tests.peers import peer

HEAD = "import sys, numpy as np; print('version 1.2'); source, target = sys.argv[2:4]; "
GOOD = HEAD + "np.fromfile(source, np.float32)[:4].tofile(target)"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    images = np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1)
    return Model(Form("fp32"), tmp_path / "model.onnx", images, images.ravel()[:4].reshape(2, 2))


def answer(program: str, model: Model, folder: Path) -> Answer:
    return ask(Consumer("name", (sys.executable, "-c", program)), model, folder)


def test_the_logits_are_compared(model: Model, tmp_path: Path) -> None:
    assert answer(GOOD, model, tmp_path) == Answer("name", "1.2", "fp32", 0.0, 2, 2)


def test_another_class_stands_in_the_cell(model: Model, tmp_path: Path) -> None:
    found = answer(HEAD + "np.array([1, 0, 2, 3.5], np.float32).tofile(target)", model, tmp_path)
    assert (found.difference, found.agreement) == (1.0, 1)
    assert cell(found).split()[:4] == ["1.0e+00,", "1", "of", "2"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (HEAD + "sys.exit('no kernel')", "no kernel"),
        (HEAD + "import os; os.abort()", "exit code -6"),
        (HEAD + "np.zeros(3, np.float32).tofile(target)", "finite logits"),
        (HEAD + "np.full(4, np.nan, np.float32).tofile(target)", "finite logits"),
        (HEAD + "sys.exit('not installed')", "not installed"),
    ],
    ids=["error", "crash", "size", "NaN", "absent"],
)
def test_a_failure_is_a_reason(model: Model, tmp_path: Path, program: str, reason: str) -> None:
    found = answer(program, model, tmp_path)
    assert (found.difference, cell(found)) == (None, "no")
    assert (found.reason or "").endswith(reason)


def test_a_hang_is_a_reason(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "LIMIT_S", 1)
    found = answer("import threading; threading.Event().wait()", model, tmp_path)
    assert found.difference is None
    assert (found.reason or "").endswith("within 1 s")


def test_the_page_and_the_records_say_the_same(tmp_path: Path) -> None:
    rows = [Consumer("OpenCV", (), {}, "a note"), Consumer("ncnn", ())]
    answers = [Answer(row.name, "5.0.0", form.name, 0.0, 16, 16) for row in rows for form in FORMS]
    answers[-1] = Answer("ncnn", "5.0.0", FORMS[-1].name, None, 0, 16, "no `slice`")
    page = write(tmp_path / "results", rows, answers, {"version": "1", "low": -1.0, "high": 2.0}).read_text("utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert ["OpenCV<br>a note", "5.0.0", "0", "0", "0", "0"] in cells
    assert ["ncnn", "5.0.0", "0", "0", "0", "no"] in cells
    assert "raw-int8: `no slice`" in page
    records = json.loads((tmp_path / "results" / "results.json").read_text("utf-8"))
    assert [Answer(**record) for record in records["answers"]] == answers


@pytest.mark.peers
@pytest.mark.parametrize("module", [module for _, module, _ in PYTHON_ROWS])
def test_a_python_runtime_opens_the_file(onnx_artifact: Artifact, tmp_path: Path, module: str) -> None:
    command = (str(peer("consumers") / "bin" / "python"), "-m", f"scripts.consumers.programs.{module}")
    check(Consumer(module, command), onnx_artifact, tmp_path, 1e-2)


@pytest.mark.peers
@pytest.mark.parametrize("package", ["onnxruntime-node", "onnxruntime-web"])
def test_a_javascript_runtime_opens_the_file(onnx_artifact: Artifact, tmp_path: Path, package: str) -> None:
    command = ("node", str(PROGRAMS / "node.mjs"), str(peer("node") / "node_modules" / package))
    check(Consumer(package, command), onnx_artifact, tmp_path, 1e-3)


def check(consumer: Consumer, artifact: Artifact, folder: Path, limit: float) -> None:
    """The runtime answers with PyTorch's logits for the test vectors."""
    vectors = artifact.vectors()
    images = vectors.inputs.astype(np.float32)
    found = ask(consumer, Model(FORMS[0], artifact.path.resolve(), images, vectors.logits), folder)
    assert found.reason is None
    assert found.difference is not None
    assert found.difference <= limit * np.abs(vectors.logits).max()
