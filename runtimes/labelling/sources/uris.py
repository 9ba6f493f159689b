"""Images by URI: from the lines of a text file, and how the content behind a URI is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from runtimes.errors import InputError, ResourceError, RexportError, UsageError
from runtimes.images.left_out import LeftOutFiles
from runtimes.labelling.job import SourceKind
from runtimes.labelling.sources.source import ListedImage
from runtimes.labelling.stores import Store, divide, open_store

MAX_LINE_BYTES = 1 << 16
"""The largest length of a line."""


class UriReader:
    """Reads the content behind URIs. Each bucket is connected to once. May be used by many threads.

    Args:
        store: The store that relative URIs start from.
    """

    def __init__(self, store: Store) -> None:
        self._stores: dict[str, Store] = {"": store}
        self._lock = threading.Lock()

    def read(self, uri: str) -> bytes:
        """Return the content.

        Raises:
            ResourceError: The file or object is missing or unreadable.
            InputError: The URI is empty or no possible path, or its scheme is unknown.
        """
        if not uri:
            raise InputError("the URI is empty", code="uri-empty")
        root, path = divide(uri)
        try:
            return self._store(root).read(path)
        except UsageError as error:  # a path with a NUL character is wrong in its row alone
            raise InputError(error.what, code=error.code, hint=error.hint) from error

    def _store(self, root: str) -> Store:
        with self._lock:
            if root not in self._stores:
                try:
                    self._stores[root] = open_store(root)
                except RexportError as error:
                    raise InputError(error.what, code=error.code, hint=error.hint) from error
            return self._stores[root]


class ListSource:
    """The lines of a text file, in their order: paths and URIs. Relative paths start from the folder of the file.

    Args:
        store: The folder of the file.
        name: The name of the file.
    """

    kind: SourceKind = "list"

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._reader = UriReader(store)
        self.root = store.root
        self.left_out = LeftOutFiles()

    def images(self) -> Iterator[ListedImage]:
        """Yield the lines that are not empty.

        Raises:
            ResourceError: The list cannot be read.
        """
        import io

        try:
            with io.BufferedReader(self._store.open(self._name)) as file:
                while line := file.readline(MAX_LINE_BYTES):
                    text = line.strip(b"\r\n").decode("utf-8", "backslashreplace")
                    if text.strip():
                        yield ListedImage(text)
        except OSError as error:
            raise ResourceError.from_os(error, f"{self.root}/{self._name}", "read") from error

    def seal(self) -> str:
        """Return an empty text, because the lines are the listing."""
        return ""

    def contents(self, images: Sequence[ListedImage]) -> Iterator[str | bytes]:
        """Yield the URIs."""
        return (image.uri for image in images)

    def read(self, image: ListedImage, content: str | bytes) -> bytes:  # noqa: ARG002
        """Return the content behind the URI.

        Args:
            image: The image.
            content: The URI.
        """
        return self._reader.read(image.uri)

    def close(self) -> None:
        """Do nothing, as files are open only while they are read."""
