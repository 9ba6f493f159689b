from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare.compare import Limits
from benchmarks.records import identity
from benchmarks.records.result import Result
from runtimes.errors import CompatibilityError
from tests.benchmarks import results
from tests.benchmarks.comparisons import LATER, OLD, SAME, SLOWER, compared
from tests.benchmarks.results import IDLE, MACHINE, SKIPPED, change_facts
from tests.refusals import refuses

REFERENCE, ON_A_GPU = results.REFERENCE.result, results.ON_A_GPU.result
OTHER = "cd" * 32
UNLIKE = {
    "sha256": (change_facts(SAME, sha256=OTHER), ("abababababab", "cdcdcdcdcdcd")),
    "threads": (change_facts(SAME, threads=1), ("2", "1")),
    "device": (change_facts(SAME, device="cuda"), ("cpu", "cuda")),
    "machine": (
        change_facts(SAME, environment=replace(MACHINE, cpu="Slow Processor 3")),
        ("Fast Processor 9", "Slow Processor 3"),
    ),
}


@pytest.mark.parametrize("field", UNLIKE)
def test_unlike_conditions_are_refused_unless_meant(tmp_path: Path, field: str) -> None:
    row, values = UNLIKE[field]
    with refuses(CompatibilityError, "conditions-differ", "int8, batch 1", *values, f"--across {field}"):
        compared(tmp_path, [REFERENCE, OLD], [REFERENCE, row])
    found = compared(tmp_path, [OLD], [row], Limits(across=(field,)))
    assert [one.field for one in found.rows[0].apart] == [field]
    assert found.rows[0].p50 is not None


def test_all_that_differs_is_named(tmp_path: Path) -> None:
    row = change_facts(SAME, sha256=OTHER, threads=1)
    with refuses(CompatibilityError, "conditions-differ", "--across sha256 --across threads"):
        compared(tmp_path, [OLD], [row])
    with refuses(CompatibilityError, "conditions-differ", "with --across threads)"):
        compared(tmp_path, [OLD], [row], Limits(across=("sha256",)))


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("precision", {"precision": "fp32"}),
        ("batch", {"batch": 8}),
        ("runtime", {"backend": "openvino"}),
        ("subject", {"subject": "resnet56"}),
        ("cuda-graphs", {"cuda_graphs": False}),
    ],
)
def test_no_common_configuration_is_refused_unless_meant(
    tmp_path: Path, field: str, changes: dict[str, object]
) -> None:
    row = change_facts(SAME, **changes)
    with refuses(CompatibilityError, "no-common-configuration", f"--across {field})"):
        compared(tmp_path, [OLD], [row])
    found = compared(tmp_path, [OLD], [row], Limits(across=(field,)))
    assert [one.field for one in found.rows[0].apart] == [field]
    assert found.rows[0].p50 is not None


def test_an_ambiguous_match_is_refused(tmp_path: Path) -> None:
    first, second = change_facts(OLD, sha256="01" * 32), change_facts(OLD, sha256="02" * 32)
    with refuses(CompatibilityError, "match-ambiguous", "2 rows", "--across"):
        compared(tmp_path, [first, second], [SAME], Limits(across=("sha256",)))


def test_gpus_are_machines_too(tmp_path: Path) -> None:
    other = change_facts(ON_A_GPU, gpu=replace(ON_A_GPU.gpu, before=replace(IDLE, name="NVIDIA L4")))
    with refuses(CompatibilityError, "conditions-differ", "NVIDIA H200", "NVIDIA L4"):
        compared(tmp_path, [ON_A_GPU], [other])


def test_results_without_a_match_are_listed(tmp_path: Path) -> None:
    skipped = change_facts(failing("skipped"), run="run 1", time=OLD.time, batch=4)
    found = compared(tmp_path, [OLD, change_facts(OLD, batch=8), skipped], [SAME, change_facts(SAME, precision="fp16")])
    assert len(found.rows) == 1
    assert found.only_old == ("resnet20.onnx: onnxruntime int8, batch 8", "resnet20.onnx: onnxruntime int8, batch 4")
    assert found.only_new == ("resnet20.onnx: onnxruntime fp16, batch 1",)


def test_a_missing_result_is_a_regression(tmp_path: Path) -> None:
    gone = change_facts(OLD, batch=8)
    found = compared(tmp_path, [OLD, gone], [SAME], Limits(slowdown=0.25))
    assert (found.passed, found.gone, found.rows[0].regressions) == (
        False,
        ("resnet20.onnx: onnxruntime int8, batch 8",),
        (),
    )
    allowed = compared(tmp_path, [OLD, gone], [SAME], Limits(slowdown=0.25, missing=True))
    assert (allowed.passed, allowed.gone, allowed.only_old) == (True, (), found.only_old)


def test_a_configuration_measured_twice_is_needed_once(tmp_path: Path) -> None:
    again = change_facts(OLD, group=9, processes=3)
    found = compared(tmp_path, [OLD, again], [SAME], Limits(slowdown=0.25))
    assert (found.passed, found.gone, len(found.only_old)) == (True, (), 1)
    fewer = compared(tmp_path, [OLD, change_facts(OLD, threads=1)], [SAME], Limits(slowdown=0.25))
    assert fewer.gone == ("resnet20.onnx: onnxruntime int8, batch 1, 1 thread",)
    assert compared(tmp_path, [OLD, change_facts(OLD, threads=1)], [SAME], Limits(0.25, across=("threads",))).passed


def test_other_threads_are_listed_where_some_agree(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [change_facts(SAME, threads=1), SAME])
    assert [row.threads for row in found.rows] == [2]
    assert found.only_new == ("resnet20.onnx: onnxruntime int8, batch 1, 1 thread",)


def failing(status: str) -> Result:
    broken = change_facts(
        SKIPPED.result, status=status, reason="wrong answers", backend="onnxruntime", precision="int8", sha256=""
    )
    return change_facts(broken, run="later", time=LATER)


@pytest.mark.parametrize("status", ["failed", "error", "skipped"])
def test_a_result_that_fails_now_is_a_regression(tmp_path: Path, status: str) -> None:
    found = compared(tmp_path, [OLD, REFERENCE], [failing(status), REFERENCE])
    assert not found.passed
    (regression,) = found.rows[0].regressions
    assert regression.code == "stopped-running"
    assert regression.sentence.endswith(f"{status} now: wrong answers")
    assert found.rows[0].remarks == ()


def test_skipped_now_or_failed_before_is_remarked(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD, REFERENCE], [failing("skipped"), REFERENCE], Limits(missing=True))
    assert found.passed
    assert [remark.code for remark in found.rows[0].remarks] == ["not-measured-twice"]
    assert "skipped (wrong answers)" in found.rows[0].remarks[0].sentence
    mended = compared(tmp_path, [failing("failed"), REFERENCE], [SAME, REFERENCE])
    assert mended.passed
    assert "failed (wrong answers)" in mended.rows[0].remarks[0].sentence


def test_nothing_measured_is_nothing_to_compare(tmp_path: Path) -> None:
    with refuses(CompatibilityError, "nothing-measured-in-old", "old.jsonl"):
        compared(tmp_path, [failing("failed")], [SAME])
    with refuses(CompatibilityError, "nothing-to-compare", "NEW"):
        compared(tmp_path, [OLD], [])


def test_the_last_run_of_each_configuration_counts(tmp_path: Path) -> None:
    later = change_facts(SLOWER, time=LATER)
    found = compared(tmp_path, [OLD], [later, SAME, change_facts(SAME, batch=8)])
    assert not found.passed
    (notice,) = found.notices
    assert notice.startswith("NEW: 1 row")
    assert found.only_new == ("resnet20.onnx: onnxruntime int8, batch 8",)
    again = compared(tmp_path, [OLD, REFERENCE], [SAME, REFERENCE, failing("failed")])
    assert not again.passed


def test_an_unreached_run_counts_less_than_an_earlier_one() -> None:
    unreached = change_facts(OLD, time=LATER, run="later", status="skipped", reason=identity.NOT_REACHED, samples=())
    other = change_facts(unreached, batch=8)
    assert identity.latest([OLD, unreached, other]) == (OLD, other)


def test_alike_results_of_one_run_are_all_kept() -> None:
    rows = [change_facts(OLD, sha256=digest * 32) for digest in ("01", "02")]
    assert identity.latest(rows) == tuple(rows)
