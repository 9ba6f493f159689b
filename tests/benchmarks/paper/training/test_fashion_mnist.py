from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.training import fashion_mnist
from runtimes.errors import ArtifactError, IntegrityError, ResourceError
from tests.benchmarks.paper.published import write_published
from tests.refusals import refuses


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_published(tmp_path, monkeypatch)
    return tmp_path


def test_the_files_are_read_as_they_are(data: Path) -> None:
    images, targets = fashion_mnist.read("t10k", data)
    assert images.shape == (40, 28, 28)
    assert (images.dtype.name, targets.dtype.name) == ("uint8", "int64")
    np.testing.assert_array_equal(targets, np.arange(40) % 10)
    assert (images[3, 6:14, 4:20] == 255).all()


def test_missing_files_are_named_with_their_package(tmp_path: Path) -> None:
    with refuses(ResourceError, "fashion-mnist-unreadable", "train-images-idx3-ubyte.gz", "apt-get install"):
        fashion_mnist.read("train", tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "flipped"])
def test_damaged_archives_are_refused(data: Path, damage: str) -> None:
    path = data / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    spoilt = {"text": b"not gzip", "cut": content[:-50], "flipped": content[:40] + b"\xff\xff" + content[42:]}[damage]
    path.write_bytes(spoilt)
    with refuses(ArtifactError, "gzip-damaged", "train-images-idx3-ubyte.gz"):
        fashion_mnist.read("train", data)


def test_other_content_is_refused(data: Path) -> None:
    path = data / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\x07"))
    with refuses(IntegrityError, "fashion-mnist-changed", "train-labels-idx1-ubyte.gz"):
        fashion_mnist.read("train", data)


def test_debians_files_are_the_published_ones() -> None:
    if not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    images, targets = fashion_mnist.read("t10k")
    assert images.shape == (10_000, 28, 28)
    np.testing.assert_array_equal(np.bincount(targets), [1000] * 10)
