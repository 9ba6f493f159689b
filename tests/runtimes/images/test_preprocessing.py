"""Each rule of ``runtimes.images.preprocessing`` against values computed by hand, and each broken image against its
error."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray
from PIL import ImageOps

from runtimes import codec
from runtimes.errors import ArtifactError, BackendUnavailableError, InputError, ResourceError, UsageError
from runtimes.images import preprocessing as images
from runtimes.images.preprocessing import (
    Preprocessing,
    decode,
    fit_image,
    fit_or_name,
    normalise,
    pixels_of,
    prepare_images,
)
from runtimes.images.spec import INTERPOLATIONS, Interpolation
from tests.refusals import refuses

REPO = Path(__file__).resolve().parents[3]


def plain(
    height: int = 2, width: int = 3, *, channels: int = 3, resize: int | None = None, pad: int = 0
) -> Preprocessing:
    return Preprocessing(resize, (height, width), pad, (0.0,) * channels, (1.0,) * channels)


def content_of(image: PIL.Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    """Random colours: every mistake in geometry shows."""
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


# Modes


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


RGBA = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
OVER_WHITE = [[200, 100, 0], [255, 255, 255], [244, 224, 204]]


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


# Where images come from


def test_paths_bytes_pillow_and_arrays_give_the_same(tmp_path: Path) -> None:
    rgb = picture()
    path = tmp_path / "picture.with.odd-ending"
    path.write_bytes(content_of(PIL.Image.fromarray(rgb)))
    for given in (path, str(path), path.read_bytes(), PIL.Image.fromarray(rgb), rgb):
        np.testing.assert_array_equal(decode(given), rgb)


def test_the_format_is_told_by_content(tmp_path: Path) -> None:
    path = tmp_path / "tiff.jpg"
    path.write_bytes(content_of(PIL.Image.fromarray(picture()), "TIFF"))
    np.testing.assert_array_equal(decode(path), picture())


def test_a_format_outside_the_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "icon.png"
    path.write_bytes(content_of(PIL.Image.fromarray(picture()), "ICO"))
    with refuses(InputError, "image-format-unknown", "icon.png", b"\0\0\1\0".hex(" "), "JPEG"):
        decode(path)


@pytest.mark.parametrize("content", [b"just some text", b"\x89PNG\r\n\x1a\n", bytes(1000), b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with refuses(InputError, "image-format-unknown"):
        decode(content)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with refuses(InputError, "image-file-empty", "empty.jpg") as caught:
        decode(tmp_path / "empty.jpg")
    assert caught.value.path == tmp_path / "empty.jpg"


@pytest.mark.parametrize("format", images.FORMATS)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_truncated_files_are_refused(format: str, tmp_path: Path) -> None:
    content = content_of(PIL.Image.fromarray(picture()), format)
    path = tmp_path / "cut"
    for length in {1, 8, 20, *range(1, len(content) - 5, 97), len(content) - 5}:  # the rest is a PNG's end mark
        path.write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            decode(path)
        assert (caught.value.code in BROKEN, caught.value.path) == (True, path)


BROKEN = ("image-broken", "image-format-unknown")


def test_every_flipped_bit_of_a_png_is_found() -> None:
    content = content_of(PIL.Image.fromarray(picture(3, 3)))
    for place in range(len(content) - len("sizeIENDcrc4")):  # the end mark holds nothing
        rotten = bytearray(content)
        rotten[place] ^= 0x10
        with pytest.raises(InputError) as caught:
            decode(bytes(rotten))
        assert caught.value.code in BROKEN


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_rotten_files_decode_or_raise_our_own_errors(format: str) -> None:
    content = content_of(PIL.Image.fromarray(picture()), format)
    random = np.random.default_rng(1)
    for _ in range(150):
        rotten = bytearray(content)
        for place in random.integers(0, len(content), 3):
            rotten[place] = random.integers(256)
        with contextlib.suppress(InputError, ResourceError):
            assert decode(bytes(rotten)).dtype == np.uint8


@pytest.mark.parametrize("side", [9_000, 9_800, 30_000])
@pytest.mark.parametrize("action", ["ignore", "error"])
def test_a_bomb_is_refused_before_it_is_decoded(side: int, action: Any) -> None:
    """A small PNG that claims ``side`` x ``side`` pixels, whatever the process does with Pillow's own warning."""
    content = bytearray(content_of(PIL.Image.new("1", (1, 1))))
    content[16:24] = side.to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with refuses(InputError, "image-too-large", "80,000,000"):
            decode(bytes(content))


def test_a_pillow_image_is_judged_by_its_size_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with refuses(InputError, "image-too-large", "100"):
        decode(PIL.Image.new("L", (101, 1)))
    with refuses(InputError, "image-without-pixels", "0 x 3"):
        decode(PIL.Image.new("L", (0, 3)))


def test_a_thin_image_may_not_grow_without_bounds() -> None:
    with refuses(InputError, "image-grows-too-large", "500000", "256", "128000000", "crop the image"):
        fit_image(np.zeros((1, 500_000), np.uint8), plain(224, 224, resize=256))


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    with refuses(ResourceError, "file-too-large", "huge.png", "268,435,457", "268,435,456"):
        decode(tmp_path / "huge.png")


def test_missing_files_pipes_devices_and_folders(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with refuses(ResourceError, "file-access-failed", "missing.png", os.strerror(errno.ENOENT)):
        decode(tmp_path / "missing.png")
    for path in (tmp_path / "pipe.png", tmp_path / "folder.png", Path("/dev/zero")):
        with refuses(ResourceError, "file-not-regular"):
            decode(path)
    with refuses(InputError, "image-path-invalid", "null byte"):
        decode("a\0b")


def test_an_unreadable_file_tells_the_systems_reason(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(content_of(PIL.Image.fromarray(picture())))
    path.chmod(0)
    program = """if True:
        import os, sys, PIL.Image, runtimes.images.preprocessing
        from runtimes.errors import ResourceError
        if os.geteuid() == 0:
            os.seteuid(65534)  # root reads every file, whatever its mode
        try:
            runtimes.images.preprocessing.decode(sys.argv[1])
        except ResourceError as error:
            print(error.code, error.errno, error.path)
    """
    done = subprocess.run([sys.executable, "-c", program, path], cwd=REPO, capture_output=True, text=True)
    assert done.stdout == f"file-access-failed {errno.EACCES} {path}\n", done.stderr


@pytest.mark.parametrize(
    ("array", "code", "values"),
    [
        (np.zeros((4, 4, 3), np.float32), "image-array-type", ("float32", "Runtime.infer")),
        (np.zeros((4, 4), bool), "image-array-type", ("bool",)),
        (np.zeros((3, 8, 9), np.uint8), "image-array-shape", ((3, 8, 9), "1, 3, 4", f"transpose{(1, 2, 0)}")),
        (np.zeros((4, 4, 2), np.uint8), "image-array-shape", ((4, 4, 2),)),
        (np.zeros((0, 4, 3), np.uint8), "image-array-shape", ((0, 4, 3),)),
        (np.zeros(4, np.uint8), "image-array-shape", ((4,),)),
        (np.zeros((1, 4, 4, 3), np.uint8), "image-array-shape", ((1, 4, 4, 3),)),
    ],
)
def test_other_arrays_are_refused_with_the_fix(array: NDArray[Any], code: str, values: tuple[object, ...]) -> None:
    with refuses(InputError, code, *values):
        decode(array)


@pytest.mark.parametrize("thing", [None, 3, [1, 2], torch.zeros(3, 4, 4)])
def test_other_things_are_refused(thing: Any) -> None:
    with refuses(InputError, "image-kind-unknown", type(thing).__name__):
        decode(thing)


def test_views_give_what_their_copies_give_and_stay_as_they_were() -> None:
    whole = picture(40, 60)
    before = whole.copy()
    for view in (whole[::-1], whole[:, ::2], np.asfortranarray(whole), whole[3:30, 5:50]):
        view.setflags(write=False)
        expected = fit_image(np.ascontiguousarray(view), plain(16, 16, resize=20))
        np.testing.assert_array_equal(fit_image(view, plain(16, 16, resize=20)), expected)
    np.testing.assert_array_equal(whole, before)


def test_networks_of_other_channel_counts_take_arrays_alone() -> None:
    two, four = np.full((4, 5, 2), 9, np.uint8), RGBA
    np.testing.assert_array_equal(decode(two, 2), two)
    np.testing.assert_array_equal(decode(four, 4), four)
    assert fit_image(two, plain(4, 4, channels=2, resize=8)).shape == (4, 4, 2)
    with refuses(InputError, "image-must-be-array", "2 input channels", "w, 2)"):
        decode(content_of(PIL.Image.new("L", (2, 2))), 2)
    with refuses(InputError, "image-array-shape", "c of 2"):
        decode(np.zeros((4, 5, 3), np.uint8), 2)


# Fitting


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (13, 13), (7, 90), (16, 33)])
@pytest.mark.parametrize("shorter", [16, 21])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_follows_torchvision(height: int, width: int, shorter: int, channels: int) -> None:
    source = picture(height, width)
    longer = int(shorter * max(height, width) / min(height, width))  # torchvision's rule for Resize(int)
    target = (longer, shorter) if height > width else (shorter, longer)
    image = PIL.Image.fromarray(decode(source, channels).squeeze())
    expected = np.asarray(image.resize(target[::-1], PIL.Image.Resampling.BILINEAR)).reshape(*target, channels)
    result = fit_image(source, plain(*target, channels=channels, resize=shorter))
    np.testing.assert_array_equal(result, expected)


FILTERS = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
    "box": PIL.Image.Resampling.BOX,
    "hamming": PIL.Image.Resampling.HAMMING,
}


def test_every_filter_is_compared_with_pillow() -> None:
    assert set(FILTERS) == set(INTERPOLATIONS)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_each_filter_is_pillows_to_the_bit(interpolation: Interpolation, channels: int) -> None:
    source, filter = picture(23, 41), FILTERS[interpolation]
    image = PIL.Image.fromarray(decode(source, channels).squeeze())
    for resize, size in ((17, (17, 30)), ((12, 50), (12, 50)), ((60, 9), (60, 9))):
        view = replace(plain(*size, channels=channels), resize=resize, interpolation=interpolation)
        expected = np.asarray(image.resize(size[::-1], filter)).reshape(*size, channels)
        np.testing.assert_array_equal(fit_image(source, view), expected)


def test_a_squash_is_cropped_and_padded_after() -> None:
    source = picture(20, 50)
    squashed = np.asarray(PIL.Image.fromarray(source).resize((10, 14), PIL.Image.Resampling.BILINEAR))
    result = fit_image(source, replace(plain(8, 6, pad=1), resize=(14, 10)))
    np.testing.assert_array_equal(result[1:-1, 1:-1], squashed[3:11, 2:8])
    assert not result[0].any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(12, 16), (70, 41), (23, 60), (1, 1), (37, 53)])
def test_without_antialiasing_it_is_torchs(interpolation: Interpolation, size: tuple[int, int]) -> None:
    source = picture(37, 53)
    view = replace(plain(*size), resize=size, interpolation=interpolation, antialias=False)
    result = fit_image(source, view).transpose(2, 0, 1)
    tensor = torch.from_numpy(source).permute(2, 0, 1)[None]
    for dtype, rounding in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        floats = torch.nn.functional.interpolate(
            tensor.to(dtype), size, mode=interpolation, align_corners=False, antialias=False
        )[0].clamp(0, 255)
        differing = result != floats.round().numpy()
        ties = np.abs(floats.numpy() % 1 - 0.5)[differing]
        assert (ties < rounding).all()
        assert differing.sum() <= 8


def test_without_antialiasing_few_pixels_count() -> None:
    checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    view = replace(plain(21, 21, channels=1, resize=21), antialias=False)
    spread = fit_image(checks, view).std()
    assert spread > 30
    assert fit_image(checks, replace(view, antialias=True)).std() < 10


def test_resizing_averages_what_it_shrinks() -> None:
    checks = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    result = fit_image(checks, plain(16, 16, channels=1, resize=16))
    assert set(np.unique(result)) <= {127, 128}  # without antialiasing it would be black or white


@pytest.mark.parametrize(
    ("size", "crop", "window"),
    [
        ((6, 6), (4, 4), (slice(1, 5), slice(1, 5))),
        ((5, 7), (4, 4), (slice(0, 4), slice(2, 6))),  # offsets of 0.5 and 1.5 are rounded to even, as Python does
        ((9, 4), (4, 4), (slice(2, 6), slice(0, 4))),
        ((4, 4), (4, 4), (slice(0, 4), slice(0, 4))),
    ],
)
def test_the_crop_is_the_middle(size: tuple[int, int], crop: tuple[int, int], window: tuple[slice, slice]) -> None:
    source = picture(*size)
    np.testing.assert_array_equal(fit_image(source, plain(*crop)), source[window])


def test_the_offset_of_the_crop_may_be_rounded_down() -> None:
    source = picture(9, 11)
    view = replace(plain(4, 4), crop_offset="floor")
    np.testing.assert_array_equal(fit_image(source, view), source[2:6, 3:7])  # 2.5 and 3.5
    np.testing.assert_array_equal(fit_image(source, plain(4, 4)), source[2:6, 4:8])


def test_smaller_images_stand_in_the_middle_of_black() -> None:
    source = np.full((1, 2), 9, np.uint8)
    expected = np.zeros((4, 5), np.uint8)
    expected[1, 1:3] = 9  # of three lacking, one is before and two are behind
    np.testing.assert_array_equal(fit_image(source, plain(4, 5, channels=1))[:, :, 0], expected)
    tall = fit_image(picture(8, 2), plain(4, 4))
    np.testing.assert_array_equal(tall[:, 1:3], picture(8, 2)[2:6])
    assert not tall[:, [0, 3]].any()


def test_padding_is_black_on_every_side() -> None:
    result = fit_image(np.full((2, 3), 7, np.uint8), plain(2, 3, channels=1, pad=2))
    assert result.shape == (6, 7, 1)
    np.testing.assert_array_equal(result[2:4, 2:5, 0], np.full((2, 3), 7))
    assert result.sum() == 7 * 6


# Normalising


def test_normalising_is_torchs_to_the_bit() -> None:
    preprocessing = Preprocessing(None, (16, 16), 0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    batch = np.stack([np.stack([pixels, pixels.T, pixels[::-1]], axis=2)] * 2)
    result = normalise(batch, preprocessing)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    expected = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std).contiguous()
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.tobytes() == expected.numpy().tobytes()


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


def test_normalising_by_hand() -> None:
    preprocessing = Preprocessing(None, (1, 1), 0, (0.5,), (0.25,))
    np.testing.assert_array_equal(
        normalise(np.array([[[[255]]], [[[0]]]], np.uint8), preprocessing).ravel(), np.array([2.0, -2.0], np.float32)
    )


def test_prepared_is_a_batch_in_order() -> None:
    first, second = picture(2, 3), picture(2, 3)[::-1]
    result = prepare_images([first, second], plain())
    assert result.shape == (2, 3, 2, 3)
    np.testing.assert_array_equal(result[1], (second / np.float32(255)).transpose(2, 0, 1).astype(np.float32))
    assert prepare_images([], plain(4, 5, channels=1)).shape == (0, 1, 4, 5)


def test_a_broken_image_among_several_is_named(tmp_path: Path) -> None:
    with refuses(InputError, "image-file-empty", "image 11:"):
        prepare_images([picture(2, 3), b""], plain(), first=10)
    (tmp_path / "bad.png").write_bytes(b"text")
    with refuses(InputError, "image-format-unknown", "bad.png"):
        prepare_images([picture(2, 3), tmp_path / "bad.png"], plain())
    with refuses(InputError, "image-file-empty", "image 11:"):
        pixels_of([picture(2, 3), b""], plain(), first=10)
    with refuses(InputError, "image-array-type", "image 7:", "float64", "Runtime.infer"):
        fit_or_name(np.zeros((2, 3, 3)), plain(), 7)


def test_pixels_are_what_is_normalised() -> None:
    preprocessing = Preprocessing(8, (6, 7), 1, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    given: list[images.Image] = [picture(20, 30), content_of(PIL.Image.fromarray(picture(9, 40)))]
    pixels = pixels_of(given, preprocessing)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((2, 8, 9, 3), np.dtype(np.uint8), True)
    for one, image in zip(pixels, given, strict=True):
        np.testing.assert_array_equal(one, fit_image(image, preprocessing))
    np.testing.assert_array_equal(normalise(pixels, preprocessing), prepare_images(given, preprocessing))
    assert pixels_of([], plain(4, 5, channels=1)).shape == (0, 4, 5, 1)
    assert pixels_of([], plain()).dtype == np.uint8


def test_pixels_are_the_callers_own() -> None:
    image = picture(2, 3)
    pixels_of([image], plain())[:] = 0
    np.testing.assert_array_equal(image, picture(2, 3))


@pytest.mark.parametrize(
    ("values", "code", "named"),
    [
        ((0, (4, 4), 0, (0.0,), (1.0,)), "resize-invalid", ("not 0",)),
        ((None, (0, 4), 0, (0.0,), (1.0,)), "crop-or-pad-invalid", ((0, 4), "and 0")),
        ((None, (4, 4), -1, (0.0,), (1.0,)), "crop-or-pad-invalid", ((4, 4), "and -1")),
        ((None, (9000, 9000), 0, (0.0,), (1.0,)), "input-too-large", ("9000 x 9000", "80,000,000")),
        ((None, (4, 4), 0, (0.0, 0.0), (1.0,)), "mean-std-lengths-differ", ("2 and 1",)),
        ((None, (4, 4), 0, (), ()), "mean-std-lengths-differ", ("0 and 0",)),
        ((None, (4, 4), 0, (float("nan"),), (1.0,)), "mean-or-std-invalid", ("(nan,)",)),
        ((None, (4, 4), 0, (0.0,), (0.0,)), "mean-or-std-invalid", ("(0.0,)",)),
        (((0, 4), (4, 4), 0, (0.0,), (1.0,)), "resize-invalid", ((0, 4),)),
        ((None, (4, 4), 0, (0.0,), (1.0,), "cubic"), "preprocessing-value", ("interpolation", "bicubic", "'cubic'")),
        ((None, (4, 4), 0, (0.0,), (1.0,), "box", False), "antialias-needs-filter", ("bilinear", "box")),
        ((None, (4, 4), 0, (0.0,), (1.0,), "box", True, "bgr"), "preprocessing-value", ("RGB, BGR", "'bgr'")),
        ((None, (4, 4), 0, (0.0,), (1.0,), "box", True, "BGR"), "channel-order-needs-colour", ("3", "1")),
        ((None, (4, 4), 0, (0.0,), (1.0,), "box", True, "RGB", 256), "preprocessing-value", ("scale", "1, 255", 256)),
    ],
)
def test_preprocessing_that_no_image_can_have(values: Any, code: str, named: tuple[object, ...]) -> None:
    with refuses(UsageError, code, *named):
        Preprocessing(*values)


OLD = {"resize": 8, "crop": [8, 8], "pad": 0, "mean": [0.0], "std": [1.0]}


def test_defaults_are_not_written() -> None:
    """Versions of rexport without the later fields read what does not use them."""
    view = plain(8, 8, channels=1, resize=8)
    assert codec.encode(view) == OLD
    assert codec.decode(Preprocessing, OLD) == view
    chosen = replace(view, resize=(8, 9), interpolation="box", scale=1, assumed=("pad",))
    written = codec.encode(chosen)
    assert written == OLD | {"resize": [8, 9], "interpolation": "box", "scale": 1, "assumed": ["pad"]}
    assert codec.decode(Preprocessing, json.loads(json.dumps(written))) == chosen
    with refuses(ArtifactError, "field-type-mismatch", "'scale'"):
        codec.decode(Preprocessing, OLD | {"scale": True})


def test_what_is_assumed_makes_no_difference() -> None:
    view = plain()
    assert replace(view, assumed=("mean",)) == view
    assert hash(replace(view, assumed=("mean",))) == hash(view)


# Without Pillow


def test_without_pillow_arrays_of_the_right_size_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert prepare_images([picture(20, 30), RGBA], plain(20, 30)).shape == (2, 3, 20, 30)
    assert prepare_images([picture(20, 30)], plain(20, 20, resize=20)).shape == (1, 3, 20, 20)
    with refuses(BackendUnavailableError, "pillow-missing", "rexport[images]"):
        prepare_images([picture(20, 30)], plain(20, 20, resize=21))
    with refuses(BackendUnavailableError, "pillow-missing", "rexport[images]"):
        decode(b"\xff\xd8")


def test_importing_needs_numpy_alone() -> None:
    program = "import runtimes.classifier, runtimes.images.preprocessing, sys\n"
    program += "print(sorted({'PIL', 'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
