from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import result, store
from benchmarks.records.result import Result
from benchmarks.records.store import ResultsFile
from runtimes.errors import ArtifactError, CompatibilityError, Reason, ResourceError
from tests.benchmarks import results
from tests.benchmarks.comparisons import file
from tests.benchmarks.results import EMPTY, change_facts
from tests.refusals import refuses

REFERENCE, SKIPPED, ON_A_GPU = (each.result for each in (results.REFERENCE, results.SKIPPED, results.ON_A_GPU))


def test_a_result_is_few_parts_of_facts() -> None:
    assert len(dataclasses.fields(Result)) <= 20
    parts = (result.Identity, result.Asked, result.Ran, result.Evaluation, result.GpuUse)
    assert sum(len(dataclasses.fields(part)) for part in parts) <= 39


def test_a_line_has_every_fact_and_its_figures(tmp_path: Path) -> None:
    results_file = ResultsFile(tmp_path / "r.jsonl")
    results_file.append(SKIPPED, results.SKIPPED.as_json())
    results_file.append(REFERENCE, results.REFERENCE.as_json())
    skipped, measured = map(json.loads, results_file.path.read_text().splitlines())
    assert [*skipped] == [*(field.name for field in dataclasses.fields(Result) if not field.metadata), store.FIGURES]
    assert (skipped["status"], skipped["samples"], skipped["identity"]["backend"]) == ("skipped", [], "openvino")
    assert skipped["reason"] == {"code": "missing", "sentence": "openvino is not installed"}
    assert skipped["figures"]["p50"] is None
    assert measured["figures"]["p50"] == {"value": 0.0025, "low": 0.00245, "high": 0.00256}
    assert measured["figures"]["images"] == 10_000


def test_results_are_read_back_and_figures_left_out(tmp_path: Path) -> None:
    results_file = ResultsFile(tmp_path / "new" / "r.jsonl")
    for each in (REFERENCE, SKIPPED):
        results_file.append(each, {"p50": "nonsense"})
    assert store.read(results_file.path) == (REFERENCE, SKIPPED)


def test_reasons_notes_and_warnings_keep_their_codes(tmp_path: Path) -> None:
    noted = change_facts(
        ON_A_GPU, notes=(Reason("first", "one"), Reason("second", "two")), warnings=(Reason("third", "three"),)
    )
    (read,) = store.read(file(tmp_path / "r.jsonl", noted))
    assert (read, read.note) == (noted, "one; two")


def test_older_lines_are_kept_and_newline_is_mended(tmp_path: Path) -> None:
    path = file(tmp_path / "r.jsonl", REFERENCE)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    ResultsFile(path).append(SKIPPED, {})
    assert store.read(path) == (REFERENCE, SKIPPED)


BROKEN: dict[str, tuple[str, str]] = {
    "{": ("json-invalid", "r.jsonl"),
    "[]": ("field-type-mismatch", "at the top"),
    '{"status": "fine"}': ("field-type-mismatch", "status"),
    '{"status": "ok"}': ("field-missing", "reason"),
    "": ("json-invalid", "r.jsonl"),
    "[" * 100_000: ("json-invalid", "r.jsonl"),
    '{"schema_version": 0}': ("schema-unknown", "1 to 5"),
    '{"schema_version": "5", "status": "fine"}': ("field-type-mismatch", "status"),
    '{"schema_version": 5, "median_s": 1}': ("field-unknown", "median_s"),
}


@pytest.mark.parametrize("second", BROKEN)
def test_a_broken_line_is_named_and_the_file_left_alone(tmp_path: Path, second: str) -> None:
    path = file(tmp_path / "r.jsonl", EMPTY)
    content = path.read_text() + f"{second}\n"
    path.write_text(content)
    code, value = BROKEN[second]
    with refuses(ArtifactError, code, "line 2", value):
        ResultsFile(path)
    assert path.read_text() == content


def test_a_newer_result_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for newer in ({"schema_version": result.SCHEMA_VERSION + 1}, {"schema_version": 99, "p50": 1}):
        path.write_text(json.dumps(newer) + "\n")
        with refuses(CompatibilityError, "schema-newer", "line 1", "pip install --upgrade"):
            store.read(path)


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").mkdir()
    with pytest.raises(ResourceError):
        ResultsFile(tmp_path / "r.jsonl")


def test_a_folder_means_the_results_in_it(tmp_path: Path) -> None:
    assert store.find_results_file(tmp_path) == tmp_path / "results.jsonl"
    assert store.find_results_file(str(tmp_path / "r.jsonl")) == tmp_path / "r.jsonl"


def timed(duration_s: float) -> Result:
    return change_facts(EMPTY, duration_s=duration_s)


@pytest.mark.parametrize(
    ("number", "code", "named"),
    [("NaN", "json-invalid", "NaN"), ("1e999", "field-type-mismatch", "asked.duration_s")],
)
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str, code: str, named: str) -> None:
    path = file(tmp_path / "r.jsonl", timed(0.125))
    path.write_text(path.read_text().replace("0.125", number, 1))
    with refuses(ArtifactError, code, "line 1", named):
        store.read(path)


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    results_file = ResultsFile(tmp_path / "r.jsonl")
    results_file.append(EMPTY, {})
    cases: list[tuple[Result, dict[str, Any]]] = [(timed(float("nan")), {}), (EMPTY, {"p50": float("nan")})]
    for broken, figures in cases:
        with pytest.raises(ValueError, match="JSON compliant"):
            results_file.append(broken, figures)
    assert store.read(results_file.path) == (EMPTY,)
    assert os.listdir(tmp_path) == ["r.jsonl"]


def _append_ten(path: str, run: str) -> None:
    results_file = ResultsFile(path)
    for batch in range(1, 11):
        results_file.append(change_facts(EMPTY, run=run, batch=batch), {})


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_ten, args=(path, f"writer {n}")) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    read = store.read(path)
    for n in range(2):
        assert [each.identity.batch for each in read if each.run == f"writer {n}"] == list(range(1, 11))


ENDLESS = """
import sys
from dataclasses import replace
from benchmarks.records.store import ResultsFile
from tests.benchmarks.results import REFERENCE
file = ResultsFile(sys.argv[1])
first = REFERENCE.result.samples[0]
series = replace(first.latency, rounds_s=((0.001,) * 20_000,))
result = replace(REFERENCE.result, samples=(replace(first, latency=series),))
print("ready", flush=True)
while True:
    file.append(result, {})
"""


def test_a_kill_at_any_moment_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    counts = []
    for least in (0, 1, 2, 3):
        with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            while least and not (path.exists() and path.read_bytes().count(b"\n") >= least):
                time.sleep(0.003)
            process.send_signal(signal.SIGKILL)
        read = store.read(path) if path.exists() else ()
        assert all(each.samples[0].latency.samples_s == (0.001,) * 20_000 for each in read)
        counts.append(len(read))
    assert counts == sorted(counts)
    assert counts[-1] >= 3
