"""A real browser without a window: Debian's Chromium, driven by Selenium."""

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

WIDE, PHONE = 1280, 390


def missing() -> str | None:
    """Why there is no browser here, with the remedy, or ``None``."""
    for command in ("chromium", "chromedriver"):
        if shutil.which(command) is None:
            return f"{command} is not installed (as root on Debian: make browser)"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed (pip install 'rexport[dev]')"
    return None


@contextmanager
def browser() -> Iterator[WebDriver]:
    """Ready, with an empty page. Nothing outside this machine is asked for."""
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


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The folder's address, without a slash at its end, as long as it is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def command(driver: WebDriver, name: str, **values: Any) -> dict[str, Any]:
    """Sends one to the browser itself, of Chromium's DevTools protocol."""
    return dict(driver.execute_cdp_cmd(name, values))


def resize(driver: WebDriver, width: int, height: int = 900) -> None:
    """The page is that wide from now on, as a telephone shows it or a desk."""
    command(
        driver,
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width == PHONE,
    )


def prefer(driver: WebDriver, scheme: str) -> None:
    """``light`` or ``dark``, as the system of the reader does."""
    command(driver, "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def complaints(driver: WebDriver) -> list[str]:
    """What came to the console since it was last looked at, warnings too."""
    return [str(entry["message"]) for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]


def run(driver: WebDriver, script: str, *values: object) -> Any:
    """What the expression is on the page; ``arguments`` are the values."""
    return driver.execute_script(f"return {script}", *values)
