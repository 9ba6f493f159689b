"""``TarSource``: the images in tar archives, which are read where they lie and never unpacked."""

from __future__ import annotations

import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from runtimes.errors import ArtifactError, InputError, ResourceError, quote
from runtimes.images.left_out import LeftOutFiles
from runtimes.images.preprocessing import MAX_FILE_BYTES
from runtimes.labelling.job import SourceKind
from runtimes.labelling.sources.source import ListedImage, is_image_name, unicode_name
from runtimes.labelling.stores import Store
from runtimes.tar_errors import TAR_ERRORS

if TYPE_CHECKING:
    import pyarrow


class TarSource:
    """The images in one or several uncompressed archives, in the order of the archives.

    Args:
        store: The folder of the archives.
        names: The names of the archives.
    """

    kind: SourceKind = "tar"

    def __init__(self, store: Store, names: Sequence[str]) -> None:
        self._store = store
        self._names = tuple(names)
        self._files: dict[str, pyarrow.NativeFile] = {}
        self._lock = threading.Lock()
        self.root = store.root
        self.left_out = LeftOutFiles()

    def images(self) -> Iterator[ListedImage]:
        """Yield the images. Only the headers of the members are read.

        With several archives, the URI of an image begins with the name of its archive.
        """
        self.left_out = LeftOutFiles()
        for name in self._names:
            prefix = f"{name}/" if len(self._names) > 1 else ""
            for member in self._members(name):
                path = PurePosixPath(member.name)
                if member.isreg():
                    self.left_out.add(member.name)
                if member.isreg() and not member.issparse() and _is_shown(path):
                    yield ListedImage(unicode_name(f"{prefix}{path}"), name, member.offset_data, member.size)

    def _members(self, name: str) -> Iterator[tarfile.TarInfo]:
        file = self._file(name)
        try:
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
                    if member.size < 0:
                        raise tarfile.ReadError(f"the size of {member.name!r} is negative")
                    yield member
            if file.read_at(tarfile.BLOCKSIZE, archive.offset) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("the end mark is missing")
        except (*TAR_ERRORS, SystemError) as error:  # SystemError is pyarrow's for a negative size
            raise ArtifactError(
                f"the tar archive is truncated, compressed or damaged: {quote(error)}",
                code="archive-unreadable",
                path=f"{self.root}/{name}",
                hint="a compressed archive has to be unpacked first, for example with gunzip",
            ) from error

    def _file(self, name: str) -> pyarrow.NativeFile:
        with self._lock:
            if name not in self._files:
                self._files[name] = self._store.open(name)
            return self._files[name]

    def seal(self) -> str:
        """Return the sizes of the archives."""
        return "\n".join(f"{name} {self._file(name).size()}" for name in self._names)

    def contents(self, images: Sequence[ListedImage]) -> Iterator[str | bytes]:
        """Yield the URIs."""
        return (image.uri for image in images)

    def read(self, image: ListedImage, content: str | bytes) -> bytes:  # noqa: ARG002
        """Return the content of the member.

        Args:
            image: The image.
            content: The URI.

        Raises:
            ResourceError: The member is too large, or the archive cannot be read.
            InputError: The archive ends within the member.
        """
        size, offset = image.size_bytes or 0, image.offset or 0
        if size > MAX_FILE_BYTES:
            raise ResourceError(
                f"cannot read: the file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are allowed",
                code="file-too-large",
                path=image.uri,
            )
        read: bytes = self._file(image.container or "").read_at(size, offset)
        if len(read) < size:
            raise InputError(f"the archive ends after {len(read):,} of {size:,} bytes", code="archive-truncated")
        return read

    def close(self) -> None:
        """Close the archives."""
        while self._files:
            self._files.popitem()[1].close()


def _is_shown(path: PurePosixPath) -> bool:
    parts = [part for part in path.parts if part != "."]
    return is_image_name(path.name) and not any(part.startswith(".") for part in parts[:-1])
