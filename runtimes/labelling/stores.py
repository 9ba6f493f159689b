"""``Store``: files below a root, on this machine or in an object store.

Object stores are S3 (``s3://``), Google Cloud Storage (``gs://``) and Azure (``abfs://``), by ``pyarrow.fs``. It finds
credentials as the tools of the provider do. An object appears when its upload is complete, so a write is atomic.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from runtimes import files, folders
from runtimes.errors import ResourceError, UsageError, quote
from runtimes.images.preprocessing import MAX_FILE_BYTES

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs

CREDENTIALS = {
    "s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "gcs": "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
    "abfs": "set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or run az login",
    "abfss": "set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or run az login",
}
"""The schemes of object stores, and how a user gives each of them credentials."""

_DENIED = ("ACCESS_DENIED", "FORBIDDEN", "INVALID_ACCESS_KEY", "SIGNATURE", "CREDENTIAL", "403", "401", "UNAUTH")
"""The parts of messages by which the libraries of object stores refuse access, in upper case."""

_WRITES = 3
"""The number of attempts to write a local file whose temporary file disappears."""

GCS_RETRY_S = 60
"""The time for which Google's library repeats a request. Its own limit is 15 minutes."""


@dataclass(frozen=True)
class StoreEntry:
    """A file or a folder in a folder of a store.

    Attributes:
        name: The name in its folder.
        is_folder: Whether it is a folder.
    """

    name: str
    is_folder: bool


class Store(Protocol):
    """Files below a root. Paths are relative to the root, with slashes. Methods may be called from many threads.

    Attributes:
        root: The absolute path or the URI of the root.
    """

    root: str

    def kind(self, path: str = "") -> str:
        """Return ``file``, ``folder`` or ``missing``.

        Raises:
            ResourceError: The store cannot be reached, or refuses access.
        """

    def entries(self, path: str = "") -> list[StoreEntry]:
        """Return the content of a folder, sorted by name. A folder that is missing is empty.

        Raises:
            ResourceError: The folder cannot be read.
        """

    def read(self, path: str) -> bytes:
        """Return the content of a file of at most ``MAX_FILE_BYTES``.

        Raises:
            ResourceError: The file is missing, too large or unreadable.
        """

    def open(self, path: str) -> pyarrow.NativeFile:
        """Open a file for reading at any position. Many threads may call its ``read_at``. The caller closes it.

        Raises:
            ResourceError: The file is missing or unreadable.
        """

    def write(self, path: str, content: bytes) -> None:
        """Write a file. Readers find the old file or the new one, never a part of it.

        Args:
            path: The path of the file.
            content: Its content.

        Raises:
            ResourceError: The file cannot be written.
        """

    def delete(self, path: str) -> None:
        """Delete a file, if it is there.

        Raises:
            ResourceError: The file cannot be deleted.
        """

    def delete_empty(self, path: str) -> None:
        """Delete a folder, if it is there and empty.

        Raises:
            ResourceError: The store cannot be reached, or refuses access.
        """

    def filling(self) -> AbstractContextManager[None]:
        """Create the root if it is missing, for the ``with`` block to fill; if the block raises, no empty one is left.

        Raises:
            ResourceError: The root cannot be created or written.
        """


class LocalStore:
    """A folder on this machine."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = str(Path(root).resolve())

    def _path(self, path: str) -> Path:
        return Path(self.root, path)

    def kind(self, path: str = "") -> str:
        """Return ``file``, ``folder`` or ``missing``. A pipe or a device counts as a file, which ``read`` refuses.

        Raises:
            ResourceError: The system refuses access.
        """
        try:
            return "folder" if stat.S_ISDIR(self._path(path).stat().st_mode) else "file"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError as error:
            raise ResourceError.from_os(error, self._path(path), "read") from error

    def entries(self, path: str = "") -> list[StoreEntry]:
        """Return the content of a folder, sorted by name. Links to folders are left out.

        Raises:
            ResourceError: The folder cannot be read.
        """
        try:
            with os.scandir(self._path(path)) as found:
                listed = [(entry.name, entry.is_dir(follow_symlinks=False), entry) for entry in found]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResourceError.from_os(error, self._path(path), "read") from error
        return sorted(
            (StoreEntry(name, folder) for name, folder, entry in listed if folder or not _links_to_folder(entry)),
            key=lambda entry: entry.name,
        )

    def read(self, path: str) -> bytes:
        """Return the content of a regular file."""
        return files.read_bounded(self._path(path), MAX_FILE_BYTES)

    def open(self, path: str) -> pyarrow.NativeFile:
        """Open a regular file.

        Raises:
            ResourceError: The file is missing, unreadable or not regular.
        """
        from pyarrow import OSFile

        with files.open_regular(self._path(path)):  # a pipe would block
            try:
                return OSFile(os.fspath(self._path(path)))
            except OSError as error:
                raise ResourceError.from_os(error, self._path(path), "read") from error

    def write(self, path: str, content: bytes) -> None:
        """Write a temporary file, flush it and rename it. Folders that are missing are created.

        Args:
            path: The path of the file.
            content: Its content.

        Raises:
            ResourceError: The disk is full, or the folder is not writable.
        """
        target = self._path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError.from_os(error, target.parent, "write") from error
        for attempt in range(_WRITES):
            try:
                with files.write_atomically(target) as temporary:
                    temporary.write_bytes(content)
                return
            except ResourceError as error:
                # On shared storage, another machine takes our temporary file for that of an ended process.
                if error.errno != errno.ENOENT or attempt == _WRITES - 1:
                    raise

    def delete(self, path: str) -> None:
        """Delete a file, if it is there.

        Raises:
            ResourceError: The file cannot be deleted.
        """
        try:
            self._path(path).unlink(missing_ok=True)
        except OSError as error:
            raise ResourceError.from_os(error, self._path(path), "delete") from error

    def delete_empty(self, path: str) -> None:
        """Delete a folder, if it is there and empty."""
        with suppress(OSError):  # it is not empty
            self._path(path).rmdir()

    def filling(self) -> AbstractContextManager[None]:
        """Create the root and the folders above it, as ``folders.folder_to_fill`` does."""
        return folders.folder_to_fill(Path(self.root))


def _links_to_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and entry.is_dir()


class ObjectStore:
    """The objects below a prefix of a bucket or container.

    Args:
        root: The URI, for example ``s3://bucket/photos``. A query such as ``?endpoint_override=localhost:9000`` has the
            options that ``pyarrow.fs.FileSystem.from_uri`` knows.

    Raises:
        UsageError: The scheme is unknown, or the URI names no bucket.
    """

    def __init__(self, root: str) -> None:
        plain, _, query = root.partition("?")
        scheme, _, rest = plain.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme not in CREDENTIALS or not bucket:
            raise UsageError(
                f"{quote(root)} is not the URI of an object store",
                code="store-unknown",
                hint=f"expected a local path, or {', '.join(f'{name}://BUCKET/KEY' for name in CREDENTIALS)}",
            )
        self.root = plain.rstrip("/")
        self._scheme = scheme
        self._filesystem, base = _connect(scheme, bucket, query)
        self._base = f"{base}/{key}".rstrip("/")

    def _path(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base

    def kind(self, path: str = "") -> str:
        """Return ``file``, ``folder`` or ``missing``. A prefix of objects is a folder."""
        from pyarrow.fs import FileType

        with self._translating(path):
            found = self._filesystem.get_file_info(self._path(path)).type
        return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "missing")

    def entries(self, path: str = "") -> list[StoreEntry]:
        """Return the objects and the prefixes directly below a prefix, sorted by name."""
        from pyarrow.fs import FileSelector, FileType

        with self._translating(path):
            infos = self._filesystem.get_file_info(FileSelector(self._path(path), allow_not_found=True))
        found = (StoreEntry(info.base_name, info.type == FileType.Directory) for info in infos)
        return sorted(found, key=lambda entry: entry.name)

    def read(self, path: str) -> bytes:
        """Return the content of an object.

        Raises:
            ResourceError: The object is missing, too large or unreadable.
        """
        with self._translating(path), self._filesystem.open_input_file(self._path(path)) as file:
            size = file.size()
            if size > MAX_FILE_BYTES:
                raise ResourceError(
                    f"cannot read: the file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed",
                    code="file-too-large",
                    path=path,
                )
            content: bytes = file.read()
        return content

    def open(self, path: str) -> pyarrow.NativeFile:
        """Open an object. Each read is a request."""
        with self._translating(path):
            return self._filesystem.open_input_file(self._path(path))

    def write(self, path: str, content: bytes) -> None:
        """Upload an object.

        Args:
            path: The path of the object.
            content: Its content.
        """
        with self._translating(path), self._filesystem.open_output_stream(self._path(path)) as stream:
            stream.write(content)

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        if self.kind(path) == "file":
            with self._translating(path):
                self._filesystem.delete_file(self._path(path))

    def delete_empty(self, path: str) -> None:
        """Delete the object that some libraries write for a prefix, if no object lies below it."""
        if self.kind(path) == "folder" and not self.entries(path):
            with self._translating(path):
                self._filesystem.delete_dir(self._path(path))

    def filling(self) -> AbstractContextManager[None]:
        """Create nothing: a prefix is there as soon as an object is."""
        return nullcontext()

    @contextmanager
    def _translating(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ResourceError("no such object", code="object-missing", path=path, errno=errno.ENOENT) from error
        except OSError as error:
            text = str(error).upper()
            if isinstance(error, PermissionError) or any(word in text for word in _DENIED):
                raise ResourceError(
                    f"{quote(self.root)} refuses access: {_reason(error)}",
                    code="store-access-denied",
                    path=path or None,
                    hint=CREDENTIALS[self._scheme],
                    errno=errno.EACCES,
                ) from error
            raise ResourceError(
                f"{quote(self.root)} does not answer: {_reason(error)}",
                code="store-unreachable",
                path=path or None,
                hint="the same command continues when it does",
            ) from error


def _reason(error: OSError) -> str:
    return quote(" ".join(str(error).split()))


def _connect(scheme: str, bucket: str, query: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a bucket and the path of the bucket in it."""
    from pyarrow.fs import FileSystem

    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query}&retry_limit_seconds={GCS_RETRY_S}".lstrip("&")
    uri = f"{scheme}://{bucket}" + (f"?{query}" if query else "")
    try:
        found: tuple[Any, str] = FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise UsageError(f"{quote(uri)} cannot be opened: {quote(error)}", code="store-invalid") from error
    return found


def open_store(root: str) -> Store:
    """Return the store below a root: a URI of an object store, a ``file://`` URI, or a local path.

    Raises:
        UsageError: As for ``ObjectStore``.
    """
    scheme, separator, rest = root.partition("://")
    if separator and scheme == "file":
        from urllib.parse import unquote

        return LocalStore(unquote(rest))
    return ObjectStore(root) if separator else LocalStore(root)


def divide(uri: str) -> tuple[str, str]:
    """Return the root of a URI or of an absolute path, and the path below it. A relative path has no root: ``""``."""
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "file":
        from urllib.parse import unquote

        return "/", unquote(rest).lstrip("/")
    if separator:
        bucket, _, key = rest.partition("/")
        return f"{scheme}://{bucket}", key
    return ("/", uri.lstrip("/")) if uri.startswith("/") else ("", uri)
