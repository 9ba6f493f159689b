"""Findings on the page: as text, and in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.records.findings import Check, FindingsTable, Line, Mark, Panel
from benchmarks.report.findings import headline, rests_on
from benchmarks.report_html.findings_plots import caption
from benchmarks.report_html.svg import INSTALL
from tests.benchmarks.paper.samples import degradation, responses
from tests.benchmarks.report_html import browser
from tests.benchmarks.report_html.browser import run
from tests.benchmarks.report_html.pages import page_of
from tests.benchmarks.report_html.reader import Reader
from tests.benchmarks.results import FASTER, REFERENCE

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

FOUND = (degradation(), responses())


@pytest.fixture(scope="module")
def page() -> str:
    """Of findings alone."""
    return page_of((), "the paper", findings=FOUND)


def test_findings_alone_are_a_page_with_nothing_of_rows(page: str) -> None:
    read = Reader(page)
    assert read.kinds == ["degradation", "degradation", "responses", "responses"]
    assert {"s0", "s1"} <= set(read.ids)
    assert read.tags.count("nav") == 1
    assert read.tags.count("input") == read.tags.count("select") == read.tags.count("footer") == 0
    words = set(read.texts)
    assert not {"Environment", "Reproduce"} & words
    assert not [text for text in read.texts if "no rows" in text]
    assert {f"the paper · {FOUND[0].provenance.time[:10]} · {FOUND[0].provenance.machine}"} <= words
    assert re.findall("<h1>(.*?)</h1>", page) == ["2 of 3 claims reproduced, 1 inconclusive, in 2 experiments"]
    assert re.findall("<h2>(.*?)</h2>", page) == [headline(one) for one in FOUND]


def test_all_that_there_is_of_an_experiment_is_shown(page: str) -> None:
    read = Reader(page)
    words = {*read.texts, *read.cells}
    found = FOUND[0]
    assert {found.title, headline(found)} <= words
    assert {text for check in found.checks for text in (check.said, check.source, check.found)} <= words
    assert {cell for table in found.tables for row in table.rows for cell in row} <= words
    assert {*found.notes, found.provenance.command, *dict(rests_on(found.provenance)).values()} <= words
    assert {caption(panel) for panel in found.panels} <= words
    assert re.findall(r'<span class="badge" data-outcome="(\w+)"', page) == [*["reproduced"] * 3, *["inconclusive"] * 2]


def test_findings_stand_behind_all_that_is_said_of_rows() -> None:
    text = page_of((REFERENCE, FASTER), "both", findings=FOUND[1:])
    read = Reader(text)
    assert read.kinds[-2:] == ["responses", "responses"]
    assert text.index('<section id="s1">') < text.index("<summary>Reproduce</summary>")
    assert {"s0", "s1"} <= set(read.ids)
    assert read.tags.count("nav") == 1
    assert "nav" not in Reader(page_of((), "one", findings=FOUND[1:])).tags


def test_the_same_findings_give_the_same_page(page: str) -> None:
    assert page_of((), "the paper", findings=FOUND) == page


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 4
    assert not [found for drawing in drawings for found in re.findall(r"(?:fill|stroke|color): ?#\w+", drawing)]
    defined = set(re.findall(r"(--[\w-]+):", page))
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= defined
    asked = set(re.findall(r'(?:href="|url\()#([^)"]+)', page))
    assert asked <= set(Reader(page).ids)


def test_foreign_text_cannot_become_part_of_the_page() -> None:
    bad = '"><script>alert(1)</script><img src=x>'
    found = replace(
        FOUND[1],
        title=bad,
        checks=(Check(bad, bad, bad, "confirmed"),),
        panels=(Panel(bad, bad, bad, (Line(bad, bad, (1, 2), (1, 2)),), (Mark(bad, bad, 1),), source=bad),),
        tables=(FindingsTable(bad, (bad, f"paper {bad}"), ((bad, bad),)),),
        notes=(bad,),
        provenance=replace(
            FOUND[1].provenance,
            data=bad,
            recipe=bad,
            machine=bad,
            command=bad,
            images={bad: 1},
            versions={bad: bad},
            time=bad,
        ),
    )
    text = page_of((), bad, findings=(found, found))
    read = Reader(text)
    assert read.tags.count("script") == 1
    assert "img" not in read.tags
    assert text.count(bad) == 0
    assert read.texts.count(bad) >= 20


def test_without_matplotlib_there_is_all_but_the_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.report_html.svg.find_spec", lambda _: None)
    read = Reader(page_of((), "the paper", findings=FOUND))
    assert read.kinds == []
    assert any(INSTALL in text for text in read.texts)
    assert FOUND[0].tables[0].caption in read.texts


def test_an_experiment_with_next_to_nothing_is_shown() -> None:
    provenance = replace(FOUND[1].provenance, data="", images={}, seeds=(), machine="", command="", time="")
    bare = replace(FOUND[1], checks=(), panels=(), notes=(), provenance=provenance)
    read = Reader(page_of((), "the paper", findings=(bare,)))
    assert headline(bare) in read.texts
    assert not {"table", "figure", "ul", "pre"} & set(read.tags)


@pytest.fixture(scope="module")
def served(page: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("findings")
    (folder / "report.html").write_text(page, encoding="utf-8")
    with browser.serving(folder) as address:
        yield f"{address}/report.html"


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
def test_it_opens_without_a_complaint_and_fits(
    driver: WebDriver, show: Callable[..., None], served: str, width: int
) -> None:
    show(served, width)
    assert browser.complaints(driver) == []
    plots = "[...document.querySelectorAll('figure.plot svg')]"
    boxes = run(driver, f"{plots}.map(e => e.getBoundingClientRect().toJSON())")
    assert len(boxes) == 4
    assert all(box["width"] > 250 and box["height"] > 150 for box in boxes)
    assert run(driver, "document.documentElement.scrollWidth") == width
    claims = "[...document.querySelectorAll('.claims')]"
    assert run(driver, f"{claims}.map(e => e.scrollWidth - e.clientWidth)") == [0, 0]  # read without scrolling


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
def test_no_words_of_a_plot_lie_upon_others_or_outside_it(
    driver: WebDriver, show: Callable[..., None], served: str, width: int
) -> None:
    show(served, width)
    assert run(driver, OVERLAPS) == []
    show(BROKEN)
    assert run(driver, OVERLAPS) == [["one", "other"], ["other", "outside"]]


OVERLAPS = """[...document.querySelectorAll('figure.plot svg')].flatMap(svg => {
  const box = e => e.getBoundingClientRect(), all = [...svg.querySelectorAll('text')], frame = box(svg), found = [];
  const apart = (a, b) => a.right < b.left + 1 || b.right < a.left + 1 || a.bottom < b.top + 3 || b.bottom < a.top + 3;
  all.forEach((one, at) => {
    for (const other of all.slice(at + 1))
      if (!apart(box(one), box(other))) found.push([one.textContent, other.textContent]);
    if (box(one).left < frame.left - 1 || box(one).right > frame.right + 1) found.push([one.textContent, 'outside']);
  });
  return found;
})"""

BROKEN = (
    "data:text/html,<figure class='plot'><svg width='200' height='50'><text x='150' y='20'>one</text>"
    "<text x='160' y='22'>other</text></svg></figure>"
)


def colours(driver: WebDriver) -> list[str]:
    """Of a plot's text, and of its lines."""
    line = "document.querySelector('figure svg path[style*=\"stroke: var(--series-{})\"]')"
    return [
        run(driver, "getComputedStyle(document.querySelector('figure svg text')).fill"),
        *(run(driver, f"getComputedStyle({line.format(number)}).stroke") for number in (1, 2)),
        run(driver, "getComputedStyle(document.querySelector('[data-outcome=reproduced]')).color"),
    ]


def test_in_the_dark_plots_have_other_colours(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served, scheme="light")
    light = colours(driver)
    show(served, scheme="dark")
    dark = colours(driver)
    assert all(one.startswith("rgb(") and one != other for one, other in zip(light, dark, strict=True))
    assert len({*light, *dark}) == 8


def test_signs_and_powers_of_ten_sort_as_numbers(driver: WebDriver, show: Callable[..., None], tmp_path: Path) -> None:
    cells = ("1.2e+04 [1e+04–2e+04]", "18", "+0.5", "–", "5e-06", "-3")
    table = FindingsTable("ratios", ("network", "ratio"), tuple((f"net{cell}", cell) for cell in cells))
    (tmp_path / "sorted.html").write_text(page_of((), "", findings=(replace(FOUND[1], panels=(), tables=(table,)),)))
    show((tmp_path / "sorted.html").as_uri())
    found = "document.querySelector('table.sortable')"
    run(driver, f"{found}.tHead.rows[0].cells[1].querySelector('button').click()")
    values = run(driver, f"[...{found}.tBodies[0].rows].map(row => row.cells[1].textContent)")
    assert values == ["-3", "5e-06", "+0.5", "18", "1.2e+04 [1e+04–2e+04]", "–"]
