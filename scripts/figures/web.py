"""Whether a page labels images as Python does: the same files in Chromium and in Python."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from exporter.data.opening import BUNDLED_NAME, open_dataset
from exporter.deploy.web import SiteRequest, write_site
from exporter.export_request import ExportRequest
from exporter.models.variants import VARIANTS
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.targets import onnx_file
from runtimes import Classifier
from runtimes.images.preprocessing import decode
from scripts.docs import chromium
from scripts.figures.setting import SILENT, Figure, FigureSettings

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

IMAGES = 100
"""The number of images of each format."""

BOUND = 1e-5
"""The largest difference of a probability."""

PRECISIONS = {"fp32": FP32, "int8": PrecisionSpec("int8")}

NODE = Path(__file__).parents[2] / ".peers" / "node"
"""The environment of ``make peers`` with ONNX Runtime Web. Without it, npm downloads the files into the cache."""

LABEL = """
const file = arguments[0], done = arguments[arguments.length - 1];
const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
import(new URL("labeller.js", document.baseURI))
  .then(async ({openLabeller}) => (window.opened ??= await openLabeller(new URL("./", document.baseURI))))
  .then((labeller) => labeller.label(new Blob([bytes]), Infinity))
  .then(({labels}) => done(labels.map(({index, probability}) => [index, probability])))
  .catch((error) => done(error.message));
"""


def label_in_browser(driver: WebDriver, content: bytes) -> NDArray[np.float64]:
    """The probability of each class for an image file, by the model of the page's folder."""
    found = driver.execute_async_script(LABEL, base64.b64encode(content).decode())
    assert not isinstance(found, str), found
    return np.array([probability for _, probability in sorted(found)])


def measure_web(setting: FigureSettings) -> Iterator[Figure]:
    """The probabilities of all classes in Chromium against those of ONNX Runtime in Python, one thread each."""
    if (reason := chromium.missing()) is not None:
        raise SystemExit(reason)
    count = setting.limit or IMAGES
    sources = {format: image_files(format, count) for format in ("JPEG", "PNG")}
    with chromium.browser() as driver:
        driver.set_script_timeout(120)
        for precision, spec in PRECISIONS.items():
            folder = setting.folder / precision
            folder.mkdir()
            request = ExportRequest(VARIANTS["resnet20"], f"{folder}/resnet20.onnx", weights="bundled")
            artifact = onnx_file.export(request, SILENT, precision_spec=spec)
            runtime = NODE if (NODE / ".complete").exists() else None
            write_site(SiteRequest(artifact.path, f"{folder}/site/", runtime), SILENT)
            with chromium.serving(folder / "site") as address, Classifier.open(artifact.path, "onnxruntime") as python:
                driver.get(f"{address}/index.html")
                for format, files in sources.items():
                    yield _compare(f"resnet20 {precision}, {format}", driver, python, files)


def image_files(format: str, count: int) -> Sequence[bytes]:
    """Test images of Fashion-MNIST as files of several sizes; JPEGs also of several qualities."""
    dataset = open_dataset(BUNDLED_NAME, count)
    result = []
    for index in range(count):
        image = PIL.Image.fromarray(decode(dataset.image(index)))
        side = 28 * (1 + index % 8)
        buffer = io.BytesIO()
        options = {"quality": 60 + index % 36} if format == "JPEG" else {}
        image.resize((side + 3 * (index % 5), side), PIL.Image.Resampling.BICUBIC).save(buffer, format, **options)
        result.append(buffer.getvalue())
    return result


def _compare(name: str, driver: WebDriver, python: Classifier, files: Sequence[bytes]) -> Figure:
    predictions = python.predict(list(files), top=len(python.names or ()))
    same, largest = 0, 0.0
    for file, prediction in zip(files, predictions, strict=True):
        found = label_in_browser(driver, file)
        expected = {label.index: label.probability for label in prediction.labels}
        same += int(found.argmax()) == prediction.labels[0].index
        largest = max(largest, *(abs(float(found[index]) - value) for index, value in expected.items()))
    version = driver.capabilities["browserVersion"]
    return Figure(
        f"{name} in Chromium {version} and in Python",
        f"same top-1 class for {same} of {len(files)} images, largest difference of a probability {largest:.1e}",
        f"all, <= {BOUND:.0e}",
        same == len(files) and largest <= BOUND,
    )
