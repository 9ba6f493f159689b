"""Images as web frameworks hand them over: every kind gives the same pixels, and the caller's file stays as it was."""

from __future__ import annotations

import io
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runtimes import Classifier
from runtimes.device_images.preparation import DevicePreparation
from runtimes.errors import InputError, ResourceError
from runtimes.images import contents
from runtimes.images.preprocessing import decode
from tests.refusals import refuses
from tests.samples import PREPROCESSING, publish_script


@pytest.fixture(scope="module")
def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classifier]:
    with Classifier.open(publish_script(tmp_path_factory.mktemp("net") / "net.fake").path) as opened:
        yield opened


def _spooled(content: bytes) -> Any:
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - the test closes it
    file.write(content)
    return file


def _mapped(content: bytes) -> mmap.mmap:
    mapped = mmap.mmap(-1, len(content))
    mapped.write(content)
    return mapped


class Storage:
    """A proxy, as of Werkzeug or Django: it has the methods of a file and is none of Python's own."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Trickle(io.RawIOBase):
    """Cannot seek, and gives a few bytes at a time, as a socket."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        part, self._left = self._left[: min(size, 5)], self._left[min(size, 5) :]
        return part


KINDS: dict[str, Callable[[bytes], Any]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "a slice of a memoryview": lambda content: memoryview(b"xx" + content)[2:],
    "BytesIO": io.BytesIO,
    "a spooled file that was just written": _spooled,
    "a mapped file": _mapped,
    "a proxy": Storage,
    "a pipe": Trickle,
    "a Pillow image": lambda content: Image.open(io.BytesIO(content)),
    "an array": lambda content: np.asarray(Image.open(io.BytesIO(content))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_the_same_image(classifier: Classifier, png: bytes, kind: str) -> None:
    image, (expected,) = KINDS[kind](png), classifier.predict(png)
    assert classifier.predict(image) == [expected]
    if kind != "a pipe":  # which is at its end
        assert classifier.predict([image, png, image]) == [expected] * 3
        np.testing.assert_array_equal(classifier.prepare(image)["input"], classifier.prepare(png)["input"])
        np.testing.assert_array_equal(decode(image), decode(png))
    if hasattr(image, "close"):
        image.close()


@pytest.mark.parametrize("position", [0, 3, 10_000])
def test_a_file_is_read_whole_and_stays_as_it_was(
    classifier: Classifier, png: bytes, tmp_path: Path, position: int
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png)
    with path.open("rb") as file:
        file.seek(position)
        assert classifier.predict(file) == classifier.predict(png)
        assert (file.closed, file.tell()) == (False, position)


def test_a_buffer_may_be_reused_between_images(classifier: Classifier, png: bytes) -> None:
    other = Image.fromarray(np.zeros((8, 8, 3), np.uint8))

    def images() -> Iterator[io.BytesIO]:
        buffer = io.BytesIO(png)
        yield buffer
        buffer.seek(0)
        buffer.truncate()
        other.save(buffer, "PNG")
        yield buffer

    assert classifier.predict(images()) == classifier.predict([png, other])


async def _coroutine() -> bytes:
    return b""


class Upload:
    """An upload of an asynchronous framework."""

    def read(self, _: int = -1) -> Any:
        return _coroutine()


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


class Failing(io.BytesIO):
    def read(self, _: int | None = -1) -> bytes:
        raise OSError(5, os.strerror(5))


BROKEN: dict[str, tuple[Callable[[], Any], type[InputError] | type[ResourceError], str]] = {
    "text": (lambda: io.StringIO("text"), InputError, "image-file-not-binary"),
    "an asynchronous upload": (Upload, InputError, "image-file-not-binary"),
    "a closed file": (_closed, InputError, "image-file-closed"),
    "a failing file": (Failing, ResourceError, "image-file-unreadable"),
    "an empty file": (io.BytesIO, InputError, "image-file-empty"),
    "an empty bytearray": (bytearray, InputError, "image-file-empty"),
    "no image": (lambda: io.BytesIO(b"<html>"), InputError, "image-format-unknown"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused(classifier: Classifier, png: bytes, kind: str) -> None:
    make, error, code = BROKEN[kind]
    with refuses(error, code):
        classifier.predict(make())
    with refuses(error, code, *(["image 1"] if error is InputError else [])):
        classifier.predict([png, make()])


def test_a_file_without_end_is_not_read_whole() -> None:
    with refuses(ResourceError, "image-file-too-large"), open("/dev/zero", "rb") as file:
        contents.read_content(file, 1 << 16)


def test_the_gpu_takes_files_too(png: bytes) -> None:
    preparation = DevicePreparation(PREPROCESSING, decoder=None, device="cuda:0", batch=None)  # type: ignore[arg-type]
    for make in (io.BytesIO, bytearray, memoryview):
        np.testing.assert_array_equal(preparation.read(0, make(png)), preparation.read(0, png))
