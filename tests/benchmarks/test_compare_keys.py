from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare.compare import Limits
from benchmarks.records import identity
from benchmarks.records.result import Row
from benchmarks.report.comparison import comparison_document, headline
from benchmarks.report.markdown import markdown
from runtimes.errors import CompatibilityError
from tests.benchmarks.comparisons import LATER, OLD, SAME, SLOWER, compared, figured
from tests.benchmarks.rows import MACHINE, ON_A_GPU, REFERENCE, SKIPPED

OTHER = "cd" * 32
UNLIKE = {
    "sha256": (replace(SAME, sha256=OTHER), "sha256 abababababab against cdcdcdcdcdcd"),
    "threads": (replace(SAME, threads=1), "threads 2 against 1"),
    "device": (replace(SAME, device="cuda"), "device cpu against cuda"),
    "machine": (
        replace(SAME, environment=replace(MACHINE, cpu="Slow Processor 3")),
        "machine Fast Processor 9 against Slow Processor 3",
    ),
}


@pytest.mark.parametrize("field", UNLIKE)
def test_rows_of_unlike_conditions_are_refused_unless_it_is_meant(tmp_path: Path, field: str) -> None:
    row, message = UNLIKE[field]
    with pytest.raises(CompatibilityError, match=f"not alike.*int8, batch 1: {message}.*--across {field}"):
        compared(tmp_path, [REFERENCE, OLD], [REFERENCE, row])
    found = compared(tmp_path, [OLD], [row], Limits(across=(field,)))
    assert [one.field for one in found.rows[0].apart] == [field]
    assert found.rows[0].p50 is not None


def test_all_that_differs_is_named(tmp_path: Path) -> None:
    row = replace(SAME, sha256=OTHER, threads=1)
    message = "sha256 .* against .*, threads 2 against 1 .*--across sha256 --across threads"
    with pytest.raises(CompatibilityError, match=message):
        compared(tmp_path, [OLD], [row])
    with pytest.raises(CompatibilityError, match=r"if that is meant: --across threads\)"):
        compared(tmp_path, [OLD], [row], Limits(across=("sha256",)))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("precision", {"precision": "fp32"}),
        ("batch", {"batch": 8}),
        ("runtime", {"runtime": "openvino"}),
        ("subject", {"subject": "resnet56"}),
        ("cuda-graphs", {"cuda_graphs": False}),
    ],
)
def test_nothing_alike_is_refused_unless_it_is_meant(tmp_path: Path, field: str, changes: dict[str, object]) -> None:
    row = figured(replace(SAME, **changes))  # type: ignore[arg-type]
    with pytest.raises(CompatibilityError, match=rf"no row of NEW is of a configuration of OLD.*--across {field}\)"):
        compared(tmp_path, [OLD], [row])
    found = compared(tmp_path, [OLD], [row], Limits(across=(field,)))
    assert [one.field for one in found.rows[0].apart] == [field]
    assert found.rows[0].p50 is not None


def test_a_row_that_could_be_compared_with_several_is_refused(tmp_path: Path) -> None:
    first, second = replace(OLD, sha256="01" * 32), replace(OLD, sha256="02" * 32)
    with pytest.raises(CompatibilityError, match="2 rows of OLD are as near to it"):
        compared(tmp_path, [first, second], [SAME], Limits(across=("sha256",)))


def test_gpus_are_machines_too(tmp_path: Path) -> None:
    assert ON_A_GPU.gpu_before is not None
    other = replace(ON_A_GPU, gpu_before=replace(ON_A_GPU.gpu_before, name="NVIDIA L4"))
    with pytest.raises(CompatibilityError, match=r"Fast Processor 9 with NVIDIA H200 against .* with NVIDIA L4"):
        compared(tmp_path, [ON_A_GPU], [other])


def test_rows_without_a_fellow_are_listed(tmp_path: Path) -> None:
    skipped = replace(failing("skipped"), run="run 1", time=OLD.time, batch=4)
    found = compared(tmp_path, [OLD, replace(OLD, batch=8), skipped], [SAME, replace(SAME, precision="fp16")])
    assert len(found.rows) == 1
    assert found.only_old == ("resnet20.onnx: onnxruntime int8, batch 8", "resnet20.onnx: onnxruntime int8, batch 4")
    assert found.only_new == ("resnet20.onnx: onnxruntime fp16, batch 1",)


def test_what_was_measured_and_is_no_longer_there_is_a_regression(tmp_path: Path) -> None:
    gone = replace(OLD, batch=8)
    found = compared(tmp_path, [OLD, gone], [SAME], Limits(slowdown=0.25))
    assert (found.passed, found.gone, found.rows[0].regressions) == (
        False,
        ("resnet20.onnx: onnxruntime int8, batch 8",),
        (),
    )
    assert headline(found).startswith("failed: 1 of 2 rows became worse than allowed, 1 tie")
    line = "resnet20.onnx: onnxruntime int8, batch 8: REGRESSION: was measured before, and is not there now"
    text = markdown(comparison_document(found))
    assert text.index(f"- {line}") < text.index("<details>")
    assert "in OLD alone" not in text
    allowed = compared(tmp_path, [OLD, gone], [SAME], Limits(slowdown=0.25, missing=True))
    assert (allowed.passed, allowed.gone, allowed.only_old) == (True, (), found.only_old)
    assert "in OLD alone: resnet20.onnx: onnxruntime int8, batch 8" in markdown(comparison_document(allowed))


def test_what_a_search_measured_twice_need_not_be_there_twice(tmp_path: Path) -> None:
    again = replace(OLD, field=9, processes=3)
    found = compared(tmp_path, [OLD, again], [SAME], Limits(slowdown=0.25))
    assert (found.passed, found.gone, len(found.only_old)) == (True, (), 1)
    fewer = compared(tmp_path, [OLD, replace(OLD, threads=1)], [SAME], Limits(slowdown=0.25))
    assert fewer.gone == ("resnet20.onnx: onnxruntime int8, batch 1, 1 thread",)
    assert compared(tmp_path, [OLD, replace(OLD, threads=1)], [SAME], Limits(0.25, across=("threads",))).passed


def test_threads_that_the_old_file_has_not_are_listed_where_others_agree(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [replace(SAME, threads=1), SAME])
    assert [row.threads for row in found.rows] == [2]
    assert found.only_new == ("resnet20.onnx: onnxruntime int8, batch 1, 1 thread",)


def failing(status: str) -> Row:
    broken = replace(SKIPPED, status=status, reason="wrong answers", runtime="onnxruntime", precision="int8", sha256="")  # type: ignore[arg-type]
    return replace(broken, run="later", time=LATER)


@pytest.mark.parametrize("status", ["failed", "error", "skipped"])
def test_what_was_measured_and_now_fails_is_a_regression(tmp_path: Path, status: str) -> None:
    found = compared(tmp_path, [OLD, REFERENCE], [failing(status), REFERENCE])
    assert not found.passed
    assert found.rows[0].regressions == (f"was measured before; now {status}: wrong answers",)
    assert found.rows[0].remarks == ()


def test_what_may_be_skipped_now_or_failed_before_is_told(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD, REFERENCE], [failing("skipped"), REFERENCE], Limits(missing=True))
    assert found.passed
    assert found.rows[0].remarks == ("measured before, skipped (wrong answers) now",)
    mended = compared(tmp_path, [failing("failed"), REFERENCE], [SAME, REFERENCE])
    assert mended.passed
    assert mended.rows[0].remarks == ("failed (wrong answers) before, measured now",)


def test_where_nothing_was_measured_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(CompatibilityError, match="there is nothing to compare"):
        compared(tmp_path, [failing("failed")], [SAME])
    with pytest.raises(CompatibilityError, match="NEW has no rows to compare"):
        compared(tmp_path, [OLD], [])


def test_the_last_run_of_each_configuration_counts(tmp_path: Path) -> None:
    later = replace(SLOWER, time=LATER)
    found = compared(tmp_path, [OLD], [later, SAME, replace(SAME, batch=8)])
    assert not found.passed
    assert found.notices == ("NEW: 1 row of an earlier run of the same configuration was left out",)
    assert found.only_new == ("resnet20.onnx: onnxruntime int8, batch 8",)
    again = compared(tmp_path, [OLD, REFERENCE], [SAME, REFERENCE, failing("failed")])
    assert not again.passed


def test_rows_that_cannot_be_told_apart_in_a_run_are_all_kept() -> None:
    rows = [replace(OLD, sha256=digest * 32) for digest in ("01", "02")]
    assert identity.latest(rows) == tuple(rows)
