"""Datasets by their names and paths."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper.training.corpus import SHA256
from exporter.data.class_folders import Split
from exporter.data.opening import BUNDLED, open_dataset
from runtimes.errors import ArtifactError, IntegrityError, ResourceError, UsageError
from tests.exporter.datasets import folder_of, png, values
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


@pytest.mark.parametrize("split", ["test", "train"])
@pytest.mark.parametrize("damage", [slice(0, 100), slice(200_000, 200_010)])
def test_damaged_bundled_images_are_refused(
    damage: slice, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(BUNDLED[split].read_bytes())
    content[damage] = bytes(len(content[damage]))
    (tmp_path / "damaged.npz").write_bytes(content)
    monkeypatch.setitem(BUNDLED, split, tmp_path / "damaged.npz")
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
