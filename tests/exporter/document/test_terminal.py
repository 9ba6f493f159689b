from __future__ import annotations

import io

import pytest

from exporter.document.blocks import (
    Block,
    Command,
    Definitions,
    Document,
    Folded,
    Legend,
    Remark,
    Section,
    Sentence,
    Summary,
    Table,
    TableColumn,
    TableRow,
    Verdict,
)
from exporter.document.terminal import as_text, print_document

TABLE = Table((TableColumn("name", left=True), TableColumn("ms")), (TableRow(("a", "1.0")),), caption="caption")


def lines(*blocks: Block, width: int = 100) -> list[str]:
    return as_text(Document("d", blocks, plain_width=width)).splitlines()


def test_blocks_stand_in_their_order() -> None:
    shown = lines(
        Section("section", (Sentence("headline", "headline"), Remark("note"), Folded("folded", (TABLE,)))),
        Summary((Remark("summary", "warning"),)),
        Legend((("", "one"), ("", "two"))),
    )
    words = [line for line in shown if line]
    assert words[:4] == ["section", "headline", "note", "caption"]
    assert [word.split() for word in words if "─" not in word][4:6] == [["name", "ms"], ["a", "1.0"]]
    assert words[-3:] == ["summary", "one", "two"]


def test_only_what_is_brief_is_shown_of_an_appendix() -> None:
    pairs = Definitions((("machine", "a long story"),), brief="brief")
    appendix = Section("Environment", (pairs, pairs, Command("rbench run"), Remark("seed 0")), appendix=True)
    assert lines(appendix) == ["brief"]


def test_plots_commands_and_definitions_are_passed_over() -> None:
    assert lines(Block(), Command("rbench run"), Definitions((("name", "value"),)), Remark("kept")) == ["kept"]


def test_a_titled_summary_ends_with_an_empty_line() -> None:
    assert lines(Summary((Remark("remark"),), "passed")) == ["passed", "remark", ""]


def test_a_legend_before_other_blocks_stands_apart() -> None:
    assert lines(Legend((("", "legend"),)), Sentence("text")) == ["legend", "", "text"]


def test_definitions_stand_in_a_column_beside_their_terms() -> None:
    legend = Legend((("p50", "median"), ("top-1", "word " * 30), ("", "note")))
    shown = lines(legend)
    assert shown[0] == "p50    median"
    assert shown[1].startswith("top-1  word")
    assert shown[2].startswith("       word")
    assert shown[-1] == "note"


def test_a_verdict_hangs_behind_its_outcome() -> None:
    claim, found = "c" * 20, "f" * 20
    shown = lines(Verdict("confirmed", f"{claim} {claim}", "Table 1", f"{found} {found}"), width=50)
    assert shown[1].split() == ["confirmed", claim]
    assert {len(line) - len(line.lstrip()) for line in shown[2:]} == {shown[1].index(claim)}
    assert [word for line in shown[2:] for word in line.split()] == [claim, "(Table", "1)", "found:", found, found]


def test_a_total_stands_apart_and_nothing_makes_no_table() -> None:
    rows = (TableRow(("a", "1.0")), TableRow(("total", "1.0"), state="total"))
    shown = lines(Table(TABLE.columns, rows))
    assert shown[-2].split() == ["total", "1.0"]
    assert shown[-3] == ""
    assert lines(Table(TABLE.columns, ())) == []


def test_long_words_are_broken_and_none_is_lost() -> None:
    shown = lines(Table(TABLE.columns, (TableRow(("x" * 150, "1.5")),)))
    assert max(map(len, shown)) <= 100
    assert "".join(shown).count("x") == 150


def test_what_moves_a_cursor_does_not_reach_the_terminal() -> None:
    hostile = "a\x1b[2Jb"
    text = as_text(Document("d", (Section(hostile, (Table(TABLE.columns, (TableRow((hostile, "\x07")),)),)),)))
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize(("kind", "coloured"), [("note", False), ("warning", True), ("failure", True)])
def test_a_terminal_shows_what_is_wrong_in_colour(monkeypatch: pytest.MonkeyPatch, kind: str, coloured: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    file = Terminal()
    print_document(Document("d", (Remark("words", kind),)), file)  # type: ignore[arg-type]
    assert ("\x1b[33m" in file.getvalue()) == coloured
