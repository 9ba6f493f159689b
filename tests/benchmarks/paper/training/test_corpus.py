from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from benchmarks.paper.training import corpus
from benchmarks.paper.training.corpus import (
    DEBIAN_FOLDER,
    SAMPLE_NAME,
    Corpus,
    CorpusSplit,
    Source,
    load,
    read_fashion_mnist,
)
from runtimes.errors import ArtifactError, IntegrityError, ResourceError, UsageError
from tests.benchmarks.paper.published import write_published
from tests.refusals import refuses

COLOURS = {"blue": (0, 0, 200), "red": (200, 0, 0)}


def folder_of_images(place: Path, split: str, count: int, size: int = 8) -> Path:
    for name, colour in COLOURS.items():
        folder = place / split / name
        folder.mkdir(parents=True)
        for number in range(count):
            PIL.Image.new("RGB", (size, size), colour).save(folder / f"{number}.png")
    return place


def test_folders_of_images_become_arrays_of_one_size(tmp_path: Path) -> None:
    folder_of_images(tmp_path, "train", 10, size=20)
    folder_of_images(tmp_path, "test", 2, size=20)
    found = load(Source(str(tmp_path), name="colours", size=16), held_out=0.1, batch=4)
    assert (found.name, found.classes, found.counts) == (
        "colours",
        ("blue", "red"),
        {"train": 18, "validation": 2, "test": 4},
    )
    assert found.train.images.shape == (18, 16, 16, 3)
    for image, target in zip(found.train.images, found.train.targets, strict=True):
        np.testing.assert_array_equal(image[3, 5], list(COLOURS.values())[target])


def test_training_and_test_images_may_lie_apart(tmp_path: Path) -> None:
    train, test = folder_of_images(tmp_path / "a", "train", 4), folder_of_images(tmp_path / "b", "test", 3)
    found = load(Source(str(train), str(test), size=8), held_out=0.0, batch=4)
    assert found.counts == {"train": 8, "validation": 0, "test": 6}


def test_other_classes_in_the_test_images_are_refused(tmp_path: Path) -> None:
    train, test = folder_of_images(tmp_path / "a", "train", 4), folder_of_images(tmp_path / "b", "test", 3)
    (test / "test" / "red").rename(test / "test" / "green")
    with refuses(ArtifactError, "test-classes-differ", "blue, red", "blue, green"):
        load(Source(str(train), str(test), size=8), held_out=0.0, batch=4)


def test_the_bundled_sample_holds_out_a_tenth_the_same_each_time() -> None:
    first, again = (load(Source(SAMPLE_NAME, limit=200), held_out=0.1, batch=128) for _ in range(2))
    assert first.counts == {"train": 180, "validation": 20, "test": 200}
    assert first.digest == again.digest
    assert first.train.images.shape == (180, 28, 28, 1)
    shown = {image.tobytes() for image in first.train.images}
    assert not shown & {image.tobytes() for image in first.validation.images}
    other = load(Source(SAMPLE_NAME, limit=199), held_out=0.1, batch=128)
    assert other.digest != first.digest


def test_a_smaller_limit_takes_the_first_of_a_larger_one() -> None:
    small, large = (load(Source(SAMPLE_NAME, limit=limit), held_out=0.0, batch=16) for limit in (50, 80))
    np.testing.assert_array_equal(small.train.images, large.train.images[:50])


def test_moments_are_those_of_the_training_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (7, 4, 4, 3), dtype=np.uint8)
    part = CorpusSplit(pixels, np.zeros(7, np.int64))
    mean, std = Corpus("x", ("a",), part, part, part, "").moments()
    np.testing.assert_allclose(mean, pixels.mean((0, 1, 2)) / 255, atol=1e-4)
    np.testing.assert_allclose(std, pixels.std((0, 1, 2)) / 255, atol=1e-4)


def test_the_published_files_are_read_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_published(tmp_path, monkeypatch)
    found = load(Source(str(tmp_path)), held_out=0.25, batch=32)
    assert (found.name, found.counts) == ("fashion-mnist", {"train": 72, "validation": 24, "test": 40})
    assert found.classes[9] == "Ankle boot"


def test_missing_published_files_name_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "DEBIAN_FOLDER", tmp_path)
    with refuses(ResourceError, "fashion-mnist-unreadable", "apt-get install dataset-fashion-mnist"):
        load(Source("fashion-mnist"), held_out=0.1, batch=128)


@pytest.mark.parametrize(
    ("source", "code", "values"),
    [
        (Source(SAMPLE_NAME, limit=100), "too-few-training-images", (90, 128, "--limit")),
        (Source(SAMPLE_NAME, size=16), "images-larger-than-network", ("28x28", 16, "--size 28")),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(source: Source, code: str, values: tuple[object, ...]) -> None:
    with refuses(UsageError, code, *values):
        load(source, held_out=0.1, batch=128)


def test_unknown_data_are_refused() -> None:
    with pytest.raises(UsageError, match="no-such-data"):
        load(Source("no-such-data"), held_out=0.1, batch=128)


# Fashion-MNIST's published files --------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_published(tmp_path, monkeypatch)
    return tmp_path


def test_the_files_are_read_as_they_are(data: Path) -> None:
    images, targets = read_fashion_mnist("t10k", data)
    assert images.shape == (40, 28, 28)
    assert (images.dtype.name, targets.dtype.name) == ("uint8", "int64")
    np.testing.assert_array_equal(targets, np.arange(40) % 10)
    assert (images[3, 6:14, 4:20] == 255).all()


def test_missing_files_are_named_with_their_package(tmp_path: Path) -> None:
    with refuses(ResourceError, "fashion-mnist-unreadable", "train-images-idx3-ubyte.gz", "apt-get install"):
        read_fashion_mnist("train", tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_damaged_archives_are_refused(data: Path, damage: str) -> None:
    path = data / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    spoilt = {"text": b"not gzip", "cut": content[:-50], "flipped": content[:40] + b"\xff\xff" + content[42:]}[damage]
    path.write_bytes(spoilt)
    with refuses(ArtifactError, "gzip-damaged", "train-images-idx3-ubyte.gz"):
        read_fashion_mnist("train", data)


def test_other_content_is_refused(data: Path) -> None:
    path = data / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\x07"))
    with refuses(IntegrityError, "fashion-mnist-changed", "train-labels-idx1-ubyte.gz"):
        read_fashion_mnist("train", data)


def test_debians_files_are_the_published_ones() -> None:
    if not DEBIAN_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    images, targets = read_fashion_mnist("t10k")
    assert images.shape == (10_000, 28, 28)
    np.testing.assert_array_equal(np.bincount(targets), [1000] * 10)
