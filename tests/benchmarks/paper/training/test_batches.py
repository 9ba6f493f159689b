from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks.paper.training.batches import DeviceImages, Feed, place_on_device
from benchmarks.paper.training.corpus import CorpusSplit

CPU = torch.device("cpu")


def images_of(pixels: np.ndarray, size: int, padding: int, channels: int = 1) -> DeviceImages:
    part = CorpusSplit(pixels.astype(np.uint8), np.arange(len(pixels), dtype=np.int64))
    return place_on_device(part, CPU, size=size, padding=padding, moments=((0.0,), (1 / 255,)), channels=channels)


def at(images: DeviceImages, top: int, left: int, mirrored: bool = False) -> np.ndarray:
    one = images.crops(torch.tensor([0]), torch.tensor([top]), torch.tensor([left]), torch.tensor([mirrored]))
    return np.asarray(one[0, 0])


def test_a_crop_begins_at_its_row_and_column() -> None:
    images = images_of(np.arange(1, 10).reshape(1, 3, 3, 1), size=3, padding=1)
    np.testing.assert_array_equal(at(images, 1, 1), np.arange(1, 10).reshape(3, 3))
    np.testing.assert_array_equal(at(images, 0, 0), [[0, 0, 0], [0, 1, 2], [0, 4, 5]])
    np.testing.assert_array_equal(at(images, 2, 1, mirrored=True), [[6, 5, 4], [9, 8, 7], [0, 0, 0]])


def test_a_crop_is_that_of_its_own_image() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, (9, 5, 5, 3))
    images = place_on_device(
        CorpusSplit(pixels.astype(np.uint8), np.zeros(9, np.int64)),
        CPU,
        size=4,
        padding=2,
        moments=((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        channels=3,
    )
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
    top, left, mirrored = random.integers(0, 6, 9), random.integers(0, 6, 9), random.random(9) < 0.5
    order = random.permutation(9)
    crops = images.crops(*map(torch.tensor, (order, top, left, mirrored)))
    assert crops.shape == (9, 3, 4, 4)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    for crop, image, row, column, flip in zip(crops, order, top, left, mirrored, strict=True):
        wanted = padded[image, row : row + 4, column : column + 4] / 255
        wanted = (wanted[:, ::-1] if flip else wanted) - (0.5, 0.4, 0.3)
        np.testing.assert_allclose(crop.permute(1, 2, 0), wanted / (0.2, 0.3, 0.4), rtol=1e-5, atol=1e-6)


def test_greys_stand_in_every_channel() -> None:
    images = images_of(np.full((1, 4, 4, 1), 7), size=4, padding=0, channels=3)
    first = torch.tensor([0])
    crop = images.crops(first, first, first, torch.tensor([False]))
    np.testing.assert_array_equal(crop, np.full((1, 3, 4, 4), 7))


def test_images_smaller_than_the_network_are_padded_further() -> None:
    images = images_of(np.full((1, 2, 2, 1), 9), size=8, padding=1)
    ((middle, targets),) = images.crop_centres()
    assert images.padded.shape == (1, 8, 8, 1)
    np.testing.assert_array_equal(np.asarray(middle)[0, 0, 3:5, 3:5], 9)
    assert float(middle.sum()) == 36
    np.testing.assert_array_equal(targets, [0])


def test_each_epoch_shows_every_image_in_another_order() -> None:
    images = images_of(np.arange(24).reshape(24, 1, 1, 1), size=1, padding=0)
    feed = Feed(images, batch=8, seed=3)
    seen = []
    for epoch in range(2):
        feed.begin(epoch)
        batches = [feed.next() for _ in range(feed.steps)]
        for pixels, targets in batches:
            np.testing.assert_array_equal(pixels[:, 0, 0, 0], targets)
        seen.append(torch.cat([targets for _, targets in batches]).tolist())
    assert [sorted(order) for order in seen] == [list(range(24))] * 2
    assert seen[0] != seen[1]


def test_a_feed_goes_on_at_any_step_with_the_same_batches() -> None:
    images = images_of(np.random.default_rng(0).integers(0, 255, (20, 6, 6, 1)), size=6, padding=2)
    whole, later = Feed(images, 4, seed=1), Feed(images, 4, seed=1)
    whole.begin(5)
    batches = [whole.next() for _ in range(5)]
    later.begin(5, step=3)
    for wanted, found in zip(batches[3:], (later.next(), later.next()), strict=True):
        assert torch.equal(wanted[0], found[0])
        assert torch.equal(wanted[1], found[1])
    other = Feed(images, 4, seed=2)
    other.begin(5)
    assert not torch.equal(other.next()[1], batches[0][1])


def test_every_place_comes_up_and_half_are_mirrored() -> None:
    pixels = np.array([[1, 2], [3, 4]]).reshape(1, 2, 2, 1).repeat(3000, axis=0)
    feed = Feed(images_of(pixels, size=4, padding=2), 3000, seed=0)
    feed.begin(0)
    crops = feed.next()[0][:, 0]
    kinds = Counter(tuple(crop.flatten().tolist()) for crop in crops)
    whole = {kind: count for kind, count in kinds.items() if sorted(kind)[-4:] == [1, 2, 3, 4]}
    assert len(whole) == 2 * 9
    assert min(whole.values()) > 20
    mirrored = sum(count for kind, count in whole.items() if kind.index(2) < kind.index(1))
    assert mirrored / sum(whole.values()) == pytest.approx(0.5, abs=0.05)
