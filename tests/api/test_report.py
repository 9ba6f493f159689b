from __future__ import annotations

import csv
import html.parser
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import rexport
from benchmarks.analysis.figures import Figures
from benchmarks.commands.results import report as report_command
from benchmarks.records.store import read
from benchmarks.report.document import run_document
from exporter.document.terminal import as_text
from runtimes.errors import Reason
from tests.benchmarks.results import FASTER, REFERENCE, SKIPPED, change_facts
from tests.refusals import refuses

ROWS = Figures.of_all([row.result for row in (REFERENCE, FASTER, SKIPPED)])
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(1)>\x1b[31m&amp;'


@pytest.fixture
def report() -> rexport.Report:
    return rexport.Report(ROWS)


def called(*arguments: object) -> str:
    result = CliRunner().invoke(
        report_command, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False
    )
    return result.stdout


def test_it_prints_as_the_command_does(report: rexport.Report) -> None:
    assert str(report) == as_text(run_document(ROWS))
    assert repr(report) == "<rexport.Report of 3 rows>"
    assert repr(replace(report, complete=False)) == "<rexport.Report of 3 rows, incomplete>"
    assert "Incomplete" in str(replace(report, complete=False))


def test_the_verdict_names_the_fastest(report: rexport.Report) -> None:
    assert "ONNX Runtime int8" in report.verdict
    assert report.verdict in " ".join(str(report).split())


def test_the_verdict_of_nothing_says_why() -> None:
    assert "openvino is not installed" in rexport.Report((SKIPPED,)).verdict
    assert rexport.Report(()).verdict == "Nothing was measured."


def test_records_are_the_columns_of_the_spreadsheet(report: rexport.Report, tmp_path: Path) -> None:
    with report.save(tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    records = report.to_records()
    assert [{name: "" if value is None else str(value) for name, value in each.items()} for each in records] == lines
    assert ROWS[0].p50 is not None
    assert (records[0]["p50_s"], records[2]["p50_s"]) == (ROWS[0].p50.value, None)
    assert json.loads(json.dumps(records)) == records


def test_rows_that_are_saved_are_read_by_the_report_command(report: rexport.Report, tmp_path: Path) -> None:
    rows, page = report.save(tmp_path / "rows.jsonl"), report.save(tmp_path / "page.html")
    assert read(rows) == tuple(row.result for row in ROWS)
    called(rows, "-o", tmp_path / "again.html", "--markdown", tmp_path / "again.md")
    assert (tmp_path / "again.html").read_text() == page.read_text()
    assert (tmp_path / "again.md").read_text() == report.save(tmp_path / "page.md").read_text()


@pytest.mark.parametrize("name", ["there", "new", "newer/"])
def test_a_folder_has_all_files(report: rexport.Report, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    folder = report.save(f"{tmp_path}/{name}")
    assert sorted(each.name for each in folder.iterdir()) == [
        f"results.{kind}" for kind in ("csv", "html", "jsonl", "md")
    ]
    assert called(folder, "-o", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == (folder / "results.html").read_text()


def test_rows_are_added_and_each_once(report: rexport.Report, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    other = Figures(change_facts(FASTER.result, subject="other.onnx"))
    rexport.Report((other,)).save(path)
    report.save(path)
    report.save(path)
    assert [result.identity.subject for result in read(path)] == ["other.onnx"] + ["resnet20.onnx"] * 3


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.v2"])
def test_another_suffix_is_refused(report: rexport.Report, tmp_path: Path, name: str) -> None:
    with refuses(rexport.UsageError, "report-suffix-unknown", name, ".csv", ".html", ".jsonl", ".md"):
        report.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_is_left(report: rexport.Report, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text("mine\n")
    with pytest.raises(rexport.ArtifactError):
        report.save(path)
    assert path.read_text() == "mine\n"


class Elements(html.parser.HTMLParser):
    """The elements of a piece of HTML, its text, and whether all that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_a_notebook_shows_a_table_that_needs_nothing(report: rexport.Report) -> None:
    text = report._repr_html_()
    elements = Elements(text)
    assert elements.open == []
    assert {"div", "style", "table", "th", "td"} <= set(elements.tags)
    assert not {"script", "link", "img", "svg", "html", "body", "button", "input"} & set(elements.tags)
    assert not any(name in ("id", "src", "href") for name, _ in elements.attributes)
    words = " ".join(elements.words)
    assert report.verdict in words
    assert "onnxruntime" in words
    assert "openvino is not installed" in words
    assert len(text) < 20_000


def test_hostile_names_stay_text() -> None:
    result = change_facts(
        FASTER.result, subject=HOSTILE, artifact=HOSTILE, variant=HOSTILE, backend=HOSTILE, data=HOSTILE
    )
    failed = change_facts(result, status="error", reason=Reason("broken", HOSTILE), provider=HOSTILE)
    report = rexport.Report(Figures.of_all([result, failed]))
    elements = Elements(report._repr_html_())
    assert not {"script", "img"} & set(elements.tags)
    assert not any(name.startswith("on") for name, _ in elements.attributes)
    assert HOSTILE.replace("\x1b", r"\x1b") in " ".join(elements.words)
    assert "\x1b" not in str(report)
