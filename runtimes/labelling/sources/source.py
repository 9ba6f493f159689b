"""``ImageSource``: what every form of a source provides, and a listed image."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import SUFFIXES
from runtimes.labelling.job import SourceKind


class ListedImage(NamedTuple):
    """An image of a listing.

    Attributes:
        uri: The name of the image in the output: a path below the root of the source, or a URI.
        container: The name of the archive or table that holds the content, or ``None`` if the URI leads to it.
        offset: The position in the container: the first byte, or the row.
        size_bytes: The size of the content in an archive.
        target: The class of the image according to a table, or ``None`` if unknown.
    """

    uri: str
    container: str | None = None
    offset: int | None = None
    size_bytes: int | None = None
    target: str | None = None


class ImageSource(Protocol):
    """A source of images. ``contents`` is called by one thread, and ``read`` by many.

    Attributes:
        kind: The form of the source.
        root: The folder or prefix that relative URIs start from.
        left_out: The files that are no images, counted while ``images`` yields.
    """

    kind: SourceKind
    root: str
    left_out: LeftOutFiles

    def images(self) -> Iterator[ListedImage]:
        """Yield all images in an order that depends on nothing but the source. Holds one folder in memory at most.

        Raises:
            ArtifactError: An archive or a table is damaged, or lacks the expected columns.
            ResourceError: A folder or a file cannot be read.
        """

    def seal(self) -> str:
        """Return a text that changes with the content of the containers, which the list of images does not show."""

    def contents(self, images: Sequence[ListedImage]) -> Iterator[str | bytes]:
        """Yield for each image its content, or its URI if ``read`` should fetch it in a thread.

        Raises:
            ArtifactError: A table is damaged.
            ResourceError: A table cannot be read.
        """

    def read(self, image: ListedImage, content: str | bytes) -> bytes:
        """Return the encoded image.

        Args:
            image: The image.
            content: The content or URI that ``contents`` yielded for it.

        Raises:
            ResourceError: The file or object is missing or unreadable.
            InputError: The URI is empty or leads nowhere.
        """

    def close(self) -> None:
        """Close the files."""


def is_image_name(name: str) -> bool:
    """Return whether a file counts as an image: not hidden, and with the suffix of an image format."""
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in SUFFIXES


def unicode_name(name: str) -> str:
    r"""Return a name as text that Parquet can hold. Bytes that are not UTF-8 become escapes, such as ``caf\xe9``."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return name


def name_in_folder(name: str) -> str:
    """Return the name that ``unicode_name`` has turned into ``name``, if it had bytes that are not UTF-8."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda escape: chr(0xDC00 + int(escape[1], 16)), name)
