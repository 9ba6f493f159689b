"""``POST /v1/explain``, and the headers of the page."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runtimes import Preprocessing
from runtimes.images.heat_map import MapPlace, place_on_image
from runtimes.serving import ServedModel, ServingSettings
from tests.servers import serve_app


def half_red(height: int = 20, width: int = 40) -> bytes:
    """A PNG whose left half is red, and whose right half is a darker green."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 1] = 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_heat_map_is_that_of_the_classifier(models: list[ServedModel]) -> None:
    image = half_red()
    classifier = models[0].classifier
    assert classifier is not None
    _, heat = classifier.interpret_map(models[0].runtime.infer(classifier.prepare(image)), 1)
    with serve_app(models) as server:
        reply = server.address.post("/v1/explain?model=first&index=1", image)
    answer = reply.json
    assert (reply.status, answer["model"], answer["index"], answer["name"]) == (200, "first", 1, "green")
    np.testing.assert_array_equal(np.float32(answer["map"]), heat)
    place = MapPlace.find(classifier.preprocessing, (20, 40))
    assert (tuple(answer["area"]), tuple(answer["seen"])) == (place.area, place.seen)


def test_the_default_class_is_the_most_probable_one(models: list[ServedModel]) -> None:
    with serve_app(models) as server:
        assert server.address.post("/v1/explain?model=first", half_red()).json["name"] == "red"


REFUSED = {
    "model-without-heat-maps": ("model=second", half_red(), 404),
    "model-unknown": ("model=third", half_red(), 404),
    "model-required": ("", half_red(), 400),
    "class-unknown": ("model=first&index=3", half_red(), 400),
    "index-invalid": ("model=first&index=-1", half_red(), 400),
    "image-format-unknown": ("model=first", b"text", 400),
    "body-too-large": ("model=first", bytes(3000), 413),
    "image-too-large": ("model=first", half_red(100, 101), 400),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_wrong_request_is_refused(models: list[ServedModel], code: str) -> None:
    query, body, status = REFUSED[code]
    with serve_app(models, ServingSettings(max_bytes=2000, max_pixels=10_000)) as server:
        reply = server.address.post(f"/v1/explain?{query}", body)
    assert (reply.status, reply.code) == (status, code)


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        (Preprocessing(28, (28, 28), 2, (0.5,), (0.5,)), (28, 28)),
        (Preprocessing(64, (48, 56), 0, (0.5,), (0.5,)), (50, 120)),
        (Preprocessing(None, (60, 60), 1, (0.5,), (0.5,)), (21, 90)),
    ],
)
def test_the_place_of_a_map_gives_its_values(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    place = MapPlace.find(preprocessing, size)
    rows, columns = (
        _cells(length, cells, *(edges[axis::2] for edges in (place.area, place.seen)))
        for axis, (length, cells) in enumerate(zip(size, heat.shape, strict=True))
    )
    np.testing.assert_allclose(rows @ heat @ columns.T, place_on_image(heat, preprocessing, size), atol=1e-5)


def _cells(length: int, cells: int, area: tuple[float, ...], seen: tuple[float, ...]) -> NDArray[np.float64]:
    """The weight of each cell for each pixel of one axis; NaN outside of what was seen."""
    place = (np.arange(length) + 0.5) / length
    cell = np.clip((place - area[0]) / (area[1] - area[0]) * cells - 0.5, 0, cells - 1)
    weights: NDArray[np.float64] = np.maximum(0, 1 - np.abs(cell[:, None] - np.arange(cells)))
    weights[(place < seen[0]) | (place >= seen[1])] = np.nan
    return weights


def test_the_page_and_its_files_have_strict_headers(models: list[ServedModel]) -> None:
    with serve_app(models) as server:
        for path in ("/", "/page/view.js", "/page/page.css"):
            reply = server.address.get(path)
            assert reply.status == 200
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert reply.headers["x-content-type-options"] == "nosniff"
        for path in ("/page/page.html", "/page/..%2fapp.py", "/page/"):
            assert server.address.get(path).status == 404
