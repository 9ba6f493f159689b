"""Images of a page against those of Python, in Chromium: decoded, resized, cropped, normalised, and their heat maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from runtimes import codec
from runtimes.images.heat_map import place_on_image
from runtimes.images.preprocessing import decode, fit_image, normalise
from runtimes.images.spec import INTERPOLATIONS, SAMPLED, Preprocessing
from tests.activations import CASES
from tests.exporter.deploy.web.pages import (
    decode_in_browser,
    encoded,
    fit_in_browser,
    modules_page,
    photo,
)

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

GEOMETRIES = {
    "a smaller image centred on black": (None, (40, 50), 1),
    "the shorter side": (28, (28, 28), 2),
    "both sides squashed": ((40, 30), (32, 32), 0),
    "enlarged": (90, (64, 64), 0),
}
SIZES = ((37, 91), (61, 20), (640, 3), (1, 1))
"""Of the images, in pixels: wide, tall, so tall that Pillow begins with the columns, and a single pixel."""


@pytest.fixture(scope="module")
def page(driver: WebDriver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """The browser, with the modules opened."""
    with modules_page(tmp_path_factory.mktemp("modules")) as address:
        driver.get(address)
        yield driver


def differences(page: WebDriver, preprocessing: Preprocessing, size: tuple[int, int], seed: int = 0) -> int:
    """How many numbers of the input differ from Python's, in all of their bits."""
    pixels = np.asarray(photo(*size, seed=seed))[:, :, : preprocessing.channels]
    fitted, floats = fit_in_browser(page, pixels, preprocessing)
    expected = fit_image(pixels, preprocessing)
    return int((fitted != expected.ravel()).sum() + (floats != normalise(expected[None], preprocessing).ravel()).sum())


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_input_of_the_network_is_that_of_python(
    page: WebDriver, interpolation: str, geometry: tuple[int | None, tuple[int, int], int]
) -> None:
    for antialias in (True, False) if interpolation in SAMPLED else (True,):
        for number, size in enumerate(SIZES):
            colours = 1 if number == 1 else 3
            preprocessing = Preprocessing(
                *geometry,
                mean=(0.485, 0.456, 0.406)[:colours],
                std=(0.229, 0.224, 0.225)[:colours],
                interpolation=interpolation,  # type: ignore[arg-type]
                antialias=antialias,
                channel_order="BGR" if number == 2 else "RGB",
                scale=1 if number == 3 else 255,
                crop_offset="floor" if number % 2 else "round",
            )
            assert differences(page, preprocessing, size, seed=number) == 0, (size, antialias)


def test_another_filter_is_found(page: WebDriver) -> None:
    preprocessing = Preprocessing(28, (28, 28), 0, (0.5,) * 3, (0.5,) * 3)
    pixels = np.asarray(photo(37, 91))
    fitted, _ = fit_in_browser(page, pixels, preprocessing)
    other = fit_image(pixels, Preprocessing(28, (28, 28), 0, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic"))
    assert (fitted != other.ravel()).sum() > 100


def _oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _with_alpha() -> Image.Image:
    alpha = np.random.default_rng(1).integers(0, 256, (40, 60)).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(photo(40, 60)), alpha]))


FILES = {
    **{f"JPEG {quality}": encoded(photo(61, 83), "JPEG", quality=quality) for quality in (50, 75, 95)},
    **{f"JPEG {kind}": encoded(photo(61, 83), "JPEG", subsampling=kind) for kind in ("4:4:4", "4:2:2")},
    "progressive JPEG": encoded(photo(61, 83), "JPEG", progressive=True),
    "grey JPEG": encoded(photo(61, 83).convert("L"), "JPEG"),
    "CMYK JPEG": encoded(photo(61, 83).convert("CMYK"), "JPEG"),
    **{f"JPEG turned {turn}": encoded(photo(61, 83), "JPEG", exif=_oriented(turn)) for turn in range(2, 9)},
    **{f"PNG of mode {mode}": encoded(photo(40, 60).convert(mode), "PNG") for mode in ("RGB", "L", "P", "1")},
    "PNG turned": encoded(photo(40, 60), "PNG", exif=_oriented(6)),
    "PNG with alpha": encoded(_with_alpha(), "PNG"),
    "WEBP": encoded(photo(40, 60), "WEBP"),
    "WEBP with alpha": encoded(_with_alpha(), "WEBP", lossless=True, exact=True),
    "GIF": encoded(photo(40, 60).convert("P"), "GIF"),
    "BMP": encoded(photo(40, 60), "BMP"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_pixels_that_python_reads(page: WebDriver, name: str) -> None:
    for channels in (3, 1):
        found = decode_in_browser(page, FILES[name], channels)
        assert not isinstance(found, str), found
        np.testing.assert_array_equal(found, decode(FILES[name], channels))


def test_known_differences_of_a_browser_are_still_there(page: WebDriver) -> None:
    """What docs/web.md says of WEBP with an orientation and of 16 bits. A browser that changes makes the page wrong."""
    turned = encoded(photo(40, 60), "WEBP", lossless=True, exif=_oriented(6))
    found = decode_in_browser(page, turned, 3)
    assert (np.shape(found), decode(turned).shape) == ((40, 60, 3), (60, 40, 3))
    deep = encoded(Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)), "PNG")
    grey = decode_in_browser(page, deep, 1)
    assert not isinstance(grey, str)
    assert np.abs(grey.astype(int) - decode(deep, 1)).max() == 1


REFUSED = {
    "an empty file": b"",
    "a text": b"no image at all",
    "a drawing": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "a format of cameras": encoded(photo(9, 9), "TIFF"),
    "the beginning of a PNG": FILES["PNG of mode RGB"][:40],
    "the beginning of a JPEG": FILES["JPEG 95"][:100],
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_a_broken_image_gives_a_sentence(page: WebDriver, content: bytes) -> None:
    found = decode_in_browser(page, content, 3)
    assert isinstance(found, str)
    assert found.endswith(".")


def test_too_many_pixels_give_a_sentence(page: WebDriver) -> None:
    large = encoded(Image.new("1", (9000, 9000)), "PNG")
    found = decode_in_browser(page, large, 1)
    assert isinstance(found, str)
    assert "9000 x 9000" in found


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        (Preprocessing(28, (28, 28), 2, (0.5,), (0.5,)), (28, 28)),
        (Preprocessing(64, (48, 56), 0, (0.5,), (0.5,)), (50, 120)),
        (Preprocessing((40, 40), (40, 40), 0, (0.5,), (0.5,)), (31, 77)),
        (Preprocessing(None, (60, 60), 1, (0.5,), (0.5,)), (21, 90)),
    ],
)
def test_a_heat_map_lies_where_python_puts_it(
    page: WebDriver, preprocessing: Preprocessing, size: tuple[int, int]
) -> None:
    cells = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    script = """
const [values, [height, width], preprocessing] = arguments;
const heat = {rows: 7, columns: 6, values, ...modules.placeOfMap(preprocessing, height, width)};
return Array.from(modules.placeOnImage(heat, height, width), (value) => Number.isNaN(value) ? null : value);
"""
    found = page.execute_script(script, cells.ravel().tolist(), size, codec.encode(preprocessing))
    expected = place_on_image(cells, preprocessing, size)
    np.testing.assert_allclose(np.array(found, np.float64).reshape(size), expected, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_probabilities_equal_those_of_python(page: WebDriver, name: str) -> None:
    case = CASES[name]
    model = {"activation": case.activation, "labels": case.labels}
    found = page.execute_script("return modules.probabilitiesOf(arguments[0], arguments[1])", case.values, model)
    assert found == pytest.approx(case.expected, abs=1e-12)


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_no_probability_of_an_output_that_is_not_finite(page: WebDriver, value: str) -> None:
    script = f"""
try {{ return modules.probabilitiesOf([1, {value}], {{activation: "softmax", labels: null}}) }}
catch (error) {{ return error.message }}
"""
    assert "NaN or infinity" in page.execute_script(script)


def test_one_map_serves_two_classes(page: WebDriver) -> None:
    script = """
const preprocessing = arguments[0];
const output = {dims: [1, 1, 1, 2], data: Float32Array.of(1, -2)};
const model = {labels: ["cat", "dog"], outputs: {cam: "cam"}, preprocessing};
const heat = new modules.Labeller(model, null, null).heatOf({cam: output}, {height: 32, width: 32});
return [0, 1].map((index) => Array.from(heat(index).values));
"""
    how = codec.encode(Preprocessing(None, (32, 32), 0, (0.5,) * 3, (0.5,) * 3))
    assert page.execute_script(script, how) == [[-1, 2], [1, -2]]


def test_equal_probabilities_keep_the_order_of_python(page: WebDriver) -> None:
    values = [0.1, 0.3, 0.3, 0.0, 0.3]
    found = page.execute_script("return modules.rank(arguments[0], 4)", values)
    assert found == np.argsort(-np.array(values), kind="stable")[:4].tolist()


def test_a_canvas_tells_whether_its_pixels_are_true(page: WebDriver) -> None:
    assert page.execute_script("return modules.readsTruePixels()")
    changed = """
const original = CanvasRenderingContext2D.prototype.getImageData;
CanvasRenderingContext2D.prototype.getImageData = function (...place) {
  const result = original.apply(this, place);
  result.data[5] ^= 1;
  return result;
};
try { return modules.readsTruePixels() } finally { CanvasRenderingContext2D.prototype.getImageData = original }
"""
    assert not page.execute_script(changed)
