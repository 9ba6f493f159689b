from __future__ import annotations

import math

import numpy as np
import pytest

from exporter.precision.acceptance import DropLimit, describe_resolution, images_to_resolve, resolution
from exporter.proportions import Interval, difference_interval


def measured(images: int, lost: int, won: int) -> tuple[float, Interval]:
    """The loss on images of which so many are lost and won."""
    reference = np.arange(images) >= won
    other = np.arange(images) < images - lost
    return difference_interval(reference, other)


@pytest.mark.parametrize(
    ("lost", "won", "default", "asked"),
    [
        (0, 0, True, True),
        (5, 0, True, True),  # 0.5 pp of 1,000 images
        (8, 0, True, False),  # the interval of 0.8 pp reaches below 0.5 pp
        (40, 0, False, False),
        (40, 36, True, True),  # images that are won count against those that are lost
    ],
)
def test_a_default_limit_rejects_only_what_is_certain(lost: int, won: int, default: bool, asked: bool) -> None:
    drop, interval = measured(1000, lost, won)
    assert DropLimit(0.005).accepts(drop, interval) == default
    assert DropLimit(0.005, asked=True).accepts(drop, interval) == asked


def test_an_asked_limit_holds_at_its_very_value() -> None:
    drop, interval = measured(10_000, 30, 0)
    assert DropLimit(0.3 / 100, asked=True).accepts(drop, interval)
    assert not DropLimit(0.29 / 100, asked=True).accepts(drop, interval)


def test_a_loss_without_an_interval_is_compared_itself() -> None:
    assert DropLimit(0.01).accepts(0.01)
    assert not DropLimit(0.01).accepts(0.02)
    assert DropLimit(math.inf).accepts(1.0)


@pytest.mark.parametrize(("images", "pp"), [(100, 3.4), (1_000, 0.93), (10_000, 0.29)])
def test_more_images_resolve_less(images: int, pp: float) -> None:
    """Two percent of the images are lost or won, as in the int8 networks that were measured."""
    _, interval = measured(images, images // 100, images // 100)
    assert 100 * resolution(interval) == pytest.approx(pp, rel=0.05)
    assert describe_resolution(images, interval).startswith(f"{images:,} ")


def test_so_many_images_would_resolve_a_limit() -> None:
    _, interval = measured(1_000, 10, 10)
    needed = images_to_resolve(0.001, interval, 1_000)
    assert needed is not None
    _, wide = measured(needed, needed // 100, needed // 100)
    assert resolution(wide) <= 0.001
    assert needed % 1_000 == 0
    assert needed < 100_000


def test_nothing_resolves_a_limit_of_zero() -> None:
    assert images_to_resolve(0.0, (-0.01, 0.01), 1_000) is None
