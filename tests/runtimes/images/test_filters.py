"""Each filter of resizing against Pillow and PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from runtimes.images.preprocessing import decode, fit_image
from runtimes.images.spec import INTERPOLATIONS, Interpolation
from tests.runtimes.images.pictures import picture, plain


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
