"""``ParquetSource``: images in the rows of Parquet files, as URIs or as encoded bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

from runtimes.errors import ArtifactError, quote
from runtimes.images.left_out import LeftOutFiles
from runtimes.labelling.job import SourceKind
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.sources.uris import UriReader
from runtimes.labelling.stores import Store

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

BATCH_ROWS = 1 << 14
"""The number of rows of URIs that are in memory at once."""

CONTENT_ROWS = 16
"""The number of rows of encoded images that are read at once."""

BUFFER_BYTES = 1 << 20
"""The size of the pieces in which a column is read, so that a row group is never in memory as a whole."""

_TAIL_BYTES = 8
"""The size of the end of a Parquet file: the length of the footer before it, in 4 bytes, and the name of the format."""

HUGGING_FACE = "image.bytes"
"""The column of encoded images in the Parquet files of Hugging Face data sets."""


class ParquetSource:
    """The rows of one or several Parquet files, in the order of the files.

    The column ``bytes`` (or ``image`` with a field ``bytes``) holds encoded images. Without it, the column ``uri``
    holds paths and URIs, and relative paths start from the folder of the files. The column ``label`` is optional.

    Args:
        store: The folder of the files.
        names: The names of the files.

    Raises:
        ArtifactError: A file is not a Parquet file, or lacks the columns.
    """

    kind: SourceKind = "parquet"

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._store = store
        self._names = tuple(names)
        self._reader = UriReader(store)
        self._opened: tuple[str, ParquetFile] | None = None
        self.root = store.root
        self.left_out = LeftOutFiles()
        self._column = self._content_column(self._names[0])

    def _content_column(self, name: str) -> str:
        """Return the column that holds the images or their URIs."""
        schema = self._file(name).schema_arrow
        for column, field in (("bytes", "bytes"), (HUGGING_FACE, "image"), ("uri", "uri")):
            if field in schema.names and (column == field or _has_bytes(schema.field(field).type)):
                return column
        raise ArtifactError(
            f"the table has neither a column uri nor a column bytes, only {quote(', '.join(schema.names))}",
            code="table-columns-missing",
            path=f"{self.root}/{name}",
            hint="rename the column that holds paths or URIs to uri",
        )

    def _file(self, name: str) -> ParquetFile:
        """Return an opened file. Only one is open at a time."""
        from pyarrow.parquet import ParquetFile

        if self._opened is None or self._opened[0] != name:
            self.close()
            with self._translating(name):
                self._opened = name, ParquetFile(self._store.open(name), buffer_size=BUFFER_BYTES)
        assert self._opened is not None
        return self._opened[1]

    @contextmanager
    def _translating(self, name: str) -> Iterator[None]:
        import pyarrow

        try:
            yield
        except ArtifactError as error:
            raise ArtifactError(error.what, code=error.code, path=f"{self.root}/{name}") from error
        except (pyarrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            raise ArtifactError(
                f"the Parquet file cannot be read: {quote(' '.join(str(error).split()))}",
                code="table-damaged",
                path=f"{self.root}/{name}",
            ) from error

    def images(self) -> Iterator[ListedImage]:
        """Yield the rows. An image without a URI is called after its file and its row, for example ``a.parquet#7``."""
        for name in self._names:
            with self._translating(name):
                yield from self._rows(name)

    def _rows(self, name: str) -> Iterator[ListedImage]:
        file = self._file(name)
        encoded = self._column != "uri"
        columns = [column for column in ("uri", "label") if column in file.schema_arrow.names]
        container, row = (name if encoded else None), 0
        for batch in file.iter_batches(BATCH_ROWS, columns=columns):
            count = batch.num_rows
            uris = _texts(batch, "uri") or ([None] * count if encoded else [""] * count)
            targets = _texts(batch, "label") or [None] * count
            for uri, target in zip(uris, targets, strict=True):
                text = f"{name}#{row}" if uri is None and encoded else uri or ""
                yield ListedImage(text, container, row if encoded else None, None, target)
                row += 1

    def seal(self) -> str:
        """Return the footers' digests of the files that hold images."""
        if self._column == "uri":
            return ""
        return "\n".join(f"{name} {self._footer_digest(name)}" for name in self._names)

    def _footer_digest(self, name: str) -> str:
        """Return the digest of the footer of a file: the places, sizes and statistics of all its columns.

        The bytes are digested, because pyarrow 26 ends the process if statistics in them are damaged and asked for.
        """
        with self._translating(name), self._store.open(name) as file:
            end = file.size() - _TAIL_BYTES
            length = int.from_bytes(file.read_at(4, end), "little")
            return hashlib.sha256(file.read_at(length, max(0, end - length))).hexdigest()

    def contents(self, images: Sequence[ListedImage]) -> Iterator[str | bytes]:
        """Yield the URIs or, row by row, the encoded images."""
        if self._column == "uri":
            yield from (image.uri for image in images)
            return
        for container, group in groupby(images, key=lambda image: image.container):
            rows = [image.offset or 0 for image in group]
            with self._translating(container or ""):
                yield from self._read_rows(self._file(container or ""), rows[0], len(rows))

    def _read_rows(self, file: ParquetFile, first: int, count: int) -> Iterator[bytes]:
        """Yield ``count`` encoded images from the row ``first`` on. A missing value is empty."""
        groups, before, row = [], 0, 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row + rows <= first:
                before += rows
            elif row < first + count:
                groups.append(group)
            row += rows
        skip = first - before
        for batch in file.iter_batches(CONTENT_ROWS, row_groups=groups, columns=[self._column]):
            kept = batch.slice(min(skip, batch.num_rows), count)
            skip = max(0, skip - batch.num_rows)
            count -= kept.num_rows
            yield from (value or b"" for value in _values(kept))
            if not count:
                return
        raise ArtifactError(f"the Parquet file has {count} rows fewer than it says", code="table-rows-missing")

    def read(self, image: ListedImage, content: str | bytes) -> bytes:
        """Return the encoded image: the content itself, or what is behind the URI."""
        return content if isinstance(content, bytes) else self._reader.read(image.uri)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened[1].close(force=True)
            self._opened = None


def _has_bytes(type: pyarrow.DataType) -> bool:
    return any(type.field(index).name == "bytes" for index in range(type.num_fields))


def _texts(batch: pyarrow.RecordBatch, column: str) -> list[str | None] | None:
    """Return a column as texts, or ``None`` if the batch does not have it."""
    if column not in batch.schema.names:
        return None
    import pyarrow

    values: list[str | None] = batch.column(column).cast(pyarrow.string()).to_pylist()
    return values


def _values(batch: pyarrow.RecordBatch) -> list[bytes | None]:
    column = batch.column(0)
    values: list[bytes | None] = (column.field(0) if batch.schema.names[0] == "image" else column).to_pylist()
    return values
