from __future__ import annotations

from dataclasses import replace

from benchmarks.records.findings import Check, FindingsTable
from benchmarks.report import findings
from tests.benchmarks.paper.samples import PROVENANCE, degradation, responses


def test_lines_begin_with_what_came_of_it_and_none_is_too_long() -> None:
    lines = findings.format_findings(degradation())
    assert lines[:2] == [degradation().title, "Confirmed. The paper's claims: 2 seen."]
    assert lines[2].startswith(
        "CIFAR-10, JPEG copies · 45,000 train, 5,000 validation, 10,000 test images · seeds 0, 1, 2"
    )
    assert all(len(line) <= findings.WIDTH and line == line.rstrip() for line in lines)
    assert "confirmed     a deeper plain net has a higher training error (section 1, Figure 1)" in lines
    assert any(line.startswith("              found: training error 10.40") for line in lines)
    assert lines[-1].startswith("- ")


def test_tables_are_aligned() -> None:
    lines = findings.format_findings(degradation())
    start = next(place for place, line in enumerate(lines) if line.startswith("network "))
    assert lines[start : start + 6] == [
        "network         test %    training %  paper: test %",
        "--------  ------------  ------------  -------------",
        "plain20    9.60 ± 0.21   5.20 ± 0.09              –",
        "plain56   13.90 ± 0.21  10.40 ± 0.09              –",
        "resnet20   8.80 ± 0.21   3.40 ± 0.09           8.75",
        "resnet56   7.10 ± 0.21   0.90 ± 0.09           6.97",
    ]


def test_wide_tables_and_long_words_are_wrapped() -> None:
    cells = ("a network " * 8, "x" * 150, "1.5")
    lines = findings.format_findings(
        replace(degradation(), tables=(FindingsTable("wide", ("network", "words", "number"), (cells,)),))
    )
    assert max(map(len, lines)) <= findings.WIDTH
    assert sum(line.count("x") for line in lines[lines.index("wide") :]) >= 150
    assert " ".join(lines).count("a network") >= 7


def test_what_moves_a_terminals_cursor_does_not_reach_it() -> None:
    hostile = replace(degradation(), title="a\x1b[2Jb\nc\t", notes=("\x07bell",))
    lines = findings.format_findings(hostile)
    assert lines[0] == "a [2Jb c"
    assert all(line.isprintable() for line in lines)


def test_headlines_count_the_checks() -> None:
    confirmed, contradicted = (Check("s", "", "f", outcome) for outcome in ("confirmed", "contradicted"))
    found = replace(responses(), checks=(confirmed, confirmed, contradicted))
    assert findings.headline(found) == "Contradicted. The paper's claims: 2 seen, 1 contradicted."
    assert findings.headline(responses()) == "Undecided. The paper's claims: 1 left undecided."
    assert findings.headline(replace(found, checks=())) == "Undecided. The paper's claims: none was checked."


def test_schedules_are_told_from_each_other() -> None:
    assert findings.schedule(replace(PROVENANCE, scale=0.25)) == "0.25 of the paper's schedule"
    stopped = replace(PROVENANCE, scale=1.0, until=50_544)
    assert findings.schedule(stopped) == "up to iteration 50,544 of the paper's schedule"
    assert findings.schedule(replace(stopped, scale=0.5)) == "up to iteration 50,544 of 0.5 of the paper's schedule"
    assert findings.schedule(replace(PROVENANCE, scale=None)) == "schedules of several lengths"
    assert findings.schedule(replace(PROVENANCE, scale=None, recipe="")) == "nothing was trained"


def test_what_it_rests_on_leaves_out_what_there_is_not() -> None:
    assert findings.schedule(replace(PROVENANCE, scale=1.0)) == "the paper's whole schedule"
    bare = replace(PROVENANCE, data="", images={}, seeds=(3,), scale=None, recipe="", versions={})
    assert findings.describe_provenance(bare) == "seed 3 · nothing was trained"
    assert [name for name, _ in findings.rests_on(bare)] == ["seeds", "schedule", "machine", "time"]
    assert dict(findings.rests_on(PROVENANCE))["versions"] == "torch 2.11.0, numpy 2.4.6"


def test_columns_of_numbers_stand_at_the_right() -> None:
    table = findings.table(FindingsTable("t", ("1", "a", "b", "c"), (("1", "–", "x", "±0.1"), ("2", "-3 ms", "1", ""))))
    assert table.headings == (("1", True), ("a", False), ("b", True), ("c", False))
    assert findings.table(FindingsTable("t", ("a", "b"), ())).headings == (("a", True), ("b", False))
    assert [findings.is_papers(heading) for heading in ("paper: test %", "Paper", "test %")] == [True, True, False]
