from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from benchmarks.accuracy.predictions import Predictions
from benchmarks.worker import evaluate
from benchmarks.worker.evaluate import AHEAD, prefetch
from exporter.data.dataset import Dataset, Unreadable
from runtimes.backends import fake, registry
from runtimes.errors import CheckFailedError, InputError
from runtimes.images.preprocessing import Image, Preprocessing, fit_image, normalise
from runtimes.protocol import Array
from scripts.figures.evaluation import LEAST, _figure
from tests.benchmarks.scripts import JOB, RAW, SCRIPT, artifact, with_batch
from tests.exporter.datasets import folder_of, png
from tests.processes import default_interrupt
from tests.refusals import refuses

WAIT_S = 30


class Source:
    """Numbers that are given when they may be, and a record of which."""

    def __init__(self, count: int, spoilt: int | None = None) -> None:
        self.count, self.spoilt = count, spoilt
        self.begun: list[int] = []
        self.threads: set[str] = set()
        self.closed = threading.Event()

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self.count):
                self.begun.append(number)
                self.threads.add(threading.current_thread().name)
                if number == self.spoilt:
                    raise InputError(f"item {number} is spoilt")
                yield number
        finally:
            self.closed.set()


def preparing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prepare")]


def settled(source: Source, count: int) -> list[int]:
    """What the source has begun, once it is at the given number and has had time to go further."""
    deadline = time.monotonic() + WAIT_S
    while len(source.begun) < count and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    return source.begun


def test_items_come_in_order_from_a_thread_of_their_own() -> None:
    source = Source(50)
    assert list(prefetch(source.items())) == list(range(50))
    assert source.threads == {"prepare_0"}
    assert source.closed.is_set()
    assert preparing() == []


def test_nothing_ahead_of_nothing() -> None:
    assert list(prefetch(Source(0).items())) == []


def test_so_many_are_drawn_ahead_and_no_more() -> None:
    source = Source(50)
    with closing(prefetch(source.items())) as items:
        assert next(items) == 0
        assert settled(source, 1 + AHEAD) == list(range(1 + AHEAD))
        assert next(items) == 1
        assert settled(source, 2 + AHEAD) == list(range(2 + AHEAD))


def test_drawing_and_taking_overlap() -> None:
    """The taker waits, while it has an item, for the next one to be under way: in turn that would last for ever."""
    under_way = [threading.Event() for _ in range(4)]

    def items() -> Generator[int, None, None]:
        for number, event in enumerate(under_way):
            event.set()
            yield number

    taken = [number for number in prefetch(items(), most=1) if under_way[min(number + 1, 3)].wait(WAIT_S)]
    assert taken == [0, 1, 2, 3]


def test_an_error_comes_at_its_turn_and_ends_the_thread() -> None:
    source = Source(10, spoilt=2)
    items = prefetch(source.items())
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(InputError, match="item 2"):
        next(items)
    assert source.closed.is_set()
    assert preparing() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whoever_leaves_early_leaves_no_thread(error: type[BaseException]) -> None:
    source = Source(1000)

    def interrupted() -> None:
        with closing(prefetch(source.items())) as items:
            next(items)
            raise error

    with pytest.raises(error):
        interrupted()
    assert source.closed.is_set()
    assert len(source.begun) <= 2 + AHEAD
    assert preparing() == []


ENDLESS = """
import itertools
from contextlib import closing
from benchmarks.worker.evaluate import prefetch
with closing(prefetch(number for number in itertools.count())) as items:
    for item in items:
        if item == 1000:
            print("under way", flush=True)
"""


def test_an_interrupt_ends_a_process_that_has_items_drawn() -> None:
    with default_interrupt():
        process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"under way\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith(b"KeyboardInterrupt")


# The whole of it


def greys(root: Path, broken: int | None = None) -> Path:
    """A black and a white class with 10 images that take turns by name, so that right answers tell them apart."""
    contents = {
        f"{'white' if number % 2 else 'black'}/{number:02}.png": png(255 * (number % 2)) for number in range(10)
    }
    if broken is not None:
        name = next(name for name in contents if name.endswith(f"/{broken:02}.png"))
        contents[name] = contents[name][:40]
    return folder_of(root / "greys", contents)


TWO_CLASSES = replace(RAW, outputs=(replace(RAW.outputs[0], shape=("batch", 2)),), scale=1.0)


def evaluated(tmp_path: Path, data: Path, batch: int, broken: list[Unreadable]) -> tuple[Predictions, list[str]]:
    steps: list[str] = []
    path = artifact(tmp_path, with_batch(TWO_CLASSES, batch))
    with runtimes.open(path, "fake") as runtime:
        found = evaluate.evaluate(replace(JOB, data=str(data)), runtime, broken, steps.append)
    return found, steps


def test_a_scripted_network_is_right_on_all_images(tmp_path: Path) -> None:
    """Of black images both logits are 0, and the lower class is the better; of white ones the higher."""
    found, steps = evaluated(tmp_path, greys(tmp_path), 4, [])
    np.testing.assert_array_equal(found.indices, np.arange(10))
    np.testing.assert_array_equal(found.targets, [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(found.best[:, 0], found.targets)
    assert [step.split()[1:] for step in steps] == [["0", "of", "10"], ["4", "of", "10"], ["8", "of", "10"]]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("broken", range(10))
def test_a_corrupt_image_is_named_and_shifts_no_other(tmp_path: Path, broken: int, batch: int) -> None:
    named: list[Unreadable] = []
    found, _ = evaluated(tmp_path, greys(tmp_path, broken), batch, named)
    place = broken // 2 + 5 * (broken % 2)  # by class first
    np.testing.assert_array_equal(found.indices, [index for index in range(10) if index != place])
    np.testing.assert_array_equal(found.targets, found.indices >= 5)
    np.testing.assert_array_equal(found.best[:, 0], found.targets)
    assert [(one.index, Path(one.label).name) for one in named] == [(place, f"{broken:02}.png")]


def test_a_logit_that_is_not_finite_ends_it_and_leaves_no_thread(tmp_path: Path) -> None:
    path = artifact(tmp_path, replace(with_batch(TWO_CLASSES, 2), scale=1e300))
    job = replace(JOB, data=str(greys(tmp_path)))
    with (
        runtimes.open(path, "fake") as runtime,
        np.errstate(over="ignore"),
        refuses(CheckFailedError, "logits-not-finite", "1 of 2", "image 5"),
    ):
        evaluate.evaluate(job, runtime, [], lambda _: None)
    assert preparing() == []


def test_noise_goes_the_same_way(tmp_path: Path) -> None:
    with runtimes.open(artifact(tmp_path, SCRIPT), "fake") as runtime:
        found = evaluate.evaluate(replace(JOB, limit=30), runtime, [], lambda _: None)
    assert len(found.indices) == 30
    assert found.targets is None


# What it costs


@pytest.mark.parametrize(
    ("bare_s", "same", "holds"),
    [(LEAST + 0.01, True, True), (LEAST - 0.01, True, False), (LEAST + 0.01, False, False)],
)
def test_the_figure_is_missed_where_it_is_slow_or_wrong(bare_s: float, same: bool, holds: bool) -> None:
    figure = _figure(1000, [1.0] * 3, [bare_s] * 3, same)
    assert figure.holds is holds
    ratio, speed = f"{bare_s:.3f} x [{bare_s:.3f}, {bare_s:.3f}]", f"1,000 against {1000 / bare_s:,.0f} images/s"
    assert figure.value.startswith(f"{ratio}, {speed}, ")
    assert bool(figure.notes) is not same


# Arrays are fitted a batch at a time


@pytest.mark.parametrize("resize", [None, 6, 9])
@pytest.mark.parametrize(("crop", "pad"), [((6, 8), 0), ((6, 8), 2), ((5, 3), 1), ((9, 9), 0)])
@pytest.mark.parametrize(("colours", "channels"), [((), 1), ((), 3), ((1,), 3), ((3,), 3), ((3,), 1)])
def test_arrays_are_fitted_together_as_one_by_one(
    colours: tuple[int, ...], channels: int, crop: tuple[int, int], pad: int, resize: int | None
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 6, 8, *colours), np.uint8)
    preprocessing = Preprocessing(resize, crop, pad, (0.3,) * channels, (0.6,) * channels)
    dataset = Dataset("it", ("a",), np.zeros(7, np.int64), pixels, [str(number) for number in range(7)])
    single: list[Image] = list(pixels)
    expected = np.stack([fit_image(image, preprocessing) for image in single])
    raw, floats = list(dataset.pixels(preprocessing, 3)), list(dataset.batches(preprocessing, 3))
    assert [len(indices) for indices, _ in raw] == [len(batch) for _, batch in floats] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([indices for indices, _ in raw]), np.arange(7))
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in raw]), expected)
    np.testing.assert_array_equal(np.concatenate([batch for _, batch in floats]), normalise(expected, preprocessing))
    assert all(batch.flags.c_contiguous and batch.flags.writeable for _, batch in raw)
    assert not any(np.shares_memory(batch, pixels) for _, batch in raw)


def test_the_evaluation_keeps_to_a_prepared_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 images in batches of 4, of which the last is filled up."""
    monkeypatch.setattr(registry, "find_backend", lambda _: replace(fake.BACKEND, prepares_batches=("cpu",)))
    job, sizes = replace(JOB, batch=4, limit=13), list[int]()
    with runtimes.open(artifact(tmp_path, SCRIPT), "fake") as runtime:
        infer = runtime.infer

        def counted(feeds: dict[str, Array]) -> dict[str, Array]:
            sizes.append(len(feeds["input"]))
            return infer(feeds)

        monkeypatch.setattr(runtime, "infer", counted)
        predicted = evaluate.evaluate(job, runtime, [], lambda _: None)
    assert sizes == [4, 4, 4, 4]
    np.testing.assert_array_equal(predicted.indices, np.arange(13))
