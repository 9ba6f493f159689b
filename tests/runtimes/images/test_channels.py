"""Colours, greys, transparency and orders of channels against values computed by hand and by Pillow."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest
import torch
from PIL import ImageOps

from runtimes.errors import InputError
from runtimes.images import preprocessing as images
from runtimes.images.preprocessing import Preprocessing, decode, fit_image, normalise
from tests.refusals import refuses
from tests.runtimes.images.pictures import RGBA, content_of, picture, plain

OVER_WHITE = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]


def test_colours_and_greys_are_taken_as_they_are() -> None:
    rgb = picture(2, 3)
    np.testing.assert_array_equal(decode(content_of(PIL.Image.fromarray(rgb))), rgb)
    grey = np.array([[0, 100, 255]], np.uint8)
    np.testing.assert_array_equal(decode(content_of(PIL.Image.fromarray(grey)), 1), grey[:, :, None])
    np.testing.assert_array_equal(decode(content_of(PIL.Image.fromarray(grey)), 3), np.stack([grey] * 3, axis=2))


def test_colours_become_grey_by_the_stated_luma() -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    np.testing.assert_array_equal(decode(rgb, 1)[0, :, 0], [76, 150, 29, 18])
    colours = picture(64, 64)
    np.testing.assert_array_equal(
        decode(colours, 1)[:, :, 0], np.asarray(PIL.Image.fromarray(colours).convert("L")), "Pillow's own luma"
    )


def test_one_bit_is_black_and_white() -> None:
    image = PIL.Image.fromarray(np.array([[False, True, True]]))
    assert image.mode == "1"
    np.testing.assert_array_equal(decode(content_of(image), 1)[0, :, 0], [0, 255, 255])


def test_transparent_entries_of_a_palette_are_white() -> None:
    image = PIL.Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([2, 0, 1])
    np.testing.assert_array_equal(decode(content_of(image))[0], [[70, 80, 90], [10, 20, 30], [40, 50, 60]])
    keyed = decode(content_of(image, transparency=0))
    np.testing.assert_array_equal(keyed[0], [[70, 80, 90], [255, 255, 255], [40, 50, 60]])
    half = decode(content_of(image, transparency=bytes([0, 255, 128])))
    np.testing.assert_array_equal(half[0], [[162, 167, 172], [255, 255, 255], [40, 50, 60]])


@pytest.mark.parametrize("form", ["array", "png", "webp", "pillow", "premultiplied"])
def test_alpha_is_laid_over_white(form: str) -> None:
    image = PIL.Image.fromarray(RGBA)
    forms: dict[str, images.Image] = {
        "array": RGBA,
        "png": content_of(image),
        "webp": content_of(image, "WEBP", lossless=True, exact=True),
        "pillow": image,
        "premultiplied": image.convert("RGBa"),
    }
    np.testing.assert_allclose(decode(forms[form])[0], OVER_WHITE, atol=0 if form != "premultiplied" else 1)


def test_grey_with_alpha_and_colour_keys_are_laid_over_white() -> None:
    la = PIL.Image.fromarray(np.array([[[100, 255], [100, 0], [100, 51]]], np.uint8))
    assert la.mode == "LA"
    np.testing.assert_array_equal(decode(content_of(la), 1)[0, :, 0], [100, 255, 224])
    np.testing.assert_allclose(decode(la.convert("La"), 1)[0, :, 0], [100, 255, 224], atol=1)
    key = content_of(PIL.Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7)
    np.testing.assert_array_equal(decode(key, 1)[0, :, 0], [255, 8])
    colour_key = content_of(PIL.Image.fromarray(np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8)), transparency=(1, 2, 3))
    np.testing.assert_array_equal(decode(colour_key)[0], [[255, 255, 255], [1, 2, 4]])
    wide_key = content_of(PIL.Image.fromarray(np.array([[257, 514]], np.uint16)), transparency=257)
    np.testing.assert_array_equal(decode(wide_key, 1)[0, :, 0], [255, 2])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "pillow", "big-endian", "32-bit"])
def test_sixteen_bit_grey_is_scaled_not_clipped(format: str) -> None:
    values = np.array([[0, 128, 129, 385, 386, 32896, 65535]], np.uint16)
    image = PIL.Image.fromarray(values)
    assert image.mode == "I;16"
    given: images.Image = image
    if format == "big-endian":
        given = PIL.Image.frombytes("I;16B", image.size, values.astype(">u2").tobytes())
    elif format == "32-bit":
        given = PIL.Image.fromarray(values.astype(np.int32))
    elif format != "pillow":
        given = content_of(image, format)
    np.testing.assert_array_equal(decode(given, 1)[0, :, 0], [0, 0, 1, 1, 2, 128, 255])
    np.testing.assert_array_equal(decode(given)[0, -2], [128, 128, 128])


@pytest.mark.parametrize("value", [-1, 65536])
def test_thirty_two_bit_grey_outside_sixteen_bits_is_refused(value: int) -> None:
    with refuses(InputError, "image-greys-out-of-range", value):
        decode(PIL.Image.fromarray(np.full((1, 1), value, np.int32)))


def test_float_grey_is_refused() -> None:
    image = PIL.Image.fromarray(np.zeros((2, 2), np.float32))
    with refuses(InputError, "image-mode-unknown", "'F'", "8 bits"):
        decode(content_of(image, "TIFF"))


@pytest.mark.parametrize(
    ("mode", "value", "rgb"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (128, 128, 128), (128, 128, 128)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
    ],
)
def test_other_colour_spaces_become_rgb(mode: str, value: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    image = PIL.Image.merge(mode, [PIL.Image.new("L", (2, 2), band) for band in value])
    np.testing.assert_allclose(decode(image)[1, 1], rgb, atol=1)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_files(format: str) -> None:
    image = PIL.Image.merge("CMYK", [PIL.Image.new("L", (16, 16), band) for band in (0, 255, 255, 0)])
    np.testing.assert_allclose(decode(content_of(image, format))[8, 8], (255, 0, 0), atol=3)


def test_an_icc_profile_changes_nothing() -> None:
    from PIL import ImageCms

    rgb = picture(2, 3)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    np.testing.assert_array_equal(decode(content_of(PIL.Image.fromarray(rgb), icc_profile=profile)), rgb)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame(format: str) -> None:
    first, second = (PIL.Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if format == "WEBP" else {}
    content = content_of(first, format, save_all=True, append_images=[second], **options)
    with PIL.Image.open(io.BytesIO(content)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    np.testing.assert_array_equal(decode(content), np.asarray(first))


@pytest.mark.parametrize(
    ("format", "orientation"),
    [*(("JPEG", orientation) for orientation in range(1, 9)), ("PNG", 6), ("WEBP", 6), ("TIFF", 6)],
)
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :8] = 255  # a white square at the stored top left
    exif = PIL.Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    image = PIL.Image.fromarray(np.stack([stored] * 3, axis=2))
    content = content_of(image, format, exif=exif.tobytes())
    result = decode(content)[:, :, 0] > 128
    corner = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    expected = np.zeros((16, 32) if orientation < 5 else (32, 16), bool)
    expected[slice(8) if corner[0] == "t" else slice(-8, None), slice(8) if corner[1] == "l" else slice(-8, None)] = (
        True
    )
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_pillow_applies_it(orientation: int) -> None:
    image = PIL.Image.fromarray(picture(5, 7))
    image.getexif()[images.EXIF_ORIENTATION] = orientation
    np.testing.assert_array_equal(decode(image), np.asarray(ImageOps.exif_transpose(image)))


def test_an_orientation_outside_the_standard_needs_nothing() -> None:
    image = PIL.Image.fromarray(picture(5, 7))
    image.getexif()[images.EXIF_ORIENTATION] = 9
    np.testing.assert_array_equal(decode(image), picture(5, 7))


def test_networks_of_other_channel_counts_take_arrays_alone() -> None:
    two, four = np.full((4, 5, 2), 9, np.uint8), RGBA
    np.testing.assert_array_equal(decode(two, 2), two)
    np.testing.assert_array_equal(decode(four, 4), four)
    assert fit_image(two, plain(4, 4, channels=2, resize=8)).shape == (4, 4, 2)
    with refuses(InputError, "image-must-be-array", "2 input channels", "w, 2)"):
        decode(content_of(PIL.Image.new("L", (2, 2))), 2)
    with refuses(InputError, "image-array-shape", "c of 2"):
        decode(np.zeros((4, 5, 3), np.uint8), 2)


def test_bgr_and_the_scale_are_opencvs_to_the_bit() -> None:
    moments = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
    view = Preprocessing(None, (16, 16), 0, *moments, channel_order="BGR", scale=1)
    batch = np.stack([picture(16, 16), picture(16, 16)[::-1]])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in moments)
    blue_first = torch.from_numpy(batch[..., [2, 1, 0]].copy())
    expected = blue_first.permute(0, 3, 1, 2).float().sub(mean).div(std).contiguous()
    result = normalise(batch, view)
    assert result.flags.c_contiguous
    assert result.tobytes() == expected.numpy().tobytes()
    np.testing.assert_array_equal(fit_image(batch[0], view), batch[0], "images stay RGB until they are normalised")
