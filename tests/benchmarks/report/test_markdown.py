from __future__ import annotations

from dataclasses import replace

from benchmarks.records.findings import Check, FindingsTable
from benchmarks.report.markdown import commands, markdown
from tests.benchmarks.paper.samples import degradation, responses
from tests.benchmarks.report_html.measured import EVERYTHING
from tests.benchmarks.rows import FASTER, REFERENCE, SKIPPED

ROWS = (REFERENCE, FASTER, SKIPPED)


def test_a_comment_begins_with_what_came_of_it_and_one_table() -> None:
    shown, folded = markdown(ROWS).split("<details>", 1)
    assert shown.splitlines()[2] == "quiet: 2 of 2 rows"
    assert shown.splitlines()[6].startswith("**Batch 1: onnxruntime int8 is the fastest, at 0.410 \\[0.405–0.416\\] ms")
    assert shown.count("\n| --- |") == 1
    assert "- openvino fp32, batch 1: skipped: openvino is not installed" in shown
    assert folded.count("\n| --- |") == 3
    assert "Fast Processor 9" in folded
    assert "\n    rbench run resnet20.onnx -o results\n" in folded


def test_everything_that_is_opened_is_closed() -> None:
    text = markdown(EVERYTHING)
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") >= 3
    assert "disturbed: others used 0.93 of 2 processors" in text.split("<details>")[0]
    assert "**disturbed: 1 of 16 rows: others used 0.93 of 2 processors" in text


def test_load_shapes_show_a_stall_where_one_waits_for_it() -> None:
    text = markdown(EVERYTHING)
    assert "p99 from the intended start is 179 ms" in text
    assert "| closed |" in text


def test_tables_are_whole_and_foreign_text_cannot_break_them() -> None:
    foreign = replace(FASTER, runtime="a|b\n<i>@team", subject="<b>`net`")
    text = markdown([REFERENCE, foreign, SKIPPED])
    table = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} <= {6, 7, 8, 9}
    assert "a\\|b \\<i\\>&#64;team" in text
    assert "\\<b\\>\\`net\\`" in text
    assert "@" not in text


def test_untrained_weights_are_marked() -> None:
    assert "*untrained* random weights" in markdown([replace(row, weights="random", trained=False) for row in ROWS])


def test_noise_has_no_accuracy() -> None:
    text = markdown([replace(row, data="noise", top1=None, top5=None, images=64) for row in ROWS])
    assert "noise, so no accuracy, 64 images" in text
    assert "top-1 %" not in text


def test_an_interrupted_run_says_so() -> None:
    assert "**Incomplete: the run ended early.**" in markdown([REFERENCE], complete=False)
    assert "ncomplete" not in markdown([REFERENCE])
    assert "ncomplete" in markdown([], complete=False)


def test_commands_are_told_once_as_a_shell_takes_them() -> None:
    odd = replace(FASTER, command=("rbench", "run", "my net.onnx"))
    assert commands([*ROWS, odd, replace(FASTER, command=None)]) == (
        "rbench run resnet20.onnx -o results",
        "rbench run 'my net.onnx'",
    )


def test_findings_stand_behind_the_rows_and_foreign_text_cannot_break_them() -> None:
    bad = "a|b\n<i>@team"
    found = replace(
        responses(),
        title=bad,
        checks=(Check(bad, bad, bad, "contradicted"),),
        tables=(FindingsTable(bad, (bad, "n"), ((bad, "1"),)),),
        notes=(bad,),
        provenance=replace(responses().provenance, command=bad, recipe=bad),
    )
    text = markdown(ROWS, findings=[degradation(), found])
    assert text.index("0.410") < text.index(degradation().title) < text.index("## a\\|b")
    assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == 4
    assert "- **contradicted**: a\\|b \\<i\\>&#64;team (a\\|b" in text
    assert "| a\\|b \\<i\\>&#64;team | 1 |" in text
    assert [line for line in text.splitlines() if "@" in line] == ["    a|b <i>@team"]  # a command, in a block of code
