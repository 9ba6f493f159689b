"""Pages in a real browser: what tests need besides driving it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.docs.chromium import PHONE as PHONE
from scripts.docs.chromium import browser as browser
from scripts.docs.chromium import command as command
from scripts.docs.chromium import missing as missing
from scripts.docs.chromium import prefer as prefer
from scripts.docs.chromium import resize as resize
from scripts.docs.chromium import run as run
from scripts.docs.chromium import serving as serving

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

WIDE = 1280


def complaints(driver: WebDriver) -> list[str]:
    """The messages on the console since the last call, warnings too."""
    return [str(entry["message"]) for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]
