from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.commands import results
from benchmarks.compare.compare import ComparisonReport, Limits
from benchmarks.report.comparison import comparison_document
from benchmarks.report.markdown import markdown
from exporter.document.terminal import as_text
from runtimes import codec
from runtimes.errors import RexportError, UsageError
from tests.benchmarks.comparisons import OLD, SAME, SLOWER, compared, file, with_predictions
from tests.benchmarks.results import REFERENCE, change_facts
from tests.refusals import refuses


def printed(found: ComparisonReport) -> str:
    return as_text(comparison_document(found))


def test_the_table_fits_100_columns_and_says_what_became_worse(tmp_path: Path) -> None:
    long = {"backend": "tensorrt-rtx", "batch": 1000}
    sides = ((OLD, 930), (SLOWER, 920))
    old, new = ([change_facts(each, **long), with_predictions(each, right)] for each, right in sides)
    found = compared(tmp_path, [*old, change_facts(OLD, batch=8)], new)
    text = printed(found)
    assert max(map(len, text.splitlines())) <= 100
    lines = [" ".join(line.split()) for line in text.splitlines()]
    slower, worse = (line.split() for line in lines if line.endswith("WORSE") and line.startswith("onnxruntime"))
    assert slower[:5] == ["onnxruntime", "int8", "1", "0.400", "0.440"]
    assert worse[:6] == ["onnxruntime", "int8", "1", "93.00", "92.00", "-1.00"]
    regressions = [line for line in lines if "REGRESSION" in line]
    for figure in ("batch 1000", "batch 8", "1.00 ± 0.65"):
        assert any(figure in line for line in regressions)
    verdict = next(line for line in lines if line.startswith("failed: "))
    for figure in ("3 of 3", "2 slower", "5 %", "0.5"):
        assert figure in verdict
    assert any(line.startswith("resnet20.onnx · ") for line in lines)


def test_untrained_weights_are_marked(tmp_path: Path) -> None:
    old, new = (change_facts(row, weights="random", trained=False) for row in (OLD, SAME))
    found = compared(tmp_path, [old], [new])
    assert "*untrained* random weights" in printed(found)
    assert "*untrained* random weights" in markdown(comparison_document(found))


def test_markdown_has_the_verdict_first_and_escapes_text(tmp_path: Path) -> None:
    old, new = (change_facts(row, subject="a|b<c>.onnx") for row in (OLD, SLOWER))
    text = markdown(comparison_document(compared(tmp_path, [old], [new])))
    assert text.startswith("**rbench compare failed: 1 of 1 row became worse than allowed, 1 slower")
    assert "a\\|b\\<c" in text
    for table in text.split("\n\n"):
        lines = [line.replace("\\|", "") for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
    assert text.index("REGRESSION") < text.index("<details>")
    assert markdown(comparison_document(compared(tmp_path, [OLD], [SAME]))).startswith(
        "**rbench compare passed: 1 row compared, 1 without significant difference"
    )


def test_limits_that_are_none_are_refused() -> None:
    for limits in ({"slowdown": -0.1}, {"drop": -1.0}, {"slowdown": float("nan")}):
        with refuses(UsageError, "limit-negative", *limits.values()):
            Limits(**limits)  # type: ignore[arg-type]
    with refuses(UsageError, "across-unknown", "'colour'"):
        Limits(across=("colour",))


@pytest.mark.parametrize(
    ("text", "fraction"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("150%", 1.5), ("2.5%", 0.025)]
)
def test_a_percentage(text: str, fraction: float) -> None:
    assert results.fraction(click.Context(results.compare), results.compare.params[0], text) == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "5% or 0.05"),
        ("a", "no percentage"),
        ("-1%", "not a number"),
        ("nan", "not a number"),
        ("inf%", "not"),
    ],
)
def test_what_is_no_percentage_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = str(file(tmp_path / "r.jsonl", OLD))
    done = CliRunner().invoke(results.compare, [path, path, "--max-slowdown", text])
    assert done.exit_code == 2
    assert message in done.output


def test_the_command_exits_with_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    old = file(tmp_path / "folder" / "results.jsonl", OLD, REFERENCE.result).parent
    same, slow = (
        file(tmp_path / "same.jsonl", SAME, REFERENCE.result),
        file(tmp_path / "slow.jsonl", SLOWER, REFERENCE.result),
    )
    runner = CliRunner()
    done = runner.invoke(results.compare, [str(old), str(same)])
    assert (done.exit_code, done.output.count("n.s.")) == (0, 2)
    alone = file(tmp_path / "alone.jsonl", SAME)
    assert runner.invoke(results.compare, [str(old), str(alone)]).exit_code == 1
    assert runner.invoke(results.compare, [str(old), str(alone), "--allow-missing"]).exit_code == 0
    done = runner.invoke(results.compare, [str(old), str(slow), "--json"])
    assert done.exit_code == 1
    assert codec.decode(ComparisonReport, json.loads(done.output)).rows[0].regressions
    done = runner.invoke(results.compare, [str(old), str(slow), "--max-slowdown", "25%", "--markdown"])
    assert (done.exit_code, done.output[:24]) == (0, "**rbench compare passed:")
    assert runner.invoke(results.compare, [str(old), str(slow), "--json", "--markdown"]).exit_code == 2
    refused = runner.invoke(
        results.compare, [str(old), str(file(tmp_path / "other.jsonl", change_facts(SAME, threads=1)))]
    )
    assert isinstance(refused.exception, RexportError)
    assert refused.exception.exit_code == 4


PROCESS = (
    "from benchmarks.commands.results import compare; from exporter.commands import terminal; terminal.run(compare)"
)


def test_a_gate_in_a_real_process(tmp_path: Path) -> None:
    paths = file(tmp_path / "old.jsonl", OLD), file(tmp_path / "new.jsonl", SLOWER)
    done = subprocess.run([sys.executable, "-c", PROCESS, *paths], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert "REGRESSION" in done.stdout
