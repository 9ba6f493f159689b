"""Pages with ONNX Runtime Web in Chromium, as a visitor has them: labels, heat maps, errors, keyboard, no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exporter.deploy.web import SiteRequest, write_site
from exporter.export_request import ExportRequest
from exporter.models.variants import variant
from exporter.precision.spec import PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Artifact, Classifier
from tests.benchmarks.report_html import browser
from tests.exporter.deploy.changes import change
from tests.exporter.deploy.web.pages import answers, encoded, label_in_browser, open_page, photo, wait_for
from tests.exporter.small import SILENT
from tests.hostile import ATTACKS, NAME
from tests.peers import peer
from tests.samples import copied

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

pytestmark = pytest.mark.peers

FILES = [encoded(photo(60 + 7 * seed, 90, seed), format) for seed in range(5) for format in ("PNG", "JPEG")]


@pytest.fixture(scope="session")
def site(labelling: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the folder ``site``. Shared: not to be changed."""
    folder = tmp_path_factory.mktemp("served")
    write_site(SiteRequest(labelling.path, f"{folder}/site/", peer("node")), SILENT)
    return folder


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with browser.serving(site) as found:
        yield f"{found}/site/index.html"


def compare(driver: WebDriver, artifact: Path) -> float:
    """The largest difference of a probability over ``FILES``, after a check that the best classes are the same."""
    with Classifier.open(artifact, "onnxruntime", threads=1) as classifier:
        classes = len(classifier.names or ()) or 10
        predictions = classifier.predict(FILES, top=classes)
    largest = 0.0
    for file, prediction in zip(FILES, predictions, strict=True):
        found = label_in_browser(driver, file)
        assert found.argmax() == prediction.labels[0].index
        expected = {label.index: label.probability for label in prediction.labels}
        largest = max(largest, max(abs(found[index] - value) for index, value in expected.items()))
    return largest


def test_labels_are_those_of_python(driver: WebDriver, address: str, labelling: Artifact) -> None:
    open_page(driver, address)
    assert compare(driver, labelling.path) <= 1e-5
    assert browser.complaints(driver) == []


@pytest.mark.parametrize("kind", ["raw", "int8", "fixed batch", "fp16"])
def test_every_kind_of_file_has_the_labels_of_python(driver: WebDriver, tmp_path: Path, kind: str) -> None:
    request = ExportRequest(
        variant("resnet20"),
        f"{tmp_path}/resnet20.onnx",
        weights="bundled",
        raw=kind == "raw",
        batch=3 if kind == "fixed batch" else None,
    )
    precision = PrecisionSpec(kind, gate_images=200) if kind in ("int8", "fp16") else PrecisionSpec("fp32")
    artifact = onnx_file.export(request, SILENT, precision_spec=precision)
    write_site(SiteRequest(artifact.path, f"{tmp_path}/site/", peer("node")), SILENT)
    with browser.serving(tmp_path / "site") as found:
        open_page(driver, f"{found}/index.html")
        assert compare(driver, artifact.path) <= (1e-2 if kind == "fp16" else 1e-5)


def test_one_file_opens_from_a_disk(driver: WebDriver, labelling: Artifact, tmp_path: Path) -> None:
    page = write_site(SiteRequest(labelling.path, f"{tmp_path}/page.html", peer("node")), SILENT)
    open_page(driver, page.as_uri())
    driver.execute_script("document.querySelector('#samples button').click()")
    (answer,) = answers(driver, 1)
    assert "Trouser" in answer
    assert "Network" in answer
    assert browser.complaints(driver) == []


def test_a_folder_on_a_disk_says_what_to_do(driver: WebDriver, site: Path) -> None:
    driver.get((site / "site" / "index.html").as_uri())
    notice = (
        "document.querySelector('.unstarted').checkVisibility({visibilityProperty: true}) && document.body.innerText"
    )
    assert "python3 -m http.server" in wait_for(driver, notice)
    assert browser.complaints(driver)


def test_a_visitor_reads_labels_and_a_heat_map(driver: WebDriver, address: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    open_page(driver, address)
    paths = [tmp_path / name for name in ("first.png", "<b>second.jpg", "broken.jpg")]
    for path, content in zip(paths, (FILES[0], FILES[1], FILES[1][:90]), strict=True):
        path.write_bytes(content)
    driver.find_element(By.ID, "file").send_keys("\n".join(map(str, paths)))
    broken, second, first = answers(driver, 3)
    assert "is broken" in broken
    assert second.startswith("<b>second.jpg")
    assert "Probability" in first
    pixels = "document.querySelectorAll('canvas')[1].toDataURL()"
    before = browser.run(driver, pixels)
    button = driver.find_elements(By.CSS_SELECTOR, "article:last-child th button")[0]
    button.send_keys(" ")
    wait_for(driver, "document.querySelectorAll('[aria-pressed=true]').length === 1")
    shown = browser.run(driver, pixels)
    button.send_keys(" ")
    wait_for(driver, "document.querySelectorAll('[aria-pressed=true]').length === 0")
    assert shown != before
    assert browser.run(driver, pixels) == before
    assert browser.complaints(driver) == []


def test_a_dropped_image_is_labelled(driver: WebDriver, address: str) -> None:
    open_page(driver, address)
    driver.execute_script(
        "const files = new DataTransfer();"
        "files.items.add(new File([Uint8Array.from(arguments[0])], 'dropped.png'));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true, cancelable: true}))",
        list(FILES[0]),
    )
    (answer,) = answers(driver, 1)
    assert answer.startswith("dropped.png")


def test_the_page_connects_to_its_folder_alone(driver: WebDriver, address: str) -> None:
    open_page(driver, address)
    origin = address.removesuffix("/site/index.html")
    fetched = browser.run(driver, "performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith((f"{origin}/site/", "data:", "blob:"))] == []
    script = "const done = arguments[0]; fetch('http://localhost:1/').then(() => done('sent'), (e) => done(e.message))"
    assert driver.execute_async_script(script) == "Failed to fetch"
    assert any("Content Security Policy" in text for text in browser.complaints(driver))


@pytest.mark.parametrize("width", [browser.WIDE, browser.PHONE])
def test_nothing_is_wider_than_the_screen(driver: WebDriver, address: str, width: int) -> None:
    browser.resize(driver, width)
    open_page(driver, address)
    driver.execute_script("document.querySelector('#samples button').click()")
    answers(driver, 1)
    assert browser.run(driver, "document.documentElement.scrollWidth") <= width
    browser.resize(driver, browser.WIDE)


@pytest.mark.parametrize("fault", ["damaged", "missing", "short", "other weights"])
def test_a_broken_folder_is_refused_with_a_reason(
    driver: WebDriver, site: Path, tmp_path: Path, fault: str, labelling: Artifact
) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site / "site", folder)
    (model,) = folder.glob("model.*.onnx")
    content = bytearray(model.read_bytes())
    if fault == "damaged":
        content[len(content) // 2] ^= 1
        model.write_bytes(content)
    elif fault == "missing":
        model.unlink()
    elif fault == "short":
        model.write_bytes(content[:1000])
    else:
        _publish_other_weights(labelling, folder)
    with browser.serving(folder) as found:
        open_page(driver, f"{found}/index.html")
        reason = browser.run(driver, "document.getElementById('failure').textContent")
    expected = {"missing": "404", "other weights": "PyTorch"}.get(fault, f"{model.name} is not the file")
    assert expected in reason
    assert browser.run(driver, "document.getElementById('drop').hidden")


def _publish_other_weights(artifact: Artifact, folder: Path) -> None:
    """Replaces the model of the folder by one with changed weights and a right digest: only its logits tell."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(artifact.path)
    weights = max(graph.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    other = folder.parent / "other.onnx"
    onnx.save(graph, other)
    request = SiteRequest(other, f"{folder.parent}/other/", peer("node"))
    page = write_site(replace(request, force=True), SILENT)
    import json

    description = json.loads((folder / "model.json").read_text())
    description["files"]["model"] = json.loads((page.parent / "model.json").read_text())["files"]["model"]
    (folder / "model.json").write_text(json.dumps(description))
    shutil.copy(page.parent / description["files"]["model"]["path"], folder)


@pytest.mark.parametrize("name", ["site/", "page.html"])
def test_no_label_or_name_acts_on_a_page(driver: WebDriver, labelling: Artifact, tmp_path: Path, name: str) -> None:
    from selenium.webdriver.common.by import By

    model = copied(labelling, tmp_path)
    change(model.path, name=ATTACKS[3], dataset=ATTACKS[5], labels=ATTACKS)
    (tmp_path / "pages").mkdir()
    page = write_site(SiteRequest(model.path, f"{tmp_path}/pages/{name}", peer("node")), SILENT)
    image = tmp_path / f"{NAME.replace(chr(10), '')}.png"
    image.write_bytes(FILES[0])
    with browser.serving(tmp_path / "pages") as found:
        open_page(driver, f"{found}/{page.relative_to(tmp_path / 'pages')}")
        driver.find_element(By.ID, "file").send_keys(str(image))
        (answer,) = answers(driver, 1)
        driver.execute_script("document.querySelector('th button').click()")
        wait_for(driver, "document.querySelector('[aria-pressed=true]')")
        acted = browser.run(
            driver, "[window.attacked !== undefined, document.querySelectorAll('article img, b, h3').length]"
        )
        assert acted == [False, 0]
        assert browser.complaints(driver) == []
    assert "\u202e" not in answer
