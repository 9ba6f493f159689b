"""The notebook of the documentation runs, and is kept without outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import rexport

NOTEBOOK = Path(rexport.__file__).parents[1] / "docs" / "notebook.ipynb"
LIMIT_S = 240
"""Most of it is libraries that load; beside other tests they take several times as long."""


def test_it_is_kept_without_outputs() -> None:
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.fspath(NOTEBOOK.parents[1]))
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    notebook: Any = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": os.fspath(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == 1
    assert 'class="rexport"' in shown[0]
    assert "onnxruntime" in shown[0]
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    texts = " ".join(output.get("data", {}).get("text/plain", "") for output in outputs)
    for words in ("Ankle boot", "(2, 10)", "('onnxruntime', 'fp32', 'ok', 200)", "results.jsonl"):
        assert words in texts
