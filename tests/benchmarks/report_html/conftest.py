from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.report_html import browser
from tests.benchmarks.report_html.measured import EVERYTHING
from tests.benchmarks.report_html.pages import page_of

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture(scope="session")
def everything() -> str:
    """A page with all that a page can have."""
    return page_of(EVERYTHING, "a report")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, everything: str) -> Path:
    """Holds the page as ``report.html``, and nothing else."""
    place = tmp_path_factory.mktemp("page")
    (place / "report.html").write_text(everything, encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def driver() -> Iterator[WebDriver]:
    """One browser for all tests of a process."""
    if (reason := browser.missing()) is not None:
        pytest.skip(reason)
    with browser.browser() as found:
        yield found


@pytest.fixture
def show(driver: WebDriver) -> Iterator[Callable[..., None]]:
    """Opens an address as a reader's system would show it."""

    def shown(address: str, width: int = browser.WIDE, scheme: str = "light", scripts: bool = True) -> None:
        browser.resize(driver, width)
        browser.prefer(driver, scheme)
        browser.command(driver, "Emulation.setScriptExecutionDisabled", value=not scripts)
        browser.complaints(driver)
        driver.get(address)

    yield shown
    browser.command(driver, "Emulation.setScriptExecutionDisabled", value=False)
