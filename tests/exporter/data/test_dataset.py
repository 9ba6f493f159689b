"""Data sets by their names and places, their batches, and what their classes are to a network."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper.training.corpus import SHA256
from exporter.data import dataset as data
from exporter.data.class_folders import Split
from exporter.data.dataset import (
    Unreadable,
    are_foreign,
    map_classes,
    noise,
    open_dataset,
    position_example,
    targets_for,
)
from runtimes.errors import ArtifactError, InputError, IntegrityError, ModelMismatchError, ResourceError, UsageError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Preprocessing, normalise
from tests.exporter.datasets import PLAIN, folder_of, png, tar_of, values
from tests.refusals import refuses

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""In the order of the published targets (Xiao, Rasul, Vollgraf 2017, Table 1)."""


# The bundled images


def test_the_bundled_test_set_is_the_published_one() -> None:
    dataset = open_dataset("fashion-mnist")
    assert (dataset.name, len(dataset), dataset.classes) == ("fashion-mnist", 10_000, CLASSES)
    assert dataset.targets is not None
    np.testing.assert_array_equal(np.bincount(dataset.targets), [1000] * 10)
    assert dataset.targets.dtype == np.int64
    pixels = np.asarray(dataset.images)
    assert pixels.dtype == np.uint8
    headers = {"t10k-images-idx3-ubyte": struct.pack(">4i", 2051, 10_000, 28, 28)}
    headers["t10k-labels-idx1-ubyte"] = struct.pack(">2i", 2049, 10_000)
    for name, content in zip(headers, (pixels, dataset.targets.astype(np.uint8)), strict=True):
        assert hashlib.sha256(headers[name] + content.tobytes()).hexdigest() == SHA256[name]
    assert dataset.label(17) == "fashion-mnist[17]"


def test_the_training_sample_has_all_classes_and_no_test_image() -> None:
    sample, test = open_dataset("fashion-mnist", split="train"), open_dataset("fashion-mnist")
    assert (sample.name, len(sample), sample.classes) == ("fashion-mnist/train", 1000, CLASSES)
    assert sample.label(17) == "fashion-mnist/train[17]"
    assert sample.targets is not None
    np.testing.assert_array_equal(np.bincount(sample.targets), [100] * 10)
    assert len(set(sample.targets[:50])) == 10, "in no order"
    pixels = np.asarray(sample.images)
    assert (pixels.shape, pixels.dtype) == ((1000, 28, 28), np.dtype(np.uint8))
    known = {image.tobytes() for image in np.asarray(test.images)}
    assert not [number for number, image in enumerate(pixels) if image.tobytes() in known]
    assert len({image.tobytes() for image in pixels}) == 1000


def test_bundled_images_become_batches() -> None:
    preprocessing = Preprocessing(None, (28, 28), 2, (0.286,) * 3, (0.353,) * 3)
    dataset = open_dataset("fashion-mnist", limit=5)
    batches = list(dataset.batches(preprocessing, 2))
    assert [batch.shape for _, batch in batches] == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]
    np.testing.assert_array_equal(np.concatenate([indices for indices, _ in batches]), range(5))
    expected = np.pad(np.asarray(dataset.image(4)), 2).astype(np.float32) / np.float32(255)
    expected = (expected - np.float32(0.286)) / np.float32(0.353)
    np.testing.assert_array_equal(batches[2][1][0], [expected] * 3)


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.parametrize("damage", [slice(0, 100), slice(200_000, 200_010)])
def test_damaged_bundled_images_are_refused(
    damage: slice, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(data.BUNDLED[split].read_bytes())
    content[damage] = bytes(len(content[damage]))
    (tmp_path / "damaged.npz").write_bytes(content)
    monkeypatch.setitem(data.BUNDLED, split, tmp_path / "damaged.npz")
    with refuses(IntegrityError, "bundled-data-damaged", "damaged.npz", "--force"):
        open_dataset("fashion-mnist", split=split)


# Samples


def test_a_limit_draws_the_same_images_from_all_classes(tmp_path: Path) -> None:
    contents = {f"{name}/{number}.png": png(number) for name in "abcd" for number in range(25)}
    place = str(folder_of(tmp_path, contents))
    some, again = open_dataset(place, 20), open_dataset(place, 20)
    assert len(some) == 20
    assert some.targets is not None
    assert [some.label(i) for i in range(20)] == [again.label(i) for i in range(20)]
    assert set(some.targets) == {0, 1, 2, 3}
    assert some.classes == ("a", "b", "c", "d")
    assert all(some.label(i).split("/")[-2] == some.classes[some.targets[i]] for i in range(20))
    assert [int(Path(some.label(i)).stem) for i in range(20)] == values(some)


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_smaller_limits_images_are_the_first_of_a_larger_ones(split: Split, tmp_path: Path) -> None:
    place = str(folder_of(tmp_path, {f"{name}/{number}.png": png(number) for name in "ab" for number in range(10)}))
    everything = open_dataset(place, 1000, split)
    assert len(everything) == 20
    assert sorted(everything.labels) == list(open_dataset(place, split=split).labels)
    for limit in (1, 7, 19, 20):
        assert list(open_dataset(place, limit, split).labels) == list(everything.labels)[:limit]


# Broken images


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


# Names and places


@pytest.mark.parametrize(
    ("spec", "meant"), [("fashion_mnist", "fashion-mnist"), ("FashionMNIST", "fashion-mnist"), ("cifar-10", "cifar10")]
)
def test_the_nearest_data_set_is_suggested(spec: str, meant: str) -> None:
    with refuses(UsageError, "dataset-unknown", spec, f"did you mean {meant}?"):
        open_dataset(spec)


def test_names_are_known_in_any_case_unless_a_folder_has_them(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_dataset("Fashion-MNIST", 1).name == "fashion-mnist"
    with refuses(UsageError, "cifar10-not-bundled"):
        open_dataset("CIFAR10")
    (tmp_path / "Fashion-MNIST").mkdir()
    with refuses(ArtifactError, "dataset-empty", "Fashion-MNIST"):
        open_dataset("Fashion-MNIST")


@pytest.mark.parametrize("spec", ["imagenet", ""])
def test_unknown_names_are_refused_with_the_known_forms(spec: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    if spec:
        with refuses(UsageError, "dataset-unknown", spec, "fashion-mnist", "cifar10:PATH"):
            open_dataset(spec)
    else:
        with refuses(ArtifactError, "dataset-empty"):
            open_dataset(spec)


@pytest.mark.parametrize("spec", ["cifar10", "cifar10:"])
def test_cifar10_needs_its_path(spec: str) -> None:
    with refuses(UsageError, "cifar10-not-bundled", "cifar10:PATH"):
        open_dataset(spec)


@pytest.mark.parametrize("spec", ["./nowhere", "/no/where", "nowhere.tar.gz", "cifar10:/no/where"])
def test_missing_places_are_named(spec: str) -> None:
    with refuses(ResourceError, "dataset-missing", Path(spec.removeprefix("cifar10:"))):
        open_dataset(spec)


def test_pipes_and_endless_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with refuses(ResourceError, "file-not-regular", tmp_path / "pipe.tar"):
        open_dataset(str(tmp_path / "pipe.tar"))
    with refuses(ResourceError, "file-access-failed"):
        open_dataset("x" * 5000)


def test_a_limit_below_one_is_refused() -> None:
    with refuses(UsageError, "limit-below-one", "1", "0"):
        open_dataset("fashion-mnist", 0)


# Classes of the data, outputs of the network


def test_classes_are_matched_by_name() -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], ["cat", "ant", "bee"], 3), [1, 2, 0])
    np.testing.assert_array_equal(map_classes(["Ant_lion", "bee"], ["bee", "ant-lion"], 2), [1, 0])
    np.testing.assert_array_equal(map_classes(["T-shirt-top", "bag"], ["bag", "T-shirt/top"], 2), [1, 0])


@pytest.mark.parametrize("labels", [None, ["x", "y", "z"], ["ant", "bee", "cat"], ["ant", "bee", "tomcat"]])
def test_other_names_of_the_same_number_stand_in_order(labels: list[str] | None) -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], labels, 3), [0, 1, 2])


@pytest.mark.parametrize("classes", [2, 1000])
def test_another_number_of_classes_is_refused(classes: int) -> None:
    with refuses(ModelMismatchError, "class-count-mismatch", classes, f"images of its {classes} classes") as caught:
        map_classes(["ant", "bee", "cat"], None, classes)
    assert "--num-classes" not in str(caught.value)


def test_one_output_has_no_classes_to_match() -> None:
    """One folder would otherwise be the class of every image, and each of them right."""
    for labels in (None, ["defect"], ["fine", "defect"]):
        with refuses(ModelMismatchError, "class-count-mismatch", "1"):
            map_classes(["defect"], labels, 1)


@pytest.mark.parametrize(
    ("labels", "example"),
    [
        (["cat", "truck"], "lorry is truck"),
        (["x", "y"], "cat is x"),
        ([], "cat is output 0"),
        (["Lorry", "cat"], None),
    ],
)
def test_a_class_without_a_label_of_its_name_is_foreign(labels: list[str], example: str | None) -> None:
    names = ["cat", "lorry"]
    assert are_foreign(names, labels) == (example is not None)
    if example is not None:
        assert position_example(names, labels) == example
        np.testing.assert_array_equal(map_classes(names, labels or None, 2), [0, 1])


def test_names_that_contradict_are_refused() -> None:
    with refuses(ModelMismatchError, "class-order-unclear", "'ant' is no label", "bee", "--labels"):
        map_classes(["ant", "bee", "cat"], ["bee", "yak", "cow"], 3)


def test_images_without_classes_are_no_data_to_test_with(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path / "photos", {"1.png": png(1)})), split="train")
    with refuses(ModelMismatchError, "classes-missing", "photos"):
        targets_for(dataset, None, 2)


def test_targets_are_in_the_networks_order(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path, {"ant/1.png": png(1), "bee/1.png": png(2), "bee/2.png": png(3)})))
    np.testing.assert_array_equal(targets_for(dataset, ["bee", "ant"], 2), [1, 0, 0])
    np.testing.assert_array_equal(targets_for(dataset, None, 2), [0, 1, 1])


# Noise


def test_noise_is_seeded_and_the_same_everywhere() -> None:
    first = noise((2, 3, 4, 5), 7)
    assert first.shape == (2, 3, 4, 5)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, noise((2, 3, 4, 5), 7))
    assert not np.array_equal(first, noise((2, 3, 4, 5), 8))
    expected = np.array([0.12573022, -0.13210486, 0.64042264], np.float32)
    np.testing.assert_array_equal(noise((3,), 0), expected)
    large = noise((100_000,), 1)
    assert abs(large.mean()) < 0.02
    assert abs(large.std() - 1) < 0.02


def test_noise_needs_a_seed_of_at_least_zero() -> None:
    with refuses(UsageError, "seed-negative", "0", "-1"):
        noise((1,), -1)
