from __future__ import annotations

import re
from dataclasses import replace

import pytest

from benchmarks.report_html import svg
from benchmarks.report_html.page import html
from tests.benchmarks.report_html.measured import COMPARED, EVERYTHING
from tests.benchmarks.report_html.reader import Reader
from tests.benchmarks.rows import FASTER, ON_A_GPU, REFERENCE, SKIPPED

ROWS = (REFERENCE, FASTER, SKIPPED)


def test_the_page_holds_every_table_and_every_plot(everything: str) -> None:
    read = Reader(everything)
    kinds = ["distribution", "distribution", "front", "throughput", "roofline", "drift", "drift"]
    assert read.kinds == [*kinds, "responses", "clients", "cold"]
    assert read.tags.count("figure") == read.tags.count("figcaption") == read.tags.count("svg") == 10
    words = set(read.texts)
    assert {"p50 ms", "p99.9", "top-1 %", "verdict", "roof %", "ran"} <= words
    assert "onnxruntime bf16, batch 1: skipped: it has no bf16 convolution for processors" in words
    assert "onnxruntime fp32, batch 1: warning: the latency rose by 6 % from the first third to the last" in words
    assert "accuracy by class" in words
    assert "answers that changed: openvino int8" in words
    assert "rbench run resnet20.onnx -o results" in words
    assert "Some System 12" in words
    assert "a report" in words


def test_a_cold_start_ends_with_the_first_answer(everything: str) -> None:
    assert "Cold start: onnxruntime fp32 310 ms" in everything


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
    assert all("var(--ink)" in drawing for drawing in drawings)
    assert not [found for drawing in drawings for found in re.findall(r"(?:fill|stroke|color): ?#\w+", drawing)]
    defined = set(re.findall(r"(--[\w-]+):", everything))
    assert set(re.findall(r"var\((--[\w-]+)\)", everything)) <= defined


def test_a_runtime_has_one_colour_on_all_plots_and_no_two_share_one() -> None:
    look = svg.choose_style(COMPARED)
    colours = {row.runtime: look.colour(row) for row in COMPARED}
    assert len(set(colours.values())) == len(colours) == 3
    again = svg.choose_style(COMPARED[::-1])
    assert all(again.colour(row) == look.colour(row) and again.marker(row) == look.marker(row) for row in COMPARED)
    assert look.marker(COMPARED[0]) != look.marker(COMPARED[3])


def test_the_same_rows_give_the_same_page() -> None:
    assert html(ROWS, "rbench") == html(ROWS, "rbench")


def test_foreign_text_cannot_become_part_of_the_page() -> None:
    foreign = replace(
        FASTER,
        subject="<b>net</b>",
        runtime='"><script>alert(1)</script>',
        precision="<i>$x$",
        note="<img src=x>",
        command=("rbench", "<u>&"),
    )
    rows = (foreign, replace(foreign, runtime="other"), replace(SKIPPED, subject="<b>net</b>", reason="<script>&"))
    text = html(rows, "a </title><script> b")
    read = Reader(text)
    assert not {"b", "img", "u"} & set(read.tags)
    assert read.tags.count("script") == 1
    assert {tag for tag in read.tags if tag == "i"} == {"i"}  # the swatches alone
    assert read.tags.count("i") == text.count('<i class="swatch"')
    assert "<script>&" not in text
    assert "skipped: &lt;script&gt;&amp;" in text


def test_an_interrupted_run_and_no_rows_at_all() -> None:
    assert "Incomplete: the run ended early." in html((REFERENCE,), "rbench", complete=False)
    assert "Incomplete" not in html((REFERENCE,), "rbench")
    read = Reader(html((), "rbench", complete=False))
    assert "table" not in read.tags


def test_rows_that_gave_nothing_make_a_page_too() -> None:
    read = Reader(html((SKIPPED,), "rbench"))
    assert "skipped" in read.texts
    assert read.kinds == []


def test_without_matplotlib_the_page_says_so_and_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    read = Reader(html(EVERYTHING, "rbench"))
    alarm = "This page has no plots: matplotlib is not installed (pip install 'rexport[report]')."
    assert alarm in read.texts
    assert read.kinds == []
    assert read.tags.count("table") >= 8


def test_a_gpus_rows_show_its_clock() -> None:
    read = Reader(html((ON_A_GPU,), "rbench"))
    assert {"device", "held by", "power cap, sync boost"} <= set(read.texts)
    assert "driver 580.159.03, CUDA 13.0" in read.texts


def test_other_machines_and_networks_stand_apart() -> None:
    elsewhere = replace(FASTER, environment=replace(FASTER.environment, cpu="Slow Processor 1"))
    read = Reader(html((REFERENCE, elsewhere, FASTER), "rbench"))
    assert "nav" in read.tags
    assert {"s0", "s1"} <= set(read.ids)
    assert any("Slow Processor 1" in text for text in read.texts)


def test_whether_the_machine_was_quiet_is_said() -> None:
    assert "Fast Processor 9 · quiet: 2 of 2 rows<" in html((REFERENCE, FASTER, SKIPPED), "rbench")
    unseen = [replace(row, disturbances=None) for row in (REFERENCE, FASTER)]
    assert "· not known whether the machine was quiet: 2 of 2 rows<" in html(unseen, "rbench")
    disturbed = html((REFERENCE, replace(FASTER, disturbances=("steal",))), "rbench")
    assert "<strong>The machine was disturbed: 1 of 2 rows: steal.<" in disturbed
    assert "quiet: " not in disturbed


def test_a_single_sample_and_constant_ones_can_be_drawn() -> None:
    from tests.benchmarks.rows import sittings

    constant = replace(FASTER, sittings=sittings(0.001, 0.001, 0.001, 0.001))
    first = constant.sittings[0]
    same = replace(first, latency=replace(first.latency, rounds_s=((0.001,) * 6, (0.001,) * 6)))
    few = replace(first, latency=replace(first.latency, rounds_s=((0.001,),)), starts_s=(0.0,))
    read = Reader(html((replace(constant, sittings=(same,)), replace(REFERENCE, sittings=(few,))), "rbench"))
    assert {"distribution", "drift"} <= set(read.kinds)
