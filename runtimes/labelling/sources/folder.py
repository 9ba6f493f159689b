"""``FolderSource``: the images in a folder and below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runtimes.errors import RexportError
from runtimes.images.left_out import LeftOutFiles
from runtimes.labelling.job import SourceKind
from runtimes.labelling.sources.source import ListedImage, is_image_name, name_in_folder, unicode_name
from runtimes.labelling.stores import Store, StoreEntry


class FolderSource:
    """The images below the root of a store, folder by folder, each sorted by name.

    Hidden files and folders are left out, and links to folders are not followed.
    """

    kind: SourceKind = "folder"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.root = store.root
        self.left_out = LeftOutFiles()

    def images(self) -> Iterator[ListedImage]:
        """Yield the images depth first, so that the images of a folder stand together."""
        self.left_out = LeftOutFiles()
        waiting: list[tuple[str, Iterator[StoreEntry]]] = [("", iter(self._store.entries()))]
        while waiting:
            folder, entries = waiting[-1]
            entry = next(entries, None)
            if entry is None:
                waiting.pop()
                continue
            path = folder + entry.name
            if entry.is_folder and not entry.name.startswith("."):
                waiting.append((f"{path}/", iter(self._store.entries(path))))
            elif not entry.is_folder:
                self.left_out.add(entry.name)
                if is_image_name(entry.name):
                    yield ListedImage(unicode_name(path))

    def seal(self) -> str:
        """Return an empty text, because the content of a file is not part of the listing."""
        return ""

    def contents(self, images: Sequence[ListedImage]) -> Iterator[str | bytes]:
        """Yield the URIs."""
        return (image.uri for image in images)

    def read(self, image: ListedImage, content: str | bytes) -> bytes:  # noqa: ARG002
        """Return the content of the file.

        Args:
            image: The image.
            content: The URI.
        """
        try:
            return self._store.read(image.uri)
        except RexportError:
            if (name := name_in_folder(image.uri)) == image.uri:
                raise
            return self._store.read(name)

    def close(self) -> None:
        """Do nothing, as files are open only while they are read."""
