from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.records import result, store
from benchmarks.records.store import ResultsFile
from runtimes import codec
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError
from tests.benchmarks.rows import EMPTY, ON_A_GPU, REFERENCE, SKIPPED

PROMISED = (
    "status reason variant weights runtime device precision batch threads p50_s p90_s p99_s images_per_s load_s "
    "first_s peak_bytes top1 top5 images agreement drop drop_interval arithmetic subject sittings environment"
)


def test_a_line_has_every_promised_name_and_null_where_nothing_was_measured() -> None:
    data = json.loads(codec.dumps(SKIPPED))
    assert [name for name in PROMISED.split() if name not in data] == []
    assert data["p50_s"] is None
    assert data["sittings"] == []
    assert data["status"] == "skipped"


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "new" / "r.jsonl")
    for row in (REFERENCE, SKIPPED):
        file.append(row)
    assert store.read(file.path) == (REFERENCE, SKIPPED)


def test_older_runs_are_kept(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "r.jsonl").append(EMPTY)
    ResultsFile(tmp_path / "r.jsonl").append(replace(EMPTY, run="later"))
    assert [row.run for row in store.read(tmp_path / "r.jsonl")] == [EMPTY.run, "later"]


def test_a_last_line_without_its_end_is_not_glued_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(codec.dumps(EMPTY))
    ResultsFile(path).append(SKIPPED)
    assert store.read(path) == (EMPTY, SKIPPED)


def test_a_row_of_a_gpu_is_read_back_as_it_was(tmp_path: Path) -> None:
    ResultsFile(tmp_path / "r.jsonl").append(ON_A_GPU)
    assert store.read(tmp_path / "r.jsonl") == (ON_A_GPU,)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{", r"r\.jsonl: line 2: not valid JSON"),
        ("[]", "line 2: field 'at the top': expected an object"),
        ('{"status": "fine"}', "line 2: field 'status': expected one of"),
        ('{"status": "ok"}', "line 2: field 'reason' is missing"),
        ("", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ('{"schema_version": 0}', "line 2: field 'schema_version': expected 1 to 4, got 0"),
        ('{"schema_version": "4", "status": "fine"}', "line 2: field 'status': expected one of"),
    ],
)
def test_a_broken_line_is_named_and_the_file_left_alone(tmp_path: Path, second: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    content = f"{codec.dumps(EMPTY)}\n{second}\n"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=message):
        ResultsFile(path)
    assert path.read_text() == content


def test_a_newer_row_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for newer in (replace(EMPTY, schema_version=result.SCHEMA_VERSION + 1), {"schema_version": 99, "p50": 1}):
        path.write_text(codec.dumps(newer) + "\n")
        with pytest.raises(CompatibilityError, match=r"line 1: a row of schema version .*pip install --upgrade"):
            store.read(path)


def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").mkdir()
    with pytest.raises(ResourceError, match="cannot read: not a regular file"):
        ResultsFile(tmp_path / "r.jsonl")


def test_a_folder_means_the_results_in_it(tmp_path: Path) -> None:
    assert store.find_rows_file(tmp_path) == tmp_path / "results.jsonl"
    assert store.find_rows_file(str(tmp_path / "r.jsonl")) == tmp_path / "r.jsonl"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(codec.dumps(replace(EMPTY, p50_s=0.125)).replace("0.125", number, 1))
    with pytest.raises(ArtifactError, match="line 1: field 'p50_s': expected a finite number"):
        store.read(path)


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    file = ResultsFile(tmp_path / "r.jsonl")
    file.append(EMPTY)
    with pytest.raises(ValueError, match="not JSON compliant"):
        file.append(replace(EMPTY, p50_s=float("nan")))
    assert store.read(file.path) == (EMPTY,)
    assert os.listdir(tmp_path) == ["r.jsonl"]


def _append_ten(path: str, run: str) -> None:
    file = ResultsFile(path)
    for batch in range(1, 11):
        file.append(replace(EMPTY, run=run, batch=batch))


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "r.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_ten, args=(path, f"writer {n}")) for n in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    rows = store.read(path)
    for n in range(2):
        assert [row.batch for row in rows if row.run == f"writer {n}"] == list(range(1, 11))


ENDLESS = """
import sys
from dataclasses import replace
from benchmarks.records.result import ResultsFile
from tests.benchmarks.rows import REFERENCE
file = ResultsFile(sys.argv[1])
series = replace(REFERENCE.sittings[0].latency, rounds_s=((0.001,) * 20_000,))
row = replace(REFERENCE, sittings=(replace(REFERENCE.sittings[0], latency=series),))
print("ready", flush=True)
while True:
    file.append(row)
"""


def test_a_kill_at_any_moment_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    counts = []
    for delay in (0.0, 0.02, 0.05, 0.09):
        with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        rows = store.read(path) if path.exists() else ()
        assert all(row.sittings[0].latency.samples_s == (0.001,) * 20_000 for row in rows)
        counts.append(len(rows))
    assert counts == sorted(counts)
    assert counts[-1] > 0
