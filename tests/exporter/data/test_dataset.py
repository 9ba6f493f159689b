"""Batches of a dataset, and its broken images."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from exporter.data.dataset import Unreadable
from exporter.data.opening import open_dataset
from runtimes.errors import InputError, ResourceError, UsageError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Preprocessing, normalise
from tests.exporter.datasets import PLAIN, folder_of, png, tar_of
from tests.refusals import refuses


def test_bundled_images_become_batches() -> None:
    preprocessing = Preprocessing(None, (28, 28), 2, (0.286,) * 3, (0.353,) * 3)
    dataset = open_dataset("fashion-mnist", limit=5)
    batches = list(dataset.batches(preprocessing, 2))
    assert [batch.shape for _, batch in batches] == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]
    np.testing.assert_array_equal(np.concatenate([indices for indices, _ in batches]), range(5))
    expected = np.pad(np.asarray(dataset.image(4)), 2).astype(np.float32) / np.float32(255)
    expected = (expected - np.float32(0.286)) / np.float32(0.353)
    np.testing.assert_array_equal(batches[2][1][0], [expected] * 3)


def broken_set(root: Path) -> Path:
    contents = {f"a/{number}.png": png(number) for number in range(10)} | {"a/3.png": png(3)[:40], "a/7.png": b""}
    return folder_of(root / "set", contents)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    place = broken_set(tmp_path)
    batches = open_dataset(str(place)).batches(PLAIN, 2)
    np.testing.assert_array_equal(next(batches)[0], [0, 1])
    with pytest.raises(InputError, match=r"set/a/3\.png: "):
        list(batches)
    archive = tar_of(tmp_path / "set.tar", {"a/0.png": png(0), "a/1.png": b"text"})
    with refuses(InputError, "image-format-unknown", archive / "a" / "1.png"):
        list(open_dataset(str(archive)).batches(PLAIN, 2))


def test_broken_images_are_gathered_and_the_others_go_on(tmp_path: Path) -> None:
    dataset = open_dataset(str(broken_set(tmp_path)))
    (tmp_path / "set" / "a" / "8.png").unlink()
    (tmp_path / "set" / "a" / "9.png").unlink()
    unreadable: list[Unreadable] = []
    found = [(indices.tolist(), batch[:, 0, 0, 0]) for indices, batch in dataset.batches(PLAIN, 2, unreadable)]
    assert [indices for indices, _ in found] == [[0, 1], [2], [4, 5], [6]]
    for indices, first in found:
        np.testing.assert_allclose(first * 255, indices)
    assert [(one.index, Path(one.label).name) for one in unreadable] == [
        (3, "3.png"),
        (7, "7.png"),
        (8, "8.png"),
        (9, "9.png"),
    ]
    assert unreadable[1].error.path == tmp_path / "set" / "a" / "7.png"
    assert isinstance(unreadable[2].error, ResourceError)


def test_a_pipe_among_the_images_does_not_hang(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "set", {"a/1.png": png(1)})
    os.mkfifo(place / "a" / "0.png")
    with refuses(ResourceError, "file-not-regular", place / "a" / "0.png"):
        list(open_dataset(str(place)).batches(PLAIN, 2))


def test_leaving_early_ends_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "thread_limit", lambda: 2)
    batches = open_dataset(str(broken_set(tmp_path))).batches(PLAIN, 1)
    next(batches)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_batch_below_one_is_refused_at_once() -> None:
    dataset = open_dataset("fashion-mnist", 1)
    for batches in (dataset.batches, dataset.pixels):
        with refuses(UsageError, "batch-below-one", "1", "0"):
            batches(PLAIN, 0)


def test_pixels_are_the_batches_before_they_are_normalised(tmp_path: Path) -> None:
    preprocessing = Preprocessing(6, (5, 5), 1, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    dataset = open_dataset(str(broken_set(tmp_path)))
    pixels = list(dataset.pixels(preprocessing, 4, []))
    assert [(batch.shape, batch.dtype) for _, batch in pixels] == [
        ((n, 7, 7, 3), np.dtype(np.uint8)) for n in (3, 3, 2)
    ]
    for (numbers, raw), (indices, inputs) in zip(pixels, dataset.batches(preprocessing, 4, []), strict=True):
        np.testing.assert_array_equal(numbers, indices)
        np.testing.assert_array_equal(normalise(raw, preprocessing), inputs)
