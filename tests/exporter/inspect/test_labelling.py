"""What a labelling job shows, and the accuracy of its labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from exporter.export_request import ExportListener
from exporter.inspect.labelled_accuracy import (
    LabelEvaluation,
    LabelledAccuracy,
    _classes_of,
    _ListedClasses,
    _outputs_of,
    _parts_notice,
)
from exporter.inspect.labelling import LOG_S, LabellingProgress
from exporter.proportions import wilson
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import ModelMismatchError, Reason
from runtimes.labelling.driver import JobProgress
from runtimes.labelling.job import SourceKind
from runtimes.labelling.label import LabellingResult
from tests.conftest import FakeFactory
from tests.exporter.deploy.changes import change
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import request, rows, run, write_images
from tests.runtimes.labelling.test_queue import job
from tests.samples import SCRIPT


def measured(
    result: LabellingResult, artifact: Path, notify: Callable[[str | Reason], None] = lambda _: None
) -> LabelledAccuracy:
    """The accuracy of a finished job."""
    evaluation = LabelEvaluation(result.out, artifact, notify)
    evaluation.match(result.job)
    return evaluation.measure(result.job)


def folders(*names: str) -> _ListedClasses:
    """Classes that are folders of these names."""
    return _ListedClasses(set(names), set(), {()})


class Screen:
    """Remembers steps, notices and progress, under a clock that the test moves."""

    def __init__(self, live: bool) -> None:
        self.steps: list[str] = []
        self.notices: list[str | Reason] = []
        self.shares: list[tuple[float | None, str]] = []
        self.now_s = 0.0
        listener = ExportListener(
            self.steps.append, self.notices.append, lambda share, detail: self.shares.append((share, detail))
        )
        self.listener = LabellingProgress(listener, None, live, lambda: self.now_s).job_listener()

    def move(self, seconds: float, images: int, errors: int = 0) -> None:
        """Report after so many seconds that so many images are done."""
        self.now_s += seconds
        self.listener.progress(job(10_000), JobProgress(images, errors, images, 0))


def test_a_terminal_shows_the_rate_of_the_last_half_minute() -> None:
    screen = Screen(live=True)
    screen.listener.planned(job(10_000), JobProgress(0, 0, 0, 0))
    screen.move(0, 0)
    assert screen.steps[-1] == "opening the model"
    for _ in range(10):
        screen.move(10, 0)  # a model that takes long to open does not slow the rate down later
    screen.move(10, 1000)
    screen.move(10, 2000)
    screen.move(10, 3000, errors=2)
    screen.move(10, 4000, errors=2)
    share, detail = screen.shares[-1]
    assert (share, screen.steps[-1]) == (0.4, "labelling")
    assert "100 images/s" in detail
    assert "2 errors" in detail


@pytest.mark.parametrize(("live", "lines"), [(True, 0), (False, 3)])
def test_a_log_has_a_line_a_minute(live: bool, lines: int) -> None:
    screen = Screen(live)
    for number in range(int(3 * LOG_S / 10) + 1):
        screen.move(10, 100 * number)
    assert len(screen.notices) == lines
    assert all("images/s" in str(notice) and "left" in str(notice) for notice in screen.notices)


def test_numbers_of_a_table_are_the_outputs(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 20), fake_artifact().path
    paths = sorted(source.rglob("*.png"))
    run(request(source, artifact, tmp_path / "plain"))
    indices = [row["index"] for row in rows(tmp_path / "plain")]
    labels = [index if number % 4 else (index + 1) % 10 for number, index in enumerate(indices)]
    table = pyarrow.table({"bytes": [path.read_bytes() for path in paths], "label": labels})
    parquet.write_table(table, tmp_path / "a.parquet")
    result = run(request(tmp_path / "a.parquet", artifact, tmp_path / "out"))
    accuracy = measured(result, artifact)
    assert (accuracy.right, accuracy.images, accuracy.share) == (15, 20, 0.75)
    assert accuracy.interval == wilson(15, 20)


def test_classes_that_the_network_lacks_are_refused(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 6), fake_artifact().path
    result = run(request(source, artifact, tmp_path / "out"))
    with refuses(ModelMismatchError, "class-count-mismatch", 2, 10):
        measured(result, artifact)


def share_of(
    kept_classes: Sequence[int | str], artifact: Path, folder: Path, of: Callable[[int], int | str] = int
) -> tuple[float, list[str]]:
    """The accuracy of a folder of images in class folders, and the codes of the notices.

    Each image lies in the folder of the class that the network gives it, if there is one, else it is left out.
    """
    source = write_images(folder / "all", 40)
    run(request(source, artifact, folder / "plain"))
    kept = folder / "kept"
    for row in rows(folder / "plain"):
        name = of(row["index"])
        if name in kept_classes:
            (kept / str(name)).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / row["uri"], kept / str(name))
    result = run(request(kept, artifact, folder / "out"))
    heard: list[str | Reason] = []
    accuracy = measured(result, artifact, heard.append)
    return accuracy.share, [notice.code for notice in heard if isinstance(notice, Reason)]


def test_folders_named_as_labels_are_no_outputs(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact = fake_artifact().path
    labels = tuple(str(number) for number in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7))  # ten of twelve, sorted as text
    change(artifact, labels=labels)
    share, codes = share_of(labels, artifact, tmp_path, lambda index: labels[index])
    assert (share, codes) == (1.0, [])


def test_fewer_folders_than_classes_are_not_matched(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 6), fake_artifact().path
    change(artifact, labels=None)
    result = run(request(source, artifact, tmp_path / "out"))
    with refuses(ModelMismatchError, "class-count-mismatch", 2, 10):
        measured(result, artifact)


@pytest.mark.parametrize("labels", [None, tuple("klmnopqrst"), ("a", *"lmnopqrst")], ids=["none", "foreign", "some"])
def test_foreign_folders_are_matched_by_position_aloud(
    labels: tuple[str, ...] | None, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    source, artifact = write_images(tmp_path / "photos", 40, tuple("abcdefghij")), fake_artifact().path
    change(artifact, labels=labels)
    result = run(request(source, artifact, tmp_path / "out"))
    heard: list[str | Reason] = []
    measured(result, artifact, heard.append)
    (notice,) = heard
    assert isinstance(notice, Reason)
    assert notice.code == "artifact-classes-by-position"
    example = {None: "a is output 0", "k": "a is k", "a": "b is l"}[None if labels is None else labels[0]]
    assert notice.sentence.endswith(example)


def test_classes_of_a_file_that_says_nothing_are_unknown(fake_artifact: FakeFactory) -> None:
    artifact = fake_artifact()
    manifest_path(artifact.path).unlink()
    with refuses(ModelMismatchError, "label-classes-unknown", "--labels"):
        _outputs_of(folders("cat", "dog"), job(10), artifact.path, lambda _: None)
    assert _outputs_of(folders("3", "5"), job(10), artifact.path, lambda _: None) == {"3": 3, "5": 5}
    with refuses(ModelMismatchError, "class-order-numeric", "output 0", "may be 3", "or 11"):
        _outputs_of(folders("3", "11"), job(10), artifact.path, lambda _: None)


def test_numbers_beside_labels_are_announced_as_outputs(fake_artifact: FakeFactory) -> None:
    path = fake_artifact().path
    change(path, labels=("cat", "dog", *"cdefghij"))
    heard: list[str | Reason] = []
    assert _outputs_of(folders("3", "1"), job(10), path, heard.append) == {"1": 1, "3": 3}
    (notice,) = heard
    assert isinstance(notice, Reason)
    assert (notice.code, "1 is dog" in notice.sentence) == ("class-folders-by-number", True)


def test_numbers_of_folders_have_one_order(fake_artifact: FakeFactory) -> None:
    """Where the artifact has no labels, its outputs may be in the order of torchvision, which sorts 10 before 2."""
    wide = replace(SCRIPT, outputs=(replace(SCRIPT.outputs[0], shape=("batch", 12)),))
    path = fake_artifact(wide).path
    change(path, labels=None)

    def outputs(classes: _ListedClasses) -> dict[str, int]:
        return _outputs_of(classes, job(10), path, lambda _: None)

    numbers = [str(number) for number in range(12)]
    for names in (numbers, ["2", "3"]):
        with refuses(ModelMismatchError, "class-order-numeric", "output 2", "may be 2", "or 10", "--labels"):
            outputs(folders(*names))
    assert outputs(folders("0", "1")) == {"0": 0, "1": 1}
    assert outputs(folders("00", "01", "11")) == {"00": 0, "01": 1, "11": 11}
    assert outputs(_ListedClasses(set(), set(numbers), set())) == {number: int(number) for number in numbers}
    change(path, labels=tuple(numbers))
    assert outputs(folders("2", "10")) == {"2": 2, "10": 10}
    change(path, labels=tuple(sorted(numbers)))
    assert outputs(folders("2", "10")) == {"2": 4, "10": 2}
    change(path, labels=tuple("abcdefghijkl"))
    assert outputs(folders("2", "10")) == {"2": 2, "10": 10}


PLACES: list[tuple[set[tuple[str, ...]], SourceKind, tuple[str, ...]]] = [
    ({("train",), ("val",), ("test",)}, "folder", ("test, train, val:", "rexport label '/my photos/test' ...")),
    ({("data", "Train"), ("data", "Val")}, "folder", ("Train, Val:", "rexport label '/my photos/data/Val' ...")),
    ({("seg_train", "seg_train"), ("seg_test", "seg_test")}, "folder", ("rexport label '/my photos/seg_test' ...",)),
    ({("train",), ("test",)}, "tar", ("a source with the images of one part",)),
    ({("train",)}, "folder", ()),
    ({()}, "folder", ()),
    (set(), "parquet", ()),
    ({("bus",), ("train",)}, "folder", ()),
]


@pytest.mark.parametrize(("places", "kind", "values"), PLACES)
def test_parts_that_count_together_are_named(
    places: set[tuple[str, ...]], kind: SourceKind, values: tuple[str, ...]
) -> None:
    notice = _parts_notice(replace(job(10), source="/my photos", kind=kind), places)
    assert (notice is None) == (not values)
    assert notice is None or notice.code == "dataset-parts-together"
    assert all(value in str(notice) for value in values)


def test_one_output_stands_for_two_classes(fake_artifact: FakeFactory) -> None:
    single = replace(SCRIPT, outputs=(replace(SCRIPT.outputs[0], shape=("batch", 1)),))
    assert _classes_of(fake_artifact(single)) == 2


def test_a_job_without_labels_has_no_accuracy(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source, artifact = write_images(tmp_path / "photos", 2, ("class 0", "class 1")), fake_artifact().path
    for path in source.rglob("*.png"):
        path.write_bytes(b"broken")
    result = run(request(source, artifact, tmp_path / "out"))
    with refuses(ModelMismatchError, "accuracy-without-labels"):
        measured(result, artifact)
    shutil.rmtree(tmp_path / "out")


def test_a_number_beyond_the_outputs_is_refused(fake_artifact: FakeFactory) -> None:
    """Folders that are numbered from 1 would otherwise count as wrong, all of them."""
    path = fake_artifact().path
    numbers = {str(number) for number in range(1, 11)}
    with refuses(ModelMismatchError, "label-number-too-large", "10", "0 to 9"):
        _outputs_of(folders(*numbers), job(10), path, lambda _: None)
    assert _outputs_of(folders(*numbers - {"10"}), job(10), path, lambda _: None)["9"] == 9
