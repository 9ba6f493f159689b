from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.records.request import PrecisionVariant, Refusal
from benchmarks.report.tuning import tuning_document
from benchmarks.tuning import findings
from benchmarks.tuning.findings import TuningGoal, TuningResult
from benchmarks.tuning.pareto import Objective
from exporter.document.blocks import Table
from exporter.document.terminal import as_text
from runtimes.errors import Reason
from tests.benchmarks.searches import TRIED, ScriptedHarness, searched, subject, typed
from tests.documents import lines, remarks


@pytest.fixture(autouse=True)
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "usable_processors", lambda: 4)


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_the_table_is_plain_and_fits(tmp_path: Path, objective: Objective) -> None:
    bench = ScriptedHarness(
        {("openvino", "int8", 1, 1): 0.0004, ("onnxruntime", "int8", 4, 1): 12345.678}, {"int8": 0.0123}
    )
    of = subject(
        tmp_path,
        typed(tmp_path, "fp32"),
        typed(tmp_path, "int8"),
        PrecisionVariant("bf16", Refusal("skipped", Reason("no", "no"))),
    )
    found = searched(bench, of, TuningGoal(objective, max_drop=0.1))
    document = tuning_document(found)
    text = as_text(document)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    (section, *_) = document.sections
    assert section.title.split(" · ")[-3:-1] == ["cpu, 1 or 2 or 4 threads", "fashion-mnist, 200 images"]
    best = [row for row in lines(section.all_of(Table)[0]) if row["verdict"].startswith("best")]
    fastest = [(row["backend"], row["precision"], row["threads"]) for row in best] == [("openvino", "int8", "1")]
    assert fastest == (objective == "latency")
    assert {line.split(": ", 1)[1] for line in remarks(section, "failure")} == {"skipped: no"}
    notes = remarks(section, "note")
    reference = next(line for line in notes if line.startswith("baseline:"))
    assert all(part in reference for part in ("pytorch fp32, 4 threads, batch 1", "9.00 ms", "90.00 %"))
    (bound,) = (line for line in notes if line.startswith("accuracy limit:"))
    assert ("10.00 pp" in bound, "200 images" in bound) == (True, True)


def test_marks_name_best_alike_pareto_optimal_and_rejected(tmp_path: Path) -> None:
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
    document = tuning_document(searched(bench, of, TuningGoal(max_drop=0.01)))
    (table,) = document.sections[0].all_of(Table)
    marks = {tuple(cells[:3]): cells[-1] for cells in table.cells}
    assert marks["openvino", "fp32", "1"] == "best, Pareto-optimal"
    assert marks["openvino", "fp32", "4"] == marks["onnxruntime", "fp32", "4"] == "n.s., Pareto-optimal"
    assert marks["onnxruntime", "int8", "4"] == "rejected, Pareto-optimal"
    assert marks["onnxruntime", "fp32", "1"] == ""


def test_an_interrupted_search_says_so() -> None:
    document = tuning_document(TuningResult(TuningGoal()), complete=False)
    assert [remark.code for remark in document.summary.remarks] == ["incomplete"]
    assert (document.sections, document.legend) == ((), ())
