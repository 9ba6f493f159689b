"""The listing in chunks: what it costs in memory, what continues it, and what is another listing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.errors import ArtifactError, ModelMismatchError
from runtimes.labelling import listing
from runtimes.labelling.listing import FOLDER, ListingReader, write_listing
from runtimes.labelling.parts import part_name
from runtimes.labelling.sources.folder import FolderSource
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.stores import LocalStore
from tests.conftest import FakeFactory
from tests.refusals import refuses
from tests.runtimes.labelling.jobs import digests, request, rows, run, write_images
from tests.runtimes.labelling.test_queue import job
from tests.runtimes.labelling.test_sources import archive


class CountedSource(FolderSource):
    """As many images as asked, with names of the usual length."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(LocalStore(folder))
        self._count = count

    def images(self) -> Iterator[ListedImage]:
        return (
            ListedImage(f"photographs/of/{number % 97:03}/image-{number:012}.jpeg") for number in range(self._count)
        )


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two shards of ten images."""
    monkeypatch.setattr(listing, "CHUNK_IMAGES", 20)


@pytest.mark.usefixtures("small_chunks")
def test_a_listing_of_several_chunks_is_read_shard_by_shard(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 45)
    result = run(request(source, fake_artifact().path, tmp_path / "out"))
    assert len(result.job.chunks) == 3
    names = [row["uri"] for row in rows(tmp_path / "out")]
    assert names == sorted(names)
    assert len(names) == 45
    reader = ListingReader(LocalStore(tmp_path / "out"), result.job)
    assert [image.uri for shard in (4, 0, 3) for image in reader.images(shard)] == names[40:] + names[:10] + names[
        30:40
    ]


@pytest.mark.usefixtures("small_chunks")
def test_a_lost_chunk_is_written_again(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    source = write_images(tmp_path / "photos", 45)
    asked = request(source, fake_artifact().path, tmp_path / "out")
    run(asked)
    before = digests(tmp_path / "out")
    sorted((tmp_path / "out" / FOLDER).iterdir())[1].unlink()
    (tmp_path / "out" / part_name(3)).unlink()
    run(asked)
    assert digests(tmp_path / "out") == before


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [40, 44, 46, 61])
def test_more_or_fewer_images_are_another_listing(fake_artifact: FakeFactory, tmp_path: Path, count: int) -> None:
    artifact = fake_artifact().path
    (tmp_path / "list.txt").write_text("".join(f"{number:04}.png\n" for number in range(45)))
    run(request(tmp_path / "list.txt", artifact, tmp_path / "out"))
    (tmp_path / "list.txt").write_text("".join(f"{number:04}.png\n" for number in range(count)))
    before = digests(tmp_path / "out")
    with refuses(ModelMismatchError, "listing-changed"):
        run(request(tmp_path / "list.txt", artifact, tmp_path / "out"))
    assert digests(tmp_path / "out") == before


@pytest.mark.usefixtures("small_chunks")
def test_a_source_that_breaks_leaves_no_listing(fake_artifact: FakeFactory, tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir()
    archive(tmp_path / "archives" / "a.tar", write_images(tmp_path / "photos", 45))
    broken = tmp_path / "archives" / "b.tar"
    broken.write_bytes(b"no archive" * 100)
    asked = request(broken.parent, fake_artifact().path, tmp_path / "out", kind="tar")
    with refuses(ArtifactError, "archive-unreadable"):
        run(asked)
    assert not (tmp_path / "out").exists()
    broken.unlink()
    assert run(asked).counts.images == 45


def test_the_memory_of_a_listing_does_not_grow_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHUNK_IMAGES", 1000)

    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        try:
            found = write_listing(CountedSource(tmp_path, count), LocalStore(tmp_path / f"{count}"), 100, None, _ignore)
            assert found.images == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(1000)  # imports
    assert peak_bytes(24_000) < 1.05 * peak_bytes(4_000) + (8 << 10)


def _ignore(count: int) -> None:
    """Progress that nobody wants."""


def test_rows_of_other_fields_have_another_digest(tmp_path: Path) -> None:
    def digest(*images: ListedImage) -> str:
        class Fixed(CountedSource):
            def images(self) -> Iterator[ListedImage]:
                return iter(images)

        return write_listing(Fixed(tmp_path, 0), LocalStore(tmp_path / "out"), 10, None, _ignore).sha256

    image = ListedImage("a", "b.tar", 1, 2, "ant")
    others = [
        ListedImage("A", "b.tar", 1, 2, "ant"),
        ListedImage("a", "B.tar", 1, 2, "ant"),
        ListedImage("a", "b.tar", 3, 2, "ant"),
        ListedImage("a", "b.tar", 1, 4, "ant"),
        ListedImage("a", "b.tar", 1, 2, None),
    ]
    assert len({digest(image), digest(image, image), *map(digest, others)}) == 7


def test_the_job_of_a_test_has_the_shards_of_its_images() -> None:
    plan = job(150)
    assert [plan.shard_images(shard) for shard in range(plan.shards)] == [64, 64, 22]
