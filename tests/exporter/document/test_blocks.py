from __future__ import annotations

from exporter.document.blocks import Document, Folded, Legend, Remark, Section, Summary, Table, TableColumn, TableRow

COLUMNS = (TableColumn("name", left=True), TableColumn("ms"), TableColumn("top-1", priority=2), TableColumn("note"))
TABLE = Table(COLUMNS, (TableRow(("a", "1.0", "90", "–")), TableRow(("b", "–", "–", "skipped"), state="missing")))


def test_columns_in_which_nothing_stands_are_dropped() -> None:
    table = Table(COLUMNS, (TableRow(("a", "–", "90", "")), TableRow(("b", "–", "–", "–"), {"runtime": "x"}, "best")))
    found = table.drop_empty()
    assert found.headings == ("name", "top-1", "note")
    assert found.cells == (("a", "90", ""), ("b", "–", "–"))
    assert [(row.attributes, row.state) for row in found.rows] == [({}, ""), ({"runtime": "x"}, "best")]


def test_a_narrow_table_has_no_missing_row_or_empty_column() -> None:
    assert TABLE.narrow().headings == ("name", "ms", "top-1")
    assert TABLE.narrow().cells == (("a", "1.0", "90"),)


def test_columns_are_left_out_by_priority_the_last_first() -> None:
    columns = (
        TableColumn("a"),
        *(TableColumn(name, priority=number) for name, number in (("b", 1), ("c", 2), ("d", 2))),
    )
    table, headings = Table(columns, (TableRow(("1", "2", "3", "4")),)), []
    while (fewer := table.leave_out()) is not table:
        table = fewer
        headings.append("".join(table.headings))
    assert headings == ["abc", "ab", "a"]
    assert table.cells == (("1",),)


def test_a_table_that_is_narrow_keeps_its_empty_columns() -> None:
    table = Table(COLUMNS[:2], (TableRow(("a", "–")),))
    assert table.narrow() is table


def test_blocks_are_found_in_folds_too() -> None:
    section = Section("s", (Remark("one"), Folded("more", (TABLE, Remark("two", "warning")))))
    assert [remark.text for remark in section.all_of(Remark)] == ["one", "two"]
    assert section.all_of(Table) == (TABLE,)


def test_a_document_knows_its_parts() -> None:
    section, summary = Section("s", ()), Summary((Remark("fine"),))
    document = Document("d", (Legend((("a", "b"),)), section, summary))
    assert (document.sections, document.summary, document.legend) == ((section,), summary, (("a", "b"),))
    assert (Document("d", ()).summary, Document("d", ()).legend) == (Summary(()), ())
