from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.html.page import html
from tests.benchmarks.html import browser
from tests.benchmarks.html.measured import EVERYTHING

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


@pytest.fixture(scope="session")
def everything() -> str:
    """A page with all that a page can have."""
    return html(EVERYTHING, "a report")


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
