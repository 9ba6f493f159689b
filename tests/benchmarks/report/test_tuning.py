from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.records.subject import PrecisionVariant, Refusal
from benchmarks.report import tuning
from benchmarks.tuning import search
from benchmarks.tuning.pareto import Objective
from benchmarks.tuning.search import TuningGoal, TuningResult
from tests.benchmarks.searches import TRIED, ScriptedHarness, searched, subject, typed


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "usable_processors", lambda: 4)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_table_is_plain_and_fits(tmp_path: Path, objective: Objective, capsys: pytest.CaptureFixture[str]) -> None:
    bench = ScriptedHarness(
        {("openvino", "int8", 1, 1): 0.0004, ("onnxruntime", "int8", 4, 1): 12345.678}, {"int8": 0.0123}
    )
    of = subject(
        tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8"), PrecisionVariant("bf16", Refusal("skipped", "no"))
    )
    found = searched(bench, of, TuningGoal(objective, max_drop=0.1))
    tuning.print_findings(found, sys.stdout)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert max(map(len, tuning.MEANING)) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0].endswith("bundled weights · cpu, 1 or 2 or 4 threads · fashion-mnist, 200 images")
    assert any("best" in line and line.startswith("openvino int8 1") for line in lines) == (objective == "latency")
    assert any(line.startswith("reference: pytorch fp32, 4 threads, batch 1: 9.00 ms, top-1 90.00%") for line in lines)
    assert "bound: a drop of top-1 of at most 10.00 points, 200 images" in lines


def test_marks_name_the_best_the_ties_the_front_and_what_is_beyond(tmp_path: Path) -> None:
    bench = ScriptedHarness(
        {
            **{(runtime, "int8", 4, 1): 1.0 for runtime in TRIED},
            ("onnxruntime", "fp32", 4, 1): 2.0,
            ("openvino", "fp32", 4, 1): 2.0,
            ("openvino", "fp32", 1, 1): 2.0,
        },
        {"int8": 0.02, "fp32": 0.001},
    )
    of = subject(tmp_path, typed(tmp_path, "fp32"), typed(tmp_path, "int8"))
    (table,) = tuning.section(searched(bench, of, TuningGoal(max_drop=0.01))).tables
    marks = {tuple(cells[:3]): cells[-1] for cells in table.cells}
    assert marks["openvino", "fp32", "1"] == "best *"
    assert marks["openvino", "fp32", "4"] == marks["onnxruntime", "fp32", "4"] == "tie *"
    assert marks["onnxruntime", "int8", "4"] == "beyond *"
    assert marks["onnxruntime", "fp32", "1"] == ""


def test_what_was_found_before_an_interrupt_is_told_to_be_incomplete(capsys: pytest.CaptureFixture[str]) -> None:
    tuning.print_findings(TuningResult(TuningGoal()), sys.stdout, complete=False)
    assert "incomplete: the run ended early" in capsys.readouterr().out
