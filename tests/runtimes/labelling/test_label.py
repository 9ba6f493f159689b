"""Whole jobs in this process: what is written, what continues, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtimes import Artifact, Classifier
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    ModelMismatchError,
    ResourceError,
    RexportError,
    UsageError,
)
from runtimes.labelling.in_process import InProcessExecutor
from runtimes.labelling.label import ErrorLimit
from runtimes.labelling.labeller import ShardLabeller
from runtimes.labelling.output import LabellingOutput
from runtimes.labelling.parts import join_rows, part_name
from runtimes.labelling.stores import LocalStore
from runtimes.labelling.work import ShardWork, WorkerSettings
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import WITH_FEATURES, digests, request, rows, run, write_images
from tests.samples import WIDER


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-five images, and three that cannot be read. Shared: not to be changed."""
    folder = write_images(tmp_path_factory.mktemp("photos"), 25)
    whole = (folder / "bee" / "0001.png").read_bytes()
    (folder / "bee" / "cut.png").write_bytes(whole[:60])
    (folder / "bee" / "empty.jpg").write_bytes(b"")
    (folder / "bee" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / ".hidden.png").write_bytes(whole)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_every_image_has_the_label_that_the_classifier_gives(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    artifact = fake_artifact(WITH_FEATURES).path
    result = run(request(photos, artifact, tmp_path / "out", top=3, features=True))
    found = rows(tmp_path / "out")
    assert (result.counts.images, len(found)) == (28, 28)
    assert [row["uri"] for row in found] == sorted(row["uri"] for row in found)
    good = [row for row in found if row["error"] is None]
    with Classifier.open(artifact) as classifier:
        paths = [photos / row["uri"] for row in good]
        predictions, features = classifier.predict(paths, top=3), classifier.embed(paths)
    for row, prediction, values in zip(good, predictions, features, strict=True):
        assert row["top_labels"] == [label.name for label in prediction.labels]
        assert row["top_indices"] == [label.index for label in prediction.labels]
        np.testing.assert_allclose(row["top_probabilities"], [label.probability for label in prediction.labels])
        assert (row["label"], row["index"]) == (prediction.label, prediction.labels[0].index)
        assert math.isclose(row["probability"], prediction.probability, rel_tol=1e-6)
        np.testing.assert_array_equal(np.array(row["features"], np.float32), values)


def test_a_broken_image_is_a_row_with_its_error(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    result = run(request(photos, fake_artifact().path, tmp_path / "out", top=2))
    broken = {row["uri"]: row for row in rows(tmp_path / "out") if row["error_code"] is not None}
    assert {uri: row["error_code"] for uri, row in broken.items()} == {
        "bee/cut.png": "image-broken",
        "bee/empty.jpg": "image-file-empty",
        "bee/gone.jpg": "file-access-failed",
    }
    assert all(
        row["label"] is row["index"] is row["probability"] is row["top_labels"] is None for row in broken.values()
    )
    assert result.counts.errors == {"file-access-failed": 1, "image-broken": 1, "image-file-empty": 1}
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text()) == {"images": 28, "errors": result.counts.errors}


def test_a_second_run_writes_only_what_is_missing(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    asked = request(photos, fake_artifact().path, tmp_path / "out")
    first = run(asked)
    before = digests(tmp_path / "out")
    assert first.progress.executed == 28
    assert run(asked).progress.executed == 0
    assert digests(tmp_path / "out") == before
    (tmp_path / "out" / part_name(1)).unlink()
    assert run(asked).progress.executed == 10
    assert digests(tmp_path / "out") == before


def test_threads_and_another_place_give_the_same_bytes(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    artifact = fake_artifact().path
    run(request(photos, artifact, tmp_path / "one"))
    moved = shutil.copytree(photos, tmp_path / "moved", symlinks=True)
    run(request(moved, artifact, tmp_path / "two", threads=2, decoding_threads=2))
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert {name for name in one if one[name] != two[name]} == {"_job.json"}  # which names the source


def test_pieces_of_a_shard_have_the_rows_of_the_whole(photos: Path, onnx_artifact: Artifact, tmp_path: Path) -> None:
    settings: list[WorkerSettings] = []

    def start(given: WorkerSettings) -> InProcessExecutor:
        settings.append(given)
        return InProcessExecutor(given)

    result = run(request(photos, onnx_artifact.path, tmp_path / "out", shard=28, batch=8, top=3), start)
    whole = (tmp_path / "out" / part_name(0)).read_bytes()
    with ShardLabeller.open(settings[0]) as labeller:
        works = [
            ShardWork(0, start, stop, whole=False) for start, stop in ((0, 8), (8, 9), (9, 13), (13, 14), (14, 28))
        ]
        pieces = [labeller.label(work, lambda _: None) for work in works]
    table = join_rows([piece.rows or b"" for piece in pieces])
    LabellingOutput(str(tmp_path / "pieces"), result.job).write_part(0, table)
    assert (tmp_path / "pieces" / part_name(0)).read_bytes() == whole


def test_another_artifact_is_refused(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    run(request(photos, fake_artifact().path, tmp_path / "out"))
    with refuses(ModelMismatchError, "job-artifact-differs"):
        run(request(photos, fake_artifact(replace(WIDER), "other.fake").path, tmp_path / "out"))


def test_an_artifact_that_changes_during_the_job_is_refused(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    def change(settings: WorkerSettings) -> InProcessExecutor:
        fake_artifact(WIDER)
        return InProcessExecutor(settings)

    with refuses(ModelMismatchError, "artifact-changed"):
        run(request(photos, fake_artifact().path, tmp_path / "out"), change)


@pytest.mark.parametrize("change", ["more", "fewer", "renamed"])
def test_another_listing_is_refused(fake_artifact: FakeFactory, tmp_path: Path, change: str) -> None:
    source, artifact = write_images(tmp_path / "photos", 25), fake_artifact().path
    run(request(source, artifact, tmp_path / "out"))
    before = digests(tmp_path / "out")
    image = source / "bee" / "0023.png"
    if change == "more":
        shutil.copy(image, source / "bee" / "9999.png")
    elif change == "fewer":
        image.unlink()
    else:
        image.rename(source / "bee" / "0023b.png")
    with refuses(ModelMismatchError, "listing-changed"):
        run(request(source, artifact, tmp_path / "out"))
    assert digests(tmp_path / "out") == before


@pytest.mark.parametrize("option", [{"shard": 11}, {"top": 2}, {"batch": 5}, {"backend": "fake"}, {"device": "cpu"}])
def test_other_options_are_refused(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, option: dict[str, object]
) -> None:
    artifact = fake_artifact().path
    run(request(photos, artifact, tmp_path / "out"))
    with refuses(ModelMismatchError, "job-option-differs", *option):
        run(request(photos, artifact, tmp_path / "out", **option))


def test_a_part_of_another_job_is_refused(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    artifact = fake_artifact().path
    run(request(photos, artifact, tmp_path / "out"))
    run(request(photos, artifact, tmp_path / "other", top=2))
    shutil.copy(tmp_path / "other" / part_name(1), tmp_path / "out" / part_name(1))
    with refuses(ModelMismatchError, "part-of-another-job", part_name(1)):
        run(request(photos, artifact, tmp_path / "out"))


@pytest.mark.parametrize("content", ["whole", "damaged"])
@pytest.mark.parametrize("name", ["part-000003.parquet", "part-0000001.parquet", "part-1000000.parquet"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_part_that_no_shard_writes_is_refused(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, name: str, content: str, moment: str
) -> None:
    asked, out = request(photos, fake_artifact().path, tmp_path / "out"), tmp_path / "out"
    run(request(photos, asked.artifact, tmp_path / "other", top=2))
    stranger = (tmp_path / "other" / part_name(0)).read_bytes()

    def bring(*_: object) -> None:
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(stranger if content == "whole" else stranger[:50])

    if moment == "before":
        bring()
    with refuses(ModelMismatchError, "part-of-another-job", name):
        run(asked, progress=bring)
    assert (not (out / "_SUCCESS").exists(), (out / part_name(0)).exists()) == (True, moment == "after")
    (out / name).unlink()
    assert run(asked).counts.images == 28


@pytest.mark.parametrize(("kept", "code"), [(None, "part-of-another-job"), (50, "part-damaged")])
def test_a_refused_job_does_not_bind_the_folder(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, kept: int | None, code: str
) -> None:
    asked, out = request(photos, fake_artifact().path, tmp_path / "out"), tmp_path / "out"
    other = replace(asked, artifact=fake_artifact(replace(WIDER), "other.fake").path)
    run(asked)
    whole = digests(out)
    part = (out / part_name(0)).read_bytes()[:kept]
    shutil.rmtree(out)
    out.mkdir()
    (out / part_name(0)).write_bytes(part)
    with pytest.raises(RexportError) as refused:
        run(other)
    assert refused.value.code == code
    if kept is not None:
        (out / part_name(0)).unlink()  # as the message advises
    assert run(asked).progress.executed == (18 if kept is None else 28)
    assert digests(out) == whole


def test_a_damaged_part_does_not_release_the_folder(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    asked, damaged = request(photos, fake_artifact().path, tmp_path / "out"), tmp_path / "out" / part_name(0)
    run(asked)
    whole = digests(tmp_path / "out")
    damaged.write_bytes(b"PAR1")
    with refuses(ArtifactError, "part-damaged", damaged):
        run(asked)
    assert (tmp_path / "out" / "_job.json").exists()
    damaged.unlink()
    assert run(asked).progress.executed == 10
    assert digests(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("name", "code"),
    [("part-000001.parquet", "part-damaged"), ("_job.json", "json-invalid"), ("_listing", "listing-damaged")],
)
def test_a_damaged_file_of_the_output_is_named(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, name: str, code: str
) -> None:
    asked = request(photos, fake_artifact().path, tmp_path / "out")
    run(asked)
    path = tmp_path / "out" / name
    if path.is_dir():
        (path,) = path.iterdir()
        (tmp_path / "out" / part_name(1)).unlink()
    path.write_bytes(path.read_bytes()[:100])
    with refuses(ArtifactError, code, path.name):
        run(asked)


def test_a_larger_limit_of_errors_continues_a_job(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    asked = request(photos, fake_artifact().path, tmp_path / "out")
    with refuses(CheckFailedError, "too-many-errors", "image-broken 1"):
        run(replace(asked, max_errors=ErrorLimit(2, is_share=False)))
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run(asked).counts.images == 28


def test_too_many_errors_fail_also_when_nothing_is_left(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    asked = request(photos, fake_artifact().path, tmp_path / "out")
    run(asked)
    for _ in range(2):
        with refuses(CheckFailedError, "too-many-errors", "image-broken 1"):
            run(replace(asked, max_errors=ErrorLimit(2, is_share=False)))
        assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run(asked).progress.executed == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_retry_errors_labels_what_can_be_read_now(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 25)
    asked = request(source, fake_artifact().path, tmp_path / "out")
    image = source / "bee" / "0023.png"
    content = image.read_bytes()
    image.write_bytes(content[:50])
    assert run(asked).counts.errors == {"image-broken": 1}
    image.write_bytes(content)
    assert run(asked).progress.executed == 0
    again = run(replace(asked, retry_errors=True))
    assert (again.counts.errors, again.progress.executed) == ({}, 5)
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["errors"] == {}


def test_a_missing_or_empty_source_is_a_usage_error(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    with refuses(UsageError, "source-missing"):
        run(request(tmp_path / "nowhere", fake_artifact().path, tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with refuses(UsageError, "source-without-images"):
        run(request(tmp_path / "empty", fake_artifact().path, tmp_path / "out"))


def test_without_pyarrow_the_extra_is_named(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with refuses(BackendUnavailableError, "library-missing", "rexport[label]"):
        run(request(photos, fake_artifact().path, tmp_path / "out"))


@pytest.mark.parametrize("change", [{"top": "3"}, {"shard": 2.0}, {"batch": 0}, {"shard": 1_000_001}, {"top": 10**20}])
def test_numbers_are_integers_within_bounds(
    change: dict[str, Any], photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    with refuses(UsageError, "labelling-number-invalid", *map(repr, change.values())):
        run(request(photos, fake_artifact().path, tmp_path / "out", **change))


@pytest.mark.parametrize("stall_s", [0, -1.0, math.nan, math.inf])
def test_a_stall_that_is_never_or_always_is_refused(
    stall_s: float, photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    with refuses(UsageError, "stall-invalid", stall_s):
        run(request(photos, fake_artifact().path, tmp_path / "out", stall_s=stall_s))


@pytest.mark.parametrize(("value", "is_share"), [(math.nan, True), (1.01, True), (-1, False), (math.inf, False)])
def test_a_limit_of_errors_is_a_number_or_a_share(value: float, is_share: bool) -> None:
    with refuses(UsageError, "error-limit-invalid", value):
        ErrorLimit(value, is_share)


def test_the_output_folder_cannot_be_the_source(photos: Path, fake_artifact: FakeFactory) -> None:
    with refuses(UsageError, "output-is-source"):
        run(request(photos, fake_artifact().path, photos))


def test_features_that_the_network_lacks_are_refused_first(
    photos: Path, fake_artifact: FakeFactory, tmp_path: Path
) -> None:
    with refuses(ArtifactError, "features-absent"):
        run(request(photos, fake_artifact().path, tmp_path / "out", features=True))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_ends_the_job(photos: Path, fake_artifact: FakeFactory, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResourceError):
        run(request(photos, fake_artifact().path, tmp_path / "out"))


def test_a_file_that_another_machine_removes_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine on shared storage takes our temporary file for a dead process's, once."""
    store, thieves = LocalStore(tmp_path), iter([True])
    write = Path.write_bytes

    def write_and_lose(path: Path, content: bytes) -> int:
        count = write(path, content)
        if next(thieves, False):
            path.unlink()
        return count

    monkeypatch.setattr(Path, "write_bytes", write_and_lose)
    store.write("part", b"rows")
    assert (tmp_path / "part").read_bytes() == b"rows"
