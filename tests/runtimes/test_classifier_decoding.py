"""``Classifier.predict`` decodes ahead: answers, errors and iterators are as if it took one image after another."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageSequence
import pytest

from runtimes.errors import InputError, ResourceError
from runtimes.images import prefetch
from runtimes.images.preprocessing import Image, decode
from runtimes.protocol import Arrays, Feeds
from tests.refusals import refuses
from tests.runtimes.colours import BLUE, COLOURS, GREEN, RED, SIZE, network, open_classifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("model") / "colours.onnx")


def files_of(folder: Path, count: int) -> list[Path]:
    """Images of every colour, of sizes that must be cut and of several formats, as files."""
    found = []
    for number in range(count):
        pixels = np.zeros((SIZE + number % 3, SIZE, 3), np.uint8)
        pixels[:, :, number % 3] = 100 + number
        form = ("png", "jpeg", "webp", "bmp")[number % 4]
        found.append(folder / f"{number}.{form}")
        PIL.Image.fromarray(pixels).save(found[-1], form.upper())
    return found


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "thread_limit", lambda: 4)


def kinds(path: Path) -> Iterator[Image]:
    yield path
    yield path.read_bytes()
    yield PIL.Image.open(path)
    yield decode(path)


def decoders() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode-")]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("batch", [1, 2, 5, 100])
def test_decoding_ahead_does_not_change_the_answers(model: Path, tmp_path: Path, batch: int) -> None:
    images = [image for path in files_of(tmp_path, 12) for image in kinds(path)]
    with open_classifier(model) as classifier:
        serial = [classifier.predict(image, top=3)[0] for image in images]
        assert classifier.predict(images, top=3, batch=batch) == serial
        assert classifier.predict(iter(images), top=3, batch=batch) == serial
    assert [prediction.label for prediction in serial[::4]] == list(COLOURS) * 4
    assert not decoders()


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("bad", "batch", "calls"), [(0, 4, 0), (5, 4, 1), (5, 1, 5), (11, 5, 2), (3, 100, 0)])
def test_a_broken_image_is_raised_at_its_turn(
    model: Path, tmp_path: Path, bad: int, batch: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[Image] = list(files_of(tmp_path, 12))
    images[bad] = b""
    seen: list[int] = []
    with open_classifier(model) as classifier:
        infer = classifier.runtime.infer

        def counted(feeds: Feeds) -> Arrays:
            seen.append(len(feeds["pixels"]))
            return infer(feeds)

        monkeypatch.setattr(classifier.runtime, "infer", counted)
        with refuses(InputError, "image-file-empty", f"image {bad}:"):
            classifier.predict(images, batch=batch)
        assert seen == [batch] * calls
        assert not decoders()
        images[bad] = tmp_path / "gone.png"
        with refuses(ResourceError, "file-access-failed", "gone.png", os.strerror(errno.ENOENT)):
            classifier.predict(iter(images), batch=batch)
    assert not decoders()


@pytest.mark.usefixtures("four_threads")
def test_an_iterator_is_drawn_from_two_batches_ahead(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    ahead: list[int] = []

    def source() -> Iterator[Image]:
        for number, path in enumerate(files_of(tmp_path, 20)):
            drawn.append(number)
            yield path

    with open_classifier(model) as classifier:
        infer = classifier.runtime.infer

        def counted(feeds: Feeds) -> Arrays:
            ahead.append(len(drawn))
            return infer(feeds)

        monkeypatch.setattr(classifier.runtime, "infer", counted)
        assert len(classifier.predict(source(), batch=3)) == 20
    assert ahead == [9, 12, 15, 18, 20, 20, 20]


def test_an_iterator_may_fill_the_same_array_again(model: Path) -> None:
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)

    def camera() -> Iterator[Image]:
        for number in range(9):
            frame[:] = 0
            frame[:, :, number % 3] = 255
            yield frame

    with open_classifier(model) as classifier:
        for batch in (1, 2, 32):
            assert [one.label for one in classifier.predict(camera(), batch=batch)] == list(COLOURS) * 3


def test_the_frames_of_an_animation(model: Path, tmp_path: Path) -> None:
    """Pillow's iterator gives the same image at each frame's turn."""
    frames = [PIL.Image.fromarray(frame) for frame in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with open_classifier(model) as classifier, PIL.Image.open(tmp_path / "a.gif") as animation:
        for batch in (1, 32):
            found = classifier.predict(PIL.ImageSequence.Iterator(animation), batch=batch)
            assert [one.label for one in found] == ["green", "red", "blue"]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("batch", [1, 32])
def test_a_single_image_starts_no_thread(
    model: Path, tmp_path: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    with open_classifier(model) as classifier:
        monkeypatch.setattr(threading.Thread, "start", lambda thread: names.append(thread.name))
        for image in kinds(files_of(tmp_path, 1)[0]):
            assert classifier.predict(image, batch=batch)[0].label == "red"
            assert classifier.predict([image], batch=batch)[0].label == "red"
        assert len(classifier.predict(np.stack([RED] * 5), batch=batch)) == 5
    assert names == []


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ResourceError("device lost")], ids=repr)
def test_no_thread_stays_when_the_network_fails(
    model: Path, tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[list[str]] = []

    def failing(_: Feeds) -> Arrays:
        alive.append(decoders())
        raise error

    with open_classifier(model) as classifier:
        monkeypatch.setattr(classifier.runtime, "infer", failing)
        with pytest.raises(type(error)) as caught:
            classifier.predict(files_of(tmp_path, 12), batch=2)
        assert caught.value is error
        assert len(alive[0]) == 4
        assert not decoders()  # though the error still holds the frames


@pytest.mark.usefixtures("four_threads")
def test_many_threads_decode_at_once(model: Path, tmp_path: Path) -> None:
    images = files_of(tmp_path, 24)
    wrong: list[object] = []
    with open_classifier(model) as classifier:
        serial = [classifier.predict(image)[0] for image in images]

        def work(batch: int) -> None:
            for _ in range(5):
                if classifier.predict(iter(images), batch=batch) != serial:
                    wrong.append(batch)
                try:
                    classifier.predict([*images[:batch], b"", *images], batch=batch)
                    wrong.append("no error")
                except InputError as error:
                    if str(error) != f"image {batch}: the image file is empty":
                        wrong.append(str(error))

        callers = [threading.Thread(target=work, args=(batch,)) for batch in (1, 3, 8, 24)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not wrong
    assert not decoders()
