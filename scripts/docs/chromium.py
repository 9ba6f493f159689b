"""Debian's Chromium without a window, driven by Selenium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

PHONE = 390
"""Width in pixels that is shown as a telephone shows it."""


def missing() -> str | None:
    """Why there is no browser here, with the remedy, or ``None``."""
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None:
            return f"{name} is not installed (as root on Debian: make browser)"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install 'rexport[dev]')"
    return None


@contextmanager
def browser() -> Iterator[WebDriver]:
    """Yields a browser with an empty page. It connects to this machine only."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(executable_path=shutil.which("chromedriver"))
    driver = Chrome(options=options, service=service)
    try:
        yield driver
    finally:
        driver.quit()


def command(driver: WebDriver, name: str, **values: Any) -> dict[str, Any]:
    """Sends a command of Chromium's DevTools protocol, and returns its result."""
    return dict(driver.execute_cdp_cmd(name, values))


def resize(driver: WebDriver, width: int, height: int = 900) -> None:
    """Sets the size of the page in pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width == PHONE}
    command(driver, "Emulation.setDeviceMetricsOverride", **metrics)


def prefer(driver: WebDriver, scheme: str) -> None:
    """Sets the reader's choice of ``light`` or ``dark``."""
    command(driver, "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def run(driver: WebDriver, script: str, *values: object) -> Any:
    """The value of an expression on the page; ``arguments`` are the values."""
    return driver.execute_script(f"return {script}", *values)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Yields the address at which the folder is served, without a slash at its end."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
