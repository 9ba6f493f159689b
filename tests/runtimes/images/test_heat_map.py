"""Maps placed on images: the way back through resizing, cropping and padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from runtimes.images.heat_map import place_on_image
from runtimes.images.preprocessing import Preprocessing, fit_image

RAMP = np.arange(4, dtype=np.float32).repeat(4).reshape(4, 4)


def prepared(**fields: Any) -> Preprocessing:
    return Preprocessing(**({"resize": None, "crop": (8, 8), "pad": 0, "mean": (0.0,), "std": (1.0,)} | fields))


def test_a_map_of_the_whole_image_is_interpolated() -> None:
    placed = place_on_image(RAMP, prepared(), (8, 8))
    assert placed.dtype == np.float32
    np.testing.assert_allclose(placed[:, 0], [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], rtol=1e-6)
    np.testing.assert_array_equal(placed[:, 0], placed[:, 7])


def test_the_cropped_part_is_unknown() -> None:
    placed = place_on_image(RAMP, prepared(), (12, 10))
    assert np.isnan(placed).sum() == 12 * 10 - 8 * 8
    np.testing.assert_array_equal(placed[2:10, 1:9], place_on_image(RAMP, prepared(), (8, 8)))


def test_a_resized_image_has_its_own_size() -> None:
    placed = place_on_image(RAMP, prepared(resize=(8, 8)), (16, 32))
    assert placed.shape == (16, 32)
    assert not np.isnan(placed).any()
    np.testing.assert_allclose(
        placed[0::2, 0] / 2 + placed[1::2, 0] / 2, place_on_image(RAMP, prepared(), (8, 8))[:, 0]
    )


def test_padding_belongs_to_no_pixel() -> None:
    """The border of the map stands for the border, and the image sees the middle."""
    placed = place_on_image(RAMP, prepared(crop=(4, 4), pad=2), (4, 4))
    np.testing.assert_allclose(placed[:, 0], [0.75, 1.25, 1.75, 2.25])


def test_an_image_smaller_than_the_crop_is_centred() -> None:
    placed = place_on_image(RAMP, prepared(), (4, 4))
    np.testing.assert_allclose(placed[:, 0], [0.75, 1.25, 1.75, 2.25])


@pytest.mark.parametrize("offset", ["round", "floor"])
@pytest.mark.parametrize("size", [(9, 8), (13, 8), (8, 11), (5, 20), (7, 7)])
def test_pixels_are_seen_exactly_where_the_network_sees_them(size: tuple[int, int], offset: Any) -> None:
    chosen = prepared(crop_offset=offset, pad=1)
    number: NDArray[np.uint8] = np.arange(1, size[0] * size[1] + 1, dtype=np.uint8).reshape(*size, 1)
    seen = np.isin(number[:, :, 0], fit_image(number, chosen))
    np.testing.assert_array_equal(~np.isnan(place_on_image(RAMP, chosen, size)), seen)
