"""CIFAR-10 in each form that it is published in, and each broken or hostile form against its error."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.data import archives, cifar
from exporter.data.dataset import open_dataset
from runtimes.errors import ArtifactError, ResourceError, UnsafeArtifactError
from runtimes.images.preprocessing import Preprocessing
from tests.exporter.datasets import folder_of, png, tar_of

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


def python3_pickle(rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    return pickle.dumps({"data": np.asfortranarray(rows), "labels": labels.tolist()}, protocol=4)


def binary(rows: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), rows], axis=1).tobytes()


FORMS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "python": ("cifar-10-batches-py/{}_batch{}", python2_pickle),
    "python 3": ("cifar-10-batches-py/{}_batch{}", python3_pickle),
    "binary": ("cifar-10-batches-bin/{}_batch{}.bin", binary),
}


def test_the_pickle_of_the_tests_is_one() -> None:
    rows, labels = cifar_table()
    table = pickle.loads(python2_pickle(rows, labels), encoding="bytes")
    np.testing.assert_array_equal(table[b"data"], rows)
    assert table[b"labels"] == labels.tolist()


@pytest.mark.filterwarnings("ignore:dtype.*align:DeprecationWarning")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_cifar10_in_each_form(form: str, packed: bool, tmp_path: Path) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    contents = {
        pattern.format("test", ""): write(rows, labels),
        pattern.format("data", "_1"): write(rows[:1], labels[:1]),
    }
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
def test_without_a_test_batch_the_training_batches_are_taken(form: str, tmp_path: Path) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    place = folder_of(
        tmp_path, {pattern.format("data", f"_{i}"): write(rows[i : i + 2], labels[i : i + 2]) for i in (2, 4)}
    )
    dataset = open_dataset(str(place))
    assert (dataset.name, dataset.label(0)) == ("cifar10/train", "cifar10/train[0]")
    np.testing.assert_array_equal(np.asarray(dataset.targets), labels[2:])


@pytest.mark.filterwarnings("ignore:dtype.*align:DeprecationWarning")
@pytest.mark.parametrize("form", ["python", "binary"])
def test_to_train_the_training_batches_are_taken_where_there_are_any(form: str, tmp_path: Path) -> None:
    pattern, write = FORMS[form]
    rows, labels = cifar_table()
    test = folder_of(tmp_path / "c", {pattern.format("test", ""): write(rows[:1], labels[:1])})
    dataset = open_dataset(f"cifar10:{test}", split="train")
    assert (dataset.name, len(dataset)) == ("cifar10", 1)
    both = folder_of(test, {pattern.format("data", f"_{i}"): write(rows[i : i + 2], labels[i : i + 2]) for i in (2, 4)})
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
    with pytest.raises(
        UnsafeArtifactError, match=r"test_batch: its pickle (calls 'posix\.mkdir', which|holds what no)"
    ):
        open_dataset(str(tmp_path))
    assert not (tmp_path / "canary").exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02" + b"cbuiltins\neval\nU\x011\x85R.", r"calls 'builtins\.eval', which could run code"),
        (b"\x80\x02" + b"cnumpy\nload\nU\x011\x85R.", r"calls 'numpy\.load'"),
        (b"\x80\x02" + b"ccodecs\nencode\n.", r"calls 'codecs\.encode'"),
        (b"\x80\x02" + RECONSTRUCT + b"}b.", "tries to alter a function"),
        (b"\x80\x02P7\n.", r"holds what no table of images needs \(PERSID at byte 2\)"),
        (b"\x80\x02\x82\x01.", r"\(EXT1 at byte 2\)"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", r"\(LONG_BINPUT at byte 3\)"),
        (b"\x80\x02N" + b"\x85" * 100 + b".", r"\(TUPLE1 at byte 67\)"),
        (b"\x80\x02]" + b"(e" * 600_000 + b".", r"\(APPENDS at byte|\(MARK at byte"),
    ],
)
def test_pickles_that_ask_for_more_than_a_table_needs(content: bytes, message: str, tmp_path: Path) -> None:
    folder_of(tmp_path, {"test_batch": content})
    with pytest.raises(UnsafeArtifactError, match=message):
        open_dataset(str(tmp_path))


def pickled(**changes: Any) -> bytes:
    rows, labels = cifar_table()
    return pickle.dumps({"data": rows, "labels": labels.tolist()} | changes, protocol=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pickle, or a damaged one: pickle exhausted before seeing STOP"),
        (b"<!DOCTYPE html>", "no pickle, or a damaged one"),
        (python2_pickle(*cifar_table())[:-100], "no pickle, or a damaged one"),
        (python2_pickle(*cifar_table()) + b"more", "4 bytes follow its pickle"),
        (b"\x80\x02R.", "a damaged pickle: "),
        (b"\x80\x02K\x01.", "a pickled int; expected a dictionary with data and labels"),
        (b"\x80\x02}.", "expected a dictionary with an array under data and a list under labels"),
        (pickled(labels=[1, 2]), "6 images and 2 labels"),
        (pickled(labels=[10] * 6), "labels from 10 to 10; CIFAR-10's are 0 to 9"),
        (pickled(labels=["a"] * 6), "its labels are not small whole numbers"),
        (pickled(data=np.zeros((6, 100), np.uint8)), r"its data is no array of uint8 \(n, 3072\)"),
        (pickled(data=np.zeros((6, 3072), np.float32)), r"its data is no array of uint8 \(n, 3072\)"),
        (pickled(data=np.zeros((0, 3072), np.uint8), labels=[]), "its data is no array of uint8"),
    ],
)
@pytest.mark.filterwarnings("ignore:dtype.*align:DeprecationWarning")
def test_damaged_pickles(content: bytes, message: str, tmp_path: Path) -> None:
    folder_of(tmp_path, {"cifar/test_batch": content})
    with pytest.raises(ArtifactError, match=f"cifar/test_batch: {message}"):
        open_dataset(str(tmp_path))


def test_rotten_pickles_raise_our_own_errors(tmp_path: Path) -> None:
    content = python2_pickle(*cifar_table(1))
    frame = [place for place in range(len(content)) if not 400 < place < 3300]  # pixels may be anything
    for place in frame:
        for value in (0x00, 0x2E, 0x63, 0xFF):
            rotten = bytearray(content)
            rotten[place] = value
            found = archives.Members(tmp_path, {"test_batch": bytes(rotten)})
            try:
                table = cifar.read(found)
            except ArtifactError:
                continue
            assert table is not None
            assert table[0].shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are no whole number of records of 3,073 bytes"),
        (bytes(3074), "3,074 bytes are no whole number"),
        (b"\x0b" + bytes(3072), "labels from 11 to 11; CIFAR-10's are 0 to 9"),
    ],
)
def test_damaged_binary_batches(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=f"test_batch.bin: {message}"):
        open_dataset(str(folder_of(tmp_path, {"test_batch.bin": content})))


def test_a_batch_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "MAX_BATCH_BYTES", 10)
    contents = {"test_batch.bin": bytes(3073)}
    for place in (folder_of(tmp_path / "set", contents), tar_of(tmp_path / "set.tar", contents)):
        with pytest.raises(ResourceError, match=r"test_batch.bin: cannot read: 3,073 bytes, more than the 10 allowed"):
            open_dataset(str(place))


def test_what_is_called_cifar10_must_have_its_classes(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "jpegs", {f"{name}/1.png": png(1) for name in cifar.CLASSES})
    assert open_dataset(f"cifar10:{place}").name == "jpegs"
    folder_of(place, {"zebra/1.png": png(1)})
    with pytest.raises(ArtifactError, match=r"not CIFAR-10: its classes are airplane, .*, zebra"):
        open_dataset(f"cifar10:{place}")
    flat = folder_of(tmp_path / "flat", {"1.png": png(1)})
    with pytest.raises(ArtifactError, match=r"flat: not CIFAR-10: its classes are not told"):
        open_dataset(f"cifar10:{flat}", split="train")


def test_the_jpeg_copies_of_cifar10() -> None:
    archive = SHARED / "cifar10-jpeg-test.tar.xz"
    if not archive.exists():
        pytest.skip(f"needs {archive.name} beside the repository")
    dataset = open_dataset(f"cifar10:{archive}", limit=200)
    assert (dataset.name, dataset.classes, len(dataset)) == ("cifar10-jpeg-test", cifar.CLASSES, 200)
    assert set(np.asarray(dataset.targets).tolist()) == set(range(10))
    indices, batch = next(dataset.batches(SMALL, 200))
    assert batch.shape == (200, 3, 32, 32)
    assert len(indices) == 200
