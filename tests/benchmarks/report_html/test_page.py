from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np
import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.report.document import INCOMPLETE, commands, report_document
from benchmarks.report_html import svg
from benchmarks.report_html.page import html
from exporter.document.blocks import Document, Folded, Remark, Section, Sentence, Summary, Table
from runtimes.errors import Reason
from tests.benchmarks.report_html.measured import COMPARED, EVERYTHING, LOADS
from tests.benchmarks.report_html.pages import page_of
from tests.benchmarks.report_html.reader import Reader
from tests.benchmarks.results import FASTER, MACHINE, ON_A_GPU, REFERENCE, SKIPPED, change, estimate, processes
from tests.documents import numbers

ROWS = (REFERENCE, FASTER, SKIPPED)


def test_the_page_holds_every_table_and_every_plot(everything: str) -> None:
    read = Reader(everything)
    kinds = ["front", "throughput", "distribution", "distribution", "drift", "drift", "roofline"]
    assert read.kinds == [*kinds, "responses", "clients", "cold"]
    bars = len(COMPARED) - 1
    assert read.tags.count("svg") == 10 + bars
    assert read.tags.count("figure") == read.tags.count("figcaption") == 10 + 2
    words = {*read.texts, *read.cells}
    assert {"p50 ms", "p99.9 ms", "top-1 %", "vs baseline", "% of roofline", "executed as"} <= words
    document = report_document(EVERYTHING)
    assert {remark.text for section in document.sections for remark in section.all_of(Remark)} <= words
    assert {line.text for section in document.sections for line in section.all_of(Sentence)} <= words
    tables = [table for section in document.sections for table in section.all_of(Table)]
    assert {cell for table in tables for row in table.cells for cell in row} <= words
    blocks = [block for section in document.sections for block in section.blocks]
    assert {block.summary for block in blocks if isinstance(block, Folded)} <= words
    assert {*commands(EVERYTHING), "Some System 12"} <= words
    assert "a report" in everything


def test_a_cold_start_ends_with_the_first_answer(everything: str) -> None:
    (spoken,) = re.findall(r'aria-label="Cold start: ([^"]*)"', everything)
    assert numbers(spoken) == ["310"]


def test_nothing_is_asked_of_the_network_and_the_page_is_small(everything: str) -> None:
    read = Reader(everything)
    assert {address[:1] for address in read.addresses} - {"#"} == {"d"}
    assert [address for address in read.addresses if not address.startswith("#")] == ["data:,"]
    assert set(re.findall(r"https?://[^\s\"']+", everything)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "url(http" not in everything
    assert "@import" not in everything
    assert len(everything.encode()) < 500_000


def test_every_reference_within_a_plot_is_to_something_in_it(everything: str) -> None:
    read = Reader(everything)
    asked = {address[1:] for address in read.addresses if address.startswith("#")}
    asked |= set(re.findall(r"url\(#([^)]+)\)", everything))
    assert asked
    assert asked <= set(read.ids)


def test_plots_take_their_colours_from_the_page(everything: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", everything, re.DOTALL)
    assert all("var(--" in drawing for drawing in drawings)
    assert not [found for drawing in drawings for found in re.findall(r"(?:fill|stroke|color): ?#\w+", drawing)]
    defined = set(re.findall(r"(--[\w-]+):", everything))
    assert set(re.findall(r"var\((--[\w-]+)\)", everything)) <= defined


def style(results: Sequence[Figures]) -> svg.PlotStyle:
    of = [figures.result.identity for figures in results]
    return svg.choose_style([each.backend for each in of], [each.precision or "" for each in of])


def test_a_runtime_has_its_own_colour_on_all_plots() -> None:
    look = style(COMPARED)
    results = [figures.result for figures in COMPARED]
    colours = {result.identity.backend: look.colour(result) for result in results}
    assert len(set(colours.values())) == len(colours) == 3
    again = style(COMPARED[::-1])
    assert [(again.colour(each), again.marker(each)) for each in results] == [
        (look.colour(each), look.marker(each)) for each in results
    ]
    assert look.marker(results[0]) != look.marker(results[3])


def test_the_same_rows_give_the_same_page() -> None:
    assert page_of(ROWS, "rbench") == page_of(ROWS, "rbench")


def test_foreign_text_cannot_become_part_of_the_page() -> None:
    foreign = change(
        FASTER,
        subject="<b>net</b>",
        backend='"><script>alert(1)</script>',
        precision="<i>$x$",
        notes=(Reason("note", "<img src=x>"),),
        command=("rbench", "<u>&"),
    )
    rows = (foreign, change(foreign, backend="other"), change(SKIPPED, subject="<b>net</b>", reason="<script>&"))
    text = page_of(rows, "a </title><script> b")
    read = Reader(text)
    assert not {"b", "img", "u"} & set(read.tags)
    assert read.tags.count("script") == 1
    assert {tag for tag in read.tags if tag == "i"} == {"i"}  # the swatches alone
    assert read.tags.count("i") == text.count('<i class="swatch"')
    assert "<script>&" not in text
    assert "skipped: &lt;script&gt;&amp;" in text
    assert text.count("alert(1)") == text.count("&lt;script&gt;alert(1)") > 10


def test_an_interrupted_run_and_no_rows_at_all() -> None:
    assert f"<strong>{INCOMPLETE.text}<" in page_of((REFERENCE,), "rbench", complete=False)
    assert INCOMPLETE.text not in page_of((REFERENCE,), "rbench")
    read = Reader(page_of((), "rbench", complete=False))
    assert "table" not in read.tags


def test_rows_that_gave_nothing_make_a_page_too() -> None:
    read = Reader(page_of((SKIPPED,), "rbench"))
    assert "skipped" in read.texts
    assert read.kinds == []


def test_without_matplotlib_the_page_says_so_and_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    read = Reader(page_of(EVERYTHING, "rbench"))
    reason = svg.missing()
    assert reason is not None
    assert reason.code == "plots-unavailable"
    assert svg.INSTALL in reason.sentence
    assert any(str(reason) in text for text in read.texts)
    assert read.kinds == []
    assert read.tags.count("table") >= 8


def test_a_gpus_rows_show_its_clock() -> None:
    read = Reader(page_of((ON_A_GPU,), "rbench"))
    assert {"device ms", "clock limit"} <= set(read.texts)
    assert any("580.159.03" in text for text in read.texts)


def test_other_machines_and_networks_stand_apart() -> None:
    elsewhere = change(FASTER, environment=replace(MACHINE, cpu="Slow Processor 1"))
    read = Reader(page_of((REFERENCE, elsewhere, FASTER), "rbench"))
    assert "nav" in read.tags
    assert {"s0", "s1"} <= set(read.ids)
    assert any("Slow Processor 1" in text for text in read.texts)


def test_whether_the_machine_was_quiet_is_said() -> None:
    disturbed = (REFERENCE, change(FASTER, validity="INVALID", validity_reason=Reason("time-stolen", "steal")))
    unseen = tuple(change(row, disturbances=None) for row in (REFERENCE, FASTER))
    for rows, word in (((REFERENCE, FASTER, SKIPPED), "Valid"), (unseen, "Preliminary"), (disturbed, "Invalid")):
        (remark,) = report_document(rows).summary.remarks
        text = page_of(rows, "rbench")
        assert f"<summary>{word}</summary><p>{remark.text}</p>" in text
        assert text.count('<details class="badge" data-validity=') == 1


def test_the_first_heading_is_the_answer_and_others_follow() -> None:
    elsewhere = tuple(change(row, environment=replace(MACHINE, cpu="Slow Processor 1")) for row in (REFERENCE, FASTER))
    rows = (REFERENCE, FASTER, *elsewhere)
    first, second = (
        section.all_of(Sentence)[0].text
        for section in report_document(rows).sections
        if section.title[:3] != "Env" and section.all_of(Sentence)
    )
    text = page_of(rows, "rbench")
    assert re.findall("<h1>(.*?)</h1>", text) == [first]
    assert re.findall("<h2>(.*?)</h2>", text) == [second, "Machine and method"]
    assert f"<title>{first} – rbench</title>" in text


def test_without_an_answer_the_heading_names_the_network() -> None:
    text = page_of((SKIPPED,), "rbench")
    (heading,) = re.findall("<h1>(.*?)</h1>", text)
    assert heading == next(section.title for section in report_document((SKIPPED,)).sections)
    assert re.findall("<h1>(.*?)</h1>", page_of((), "nothing")) == ["nothing"]


def test_loads_and_comparisons_begin_with_their_answer() -> None:
    loads = page_of(LOADS, "rbench")
    (heading,) = re.findall("<h1>(.*?)</h1>", loads)
    assert {"436", "4.00", "310"} <= set(numbers(heading))
    compared = html(Document("rbench compare", (Section("net", ()), Summary((), "passed: 3 rows compared"))))
    assert re.findall("<h[12]>(.*?)</h", compared) == ["passed: 3 rows compared", "net"]


def test_warnings_are_one_badge_that_holds_them_all(everything: str) -> None:
    (words, items) = re.findall(r'class="badge warnings"><summary>(.*?)</summary><ul>(.*?)</ul>', everything)[0]
    first, *_ = report_document(EVERYTHING).sections
    remarks = [remark.text for remark in first.all_of(Remark) if remark.kind != "note"]
    assert words == f"{len(remarks)} warnings"
    assert re.findall("<li>(.*?)</li>", items) == remarks
    assert "badge warnings" not in page_of((REFERENCE, FASTER), "rbench")


def test_bars_are_sorted_and_the_fastest_is_marked(everything: str) -> None:
    charts = re.findall(r'<figure class="bars">.*?</figure>', everything, re.DOTALL)
    assert [re.findall("<h3>(.*?)</h3>", chart) for chart in charts] == [
        ["Median latency, batch 1"],
        ["Median latency, batch 8"],
    ]
    for chart, tied in zip(charts, (2, 1), strict=True):
        values = [float(value) for value in re.findall(r"<strong>([\d.]+) ms</strong>", chart)]
        assert values == sorted(values)
        widths = [float(width) for width in re.findall(r'<rect width="([\d.]+)"', chart)]
        np.testing.assert_allclose(widths, [width * widths[-1] / values[-1] for width in values], rtol=0.01)
        ends = [float(end) for end in re.findall(r"6H([\d.]+)M", chart)]
        assert all(end > width for end, width in zip(ends, widths, strict=True))
        assert max(ends) == 100
        marked = ["best" in item for item in re.findall("<li.*?>", chart)]
        assert marked == [True] * tied + [False] * (5 - tied)
        assert chart.count("<em>fastest</em>") == tied


def test_an_interval_without_width_or_digit_has_no_whisker() -> None:
    narrow = (
        change(REFERENCE, p50=estimate(0.002, (0.002, 0.002))),
        change(FASTER, p50=estimate(0.001, (0.001, 0.001))),
    )
    text = page_of(narrow, "rbench")
    assert text.count("<rect") >= 2
    assert "Whiskers" not in text
    noisy = page_of((narrow[0], change(FASTER, p50=estimate(0.001, (0.0001, 0.9)))), "rbench")
    assert re.findall(r'<rect width="([\d.]+)"', noisy) == ["50.00", "100.00"]
    assert not re.findall(r"6H([\d.]+)M", noisy)
    assert "<small>too noisy</small>" in noisy


def test_what_explains_the_measurement_is_folded(everything: str) -> None:
    shown, before = everything, ""
    while shown != before:
        before, shown = shown, re.sub(r"<details(?:(?!<details).)*?</details>", "", shown, flags=re.DOTALL)
    assert re.findall(r'data-kind="(\w+)"', shown) == ["front", "throughput", "responses", "clients", "cold"]
    legend = (f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in report_document(EVERYTHING).legend)
    for folded in ("Some System 12", "rbench run resnet20.onnx", "accuracy by class", *legend):
        assert folded in everything
        assert folded not in shown


def test_a_single_sample_and_constant_ones_can_be_drawn() -> None:
    constant = change(FASTER, samples=processes(0.001, 0.001, 0.001, 0.001))
    first = constant.result.samples[0]
    same = replace(first, latency=replace(first.latency, rounds_s=((0.001,) * 6, (0.001,) * 6)))
    few = replace(first, latency=replace(first.latency, rounds_s=((0.001,),)), starts_s=(0.0,))
    read = Reader(page_of((change(constant, samples=(same,)), change(REFERENCE, samples=(few,))), "rbench"))
    assert {"distribution", "drift"} <= set(read.kinds)
