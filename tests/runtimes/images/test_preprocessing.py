"""Each rule of ``runtimes.images.preprocessing`` against values computed by hand, and each broken image against its
error."""

from __future__ import annotations

import contextlib
import errno
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
from tests.refusals import refuses
from tests.runtimes.images.pictures import RGBA, content_of, picture, plain

REPO = Path(__file__).resolve().parents[3]


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


# Fitting


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
    content_of_file = content_of(PIL.Image.fromarray(picture(2, 3)))
    (tmp_path / "good.png").write_bytes(content_of_file)
    for image, name in ((tmp_path / "good.png", "good.png: "), (content_of_file, "image 7: ")):
        with refuses(InputError, "image-grows-too-large") as refusal:
            fit_or_name(image, Preprocessing(9_999_999, (2, 3), 0, (0.0,) * 3, (1.0,) * 3), 7)
        assert str(refusal.value).startswith((name, f"{tmp_path}/{name}"))
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
