from __future__ import annotations

from dataclasses import replace

from benchmarks.accuracy import packing
from benchmarks.accuracy.differences import mcnemar
from benchmarks.analysis.figures import Figures
from benchmarks.report import run
from benchmarks.report.document import report_document
from benchmarks.report.markdown import markdown
from benchmarks.report.run import SHORT, TableLimits, tabulate_predictions
from exporter.document.blocks import Section, Table
from runtimes.errors import ArtifactError
from tests.benchmarks.comparisons import OLD, predicting, with_predictions
from tests.benchmarks.report_html.measured import COMPARED
from tests.benchmarks.results import REFERENCE, SKIPPED, change_facts
from tests.refusals import refuses

ROWS = Figures.of_all(
    [
        with_predictions(REFERENCE.result, 935),
        with_predictions(OLD, 930),
        with_predictions(change_facts(OLD, backend="openvino"), 900),
    ]
)


def pairs(*rows: Figures, limits: TableLimits | None = None) -> list[Table]:
    """The table of pairs that differ, if there is one."""
    folded = tabulate_predictions(rows, limits or TableLimits())
    tables = [table for one in folded for table in Section("", one.blocks).all_of(Table)]
    return [table for table in tables if table.headings[-1] == "p"]


def test_each_pair_of_configurations_is_compared() -> None:
    """930 and 900 of 1,000 are right, the same ones: not only against PyTorch."""
    (table,) = pairs(*ROWS)
    assert table.headings[:2] == ("configuration", "and")
    assert table.cells == (
        ("pytorch fp32", "openvino int8", "35", "0", f"{mcnemar(0, 35):.2g}"),
        ("onnxruntime int8", "openvino int8", "30", "0", f"{mcnemar(0, 30):.2g}"),
        ("pytorch fp32", "onnxruntime int8", "5", "0", "0.062"),
    )
    (short,) = pairs(*ROWS, limits=TableLimits(pairs=1))
    assert short.cells == table.cells[:1]
    assert "1 clearest of 3" in short.caption


def test_pairs_that_cannot_differ_are_left_out() -> None:
    first, second = (figures.result for figures in ROWS[:2])
    unlabelled = packing.pack_predictions(replace(predicting(900), targets=None, among_five=None), None)
    alike = (ROWS[0], Figures(change_facts(first, backend="openvino")))
    other = (ROWS[0], Figures(with_predictions(OLD, 460, images=500)))
    noise = tuple(Figures(change_facts(result, predictions=unlabelled)) for result in (first, second))
    for rows in (alike, other, noise, ROWS[:1], (SKIPPED,)):
        assert pairs(*rows) == []


def test_damaged_answers_are_an_error() -> None:
    packed = ROWS[1].result.predictions
    assert packed is not None
    broken = Figures(change_facts(ROWS[1].result, predictions=replace(packed, packed="AAAA")))
    with refuses(ArtifactError, "predictions-damaged"):
        list(tabulate_predictions([ROWS[0], broken], TableLimits()))


def test_a_comment_has_them_in_short_and_folded() -> None:
    first, predictions = run.sections(COMPARED, SHORT)
    assert predictions.more.endswith(first.title)
    found = predictions.all_of(Table)
    assert max(len(table.rows) for table in found) <= 5
    assert {"class", "configuration", "true class"} == {table.headings[0] for table in found}
    assert any(cells[0] == "shirt" for cells in found[0].cells)
    text = markdown(report_document(COMPARED, limits=SHORT))
    assert text.index("<details>") < text.index(predictions.more) < text.index("| shirt |")
    assert list(run.sections([REFERENCE, SKIPPED], SHORT)) == list(run.sections([REFERENCE, SKIPPED]))
