from __future__ import annotations

import base64
import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import differences, packing, predictions
from benchmarks.accuracy.differences import ClassShare, Confusion, Flips
from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.accuracy.predictions import Predictions
from exporter.proportions import wilson
from runtimes import codec
from runtimes.errors import ArtifactError, ModelMismatchError
from tests.refusals import refuses

CLOTHES = ("shirt", "shoe", "bag")


def told(
    best: list[int], targets: list[int] | None, margins: list[float] | None = None, classes: int = 3
) -> Predictions:
    """Of three classes, so that there is no top-5."""
    return Predictions(
        np.arange(len(best)),
        None if targets is None else np.asarray(targets),
        np.asarray(best)[:, None],
        np.asarray(margins if margins is not None else np.ones(len(best)), np.float32),
        classes,
    )


def many(images: int, classes: int, truth: bool = True, seed: int = 0) -> Predictions:
    """As a good classifier gives them: nine in ten right, margins of a few logits, some images left out."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, images)
    logits = random.standard_normal((images, classes)).astype(np.float32)
    logits[np.arange(images), targets] += np.where(random.random(images) < 0.9, 8, 0).astype(np.float32)
    places = np.sort(random.permutation(2 * images)[:images])
    batches = iter([(places, logits)])
    truths = np.zeros(2 * images, np.int64)
    truths[places] = targets
    return predictions.predict(lambda images: images, batches, truths if truth else None)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize(("images", "classes"), [(1, 2), (7, 5), (300, 10), (300, 256), (300, 257), (50, 70_000)])
def test_what_was_packed_comes_back(images: int, classes: int, truth: bool) -> None:
    given = many(images, classes, truth)
    found = packing.unpack_predictions(
        codec.loads(PackedPredictions, codec.dumps(packing.pack_predictions(given, None)))
    )
    np.testing.assert_array_equal(found.indices, given.indices)
    np.testing.assert_array_equal(found.best, given.best[:, :1])
    np.testing.assert_equal(found.targets, given.targets)
    np.testing.assert_array_equal(found.margins, given.margins.astype(np.float16).astype(np.float32))
    assert found.classes == classes
    assert (predictions.top1(found), predictions.top5(found)) == (predictions.top1(given), predictions.top5(given))
    assert packing.pack_predictions(found, None) == packing.pack_predictions(given, None)


def test_ten_thousand_answers_are_small_enough_for_a_row() -> None:
    given = replace(many(10_000, 10), indices=np.arange(10_000))
    assert len(codec.dumps(packing.pack_predictions(given, tuple("abcdefghij")))) <= 40_000


def test_margins_beyond_half_precision_stay_large_and_finite() -> None:
    found = packing.unpack_predictions(packing.pack_predictions(told([0, 1], None, [1e30, 1e-9]), None))
    np.testing.assert_array_equal(found.margins, np.asarray([65504, 0], np.float32))


def test_labels_are_one_a_class() -> None:
    assert packing.pack_predictions(told([0], None), CLOTHES).labels == CLOTHES
    with refuses(ModelMismatchError, "labels-not-classes", 2, 3):
        packing.pack_predictions(told([0], None), ("a", "b"))


def test_asked_tells_places_and_classes_and_not_answers() -> None:
    one = packing.pack_predictions(told([0, 1], [0, 2]), None)
    assert one.asked == packing.pack_predictions(told([2, 2], [0, 2]), None).asked
    others = (told([0, 1], [0, 1]), told([0, 1], None), replace(told([0, 1], [0, 2]), indices=np.asarray([0, 2])))
    assert len({one.asked, *(packing.pack_predictions(other, None).asked for other in others)}) == 4


def repack(good: PackedPredictions, **changes: Any) -> PackedPredictions:
    """The same with other arrays; those that are ``None`` are left out."""
    with np.load(io.BytesIO(base64.b64decode(good.packed))) as file:
        arrays = {**file, **changes}
    content = io.BytesIO()
    np.savez_compressed(content, **{name: array for name, array in arrays.items() if array is not None})
    return replace(good, packed=base64.b64encode(content.getvalue()).decode())


def claim(good: PackedPredictions, images: int) -> PackedPredictions:
    """The same with a header that claims so many images."""
    content = bytearray(base64.b64decode(repack(good).packed))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    first = f"({good.images},), }}".encode()
    members["best.npy"] = members["best.npy"].replace(first, f"({images},), }}".encode())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return replace(good, packed=base64.b64encode(out.getvalue()).decode())


SHORT = np.zeros(3, np.uint8)

DAMAGES: dict[str, Callable[[PackedPredictions], PackedPredictions]] = {
    "no base64": lambda good: replace(good, packed="not base64!"),
    "cut short": lambda good: replace(good, packed=good.packed[:-8]),
    "no archive": lambda good: replace(good, packed=base64.b64encode(b"no archive").decode()),
    "nothing": lambda good: replace(good, packed=""),
    "too few images": lambda good: replace(good, images=3),
    "too many images": lambda good: replace(good, images=5),
    "no images": lambda good: replace(good, images=0),
    "far too many images": lambda good: replace(good, images=10**12),
    "far too many classes": lambda good: replace(good, classes=1 << 40),
    "too few classes": lambda good: replace(good, classes=9),
    "too few labels": lambda good: replace(good, labels=("a", "b")),
    "other images": lambda good: replace(good, asked="0" * 64),
    "no margins": lambda good: repack(good, margins=None),
    "no five": lambda good: repack(good, among_five=None),
    "no targets": lambda good: repack(good, targets=None),
    "one array too many": lambda good: repack(good, extra=np.zeros(4, np.uint8)),
    "a short array": lambda good: repack(good, best=SHORT),
    "a claim": lambda good: claim(good, 10**12),
    "objects": lambda good: repack(good, best=np.array([None] * 4)),
    "text": lambda good: repack(good, best=np.array(["a"] * 4)),
    "a class that there is not": lambda good: repack(good, best=np.array([10, 0, 0, 0])),
    "a true class that there is not": lambda good: repack(good, targets=np.array([10, 1, 2, 4])),
    "a negative place": lambda good: repack(good, steps=np.array([-1, 1, 1, 1])),
    "a negative margin": lambda good: repack(good, margins=np.array([-1, 1, 1, 1], np.float16)),
    "an infinite margin": lambda good: repack(good, margins=np.array([np.inf, 1, 1, 1], np.float16)),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_predictions_are_refused(case: str) -> None:
    good = packing.pack_predictions(
        replace(told([9, 1, 2, 3], [9, 1, 2, 4], classes=10), among_five=np.asarray([True, True, True, False])), None
    )
    packing.unpack_predictions(repack(good))
    with refuses(ArtifactError, "predictions-damaged", "rbench run"):
        packing.unpack_predictions(DAMAGES[case](good))


def test_a_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = repack(packing.pack_predictions(told([0, 1], [0, 1]), None), best=np.zeros(50_000_000, np.uint8))

    def read(*_: object) -> bytes:
        raise AssertionError("a member was inflated")

    monkeypatch.setattr(zipfile.ZipFile, "read", read)
    with refuses(ArtifactError, "predictions-damaged", "2 images"):
        packing.unpack_predictions(bomb)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 2**5),
        (1, 9, 2 * (1 + 10) / 2**10),
        (9, 1, 2 * (1 + 10) / 2**10),
        (40, 60, 2 * sum(math.comb(100, k) for k in range(41)) / 2**100),
        (470, 530, 2 * sum(math.comb(1000, k) for k in range(471)) / 2**1000),
    ],
)
def test_mcnemars_exact_test(better: int, worse: int, expected: float) -> None:
    assert differences.mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


def test_flips_are_counted_with_who_was_right() -> None:
    truth = [0, 1, 2, 0, 1]
    reference = told([0, 1, 2, 1, 2], truth)
    this = told([0, 2, 2, 0, 0], truth)  # lost image 1, won image 3, and was wrong otherwise than before at image 4
    assert differences.flips(this, reference, difference=0.5) == Flips(1, 1, 1.0, 0, 3, wilson(3, 5))
    assert differences.flips(this, this).real_share_interval == wilson(0, 5)


def test_without_truth_flips_are_counted_all_the_same() -> None:
    found = differences.flips(told([0, 1], None), told([0, 2], None), difference=0.5)
    assert (found.better, found.worse, found.p_value, found.near_ties, found.real) == (0, 0, None, 0, 1)


@pytest.mark.parametrize(
    ("this", "reference", "near"), [(0.4, 0.4, True), (0.4, 0.5, False), (0.5, 0.4, False), (0, 0, True)]
)
def test_a_near_tie_is_one_in_both_rows(this: float, reference: float, near: bool) -> None:
    found = differences.flips(told([0], [0], [this]), told([1], [0], [reference]), difference=0.5)
    assert (found.near_ties, found.real) == ((1, 0) if near else (0, 1))


def test_flips_on_other_images_are_refused() -> None:
    with pytest.raises(ModelMismatchError, match="on different images: 1 and 2"):
        differences.flips(told([0], None), told([0, 1], None))


def test_ordinary_arithmetic_gives_the_logits_difference() -> None:
    """19 of 20 margins move by 0.1; one by 3, and the flipped image's by 5 does not count."""
    margins = np.full(21, 4.0)
    moved = margins + np.asarray([0.1] * 19 + [3.0, 5.0])
    reference, this = told([0] * 21, None, list(margins)), told([0] * 20 + [1], None, list(moved))
    assert differences.logit_difference(this, reference) == pytest.approx(0.1 + 0.05 * 2.9)


def test_the_logits_difference_has_two_bounds() -> None:
    reference = told([0] * 9, None, [4.0] * 9)
    assert differences.logit_difference(told([0] * 9, None, [9.0] * 9), reference) == pytest.approx(0.4)
    assert differences.logit_difference(told([1] * 9, None, [4.0] * 9), reference) == pytest.approx(4 / 1024)


def shaken(logits: np.ndarray, by: float, seed: int) -> Predictions:
    """The answers of logits (n, classes) that rounding has moved by so much."""
    moved = logits + by * np.random.default_rng(seed).standard_normal(logits.shape).astype(np.float32)
    return predictions.predict(
        lambda _: moved, iter([(np.arange(len(logits)), logits)]), np.zeros(len(logits), np.int64)
    )


@pytest.mark.parametrize("by", [1e-6, 1e-3, 0.05])
def test_rounding_flips_ties_and_a_fault_flips_clear_ones(by: float) -> None:
    """By packed answers as by those that were kept as they are."""
    logits = 4 * np.random.default_rng(0).standard_normal((4000, 10)).astype(np.float32)
    logits[:400, 1] = logits[:400, 0]  # exactly tied, some of them at the top
    reference, rounded = shaken(logits, 0.0, 0), shaken(logits, by, 1)
    broken = logits.copy()
    broken[:500] = np.roll(broken[:500], 1, axis=1)
    wrong = shaken(broken, by, 1)
    for keep in (lambda found: found, lambda found: packing.unpack_predictions(packing.pack_predictions(found, None))):
        harmless, harmful = (differences.flips(keep(found), keep(reference)) for found in (rounded, wrong))
        assert harmless.near_ties >= 20
        assert harmless.real <= 0.1 * harmless.near_ties
        assert harmful.real >= 400


def test_each_classes_share() -> None:
    found = differences.per_class(packing.pack_predictions(told([0, 1, 2, 2], [0, 0, 2, 2]), CLOTHES))
    assert found == (ClassShare("shirt", 2, 1, wilson(1, 2)), ClassShare("bag", 2, 2, wilson(2, 2)))
    assert [share.name for share in differences.per_class(packing.pack_predictions(told([0, 1], [2, 1]), None))] == [
        "1",
        "2",
    ]
    assert differences.per_class(packing.pack_predictions(told([0], None), CLOTHES)) == ()


def test_the_confusions_that_changed_most_come_first() -> None:
    truth = [0, 0, 0, 2, 1]
    before = packing.pack_predictions(told([1, 1, 0, 2, 1], truth), CLOTHES)
    now = packing.pack_predictions(told([2, 2, 1, 1, 1], truth), CLOTHES)
    first = Confusion("shirt", "shoe", "bag", 2)
    rest = (Confusion("shirt", "shirt", "shoe", 1), Confusion("bag", "bag", "shoe", 1))
    assert differences.count_confusions(now, before) == (first, *rest)
    assert differences.count_confusions(now, before, most=1) == (first,)
    assert differences.count_confusions(now, now) == ()


def test_confusions_without_truth_and_on_other_images() -> None:
    one, other = (packing.pack_predictions(told([best], None), CLOTHES) for best in (0, 1))
    assert differences.count_confusions(one, other) == (Confusion(None, "shoe", "shirt", 1),)
    with pytest.raises(ModelMismatchError, match=r"on different images \(measure both on the same data\)"):
        differences.count_confusions(one, packing.pack_predictions(told([0], [0]), CLOTHES))
