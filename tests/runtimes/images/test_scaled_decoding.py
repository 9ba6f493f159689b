"""Scaled decoding of JPEG files: what it may change, what it must not, and which images it leaves alone."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from runtimes.errors import InputError, RexportError, UsageError
from runtimes.images.preprocessing import EXIF_ORIENTATION, Pixels, Preprocessing, fit_image
from tests.refusals import refuses

FULL = Preprocessing(64, (56, 56), 0, (0.5,) * 3, (0.25,) * 3)
SCALED = replace(FULL, scaled_decoding=True)


def _photo(height: int, width: int, mode: str = "RGB") -> PIL.Image.Image:
    """Return smooth noise with a bright corner, so that a turned image cannot be mistaken."""
    coarse = np.random.default_rng(0).integers(40, 200, (9, 12, 3), np.uint8)
    coarse[:2, :3] = 250
    image = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return image.convert(mode)


def _jpeg(image: PIL.Image.Image, orientation: int = 1) -> bytes:
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def _difference(left: Pixels, right: Pixels) -> float:
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("height", "width"), [(333, 517), (517, 333), (1024, 1024)])
def test_geometry_is_that_of_full_decoding(height: int, width: int, orientation: int) -> None:
    content = _jpeg(_photo(height, width), orientation)
    for preprocessing in (SCALED, replace(SCALED, resize=(72, 60)), replace(SCALED, interpolation="bicubic", pad=2)):
        whole = replace(preprocessing, scaled_decoding=False)
        scaled, full = fit_image(content, preprocessing), fit_image(content, whole)
        assert scaled.shape == full.shape
        assert scaled.flags["C_CONTIGUOUS"] or preprocessing.pad == 0
        assert 0 < _difference(scaled, full) < 1.5  # levels of 255


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_those_of_full_decoding(mode: str, channels: int) -> None:
    view = replace(SCALED, mean=(0.5,) * channels, std=(0.25,) * channels)
    content = _jpeg(_photo(400, 600, mode))
    scaled, full = fit_image(content, view), fit_image(content, replace(view, scaled_decoding=False))
    assert scaled.shape == (56, 56, channels)
    assert _difference(scaled, full) < 1.5


@pytest.mark.parametrize("side", [56, 64, 127])
def test_images_below_twice_the_size_stay_the_same(side: int) -> None:
    content = _jpeg(_photo(side, side + 30))
    assert np.array_equal(fit_image(content, SCALED), fit_image(content, FULL))


def test_only_jpeg_files_are_scaled(tmp_path: Path) -> None:
    image = _photo(400, 600)
    path = tmp_path / "photo.png"
    image.save(path)
    for other in (path, path.read_bytes(), image, np.asarray(image), PIL.Image.open(io.BytesIO(_jpeg(image)))):
        assert np.array_equal(fit_image(other, SCALED), fit_image(other, FULL))


def test_broken_files_have_the_error_of_full_decoding(tmp_path: Path) -> None:
    whole = _jpeg(_photo(400, 600))
    path = tmp_path / "broken.jpg"
    for cut in (0, 1, 3, 64, 300, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:cut])
        errors = []
        for view in (SCALED, FULL):
            try:
                fit_image(path, view)
            except RexportError as error:
                errors.append((type(error), error.code, error.path))
        assert len(errors) in (0, 2), cut
        assert len(set(errors)) < 2, cut
    with refuses(InputError, "image-too-large"):
        fit_image(whole, SCALED, max_pixels=1000)


@pytest.mark.parametrize(
    "change",
    [{"resize": None}, {"antialias": False}, {"mean": (0.5,) * 4, "std": (0.5,) * 4}],
)
def test_without_a_use_it_is_refused(change: dict[str, object]) -> None:
    with refuses(UsageError, "scaled-decoding-unsupported"):
        replace(FULL, scaled_decoding=True, **change)  # type: ignore[arg-type]
