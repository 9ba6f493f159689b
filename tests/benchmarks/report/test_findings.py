from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.records.findings import Check, FindingsTable, Outcome
from benchmarks.report import findings
from benchmarks.report.findings import findings_document, section
from benchmarks.report.markdown import markdown
from exporter.document.blocks import Definitions, Remark, Section, Sentence, Table, TableColumn, Verdict
from exporter.document.terminal import as_text
from tests.benchmarks.paper.samples import PROVENANCE, degradation, responses
from tests.documents import numbers, printed


def test_an_experiment_begins_with_what_came_of_it() -> None:
    found = degradation()
    headline, provenance = section(found).all_of(Sentence)
    assert (headline.role, headline.outcome, provenance.role) == ("headline", "reproduced", "aside")
    assert provenance.text.split(" · ")[:3] == [
        "CIFAR-10, JPEG copies",
        "45,000 train, 5,000 validation, 10,000 test images",
        "seeds 0, 1, 2",
    ]
    verdicts = section(found).all_of(Verdict)
    assert [(one.outcome, one.claim) for one in verdicts] == [("reproduced", check.said) for check in found.checks]
    assert [remark.text for remark in section(found).all_of(Remark)] == list(found.notes)


def test_plain_text_is_100_columns_wide_and_has_all_checks() -> None:
    text = as_text(findings_document(degradation()))
    assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())
    for check in degradation().checks:
        assert {*check.said.split(), *check.found.split()} <= set(text.split())
    assert text.splitlines()[0] == degradation().title


def test_tables_are_aligned() -> None:
    lines = as_text(findings_document(degradation())).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("network "))
    assert [lines[start], *lines[start + 2 : start + 6]] == [
        "network         test %    training %  paper: test %",
        "plain20    9.60 ± 0.21   5.20 ± 0.09              –",
        "plain56   13.90 ± 0.21  10.40 ± 0.09              –",
        "resnet20   8.80 ± 0.21   3.40 ± 0.09           8.75",
        "resnet56   7.10 ± 0.21   0.90 ± 0.09           6.97",
    ]


def test_wide_tables_and_long_words_are_wrapped() -> None:
    cells = ("network " * 15, "x" * 150, "1.5")
    wide = FindingsTable("wide", ("network", "words", "number"), (cells,))
    text = as_text(findings_document(replace(degradation(), tables=(wide,), checks=(), notes=())))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("x") >= 150
    assert text.count("network") >= 16


def test_what_moves_a_terminals_cursor_does_not_reach_it() -> None:
    hostile = replace(degradation(), title="a\x1b[2Jb\tc", notes=("\x07bell",))
    lines = printed(findings_document(hostile))
    assert lines[0] == r"a\x1b[2Jb\tc"
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("outcomes", "claims"),
    [
        (("confirmed", "confirmed", "contradicted"), "2 of 3 claims reproduced, 1 contradicted"),
        (("undecided",), "0 of 1 claim reproduced, 1 inconclusive"),
        (("confirmed",) * 5, "5 of 5 claims reproduced"),
        ((), "no claim was checked"),
    ],
)
def test_headlines_count_the_claims(outcomes: tuple[Outcome, ...], claims: str) -> None:
    found = replace(responses(), checks=tuple(Check("s", "", "f", outcome) for outcome in outcomes))
    assert findings.headline(found) == f"Responses: {claims}"


def test_a_short_training_is_inconclusive_everywhere() -> None:
    short = replace(degradation(), provenance=replace(PROVENANCE, scale=0.01))
    claims = replace(short, checks=(*short.checks, Check("s", "", "f", "confirmed", trained=False)))
    document = findings_document(claims)
    headline = findings.headline(claims)
    assert "1 of 3 claims reproduced, 2 inconclusive" in headline
    assert {"1 %", "10 %"} <= set(re.findall(r"\d+ %", headline))
    assert [one.outcome for one in section(claims).all_of(Verdict)] == ["inconclusive", "inconclusive", "reproduced"]
    assert headline in " ".join(printed(document))
    assert as_text(document).count("inconclusive") == 3
    assert markdown(document).count("**inconclusive**") == 2


def test_several_experiments_are_counted_together() -> None:
    assert numbers(findings.overall_headline([degradation(), responses()])) == ["2", "3", "1", "2"]


def test_schedules_differ_by_their_length() -> None:
    whole = replace(PROVENANCE, scale=1.0)
    quarter, stopped = replace(PROVENANCE, scale=0.25), replace(whole, until=50_544)
    both = replace(stopped, scale=0.5)
    several, none = replace(PROVENANCE, scale=None), replace(PROVENANCE, scale=None, recipe="")
    texts = list(map(findings.schedule, (whole, quarter, stopped, both, several, none)))
    assert len(set(texts)) == len(texts)
    assert ["25 %" in texts[1], "50,544" in texts[2], "50,544" in texts[3], "50 %" in texts[3]] == [True] * 4


def test_what_it_rests_on_leaves_out_what_there_is_not() -> None:
    bare = replace(PROVENANCE, data="", images={}, seeds=(3,), scale=None, recipe="", versions={})
    assert findings.describe_provenance(bare).split(" · ")[0] == "seed 3"
    (definitions,) = section(replace(responses(), provenance=bare)).all_of(Definitions)
    assert [name for name, _ in definitions.pairs] == ["seeds", "schedule", "machine", "time"]
    assert dict(findings.rests_on(PROVENANCE))["versions"] == "torch 2.11.0, numpy 2.4.6"


def test_columns_of_numbers_stand_at_the_right() -> None:
    rows = (("1", "–", "x", "±0.1"), ("2", "-3 ms", "1", ""))
    table = findings.table(FindingsTable("t", ("1", "a", "b", "c"), rows))
    assert [(column.heading, column.left) for column in table.columns] == [
        *(("1", True), ("a", False), ("b", True), ("c", False)),
    ]
    empty = findings.table(FindingsTable("t", ("a", "b"), ()))
    assert empty.columns == (TableColumn("a", left=True), TableColumn("b"))


def test_a_document_holds_one_experiment() -> None:
    (only,) = findings_document(responses()).blocks
    assert isinstance(only, Section)
    assert len(only.all_of(Table)) == len(responses().tables)
