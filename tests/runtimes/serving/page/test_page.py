"""The page of a server in Chromium: labels, heat maps, several models, errors, and a page below another path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import fastapi
import numpy as np
import pytest
from PIL import Image

from runtimes.serving import ServedModel, ServingSettings, create_app
from tests.benchmarks.report_html import browser
from tests.exporter.deploy.web.pages import answers, open_page, wait_for
from tests.hostile import ATTACKS, NAME, READABLE
from tests.runtimes.serving.page.conftest import COLOURS, colour_model, serving
from tests.runtimes.serving.page.test_explain import half_red
from tests.servers import AppServer, serve_app

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver


def page_of(server: AppServer) -> str:
    return f"http://{server.address.host}:{server.address.port}/"


def choose(driver: WebDriver, *paths: Path) -> None:
    from selenium.webdriver.common.by import By

    driver.find_element(By.ID, "file").send_keys("\n".join(map(str, paths)))


def test_a_visitor_reads_labels_and_a_heat_map(driver: WebDriver, models: list[ServedModel], tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(half_red())
    with serve_app(models) as server:
        open_page(driver, page_of(server))
        choose(driver, tmp_path / "half.png")
        (answer,) = answers(driver, 1)
        driver.execute_script("document.querySelector('th button').click()")
        wait_for(driver, "document.querySelector('[aria-pressed=true]')")
        script = (
            "const {width, height} = document.querySelector('canvas'); "
            "return [...document.querySelector('canvas').getContext('2d').getImageData(0, 0, width, height).data]"
        )
        size = browser.run(driver, "[document.querySelector('canvas').height, document.querySelector('canvas').width]")
        pixels = np.array(driver.execute_script(script), np.uint8).reshape(*size, 4)
        assert browser.complaints(driver) == []
    assert [line.strip() for line in answer.splitlines() if line.strip() in COLOURS] == ["red", "green", "blue"]
    middle = pixels[size[0] // 2, :, 0].astype(int)
    assert middle[int(size[1] * 0.3)] > middle[int(size[1] * 0.7)] + 50
    assert middle[0] < 90


def test_each_model_answers_for_itself(driver: WebDriver, models: list[ServedModel], tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "blue.png")
    with serve_app(models) as server:
        open_page(driver, page_of(server))
        choose(driver, tmp_path / "blue.png")
        answers(driver, 1)
        driver.execute_script(
            "const choice = document.getElementById('model'); choice.selectedIndex = 1;"
            "choice.dispatchEvent(new Event('change'))"
        )
        choose(driver, tmp_path / "blue.png")
        second, first = answers(driver, 2)
        assert ("Answer of first" in first, "Answer of second" in second) == (True, True)
        buttons = "[...document.querySelectorAll('article')].map((part) => part.querySelectorAll('button').length)"
        assert browser.run(driver, buttons) == [0, 3]
        driver.execute_script("document.querySelector('article:last-child th button').click()")
        wait_for(driver, "document.querySelector('[aria-pressed=true]')")


def test_a_refusal_is_the_answer_for_its_image(driver: WebDriver, models: list[ServedModel], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(half_red()[:50])
    (tmp_path / "large.bmp").write_bytes(bytes(3000))
    with serve_app(models[:1], ServingSettings(max_bytes=2000)) as server:
        open_page(driver, page_of(server))
        choose(driver, tmp_path / "broken.png", tmp_path / "large.bmp")
        large, broken = answers(driver, 2)
    assert "2,000 bytes" in large
    assert "is broken" in broken
    choose(driver, tmp_path / "broken.png")
    assert "cannot be reached" in answers(driver, 3)[0]


def test_the_page_works_below_another_path(driver: WebDriver, models: list[ServedModel], tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(half_red())
    app = fastapi.FastAPI()
    app.mount("/models", create_app(models[:1]))
    with serving(app) as address:
        open_page(driver, f"{address}/models")
        choose(driver, tmp_path / "half.png")
        (answer,) = answers(driver, 1)
    assert "red" in answer


def test_an_image_that_the_browser_cannot_show_has_labels(
    driver: WebDriver, models: list[ServedModel], tmp_path: Path
) -> None:
    Image.new("RGB", (9, 9), "blue").save(tmp_path / "blue.tiff")
    with serve_app(models[:1]) as server:
        open_page(driver, page_of(server))
        choose(driver, tmp_path / "blue.tiff")
        (answer,) = answers(driver, 1)
        assert browser.run(driver, "document.querySelectorAll('article button, canvas').length") == 0
    assert "blue" in answer
    assert "cannot show" in answer


@pytest.mark.slow
def test_no_label_or_name_acts_on_the_page(driver: WebDriver, tmp_path: Path) -> None:
    labels = (ATTACKS[3], ATTACKS[2], ATTACKS[-1])
    model = colour_model(tmp_path / "a.onnx", "first", labels=labels)
    image = tmp_path / f"{NAME.replace(chr(10), '')}.png"
    Image.new("RGB", (9, 9), "blue").save(image)
    with serve_app([model]) as server:
        open_page(driver, page_of(server))
        choose(driver, image)
        (answer,) = answers(driver, 1)
        attack = browser.run(driver, "[window.attacked === undefined, document.querySelectorAll('img, b').length]")
        assert attack == [True, 0]
        assert browser.complaints(driver) == []
    model.close()
    assert READABLE in answer
    assert r"\u202egnp.exe\u2066" in answer
    assert "\u202e" not in answer
