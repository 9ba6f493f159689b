"""Data sets in each form that they come in, and each broken form against its error."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

from benchmarks.paper import bundle, fashion
from exporter import cifar, classfolders, data, members
from exporter.data import Dataset, Unreadable, map_classes, noise, open_dataset, targets_for
from runtimes.errors import (
    ArtifactError,
    InputError,
    IntegrityError,
    ModelMismatchError,
    ResourceError,
    UnsafeArtifactError,
    UsageError,
)
from runtimes.images import Preprocessing

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PLAIN = Preprocessing(None, (4, 4), 0, (0.0,) * 3, (1.0,) * 3)
SMALL = Preprocessing(None, (32, 32), 0, (0.0,) * 3, (1.0,) * 3)


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(root: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def tar_of(path: Path, contents: dict[str, bytes], mode: str = "w", **about: Any) -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in about.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


ANIMALS = {
    "zebra/b.png": png(11),
    "zebra/a.PNG": png(10),
    "ant/1.png": png(20),
    "ant/notes.txt": b"no image",
    "ant/.hidden.png": b"no image",
    "index.png": png(1),
}


def values(dataset: Dataset) -> list[int]:
    """The grey of every image, which tells which one it is."""
    return [round(float(x) * 255) for _, batch in dataset.batches(PLAIN, 2) for x in batch[:, 0, 0, 0]]


# The bundled set


def test_the_bundled_test_set_is_the_published_one() -> None:
    dataset = open_dataset("fashion-mnist")
    assert (dataset.name, len(dataset), dataset.classes) == ("fashion-mnist", 10_000, bundle.CLASSES)
    np.testing.assert_array_equal(np.bincount(dataset.targets), [1000] * 10)
    assert dataset.targets.dtype == np.int64
    pixels = np.asarray(dataset.images)
    assert pixels.dtype == np.uint8
    headers = {"t10k-images-idx3-ubyte": struct.pack(">4i", 2051, 10_000, 28, 28)}
    headers["t10k-labels-idx1-ubyte"] = struct.pack(">2i", 2049, 10_000)
    for name, content in zip(headers, (pixels, dataset.targets.astype(np.uint8)), strict=True):
        assert hashlib.sha256(headers[name] + content.tobytes()).hexdigest() == fashion.SHA256[name]
    assert dataset.label(17) == "fashion-mnist[17]"


def test_bundling_again_gives_the_same_content(tmp_path: Path) -> None:
    if not fashion.DEBIAN_FOLDER.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    bundle.bundle(tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as again, np.load(data.BUNDLED) as shipped:
        assert list(again) == list(shipped)
        for name in again:
            np.testing.assert_array_equal(again[name], shipped[name], strict=True)


def test_its_images_become_batches() -> None:
    preprocessing = Preprocessing(None, (28, 28), 2, (0.286,) * 3, (0.353,) * 3)
    dataset = open_dataset("fashion-mnist", limit=5)
    batches = list(dataset.batches(preprocessing, 2))
    assert [batch.shape for _, batch in batches] == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]
    np.testing.assert_array_equal(np.concatenate([indices for indices, _ in batches]), range(5))
    expected = np.pad(np.asarray(dataset.image(4)), 2).astype(np.float32) / np.float32(255)
    expected = (expected - np.float32(0.286)) / np.float32(0.353)
    np.testing.assert_array_equal(batches[2][1][0], [expected] * 3)


@pytest.mark.parametrize("damage", [slice(0, 100), slice(2_000_000, 2_000_010)])
def test_a_damaged_bundle_is_told(damage: slice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(data.BUNDLED.read_bytes())
    content[damage] = bytes(len(content[damage]))
    (tmp_path / "damaged.npz").write_bytes(content)
    monkeypatch.setattr(data, "BUNDLED", tmp_path / "damaged.npz")
    with pytest.raises(IntegrityError, match=r"damaged.npz: the bundled test set is damaged: .* \(pip install --force"):
        open_dataset("fashion-mnist")


# Class folders


@pytest.mark.parametrize("form", ["folder", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2", ".wrapped.tar"])
def test_class_folders(form: str, tmp_path: Path) -> None:
    if form == "folder":
        place = folder_of(tmp_path / "animals", ANIMALS)
    elif form == ".wrapped.tar":
        wrapped = {f"./some/where/{name}": content for name, content in ANIMALS.items() if name != "index.png"}
        place = tar_of(tmp_path / "animals.tar", wrapped)
    else:
        place = tar_of(tmp_path / f"animals{form}", ANIMALS, "w" if form == ".tar" else f"w:{form.split('.')[-1]}")
    dataset = open_dataset(str(place))
    assert (dataset.name, dataset.classes, len(dataset)) == ("animals", ("ant", "zebra"), 3)
    np.testing.assert_array_equal(dataset.targets, [0, 1, 1])
    assert values(dataset) == [20, 10, 11]
    assert dataset.label(0).endswith("ant/1.png")
    assert dataset.label(0).startswith(str(place))


@pytest.mark.parametrize(
    ("splits", "taken"),
    [(("train", "val", "test"), "test"), (("train", "val"), "val"), (("train", "validation"), "validation")],
)
def test_the_test_split_is_taken(splits: tuple[str, ...], taken: str, tmp_path: Path) -> None:
    contents = {f"{split}/cat/{split}.png": png(len(split)) for split in splits} | {"train/bat/1.png": png(99)}
    dataset = open_dataset(str(folder_of(tmp_path / "pets", contents)))
    assert dataset.name == f"pets/{taken}"
    assert dataset.classes == ("bat", "cat"), "a class without test images keeps its place"
    assert values(dataset) == [len(taken)]
    np.testing.assert_array_equal(dataset.targets, [1])


def test_a_lone_training_split_is_taken(tmp_path: Path) -> None:
    dataset = open_dataset(str(folder_of(tmp_path, {"train/a/1.png": png(1), "train/b/1.png": png(2)})))
    assert (dataset.classes, values(dataset)) == (("a", "b"), [1, 2])


def test_folders_of_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    folder_of(tmp_path / "store", {"x/1.png": png(7)})
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "linked.png").symlink_to(tmp_path / "store" / "x" / "1.png")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store" / "x")
    assert values(open_dataset(str(tmp_path / "set"))) == [7, 7]
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set" / "cat")
    assert len(open_dataset(str(tmp_path / "set"))) < 10


def test_a_limit_draws_the_same_images_from_all_classes(tmp_path: Path) -> None:
    contents = {f"{name}/{number}.png": png(number) for name in "abcd" for number in range(25)}
    place = str(folder_of(tmp_path, contents))
    some, again = open_dataset(place, 20), open_dataset(place, 20)
    assert len(some) == 20
    assert [some.label(i) for i in range(20)] == [again.label(i) for i in range(20)]
    assert set(some.targets) == {0, 1, 2, 3}
    assert some.classes == ("a", "b", "c", "d")
    assert all(some.label(i).split("/")[-2] == some.classes[some.targets[i]] for i in range(20))
    assert [int(Path(some.label(i)).stem) for i in range(20)] == values(some)
    np.testing.assert_array_equal(open_dataset(place, 1000).targets, open_dataset(place).targets)


@pytest.mark.parametrize(
    "contents", [{}, {"readme.txt": b"hi"}, {"lonely.png": png(1)}, {"cat/1.txt": b"hi"}, {"cat/.1.png": png(1)}]
)
def test_a_folder_without_classes_is_refused(contents: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nor an image in a class's folder \(expected CLASS/IMAGE.jpg or test/"):
        open_dataset(str(folder_of(tmp_path, contents)))


# Broken images


def broken_set(root: Path) -> Path:
    contents = {f"a/{number}.png": png(number) for number in range(10)} | {"a/3.png": png(3)[:40], "a/7.png": b""}
    return folder_of(root / "set", contents)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    place = broken_set(tmp_path)
    batches = open_dataset(str(place)).batches(PLAIN, 2)
    np.testing.assert_array_equal(next(batches)[0], [0, 1])
    with pytest.raises(InputError, match=r"set/a/3\.png: (a broken image|not readable)"):
        list(batches)
    archive = tar_of(tmp_path / "set.tar", {"a/0.png": png(0), "a/1.png": b"text"})
    with pytest.raises(InputError, match=r"set\.tar/a/1\.png: not readable as an image"):
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
    assert "7.png: an empty file, no image" in str(unreadable[1].error)
    assert isinstance(unreadable[2].error, ResourceError)


def test_a_pipe_among_the_images_does_not_hang(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "set", {"a/1.png": png(1)})
    os.mkfifo(place / "a" / "0.png")
    with pytest.raises(ResourceError, match=r"a/0\.png: cannot read: not a regular file"):
        list(open_dataset(str(place)).batches(PLAIN, 2))


def test_leaving_early_ends_the_threads(tmp_path: Path) -> None:
    import threading

    batches = open_dataset(str(broken_set(tmp_path))).batches(PLAIN, 1)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_a_batch_below_one_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="the batch must be at least 1, not 0"):
        open_dataset("fashion-mnist", 1).batches(PLAIN, 0)


# CIFAR-10


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
    np.testing.assert_array_equal(dataset.targets, labels[2:])


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
            found = members.Members(tmp_path, {"test_batch": bytes(rotten)})
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


def test_the_jpeg_copies_of_cifar10() -> None:
    archive = SHARED / "cifar10-jpeg-test.tar.xz"
    if not archive.exists():
        pytest.skip(f"needs {archive.name} beside the repository")
    dataset = open_dataset(f"cifar10:{archive}", limit=200)
    assert (dataset.name, dataset.classes, len(dataset)) == ("cifar10-jpeg-test", cifar.CLASSES, 200)
    assert set(dataset.targets) == set(range(10))
    indices, batch = next(dataset.batches(SMALL, 200))
    assert batch.shape == (200, 3, 32, 32)
    assert len(indices) == 200


# Archives


@pytest.mark.parametrize("compression", ["", "gz", "xz", "bz2"])
def test_truncated_archives_are_refused(compression: str, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).bytes(6000)
    contents = {"a/1.png": noisy[:3000], "b/2.png": noisy[3000:]}
    whole = tar_of(tmp_path / "set.tar", contents, f"w:{compression}").read_bytes()
    place = tmp_path / "cut.tar"
    lengths = [1, 100, 512, 512 + 3072, 4096 + 100, len(whole) // 2, len(whole) - 30]
    for length in [length for length in lengths if compression or length < 512 * 14 + 1]:
        place.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=r"cut.tar: (a truncated or damaged tar archive|no folder and no tar)"):
            open_dataset(str(place))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = bytearray(tar_of(tmp_path / "set.tar", {"a/1.png": png(1), "b/2.png": png(2)}).read_bytes())
    whole[1024 + 10] ^= 0xFF  # in the second header: reading would otherwise end there in silence
    (tmp_path / "set.tar").write_bytes(whole)
    with pytest.raises(ArtifactError, match="a truncated or damaged tar archive: "):
        open_dataset(str(tmp_path / "set.tar"))
    packed = bytearray(tar_of(tmp_path / "set.tgz", {"a/1.png": png(1)}, "w:gz").read_bytes())
    packed[-8] ^= 0xFF  # the checksum of what was packed
    (tmp_path / "set.tgz").write_bytes(packed)
    with pytest.raises(ArtifactError, match="a truncated or damaged tar archive: CRC check failed"):
        open_dataset(str(tmp_path / "set.tgz"))


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a/../../1.png"])
def test_members_that_lead_outside_are_refused(name: str, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/0.png": png(0), name: png(1)})
    with pytest.raises(UnsafeArtifactError, match=r"set.tar: its member '.*1\.png' leads outside"):
        open_dataset(str(place))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_members_that_are_no_plain_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    place = tar_of(tmp_path / "set.tar", {"a/1.png": b""}, type=kind, linkname="/etc/passwd")
    with pytest.raises(UnsafeArtifactError, match=r"its member 'a/1\.png' is a link, a device or a sparse file; exp"):
        open_dataset(str(place))


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    """A kilobyte that claims to be a terabyte of zeros."""
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(1 << 40),
    }
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a/1.png")
        member.pax_headers = headers
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UnsafeArtifactError, match="is a link, a device or a sparse file"):
        open_dataset(str(tmp_path / "set.tar"))


def test_a_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tar_of(tmp_path / "bomb.tar.xz", {"a/1.png": bytes(1 << 20)}, "w:xz")
    assert place.stat().st_size < 2000
    monkeypatch.setattr(members, "MAX_UNPACKED_BYTES", 1 << 19)
    with pytest.raises(ResourceError, match=r"bomb.tar.xz: more than 524,288 bytes when unpacked \(unpack it and name"):
        open_dataset(str(place))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no folder and no tar archive: it is empty"),
        (b"<!DOCTYPE html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git-LFS pointer, .*git lfs pull"),
        (b"PK\x03\x04 some zip", "it is a file that begins with 50 4b 03 04"),
    ],
)
def test_files_that_are_no_archives(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(content)
    with pytest.raises(ArtifactError, match=f"data.tar: no folder and no tar archive: {message.split(': ')[-1]}"):
        open_dataset(str(tmp_path / "data.tar"))


# Names and places


@pytest.mark.parametrize("spec", ["imagenet", "fashion_mnist", "CIFAR10", ""])
def test_unknown_names_are_refused_with_the_known_forms(spec: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    expected = "neither CIFAR-10" if spec == "" else rf"no data set '{spec}' \(fashion-mnist, cifar10:PATH, or the path"
    with pytest.raises((UsageError, ArtifactError), match=expected):
        open_dataset(spec)


@pytest.mark.parametrize("spec", ["cifar10", "cifar10:"])
def test_cifar10_needs_its_path(spec: str) -> None:
    with pytest.raises(UsageError, match=r"cifar10 is not bundled \(name where it lies: cifar10:PATH\)"):
        open_dataset(spec)


@pytest.mark.parametrize("spec", ["./nowhere", "/no/where", "nowhere.tar.gz", "cifar10:/no/where"])
def test_missing_places_are_named(spec: str) -> None:
    with pytest.raises(ResourceError, match=rf"{spec.removeprefix('cifar10:')}: no such file or folder \(data is fash"):
        open_dataset(spec)


def test_pipes_and_endless_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ResourceError, match=r"pipe.tar: cannot read: not a regular file"):
        open_dataset(str(tmp_path / "pipe.tar"))
    with pytest.raises(ResourceError, match="cannot read: File name too long"):
        open_dataset("x" * 5000)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="the limit must be at least 1 image, not 0"):
        open_dataset("fashion-mnist", 0)


def test_class_folders_by_names_alone() -> None:
    assert classfolders.read(["a/1.txt", "1.png"]) is None
    found = classfolders.read(["pets/test/b/1.png", "pets/test/a/deep/2.png", "pets/train/c/3.png"])
    assert found == classfolders.Sorted(
        ("pets/test/b/1.png", "pets/test/a/deep/2.png"), (1, 0), ("a", "b", "c"), "test"
    )


# Classes of the data, outputs of the network


def test_classes_are_matched_by_name() -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], ["cat", "ant", "bee"], 3), [1, 2, 0])
    np.testing.assert_array_equal(map_classes(["Ant_lion", "bee"], ["bee", "ant-lion"], 2), [1, 0])


@pytest.mark.parametrize("labels", [None, ["x", "y", "z"], ["ant", "bee", "cat"], ["ant", "bee", "tomcat"]])
def test_other_names_of_the_same_number_stand_in_order(labels: list[str] | None) -> None:
    np.testing.assert_array_equal(map_classes(["ant", "bee", "cat"], labels, 3), [0, 1, 2])


@pytest.mark.parametrize("classes", [2, 1000])
def test_another_number_of_classes_is_refused(classes: int) -> None:
    message = rf"data of 3 classes for a network of {classes} classes \(take data of {classes} .* --num-classes 3\)"
    with pytest.raises(ModelMismatchError, match=message):
        map_classes(["ant", "bee", "cat"], None, classes)


def test_names_that_contradict_are_refused() -> None:
    with pytest.raises(
        ModelMismatchError, match=r"though 'bee' is among both, in different places \(export with --lab"
    ):
        map_classes(["ant", "bee", "cat"], ["bee", "yak", "cow"], 3)


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
    with pytest.raises(UsageError, match="the seed must be at least 0, not -1"):
        noise((1,), -1)
