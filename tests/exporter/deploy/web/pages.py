"""Pages in the browser: their modules called from Python, images for them, and what a visitor does."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from exporter.deploy import page_files
from runtimes import codec
from runtimes.images.spec import Preprocessing
from scripts.figures.web import label_in_browser as label_in_browser
from tests.benchmarks.report_html import browser

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

Pixels = NDArray[np.uint8]

DECODE = """
const [file, channels] = arguments, done = arguments[arguments.length - 1];
const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
modules.decodeImage(new Blob([bytes]), channels)
  .then(({data, height, width}) => done({pixels: pack(data), height, width}))
  .catch((error) => done({error: error.message, kind: error.constructor.name}));
"""

FIT = """
const [pixels, height, width, preprocessing] = arguments;
const data = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0));
const image = {data, height, width, channels: data.length / height / width};
const fitted = modules.fitImage(image, preprocessing);
const floats = modules.normalise(fitted, preprocessing);
return [pack(fitted.data), pack(new Uint8Array(floats.buffer))];
"""


@contextmanager
def modules_page(folder: Path) -> Iterator[str]:
    """Serves a page on which ``modules`` holds what the image modules export; yields its address."""
    for name in page_files.MODULES:
        (folder / name).write_text(page_files.read_file(name), encoding="utf-8")
    imports = ("decode.js", "preprocess.js", "probabilities.js", "labeller.js", "heat.js")
    lines = "".join(f'import * as m{number} from "./{name}";' for number, name in enumerate(imports))
    spread = ", ".join(f"...m{number}" for number in range(len(imports)))
    pack = "(data) => { let text = ''; for (const byte of data) text += String.fromCharCode(byte); return btoa(text) }"
    script = f"{lines} window.modules = {{{spread}}}; window.pack = {pack};"
    markup = (
        f'<!doctype html><title>modules</title><link rel="icon" href="data:,"><script type="module">{script}</script>'
    )
    (folder / "modules.html").write_text(markup, encoding="utf-8")
    with browser.serving(folder) as address:
        yield f"{address}/modules.html"


def decode_in_browser(driver: WebDriver, content: bytes, channels: int) -> Pixels | str:
    """The pixels (h, w, channels) that the page decodes, or its sentence for the visitor."""
    found = driver.execute_async_script(DECODE, base64.b64encode(content).decode(), channels)
    if "error" in found:
        return str(found["error"])
    return unpack(found["pixels"], np.uint8).reshape(found["height"], found["width"], channels)


def fit_in_browser(driver: WebDriver, pixels: Pixels, preprocessing: Preprocessing) -> tuple[Pixels, NDArray[Any]]:
    """The fitted pixels and the input of the network, both flat."""
    packed = base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()
    fitted, floats = driver.execute_script(FIT, packed, *pixels.shape[:2], codec.encode(preprocessing))
    return unpack(fitted, np.uint8), unpack(floats, np.float32)


def unpack(text: str, dtype: type) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype)


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """An image with smooth parts, noise and edges."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / (7 + seed % 5) + channel) * np.cos(y / (9 + channel)) for channel in range(3)]
    noisy = np.stack(waves, axis=2) + rng.normal(0, 12, (height, width, 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=(250, 20, 30))
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def wait_for(driver: WebDriver, script: str, limit_s: float = 60) -> Any:
    """The value of an expression on the page, once it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, limit_s, poll_frequency=0.05).until(lambda found: browser.run(found, script))


def open_page(driver: WebDriver, address: str) -> None:
    """Opens a page, and waits until it is ready or says why not."""
    browser.complaints(driver)
    driver.get(address)
    wait_for(driver, "!document.getElementById('drop').hidden || !document.getElementById('failure').hidden")


def answers(driver: WebDriver, count: int) -> list[str]:
    """The texts of the answers on the page, newest first, once there are as many and each is finished."""
    finished = (
        "document.querySelectorAll('article table, article .alarm').length === arguments[0] && "
        "[...document.querySelectorAll('article')].map((article) => article.innerText)"
    )
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(driver, 60, poll_frequency=0.05)
    return list(waiting.until(lambda found: browser.run(found, finished, count)))
