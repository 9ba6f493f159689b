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
from tests.refusals import refuses


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
def test_one_contradiction_decides_the_outcome(outcomes: tuple[Outcome, ...], whole: Outcome) -> None:
    checks = tuple(Check("said", "", "found", outcome) for outcome in outcomes)
    assert replace(responses(), checks=checks).outcome == whole


@pytest.mark.parametrize(
    ("scale", "until", "share", "outcome"),
    [
        (1.0, None, 1.0, "confirmed"),
        (0.1, None, 0.1, "confirmed"),
        (0.09, None, 0.09, "undecided"),
        (1.0, 6_400, 0.1, "confirmed"),
        (1.0, 6_399, 6_399 / 64_000, "undecided"),
        (0.05, 3_000, 3_000 / 64_000, "undecided"),
        (None, None, None, "confirmed"),
        (None, 320, None, "confirmed"),
    ],
)
def test_a_tenth_of_the_schedule_is_needed_for_a_claim(
    scale: float | None, until: int | None, share: float | None, outcome: Outcome
) -> None:
    check, other = Check("said", "", "found", "confirmed"), Check("said", "", "found", "confirmed", trained=False)
    origin = replace(responses().provenance, scale=scale, until=until)
    found = replace(responses(), checks=(check, other), provenance=origin)
    assert origin.share == share
    assert [found.outcome_of(one) for one in found.checks] == [outcome, "confirmed"]
    assert found.outcome == outcome


def changed(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_newer_file_is_refused_before_its_fields(tmp_path: Path) -> None:
    path = changed(findings.write(responses(), tmp_path), findings=2, unheard_of=[])
    with refuses(CompatibilityError, "record-schema-newer", path, "version 2", "up to 1"):
        findings.read(path)


@pytest.mark.parametrize(
    ("content", "value"), [("", "JSON"), ("[1]", "object"), ('{"rows": []}', "'rows'"), ("{}", "'experiment'")]
)
def test_a_file_of_something_else_is_named(tmp_path: Path, content: str, value: str) -> None:
    path = tmp_path / "wrong.findings.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=value) as caught:
        findings.read(path)
    assert caught.value.path == path
    assert "rbench paper" in (caught.value.hint or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="No such file"):
        findings.read(tmp_path / "nowhere.findings.json")


def test_unknown_experiments_and_outcomes_are_refused(tmp_path: Path) -> None:
    path = changed(findings.write(responses(), tmp_path), experiment="magic")
    with pytest.raises(ArtifactError, match=r"'experiment'.*'degradation'"):
        findings.read(path)


def test_lines_tables_and_ranges_that_cannot_be(tmp_path: Path) -> None:
    with refuses(UsageError, "line-lengths-differ", "2 x", "1 y"):
        Line("a", "a", (1, 2), (1,))
    for low, high in (((1.0,), ()), ((), (1.0,)), ((1.0,), (1.0,))):
        with refuses(UsageError, "band-lengths-differ", len(low), len(high)):
            Line("a", "a", (1, 2), (1, 2), low, high)
    with refuses(UsageError, "table-row-width", "1 cells", "expected 2"):
        FindingsTable("t", ("a", "b"), (("1", "2"), ("1",)))
    with refuses(UsageError, "table-without-headings"):
        FindingsTable("t", (), ())
    with refuses(UsageError, "range-reversed", (1, 1)):
        Panel("p", "x", "y", (), y_range=(1, 1))
    with refuses(UsageError, "log-range-not-positive", (0, 1)):
        Panel("p", "x", "y", (), y_range=(0, 1), y_scale="log")
    data = json.loads(findings.write(responses(), tmp_path).read_text())
    data["panels"][0]["lines"][1]["x"].pop()
    path = changed(tmp_path / "responses.findings.json", panels=data["panels"])
    with pytest.raises(ArtifactError, match=r"'panels\[0\].lines\[1\]'.*17 x"):
        findings.read(path)
