"""The page in a real browser, as a reader has it: served, from disk, wide, on a telephone, dark, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.report_html import browser, hostile
from tests.benchmarks.report_html.browser import run
from tests.benchmarks.report_html.measured import COMPARED, LOADS
from tests.benchmarks.report_html.pages import page_of
from tests.benchmarks.results import change

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

MAIN = "document.querySelector('table.main')"
FOUND = "document.querySelector('.filters output').textContent"


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    with browser.serving(folder) as address:
        yield f"{address}/report.html"


def counts(driver: WebDriver) -> list[int]:
    """How many rows the filters show, and of how many."""
    return [int(word) for word in run(driver, FOUND).split() if word.isdigit()]


def column(driver: WebDriver, number: int) -> list[str]:
    script = "[...{}.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[{}].textContent)"
    return list(run(driver, script.format(MAIN, number)))


def heading(driver: WebDriver, text: str) -> int:
    headings = run(driver, f"[...{MAIN}.tHead.rows[0].cells].map(cell => cell.textContent)")
    return list(headings).index(text)


def press(driver: WebDriver, key: str, number: int) -> None:
    """A real key, on the heading of that column."""
    run(driver, f"{MAIN}.tHead.rows[0].cells[arguments[0]].querySelector('button').focus()", number)
    code = {"Enter": 13, " ": 32}[key]
    text = "\r" if key == "Enter" else key
    for kind in ("keyDown", "keyUp"):
        browser.command(driver, "Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
@pytest.mark.parametrize("place", ["served", "disk"])
def test_it_opens_without_a_complaint_and_all_plots_are_there(
    driver: WebDriver, show: Callable[..., None], served: str, folder: Path, place: str, width: int
) -> None:
    show(served if place == "served" else (folder / "report.html").as_uri(), width)
    assert browser.complaints(driver) == []
    boxes = run(
        driver, "[...document.querySelectorAll('figure.plot svg')].map(e => e.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 10
    assert all(box["width"] > 250 and box["height"] > 60 for box in boxes)
    drawn = run(driver, "[...document.querySelectorAll('figure.plot svg')].map(e => e.querySelectorAll('path').length)")
    assert min(drawn) > 10
    spoken = run(driver, "[...document.querySelectorAll('svg[role=img]')].map(e => e.getAttribute('aria-label'))")
    assert all(len(words) > 20 for words in spoken)
    assert run(driver, "document.documentElement.scrollWidth") == width


def test_nothing_but_the_page_is_fetched(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served)
    assert run(driver, "performance.getEntriesByType('resource').map(entry => entry.name)") == []


def test_a_checker_that_catches_an_error(driver: WebDriver, show: Callable[..., None], folder: Path) -> None:
    broken = folder / "broken.html"
    broken.write_text("<script>nothing.there</script><div style='width: 2000px'>x</div>")
    show(broken.as_uri())
    assert "nothing is not defined" in browser.complaints(driver)[0]
    assert run(driver, "document.documentElement.scrollWidth") > browser.WIDE


def test_clicking_a_heading_sorts_and_again_the_other_way(
    driver: WebDriver, show: Callable[..., None], served: str
) -> None:
    show(served)
    number = heading(driver, "p50 ms")
    button = f"{MAIN}.tHead.rows[0].cells[{number}].querySelector('button')"
    run(driver, f"{button}.click()")
    ascending = column(driver, number)
    values = [float(text.split(" ")[0]) for text in ascending[:-1]]
    assert values == sorted(values)
    assert len(values) == 10
    assert ascending[-1] == "–"  # what was not measured comes last, both ways
    assert run(driver, f"{MAIN}.tHead.rows[0].cells[{number}].getAttribute('aria-sort')") == "ascending"
    run(driver, f"{button}.click()")
    assert column(driver, number) == [*ascending[-2::-1], "–"]
    assert run(driver, f"{MAIN}.tHead.rows[0].cells[{number}].getAttribute('aria-sort')") == "descending"
    assert run(driver, f"{MAIN}.querySelectorAll('[aria-sort]').length") == 1


@pytest.mark.parametrize("key", ["Enter", " "])
def test_the_keyboard_sorts_too(driver: WebDriver, show: Callable[..., None], served: str, key: str) -> None:
    show(served)
    before = column(driver, 0)
    press(driver, key, 0)
    assert column(driver, 0) == sorted(before) != before
    assert run(driver, "document.activeElement.textContent") == "backend"


def test_thousands_and_three_digits_sort_as_numbers(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served)
    number = heading(driver, "images/s")
    press(driver, "Enter", number)
    values = [float(text.replace(",", "")) for text in column(driver, number)[:-1]]
    assert values == sorted(values)
    assert values[0] < 1000 < values[-1]


def choose(driver: WebDriver, name: str, value: str) -> None:
    run(
        driver,
        "(e => { e.value = arguments[1]; e.dispatchEvent(new Event('input', {bubbles: true})) })"
        "(document.querySelector(`[name=${arguments[0]}]`))",
        name,
        value,
    )


def test_filters_choose_rows_in_all_tables(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served)
    assert counts(driver) == [17, 17]
    choose(driver, "backend", "openvino")
    assert set(column(driver, 0)) == {"openvino"}
    assert counts(driver) == [4, 17]
    choose(driver, "precision", "int8")
    assert set(column(driver, 1)) == {"int8"}
    choose(driver, "backend", "")
    choose(driver, "words", "ONNX int")
    assert column(driver, 0) == ["onnxruntime", "onnxruntime"]
    assert counts(driver) == [2, 17]
    others = run(
        driver, "[...document.querySelectorAll('details tr[data-backend]:not([hidden])')].map(e => e.textContent)"
    )
    assert len(others) >= 2
    assert all(words.startswith("onnxruntimeint8") for words in others)
    choose(driver, "words", "no such thing")
    assert column(driver, 0) == []


def test_filters_count_where_none_is_the_fastest(driver: WebDriver, show: Callable[..., None], folder: Path) -> None:
    alone = folder / "alone.html"
    alone.write_text(page_of(COMPARED[:1], "alone"), encoding="utf-8")
    show(alone.as_uri())
    assert counts(driver) == [1, 1]
    choose(driver, "words", "no such thing")
    assert counts(driver) == [0, 1]


def test_filters_choose_among_loads(driver: WebDriver, show: Callable[..., None], folder: Path) -> None:
    place = folder / "loads.html"
    others = [change(figures, backend="openvino") for figures in LOADS[:2]]
    place.write_text(page_of((*LOADS, *others), "loads"), encoding="utf-8")
    show(place.as_uri())
    assert counts(driver) == [8, 8]
    choose(driver, "backend", "openvino")
    assert counts(driver) == [2, 8]
    choose(driver, "words", "SINGLESTREAM")
    assert counts(driver) == [1, 8]
    shown = "[...document.querySelectorAll('tbody tr:not([hidden])')].map(row => row.cells[0].textContent)"
    assert run(driver, shown) == ["SingleStream"]


def colours(driver: WebDriver) -> list[str]:
    """Of the page, of its text, and of a plot's text and line."""
    return [
        run(driver, "getComputedStyle(document.body).backgroundColor"),
        run(driver, "getComputedStyle(document.body).color"),
        run(driver, "getComputedStyle(document.querySelector('figure svg text')).fill"),
        run(driver, "getComputedStyle(document.querySelector('.swatch')).backgroundColor"),
    ]


def test_dark_is_another_page_and_the_button_chooses(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served, scheme="light")
    light = colours(driver)
    assert light[0] == "rgb(255, 255, 255)"
    show(served, scheme="dark")
    dark = colours(driver)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert run(driver, "document.querySelector('#theme').textContent") == "Light"
    run(driver, "document.querySelector('#theme').click()")
    assert colours(driver) == light
    assert run(driver, "document.querySelector('#theme').textContent") == "Dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(
    driver: WebDriver, show: Callable[..., None], served: str, scheme: str
) -> None:
    show(served, scheme=scheme)
    for selector, least in (
        ("body", 7),
        (".sub", 4.5),
        ("figcaption", 4.5),
        (".badge.warnings", 4.5),
        (".headline", 7),
    ):
        style = f"getComputedStyle(document.querySelector('{selector}'))"
        behind = run(driver, f"{style}.backgroundColor")
        if behind == "rgba(0, 0, 0, 0)":
            behind = colours(driver)[0]
        assert contrast(run(driver, f"{style}.color"), behind) >= least, selector
    paper = colours(driver)[0]
    for number in range(1, 9):
        run(driver, f"document.body.style.outlineColor = 'var(--series-{number})'")
        assert contrast(run(driver, "getComputedStyle(document.body).outlineColor"), paper) >= 3, number


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2.1, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_is_reckoned_rightly() -> None:
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
def test_without_scripts_everything_can_be_read(
    driver: WebDriver, show: Callable[..., None], served: str, width: int
) -> None:
    show(served, width, scripts=False)
    assert run(driver, f"{MAIN}.tBodies[0].rows.length") == 11
    assert run(driver, f"{MAIN}.getBoundingClientRect().height") > 200
    assert run(driver, f"{MAIN}.querySelectorAll('button').length") == 0
    assert run(driver, "document.querySelector('.filters').getBoundingClientRect().height") == 0
    assert run(driver, "document.querySelectorAll('figure.plot svg path').length") > 100
    visible = "[...document.querySelectorAll('button')].filter(e => e.getBoundingClientRect().height > 0).length"
    assert run(driver, visible) == 0


def test_the_comparison_is_seen_whole_on_a_desk(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served)
    assert run(driver, f"{MAIN}.parentElement.scrollWidth - {MAIN}.parentElement.clientWidth") == 0


def test_on_a_telephone_the_ratio_is_seen_without_scrolling(
    driver: WebDriver, show: Callable[..., None], served: str
) -> None:
    show(served, browser.PHONE)
    number = heading(driver, "vs baseline")
    cells = f"[...{MAIN}.rows].map(row => row.cells[{number}].getBoundingClientRect())"
    assert run(driver, f"Math.max(...{cells}.map(box => box.right))") <= browser.PHONE
    assert run(driver, f"Math.min(...{cells}.map(box => box.width))") > 40
    assert run(driver, f"{MAIN}.parentElement.scrollWidth - {MAIN}.parentElement.clientWidth") == 0
    stacked = f"getComputedStyle({MAIN}.tBodies[0].rows[0].cells[0], '::after').content"
    assert run(driver, stacked) == '"fp32, batch 1"'


@pytest.mark.parametrize("scripts", [True, False])
def test_a_telephone_shows_all_columns_when_it_is_asked(
    driver: WebDriver, show: Callable[..., None], served: str, scripts: bool
) -> None:
    show(served, browser.PHONE, scripts=scripts)
    hidden = f"[...{MAIN}.tHead.rows[0].cells].filter(cell => cell.getBoundingClientRect().width === 0).length"
    assert run(driver, hidden) > 3
    run(driver, f"{MAIN}.closest('.table').querySelector('.all input').click()")
    assert run(driver, hidden) == 0
    show(served)
    assert run(driver, hidden) == 0
    assert run(driver, "document.querySelector('.all').getBoundingClientRect().height") == 0


def test_filters_choose_among_bars_too(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served)
    choose(driver, "backend", "openvino")
    names = "[...document.querySelectorAll('.bars li:not([hidden]) .name')].map(e => e.textContent)"
    assert set(run(driver, names)) == {"openvino fp32", "openvino int8"}


def test_the_answer_and_the_bars_are_on_the_first_screen(
    driver: WebDriver, show: Callable[..., None], served: str
) -> None:
    show(served)
    bottom = "document.querySelector('{}').getBoundingClientRect().bottom"
    assert run(driver, bottom.format("h1")) < run(driver, bottom.format(".charts")) < 900


@pytest.mark.parametrize("scripts", [True, False])
def test_folds_are_open_on_paper(driver: WebDriver, show: Callable[..., None], served: str, scripts: bool) -> None:
    show(served, scripts=scripts)
    content = "[...document.querySelectorAll('details')].map(e => getComputedStyle(e, '::details-content'))"
    visibility = f"{content}.map(style => style.contentVisibility)"
    assert set(run(driver, visibility)) == {"hidden"}
    browser.command(driver, "Emulation.setEmulatedMedia", media="print")
    assert set(run(driver, visibility)) == {"visible"}
    browser.command(driver, "Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    place = tmp_path_factory.mktemp("attacked")
    text = page_of(hostile.hostile_results(), hostile.ATTACK, findings=hostile.hostile_findings())
    (place / "report.html").write_text(text, encoding="utf-8")
    with browser.serving(place) as address:
        yield f"{address}/report.html"


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
def test_hostile_text_is_neither_executed_nor_breaks_the_page(
    driver: WebDriver, show: Callable[..., None], attacked: str, width: int
) -> None:
    show(attacked, width)
    assert browser.complaints(driver) == []
    assert run(driver, "window.attacked") is None
    assert run(driver, "document.scripts.length") == 1
    assert run(driver, "document.querySelectorAll('img, iframe, object, [onerror], [href^=javascript]').length") == 0
    assert run(driver, "performance.getEntriesByType('resource').map(entry => entry.name)") == []
    assert run(driver, "/[\\u0000-\\u0008\\u001b\\u202a-\\u202e]/.test(document.documentElement.outerHTML)") is False
    run(driver, "document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert run(driver, "document.documentElement.scrollWidth") == width
    assert run(driver, "document.querySelector('#theme').getBoundingClientRect().right") <= width
    assert run(driver, "Math.max(...[...document.querySelectorAll('td, th')].map(e => e.offsetHeight))") < 400
    assert run(driver, "document.body.textContent.includes('window.attacked = 1')") is True


def test_an_attack_that_is_not_escaped_is_noticed(driver: WebDriver, show: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "open.html").write_text(
        f'<p title="{hostile.ATTACK.replace("alert", "console.error")}">', encoding="utf-8"
    )
    show((tmp_path / "open.html").as_uri())
    assert run(driver, "window.attacked") == 1
    assert run(driver, "document.querySelectorAll('img, [href^=javascript]').length") == 2
    assert len(browser.complaints(driver)) >= 1


def test_paper_has_no_buttons(driver: WebDriver, show: Callable[..., None], served: str) -> None:
    show(served, scheme="dark")
    browser.command(driver, "Emulation.setEmulatedMedia", media="print")
    assert run(driver, "document.querySelector('.filters').getBoundingClientRect().height") == 0
    assert colours(driver)[0] == "rgb(255, 255, 255)"
    browser.command(driver, "Emulation.setEmulatedMedia", media="")


def test_without_a_browser_the_reason_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "chromedriver" else f"/usr/bin/{name}")
    assert {"chromedriver", "make"} <= set((browser.missing() or "").split())
