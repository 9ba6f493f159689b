from __future__ import annotations

from dataclasses import replace

from benchmarks.records.findings import Check, FindingsTable
from benchmarks.report import document, run
from benchmarks.report.document import commands, report_document
from benchmarks.report.markdown import escape, markdown
from exporter.document.blocks import Remark, Sentence
from tests.benchmarks.paper.samples import degradation, responses
from tests.benchmarks.report_html.measured import EVERYTHING
from tests.benchmarks.results import FASTER, REFERENCE, SKIPPED, change
from tests.documents import remarks

ROWS = (REFERENCE, FASTER, SKIPPED)


def test_a_comment_begins_with_what_came_of_it_and_one_table() -> None:
    shown, folded = markdown(report_document(ROWS)).split("<details>", 1)
    (section,) = run.sections(ROWS)
    headline, marks = section.all_of(Sentence)
    lines = shown.splitlines()
    assert lines[2] == escape(report_document(ROWS).summary.remarks[0].text)
    assert lines[6] == f"**{escape(headline.text)}**"
    assert shown.count("\n| --- |") == 1
    assert "| **onnxruntime** | **int8** | **1** |" in shown
    assert escape(marks.text) in lines
    assert [line[2:] for line in lines if line.startswith("- ")] == remarks(section, "failure")
    assert folded.count("\n| --- |") == 3
    assert "Fast Processor 9" in folded
    assert f"\n```\n{commands(ROWS)[0]}\n```\n" in folded


def test_everything_that_is_opened_is_closed() -> None:
    text = markdown(report_document(EVERYTHING))
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") >= 3
    (disturbed,) = (one for one in report_document(EVERYTHING).summary.remarks if one.kind == "warning")
    assert f"**{escape(disturbed.text)}**" in text.split("<details>")[0]


def test_load_shapes_show_a_stall_where_one_waits_for_it() -> None:
    (section,) = (one for one in report_document(EVERYTHING).sections if "onnxruntime fp32" in one.title)
    assert any("179 ms" in sentence.text for sentence in section.all_of(Sentence))
    assert "| SingleStream |" in markdown(report_document(EVERYTHING))


def test_tables_are_whole_and_foreign_text_cannot_break_them() -> None:
    foreign = change(FASTER, backend="a|b\n<i>@team", subject="<b>`net`")
    text = markdown(report_document([REFERENCE, foreign, SKIPPED]))
    table = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} <= {6, 7, 8, 12}
    assert "a\\|b\\\\n\\<i\\>@&#8203;team" in text
    assert "\\<b\\>\\`net\\`" in text
    assert "@" not in text.replace("@&#8203;", "")


def test_untrained_weights_are_marked() -> None:
    rows = [change(row, weights="random", trained=False) for row in ROWS]
    assert "*untrained*" in markdown(report_document(rows))


def test_noise_has_no_accuracy() -> None:
    nothing = dict.fromkeys(("top1", "top5", "top1_change"))
    text = markdown(report_document([change(row, data="noise", images=64, **nothing) for row in ROWS]))
    assert "64 images" in text
    assert "| top-1 %" not in text


def test_an_interrupted_run_says_so() -> None:
    incomplete = f"**{document.INCOMPLETE.text}**"
    assert incomplete in markdown(report_document([REFERENCE], complete=False))
    assert incomplete not in markdown(report_document([REFERENCE]))
    assert incomplete in markdown(report_document([], complete=False))


def test_commands_are_given_once_as_a_shell_takes_them() -> None:
    odd = change(FASTER, command=("rbench", "run", "my net.onnx"))
    first, second = commands([*ROWS, odd, change(FASTER, command=None)])
    assert first.split() == ["rbench", "run", "resnet20.onnx", "-o", "results"]
    assert second.endswith("'my net.onnx'")


def test_findings_stand_behind_the_rows_and_cannot_break_them() -> None:
    bad = "a|b\n<i>@team"
    found = replace(
        responses(),
        title=bad,
        checks=(Check(bad, bad, bad, "contradicted"),),
        tables=(FindingsTable(bad, (bad, "n"), ((bad, "1"),)),),
        notes=(bad,),
        provenance=replace(responses().provenance, command=bad, recipe=bad),
    )
    text = markdown(report_document(ROWS, [degradation(), found]))
    assert text.index("0.410") < text.index(degradation().title) < text.index("## a\\|b")
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == 4
    assert "- **contradicted**: a\\|b\\\\n\\<i\\>@&#8203;team (a\\|b" in text
    assert "| a\\|b\\\\n\\<i\\>@&#8203;team | 1 |" in text
    assert [line for line in text.splitlines() if "@team" in line] == [r"a|b\n<i>@team"]  # in a fence


def test_a_notice_is_a_paragraph_and_an_alarm_is_bold() -> None:
    found = report_document(ROWS)
    summary = replace(found.summary, remarks=(Remark("fine"), Remark("bad", "warning")))
    text = markdown(replace(found, blocks=(summary,), more=""))
    assert text == "# rbench\n\n**bad**\n\nfine\n"
