from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.records import findings
from benchmarks.records.findings import Check, FindingsTable, Line, Outcome, Panel
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, UsageError
from tests.benchmarks.paper.samples import degradation, responses


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for found in (degradation(), responses()):
        path = findings.write(found, tmp_path)
        assert path == tmp_path / f"{found.experiment}.findings.json"
        assert findings.read(path) == found
    assert findings.list_findings_files(tmp_path) == (
        tmp_path / "degradation.findings.json",
        tmp_path / "responses.findings.json",
    )


def test_a_folder_without_any(tmp_path: Path) -> None:
    assert findings.list_findings_files(tmp_path) == ()
    path = findings.write(responses(), tmp_path)
    (tmp_path / "other.json").write_text("{}")
    assert findings.list_findings_files(tmp_path) == (path,)


def test_a_librarys_scalars_become_numbers_of_json() -> None:
    assert findings.floats(np.array([0.5, 2], np.float32)) == (0.5, 2.0)
    assert {type(value) for value in findings.floats(np.arange(3))} == {float}


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (("confirmed", "confirmed"), "confirmed"),
        (("confirmed", "undecided"), "undecided"),
        (("confirmed", "undecided", "contradicted"), "contradicted"),
        ((), "undecided"),
    ],
)
def test_one_contradiction_is_the_outcome_and_only_all_together_confirm(
    outcomes: tuple[Outcome, ...], whole: Outcome
) -> None:
    checks = tuple(Check("said", "", "found", outcome) for outcome in outcomes)
    assert replace(responses(), checks=checks).outcome == whole


def changed(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_newer_file_is_refused_before_its_fields_are_looked_at(tmp_path: Path) -> None:
    path = changed(findings.write(responses(), tmp_path), findings=2, unheard_of=[])
    with pytest.raises(CompatibilityError, match=r"responses\.findings\.json: findings of schema version 2;.*up to 1"):
        findings.read(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not valid JSON"),
        ("[1]", "expected an object"),
        ('{"rows": []}', "unknown field 'rows'"),
        ("{}", "field 'experiment' is missing"),
    ],
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "wrong.findings.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=f"wrong.findings.json: .*{said}.*rbench paper makes such files"):
        findings.read(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        findings.read(tmp_path / "nowhere.findings.json")


def test_unknown_experiments_and_outcomes_are_refused(tmp_path: Path) -> None:
    path = changed(findings.write(responses(), tmp_path), experiment="magic")
    with pytest.raises(ArtifactError, match=r"field 'experiment': expected one of .*'degradation'"):
        findings.read(path)


def test_lines_tables_and_ranges_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a line of 2 x and 1 y"):
        Line("a", "a", (1, 2), (1,))
    for low, high in (((1.0,), ()), ((), (1.0,)), ((1.0,), (1.0,))):
        with pytest.raises(UsageError, match=r"a band of \d and \d ends: expected 2 or none"):
            Line("a", "a", (1, 2), (1, 2), low, high)
    with pytest.raises(UsageError, match="a row of 1 cells under 2 headings"):
        FindingsTable("t", ("a", "b"), (("1", "2"), ("1",)))
    with pytest.raises(UsageError, match="a table without headings"):
        FindingsTable("t", (), ())
    with pytest.raises(UsageError, match="expected the lower end first"):
        Panel("p", "x", "y", (), y_range=(1, 1))
    with pytest.raises(UsageError, match="of a logarithmic axis: expected more than 0"):
        Panel("p", "x", "y", (), y_range=(0, 1), y_scale="log")
    data = json.loads(findings.write(responses(), tmp_path).read_text())
    data["panels"][0]["lines"][1]["x"].pop()
    path = changed(tmp_path / "responses.findings.json", panels=data["panels"])
    with pytest.raises(ArtifactError, match=r"field 'panels\[0\].lines\[1\]': a line of 17 x and 18 y"):
        findings.read(path)
