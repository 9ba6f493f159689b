"""The listing of a source: written to the output folder in chunks, so that no process ever holds all of it.

A chunk is a Parquet file with a row group for each shard. Its name holds the digest of its rows, and the digest of the
listing is the digest of those digests. A second run lists the source again and compares chunk by chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

from runtimes import notices
from runtimes.errors import ArtifactError, ModelMismatchError, ResourceError, RexportError, UsageError, quote
from runtimes.images.preprocessing import SUFFIXES
from runtimes.labelling.job import LabellingJob
from runtimes.labelling.sources.source import ImageSource, ListedImage
from runtimes.labelling.stores import Store

if TYPE_CHECKING:
    import pyarrow

FOLDER = "_listing"
"""The folder of the chunks. Readers of Parquet ignore names that begin with an underscore."""

CHUNK_IMAGES = 1 << 16
"""The number of images in a chunk, rounded to whole shards. A chunk is in memory while it is written."""


def chunk_shards(shard: int) -> int:
    """Return the number of shards in a chunk, for shards of this size."""
    return max(1, CHUNK_IMAGES // shard)


def chunk_name(number: int, digest: str) -> str:
    """Return the path of a chunk in the output folder.

    Args:
        number: The number of the chunk, from 0.
        digest: The digest of its rows.
    """
    return f"{FOLDER}/{number:05}-{digest[:16]}.parquet"


@dataclass(frozen=True)
class ListingDigest:
    """The digest of a listing.

    Attributes:
        images: The number of images.
        chunks: The digests of the chunks, in order.
        seal: The digest of what the source says about its containers.
    """

    images: int
    chunks: tuple[str, ...]
    seal: str

    @property
    def sha256(self) -> str:
        """The digest of the whole listing."""
        return hashlib.sha256("\n".join([self.seal, *self.chunks]).encode()).hexdigest()


def write_listing(
    source: ImageSource, store: Store, shard: int, job: LabellingJob | None, progress: Callable[[int], None]
) -> ListingDigest:
    """List a source, and write the chunks that are not there yet.

    Args:
        source: The source.
        store: The output folder.
        shard: The number of images in a shard.
        job: The job that the output folder belongs to already, if there is one.
        progress: Receives the number of listed images after each shard.

    Raises:
        UsageError: The source has no images.
        ModelMismatchError: The listing is not that of the job.
        RexportError: As for ``ImageSource.images``. What was written is deleted, unless a ``ResourceError`` says that
            the same command may continue.
    """
    images, chunks, seal = 0, list[str](), hashlib.sha256(source.seal().encode()).hexdigest()
    try:
        for digest, listed in _write_chunks(source, store, shard, job):
            images += listed
            chunks.append(digest)
            progress(images)
    except ResourceError:
        raise
    except RexportError:
        if job is None:
            with suppress(RexportError):  # the source has an error of its own to raise
                delete_listing(store, chunks)
        raise
    if not images:
        raise UsageError(
            f"there are no images in {quote(source.root)}",
            code="source-without-images",
            hint=f"images of a folder are found by their suffixes, {' '.join(sorted(SUFFIXES))}"
            + (f"; the files here: {others}" if (others := source.left_out.counts()) else ""),
        )
    notice = source.left_out.notice(source.root)
    if notice is not None:
        notices.warn(notice)
    listing = ListingDigest(images, tuple(chunks), seal)
    if job is not None and listing.sha256 != job.listing_sha256:
        raise _change_error(job)
    return listing


def _write_chunks(source: ImageSource, store: Store, shard: int, job: LabellingJob | None) -> Iterator[tuple[str, int]]:
    """Write the chunks that are not there yet, and yield the digest of each chunk and the number of its images.

    Raises:
        ModelMismatchError: A chunk is not that of the job.
    """
    existing = {entry.name for entry in store.entries(FOLDER)}
    shards = _shards(source.images(), shard)
    for number in count():
        chunk = list(islice(shards, chunk_shards(shard)))
        if not chunk:
            return
        digest = hashlib.sha256("\n".join(lines_digest for lines_digest, _ in chunk).encode()).hexdigest()
        if job is not None and job.chunks[number : number + 1] != (digest,):
            raise _change_error(job)
        name = chunk_name(number, digest)
        if name.rpartition("/")[2] not in existing:
            store.write(name, _encode(chunk))
        yield digest, sum(table.num_rows for _, table in chunk)


def delete_listing(store: Store, chunks: Sequence[str]) -> None:
    """Delete the chunks of a listing, and their folder unless it has others.

    Args:
        store: The output folder.
        chunks: The digests of the chunks, in order.

    Raises:
        ResourceError: A chunk cannot be deleted.
    """
    for number, digest in enumerate(chunks):
        store.delete(chunk_name(number, digest))
    store.delete_empty(FOLDER)


def _change_error(job: LabellingJob) -> ModelMismatchError:
    return ModelMismatchError(
        f"the listing of the source is not the one of {job.images:,} images that this output began with",
        code="listing-changed",
        path=job.source,
        hint="choose another output folder, or restore the source",
    )


def _shards(images: Iterator[ListedImage], shard: int) -> Iterator[tuple[str, pyarrow.Table]]:
    """Yield each shard as the digest of its rows and a table."""
    import pyarrow

    schema = _schema()
    while rows := list(islice(images, shard)):
        text = "\n".join("\0".join("" if value is None else str(value) for value in row) for row in rows)
        columns = [
            pyarrow.array(column, type=field.type)
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        digest = hashlib.sha256(text.encode()).hexdigest()
        yield digest, pyarrow.table(columns, schema=schema)


def _schema() -> pyarrow.Schema:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int64()
    return pyarrow.schema(
        [("uri", text), ("container", text), ("offset", number), ("size_bytes", number), ("target", text)]
    )


def _encode(chunk: list[tuple[str, pyarrow.Table]]) -> bytes:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    buffer = pyarrow.BufferOutputStream()
    with ParquetWriter(buffer, _schema(), compression="zstd") as writer:
        for _, table in chunk:
            writer.write_table(table, row_group_size=table.num_rows)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


class ListingReader:
    """Reads the shards of a listing. Holds one chunk in memory.

    Args:
        store: The output folder.
        job: The job.
    """

    def __init__(self, store: Store, job: LabellingJob) -> None:
        self._store = store
        self._job = job
        self._chunk: tuple[int, bytes] = (-1, b"")

    def images(self, shard: int) -> list[ListedImage]:
        """Return the images of a shard.

        Raises:
            ResourceError: The chunk is missing or unreadable.
            ArtifactError: The chunk is damaged.
        """
        import pyarrow
        from pyarrow.parquet import ParquetFile

        number, group = divmod(shard, chunk_shards(self._job.shard))
        name = chunk_name(number, self._job.chunks[number])
        if self._chunk[0] != number:
            self._chunk = number, self._store.read(name)
        try:
            table = ParquetFile(pyarrow.BufferReader(self._chunk[1])).read_row_group(group)
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise ArtifactError(
                f"the listing in the output folder is damaged: {quote(error)}",
                code="listing-damaged",
                path=f"{self._store.root}/{name}",
                hint="remove this file; the same command writes it again",
            ) from error
        return [ListedImage(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
