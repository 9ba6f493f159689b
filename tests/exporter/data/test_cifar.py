"""CIFAR-10 in each form that it is published in, and each broken or hostile form against its error."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.data import cifar
from exporter.data.opening import open_dataset
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError
from runtimes.images.preprocessing import Preprocessing
from tests.exporter.datasets import folder_of, png, tar_of
from tests.refusals import refuses

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
SMALL = Preprocessing(None, (32, 32), 0, (0.0,) * 3, (1.0,) * 3)


def cifar_table(count: int = 6) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    random = np.random.default_rng(3)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), random.integers(0, 10, count)


def python2_pickle(rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    """The instructions that Python 2 wrote for the published files: every text is a byte string."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    content = rows.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x01(cnumpy\nndarray\nq\x02K\x00\x85" + text(b"b") + b"tR"
    shape = b"(K\x01M" + struct.pack("<H", len(rows)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    kind = b"cnumpy\ndtype\nq\x03(" + text(b"u1") + b"K\x00K\x01tR(K\x03" + text(b"|") + b"NNN"
    kind += b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array += shape + kind + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels.tolist()) + b"e"
    names = b"](" + b"".join(text(b"picture_%d.png" % number) for number in range(len(rows))) + b"e"
    about = text(b"batch_label") + text(b"testing batch 1 of 1")
    return (
        b"\x80\x02}q\x00("
        + about
        + text(b"labels")
        + listed
        + text(b"data")
        + array
        + text(b"filenames")
        + names
        + b"u."
    )


def binary(rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), rows], axis=1).tobytes()


FORMS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "python": ("cifar-10-batches-py/{}_batch{}", python2_pickle),
    "binary": ("cifar-10-batches-bin/{}_batch{}.bin", binary),
}


def publish(patch: pytest.MonkeyPatch, contents: dict[str, bytes]) -> dict[str, bytes]:
    """The same contents, of which those that are pickles count as the published files of their names."""
    for name, content in contents.items():
        patch.setitem(cifar.PUBLISHED_MD5, Path(name).name, hashlib.md5(content).hexdigest())
    return contents


def test_the_published_digests_are_of_six_files() -> None:
    assert sorted(cifar.PUBLISHED_MD5) == [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    assert len({int(digest, 16) for digest in cifar.PUBLISHED_MD5.values()}) == 6
    assert {len(digest) for digest in cifar.PUBLISHED_MD5.values()} == {32}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_cifar10_in_each_form(form: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    contents = {
        pattern.format("test", ""): write(rows, labels),
        pattern.format("data", "_1"): write(rows[:1], labels[:1]),
    }
    publish(monkeypatch, contents)
    place = tar_of(tmp_path / "c.tar.gz", contents, "w:gz") if packed else folder_of(tmp_path / "c", contents)
    for spec in (str(place), f"cifar10:{place}"):
        dataset = open_dataset(spec)
        assert (dataset.name, dataset.classes) == ("cifar10", cifar.CLASSES)
        np.testing.assert_array_equal(dataset.targets, labels)
        ((indices, batch),) = dataset.batches(SMALL, 10)
        np.testing.assert_array_equal(np.rint(batch * 255).reshape(-1, 3072), rows)
        np.testing.assert_array_equal(indices, range(6))
    assert dataset.label(2) == "cifar10[2]"


@pytest.mark.parametrize("form", ["python", "binary"])
def test_training_batches_stand_in_for_a_test_batch(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    batches = {pattern.format("data", f"_{i}"): write(rows[i : i + 2], labels[i : i + 2]) for i in (2, 4)}
    place = folder_of(tmp_path, publish(monkeypatch, batches))
    dataset = open_dataset(str(place))
    assert (dataset.name, dataset.label(0)) == ("cifar10/train", "cifar10/train[0]")
    np.testing.assert_array_equal(np.asarray(dataset.targets), labels[2:])


@pytest.mark.parametrize("form", ["python", "binary"])
def test_training_takes_the_training_batches(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    test = folder_of(tmp_path / "c", publish(monkeypatch, {pattern.format("test", ""): write(rows[:1], labels[:1])}))
    dataset = open_dataset(f"cifar10:{test}", split="train")
    assert (dataset.name, len(dataset)) == ("cifar10", 1)
    batches = {pattern.format("data", f"_{i}"): write(rows[i : i + 2], labels[i : i + 2]) for i in (2, 4)}
    both = folder_of(test, publish(monkeypatch, batches))
    dataset = open_dataset(f"cifar10:{both}", split="train")
    assert (dataset.name, dataset.classes, dataset.label(0)) == ("cifar10/train", cifar.CLASSES, "cifar10/train[0]")
    np.testing.assert_array_equal(np.asarray(dataset.targets), labels[2:])
    np.testing.assert_array_equal(np.asarray(dataset.images).transpose(0, 3, 1, 2).reshape(-1, 3072), rows[2:])


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"data": _Payload(tmp_path / "canary"), "labels": [1]}, protocol)
    folder_of(tmp_path, {"test_batch": content})
    with refuses(UnsafeArtifactError, "cifar-pickle-unknown", tmp_path / "test_batch"):
        open_dataset(str(tmp_path))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", python2_pickle(*cifar_table())])
def test_only_published_pickles_are_read(content: bytes, tmp_path: Path) -> None:
    folder_of(tmp_path, {"cifar/test_batch": content})
    with refuses(UnsafeArtifactError, "cifar-pickle-unknown", "cifar/test_batch", "test_batch.bin") as caught:
        open_dataset(str(tmp_path))
    assert caught.value.hint is not None


def test_a_published_pickle_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = publish(monkeypatch, {"data_batch_1": python2_pickle(*cifar_table())})["data_batch_1"]
    folder_of(tmp_path, {"test_batch": content})
    with refuses(UnsafeArtifactError, "cifar-pickle-unknown", "test_batch"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        (b"", "cifar-record-size", ["0 bytes", "3,073"]),
        (bytes(3074), "cifar-record-size", ["3,074"]),
        (b"\x0b" + bytes(3072), "cifar-label-range", [11]),
    ],
)
def test_damaged_binary_batches(content: bytes, code: str, values: list[object], tmp_path: Path) -> None:
    with refuses(ArtifactError, code, "test_batch.bin", *values):
        open_dataset(str(folder_of(tmp_path, {"test_batch.bin": content})))


def test_a_batch_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "MAX_BATCH_BYTES", 10)
    contents = {"test_batch.bin": bytes(3073)}
    for place in (folder_of(tmp_path / "set", contents), tar_of(tmp_path / "set.tar", contents)):
        with refuses(ResourceError, "file-too-large", place / "test_batch.bin", "3,073", "10"):
            open_dataset(str(place))


def test_cifar10_must_have_its_classes(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "jpegs", {f"{name}/1.png": png(1) for name in cifar.CLASSES})
    assert open_dataset(f"cifar10:{place}").name == "jpegs"
    folder_of(place, {"zebra/1.png": png(1)})
    with refuses(ArtifactError, "cifar10-classes-differ", "airplane", "zebra"):
        open_dataset(f"cifar10:{place}")
    flat = folder_of(tmp_path / "flat", {"1.png": png(1)})
    with refuses(ArtifactError, "cifar10-classes-differ", flat):
        open_dataset(f"cifar10:{flat}", split="train")


def test_the_jpeg_copies_of_cifar10() -> None:
    archive = SHARED / "cifar10-jpeg-test.tar.xz"
    if not archive.exists():
        pytest.skip(f"needs {archive.name} beside the repository")
    dataset = open_dataset(f"cifar10:{archive}", limit=200)
    assert (dataset.name, dataset.classes, len(dataset)) == ("cifar10-jpeg-test/test", cifar.CLASSES, 200)
    assert set(np.asarray(dataset.targets).tolist()) == set(range(10))
    indices, batch = next(dataset.batches(SMALL, 200))
    assert batch.shape == (200, 3, 32, 32)
    assert len(indices) == 200
