from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy import predictions as accuracy
from benchmarks.accuracy.predictions import Predictions
from runtimes.errors import ArtifactError, CheckFailedError, ModelMismatchError

Floats = NDArray[np.float32]


def batches(images: Floats, size: int) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    for start in range(0, len(images), size):
        yield np.arange(start, min(start + size, len(images))), images[start : start + size]


def itself(images: Floats) -> Floats:
    """A network whose logits are its input's first row."""
    return images[:, 0, 0, :]


def images_of(logits: list[list[float]]) -> Floats:
    return np.asarray(logits, dtype=np.float32)[:, None, None, :]


def predictions(best: list[list[int]], targets: list[int] | None, classes: int = 10) -> Predictions:
    return Predictions(
        np.arange(len(best)),
        None if targets is None else np.asarray(targets),
        np.asarray(best),
        np.ones(len(best), np.float32),
        classes,
    )


def test_the_best_classes_and_margins() -> None:
    images = images_of([[0, 5, 1, 2, 3, 4, -1], [7, 0, 0, 0, 0, 0, 6.5], [1, 1, 1, 1, 1, 1, 1]])
    found = accuracy.predict(itself, batches(images, 2), np.asarray([1, 6, 3]))
    np.testing.assert_array_equal(found.best, [[1, 5, 4, 3, 2], [0, 6, 1, 2, 3], [0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(found.margins, np.asarray([1, 0.5, 0], np.float32))
    np.testing.assert_array_equal(found.indices, [0, 1, 2])
    assert found.classes == 7


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_the_best_classes_are_those_of_a_stable_sort(classes: int, dtype: type[np.floating]) -> None:
    """Rounded to halves, so that many logits are equal; the lower class then comes first."""
    logits = (np.random.default_rng(0).standard_normal((40, classes)) * 2).round().astype(dtype) / 2
    before = logits.copy()
    found = accuracy.predict(lambda _: logits, iter([(np.arange(40), images_of([[0, 0]] * 40))]), None)
    ordered = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.best, ordered)
    first, second = np.take_along_axis(logits, ordered[:, :2], axis=1).T
    np.testing.assert_array_equal(found.margins, (first - second).astype(np.float32))
    np.testing.assert_array_equal(logits, before)


def test_targets_follow_the_images_and_not_their_order() -> None:
    images = images_of([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    order = np.asarray([2, 0])
    found = accuracy.predict(itself, iter([(order, images[order])]), np.asarray([0, 1, 2]))
    np.testing.assert_array_equal(found.targets, [2, 0])
    share = accuracy.top1(found)
    assert share is not None
    assert share.value == 1.0
    np.testing.assert_allclose(share.interval, (0.342380, 1.0), atol=1e-5)


def test_top1_and_top5_by_hand() -> None:
    found = predictions([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [1, 0, 2, 3, 4], [9, 8, 7, 6, 5]], [0, 9, 0, 4])
    first, fifth = accuracy.top1(found), accuracy.top5(found)
    assert first is not None
    assert fifth is not None
    assert (first.value, fifth.value, first.images) == (0.25, 0.75, 4)


def test_noise_has_no_accuracy() -> None:
    found = predictions([[0, 1, 2, 3, 4]], None)
    assert accuracy.top1(found) is None
    assert accuracy.top5(found) is None


def test_top5_of_five_classes_says_nothing_and_is_not_given() -> None:
    assert accuracy.top5(predictions([[0, 1, 2, 3, 4]], [0], classes=5)) is None


def test_top5_is_told_where_the_best_five_were_not_kept() -> None:
    found = replace(predictions([[0], [5], [1], [9]], [0, 9, 0, 4]), among_five=np.asarray([True, True, True, False]))
    share = accuracy.top5(found)
    assert share is not None
    assert share.value == 0.75


def test_agreement_counts_equal_best_classes() -> None:
    one = predictions([[0, 1], [1, 0], [2, 0], [3, 0]], None)
    other = predictions([[0, 2], [1, 3], [2, 1], [4, 3]], None)
    assert accuracy.agreement(one, other).value == 0.75


def test_agreement_on_different_images_is_refused() -> None:
    with pytest.raises(ModelMismatchError, match="on different images: 2 and 1"):
        accuracy.agreement(predictions([[0], [1]], None), predictions([[0]], None))


def test_the_drop_is_counted_image_by_image() -> None:
    truth = [0, 1, 2, 3, 4]
    reference = predictions([[0], [1], [2], [3], [9]], truth)
    worse = predictions([[0], [1], [9], [9], [4]], truth)  # lost two, won one
    lost, won = accuracy.drop(worse, reference), accuracy.drop(reference, worse)
    assert lost is not None
    assert won is not None
    assert (lost.value, won.value, lost.images) == (0.2, -0.2, 5)
    assert lost.interval[0] < 0.2 < lost.interval[1]
    assert lost.interval == pytest.approx((-won.interval[1], -won.interval[0]))


def test_no_drop_without_truth_or_on_different_images() -> None:
    assert accuracy.drop(predictions([[0]], None), predictions([[0]], None)) is None
    with pytest.raises(ModelMismatchError, match="on different images: 2 and 1"):
        accuracy.drop(predictions([[0], [1]], [0, 1]), predictions([[0]], [0]))


def test_other_true_classes_are_refused() -> None:
    one, other = predictions([[0], [1], [2]], [0, 1, 2]), predictions([[0], [1], [2]], [0, 2, 1])
    with pytest.raises(ModelMismatchError, match="the labels of 2 images differ"):
        accuracy.drop(one, other)
    accuracy.check_same_images(one, predictions([[0], [1], [2]], None))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_their_image(value: float) -> None:
    images = images_of([[0, 1], [1, 0], [0, value], [0, 1]])
    with pytest.raises(CheckFailedError, match="the logits of 1 of 2 images are not finite, first those of image 2"):
        accuracy.predict(itself, batches(images, 2), None)


def test_no_images_and_one_class_are_refused() -> None:
    with pytest.raises(ModelMismatchError, match="no images"):
        accuracy.predict(itself, iter([]), None)
    with pytest.raises(ModelMismatchError, match="1 classes, expected at least 2"):
        accuracy.predict(itself, batches(images_of([[1.0]]), 1), None)


@pytest.mark.parametrize("among_five", [None, [True, False]])
@pytest.mark.parametrize("targets", [None, [3, 2]])
def test_predictions_are_kept_as_they_are(
    tmp_path: Path, targets: list[int] | None, among_five: list[bool] | None
) -> None:
    saved = replace(
        predictions([[3, 1, 2, 0, 4], [1, 2, 3, 0, 4]], targets),
        among_five=None if among_five is None else np.asarray(among_five),
    )
    accuracy.save(saved, tmp_path / "p.npz")
    loaded = accuracy.load(tmp_path / "p.npz")
    np.testing.assert_equal(vars(loaded), vars(saved))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"p\.npz: not a file of predictions"):
        accuracy.load(tmp_path / "p.npz")
