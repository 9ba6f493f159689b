from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.commands.results import merge as command
from benchmarks.compare import merge
from benchmarks.records import result, store
from runtimes.errors import ArtifactError, ResourceError, UsageError
from tests.benchmarks import results
from tests.benchmarks.comparisons import file
from tests.benchmarks.records.old_rows import written
from tests.benchmarks.results import MACHINE, change_facts
from tests.refusals import refuses

REFERENCE, FASTER, ON_A_GPU, SKIPPED = (
    figures.result for figures in (results.REFERENCE, results.FASTER, results.ON_A_GPU, results.SKIPPED)
)
ELSEWHERE = change_facts(REFERENCE, run="ffffffffffff", environment=replace(MACHINE, cpu="Slow Processor 3"))


def test_results_of_several_machines_keep_their_order(tmp_path: Path) -> None:
    here, there = (
        file(tmp_path / "a.jsonl", REFERENCE, FASTER, SKIPPED),
        file(tmp_path / "b.jsonl", ELSEWHERE, ON_A_GPU),
    )
    out = tmp_path / "all.jsonl"
    merged = merge.merge([here, there], out)
    assert store.read(out) == (REFERENCE, FASTER, SKIPPED, ELSEWHERE, ON_A_GPU)
    assert (merged.results, merged.duplicates) == (store.read(out), 0)


def test_a_result_in_several_files_stands_once(tmp_path: Path) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER, REFERENCE), file(tmp_path / "b.jsonl", ELSEWHERE, REFERENCE, FASTER)
    assert merge.merge([one, two, one], tmp_path / "all.jsonl").duplicates == 4
    assert store.read(tmp_path / "all.jsonl") == (FASTER, REFERENCE, ELSEWHERE)
    again = merge.merge([tmp_path / "all.jsonl", two], tmp_path / "again.jsonl")
    assert (again.results, again.duplicates) == ((FASTER, REFERENCE, ELSEWHERE), 3)


@pytest.mark.parametrize(
    "changes", [{"run": "another"}, {"time": "2027-01-01T00:00:00+00:00"}, {"threads": 1}, {"group": 7}, {"batch": 2}]
)
def test_other_runs_moments_and_configurations_are_kept(tmp_path: Path, changes: dict[str, object]) -> None:
    other = change_facts(FASTER, **changes)
    merge.merge([file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", other)], tmp_path / "all.jsonl")
    assert store.read(tmp_path / "all.jsonl") == (FASTER, other)


def test_a_result_that_differs_from_itself_is_refused(tmp_path: Path) -> None:
    one, edited = (
        file(tmp_path / "a.jsonl", FASTER),
        file(tmp_path / "b.jsonl", change_facts(FASTER, provider="another")),
    )
    with refuses(ArtifactError, "merge-conflict", "b.jsonl", "resnet20.onnx: onnxruntime int8, batch 1"):
        merge.merge([one, edited], tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_older_results_are_written_in_the_present_schema(tmp_path: Path) -> None:
    old = written(tmp_path / "old.jsonl", 2)
    merge.merge([old, file(tmp_path / "new.jsonl", REFERENCE)], tmp_path / "all.jsonl")
    versions = [json.loads(line)["schema_version"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert versions == [result.SCHEMA_VERSION] * 2
    assert store.read(tmp_path / "all.jsonl")[0] == store.read(old)[0]


def test_no_file_is_written_over_unless_it_is_meant(tmp_path: Path) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", REFERENCE)
    (tmp_path / "link.jsonl").symlink_to(one)
    for out in (one, tmp_path / "link.jsonl"):
        with refuses(UsageError, "output-exists", out.name, "--force"):
            merge.merge([one, two], out)
    with refuses(UsageError, "output-exists", two.name):
        merge.merge([one], two)
    assert (store.read(one), store.read(two)) == ((FASTER,), (REFERENCE,))
    merge.merge([one, two], one, force=True)
    assert store.read(one) == (FASTER, REFERENCE)


def test_a_broken_file_leaves_an_older_output_whole(tmp_path: Path) -> None:
    out, broken = file(tmp_path / "all.jsonl", FASTER), tmp_path / "broken.jsonl"
    broken.write_text("{")
    with refuses(ArtifactError, "json-invalid", "broken.jsonl", "line 1"):
        merge.merge([out, broken], out, force=True)
    assert store.read(out) == (FASTER,)


def test_more_than_can_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", REFERENCE)
    monkeypatch.setattr(store, "FILE_LIMIT_BYTES", one.stat().st_size + 10)
    with refuses(ResourceError, "output-too-large", "all.jsonl"):
        merge.merge([one, two], tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_the_command_prints_the_file_and_counts_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = file(tmp_path / "run" / "results.jsonl", REFERENCE, FASTER).parent
    two = file(tmp_path / "b.jsonl", FASTER, ELSEWHERE)
    done = CliRunner().invoke(command, [str(folder), str(two), "-o", str(tmp_path / "all.jsonl")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'all.jsonl'}\n")
    assert re.findall(r"\d+", done.stderr) == ["3", "2", "1"]
    assert CliRunner().invoke(command, [str(two)]).exit_code == 2


def test_the_folder_of_the_file_is_not_made(tmp_path: Path) -> None:
    with refuses(ResourceError, "folder-missing", f"mkdir -p {tmp_path}/new"):
        merge.merge([file(tmp_path / "a.jsonl", REFERENCE)], tmp_path / "new" / "all.jsonl")
    assert not (tmp_path / "new").exists()
