"""Pages in a real browser: what tests need besides driving it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.docs.chromium import PHONE as PHONE
from scripts.docs.chromium import browser as browser
from scripts.docs.chromium import command as command
from scripts.docs.chromium import missing as missing
from scripts.docs.chromium import prefer as prefer
from scripts.docs.chromium import resize as resize
from scripts.docs.chromium import run as run

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

WIDE = 1280


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


def complaints(driver: WebDriver) -> list[str]:
    """The messages on the console since the last call, warnings too."""
    return [str(entry["message"]) for entry in driver.get_log("browser")]  # type: ignore[no-untyped-call]
