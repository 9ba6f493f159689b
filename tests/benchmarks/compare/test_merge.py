from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.commands.merge import merge as command
from benchmarks.compare import merge
from benchmarks.records import result, store
from benchmarks.records.result import Row
from runtimes import codec
from runtimes.errors import ArtifactError, ResourceError, UsageError
from tests.benchmarks.records.test_migration import written
from tests.benchmarks.rows import FASTER, MACHINE, ON_A_GPU, REFERENCE, SKIPPED

ELSEWHERE = replace(REFERENCE, run="ffffffffffff", environment=replace(MACHINE, cpu="Slow Processor 3"))


def file(path: Path, *rows: Row) -> Path:
    path.write_text("".join(codec.dumps(row) + "\n" for row in rows))
    return path


def test_rows_of_several_machines_stand_in_one_file_in_their_order(tmp_path: Path) -> None:
    here, there = (
        file(tmp_path / "a.jsonl", REFERENCE, FASTER, SKIPPED),
        file(tmp_path / "b.jsonl", ELSEWHERE, ON_A_GPU),
    )
    out = tmp_path / "new" / "all.jsonl"
    merged = merge.merge([here, there], out)
    assert store.read(out) == (REFERENCE, FASTER, SKIPPED, ELSEWHERE, ON_A_GPU)
    assert (merged.rows, merged.duplicates) == (store.read(out), 0)


def test_a_row_that_is_in_several_files_stands_once_where_it_was_first(tmp_path: Path) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER, REFERENCE), file(tmp_path / "b.jsonl", ELSEWHERE, REFERENCE, FASTER)
    assert merge.merge([one, two, one], tmp_path / "all.jsonl").duplicates == 4
    assert store.read(tmp_path / "all.jsonl") == (FASTER, REFERENCE, ELSEWHERE)
    again = merge.merge([tmp_path / "all.jsonl", two], tmp_path / "again.jsonl")
    assert (again.rows, again.duplicates) == ((FASTER, REFERENCE, ELSEWHERE), 3)


@pytest.mark.parametrize(
    "changes", [{"run": "another"}, {"time": "2027-01-01T00:00:00+00:00"}, {"threads": 1}, {"field": 7}, {"batch": 2}]
)
def test_rows_of_other_runs_moments_and_configurations_are_all_kept(tmp_path: Path, changes: dict[str, object]) -> None:
    other = replace(FASTER, **changes)  # type: ignore[arg-type]
    merge.merge([file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", other)], tmp_path / "all.jsonl")
    assert store.read(tmp_path / "all.jsonl") == (FASTER, other)


def test_a_row_that_differs_from_itself_is_refused_and_nothing_written(tmp_path: Path) -> None:
    one, edited = file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", replace(FASTER, p50_s=0.0001))
    with pytest.raises(
        ArtifactError, match=r"b\.jsonl: resnet20\.onnx: onnxruntime int8, batch 1 of run .* was edited"
    ):
        merge.merge([one, edited], tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_older_rows_are_written_in_the_present_schema(tmp_path: Path) -> None:
    old = written(tmp_path / "old.jsonl", FASTER, 2)
    merge.merge([old, file(tmp_path / "new.jsonl", REFERENCE)], tmp_path / "all.jsonl")
    versions = [json.loads(line)["schema_version"] for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert versions == [result.SCHEMA_VERSION] * 2
    assert store.read(tmp_path / "all.jsonl")[0] == store.read(old)[0]


def test_no_file_is_written_over_unless_it_is_meant(tmp_path: Path) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", REFERENCE)
    (tmp_path / "link.jsonl").symlink_to(one)
    for out, which in ((one, "is one of the files"), (tmp_path / "link.jsonl", "is one of the files")):
        with pytest.raises(UsageError, match=rf"{out.name} {which}.*--force replaces it"):
            merge.merge([one, two], out)
    with pytest.raises(UsageError, match="is there already"):
        merge.merge([one], two)
    assert (store.read(one), store.read(two)) == ((FASTER,), (REFERENCE,))
    merge.merge([one, two], one, force=True)
    assert store.read(one) == (FASTER, REFERENCE)


def test_a_broken_file_leaves_an_older_output_whole(tmp_path: Path) -> None:
    out, broken = file(tmp_path / "all.jsonl", FASTER), tmp_path / "broken.jsonl"
    broken.write_text("{")
    with pytest.raises(ArtifactError, match=r"broken\.jsonl: line 1"):
        merge.merge([out, broken], out, force=True)
    assert store.read(out) == (FASTER,)


def test_more_than_can_be_read_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = file(tmp_path / "a.jsonl", FASTER), file(tmp_path / "b.jsonl", REFERENCE)
    monkeypatch.setattr(store, "FILE_LIMIT_BYTES", one.stat().st_size + 10)
    with pytest.raises(ResourceError, match="bytes of rows, more than the"):
        merge.merge([one, two], tmp_path / "all.jsonl")
    assert not (tmp_path / "all.jsonl").exists()


def test_the_command_prints_the_file_and_counts_on_stderr(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    folder = file(tmp_path / "run" / "results.jsonl", REFERENCE, FASTER).parent
    two = file(tmp_path / "b.jsonl", FASTER, ELSEWHERE)
    done = CliRunner().invoke(command, [str(folder), str(two), "-o", str(tmp_path / "all.jsonl")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'all.jsonl'}\n")
    assert done.stderr == "rows: 3 of files: 2; left out as duplicates: 1\n"
    assert CliRunner().invoke(command, [str(two)]).exit_code == 2
