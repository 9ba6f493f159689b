from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.accuracy import packing
from benchmarks.accuracy.flips import mcnemar
from benchmarks.report import answers as answered
from benchmarks.report.answers import TableLimits, tabulate_predictions
from benchmarks.report.markdown import markdown
from runtimes.errors import ArtifactError
from tests.benchmarks.comparisons import OLD, with_answers
from tests.benchmarks.comparisons import answered as answering
from tests.benchmarks.report_html.measured import COMPARED
from tests.benchmarks.rows import REFERENCE, SKIPPED

ROWS = (with_answers(REFERENCE, 935), with_answers(OLD, 930), with_answers(replace(OLD, runtime="openvino"), 900))


def test_each_pair_of_configurations_is_told_apart() -> None:
    """930 and 900 of 1,000 are right, the same ones: not only against PyTorch."""
    (pairs,) = (one for one in tabulate_predictions(ROWS) if one.summary == "pairs whose answers differ")
    assert [heading for heading, _ in pairs.table.headings] == [
        *("configuration", "and", "first alone right", "second alone right", "p"),
    ]
    assert pairs.table.cells == (
        ("pytorch fp32", "openvino int8", "35", "0", f"{mcnemar(0, 35):.2g}"),
        ("onnxruntime int8", "openvino int8", "30", "0", f"{mcnemar(0, 30):.2g}"),
        ("pytorch fp32", "onnxruntime int8", "5", "0", "0.062"),
    )
    (one,) = (
        one for one in tabulate_predictions(ROWS, TableLimits(pairs=1)) if one.summary == "pairs whose answers differ"
    )
    assert one.table.cells == pairs.table.cells[:1]
    assert "the 1 clearest of 3 pairs" in one.caption


def test_pairs_that_answer_alike_or_were_asked_otherwise_are_left_out() -> None:
    alike = (ROWS[0], replace(ROWS[0], runtime="openvino"))
    other = (ROWS[0], with_answers(OLD, 460, images=500))
    unlabelled = packing.pack_predictions(replace(answering(900), targets=None, among_five=None), None)
    noise = (replace(ROWS[0], answers=unlabelled), replace(ROWS[1], answers=unlabelled))
    for rows in (alike, other, noise, ROWS[:1], (SKIPPED,)):
        assert "pairs whose answers differ" not in [one.summary for one in tabulate_predictions(rows)]


def test_damaged_answers_are_an_error() -> None:
    assert ROWS[1].answers is not None
    broken = replace(ROWS[1], answers=replace(ROWS[1].answers, packed="AAAA"))
    with pytest.raises(ArtifactError, match="damaged"):
        list(tabulate_predictions([ROWS[0], broken]))


def test_a_comment_has_them_in_short_and_folded() -> None:
    text = markdown(COMPARED)
    folded = text[text.index("what was answered: resnet20.onnx") :].split("</details>")[0]
    assert "| shirt |" in folded
    assert "pairs whose answers differ. McNemar's exact test" in folded
    assert "| pytorch fp32 | onnxruntime int8 |" in folded
    assert "answers that changed: openvino int8. The most frequent changes." in folded
    for one in tabulate_predictions(COMPARED, answered.SHORT):
        assert len(one.table.cells) <= 5
    assert "what was answered" not in markdown([REFERENCE, SKIPPED])
