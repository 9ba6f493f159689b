"""The example of a page of one's own: a folder of ``rexport web`` beside it, and a server for files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from exporter.data.opening import open_dataset
from runtimes.images.preprocessing import decode
from tests.benchmarks.report_html import browser
from tests.examples.test_embedding import ENVIRONMENT, EXAMPLES
from tests.peers import peer

pytestmark = pytest.mark.peers


def test_a_page_of_ones_own_labels_a_picture(tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    if (reason := browser.missing()) is not None:
        pytest.skip(reason)
    for arguments in (
        ("onnx", "resnet20", "--weights", "bundled"),
        ("web", "resnet20.onnx", "-o", "site/", "--onnxruntime-web", str(peer("node"))),
    ):
        subprocess.run([sys.executable, "-m", "exporter.cli", *arguments], cwd=tmp_path, env=ENVIRONMENT, check=True)
    shutil.copy(EXAMPLES / "browser_page.html", tmp_path)
    Image.fromarray(decode(open_dataset("fashion-mnist").image(0))).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"text")
    text = "document.querySelector('output').textContent"
    with browser.serving(tmp_path) as address, browser.browser() as driver:
        driver.get(f"{address}/browser_page.html")
        waiting = WebDriverWait(driver, 60, poll_frequency=0.05)
        waiting.until(lambda found: browser.run(found, "!document.querySelector('input').disabled"))
        driver.find_element(By.TAG_NAME, "input").send_keys(str(tmp_path / "photo.png"))
        waiting.until(lambda found: "Ankle boot" in browser.run(found, text))
        driver.find_element(By.TAG_NAME, "input").send_keys(str(tmp_path / "broken.png"))
        waiting.until(lambda found: "not a JPEG" in browser.run(found, text))
