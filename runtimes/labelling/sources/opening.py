"""Recognises what a source is, and opens it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, get_args

from runtimes.artifacts.formats import kind_of
from runtimes.errors import ArtifactError, InputError, UsageError, quote
from runtimes.files import require_utf8
from runtimes.labelling.job import SourceKind
from runtimes.labelling.sources.folder import FolderSource
from runtimes.labelling.sources.source import ImageSource, is_image_name
from runtimes.labelling.sources.table import ParquetSource
from runtimes.labelling.sources.tar import TarSource
from runtimes.labelling.sources.uris import ListSource
from runtimes.labelling.stores import Store, open_store

KINDS: tuple[SourceKind, ...] = get_args(SourceKind)

SUFFIX: dict[SourceKind, str] = {"tar": ".tar", "parquet": ".parquet"}
"""The suffix by which the archives or tables of a folder are found."""

_HEAD_BYTES = 512
_COMPRESSED = (b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd")


class SourceForm(NamedTuple):
    """A source whose form is known.

    Attributes:
        kind: The form.
        root: The folder or prefix that relative URIs start from.
        names: The names of the archives, tables or lists in the root. None for a folder of images.
    """

    kind: SourceKind
    root: str
    names: tuple[str, ...]

    def open(self) -> ImageSource:
        """Open the source. The caller closes it.

        Raises:
            ArtifactError: A table is damaged or lacks the expected columns.
            ResourceError: A file cannot be read.
        """
        store = open_store(self.root)
        if self.kind == "tar":
            return TarSource(store, self.names)
        if self.kind == "parquet":
            return ParquetSource(store, self.names)
        return ListSource(store, self.names[0]) if self.kind == "list" else FolderSource(store)


def absolute(source: str) -> str:
    """Return a local path as an absolute path. A URI stays as it is, without a slash at its end.

    Raises:
        UsageError: It is not UTF-8.
    """
    require_utf8(source)
    scheme, separator, rest = source.partition("://")
    return f"{scheme}://{rest.rstrip('/')}" if separator else str(Path(source).resolve())


def recognise_source(source: str, kind: SourceKind | None = None) -> SourceForm:
    """Return the form of a source. The content of a file determines it, and the suffixes of the files in a folder.

    Args:
        source: A path or a URI.
        kind: The form, if it is known. A folder may then hold several tar archives or Parquet files.

    Raises:
        UsageError: There is nothing at the path.
        ArtifactError: The file is of none of the forms, or the folder has no file of the form ``kind``.
        ResourceError: The source cannot be read.
    """
    whole = absolute(source)
    store = open_store(whole)
    found = store.kind()
    if found == "missing":
        raise UsageError(
            f"there is nothing at {quote(source)}",
            code="source-missing",
            hint="a source is a folder, a tar archive, a Parquet file, or a text file with one path or URI a line",
        )
    if found == "folder":
        return _recognise_folder(whole, store, kind)
    plain, _, query = whole.partition("?") if "://" in whole else (whole, "", "")
    root, _, name = plain.rpartition("/")
    parent = open_store(f"{root or '/'}" + (f"?{query}" if query else ""))
    return SourceForm(kind or _recognise_file(parent, name), f"{root or '/'}" + (f"?{query}" if query else ""), (name,))


def _recognise_folder(root: str, store: Store, kind: SourceKind | None) -> SourceForm:
    names = [entry.name for entry in store.entries() if not entry.is_folder and not entry.name.startswith(".")]
    if kind is None and not any(map(is_image_name, names)):
        kind = next((kind for kind, suffix in SUFFIX.items() if any(name.endswith(suffix) for name in names)), None)
    if kind is None or kind not in SUFFIX:
        return SourceForm("folder", root, ())
    chosen = tuple(name for name in names if name.endswith(SUFFIX[kind]))
    if not chosen:
        raise ArtifactError(
            f"the folder has no file that ends in {SUFFIX[kind]}", code="source-kind-mismatch", path=store.root
        )
    return SourceForm(kind, root, chosen)


def _recognise_file(store: Store, name: str) -> SourceKind:
    with store.open(name) as file:
        head: bytes = file.read(_HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(_COMPRESSED):
        raise ArtifactError(
            "the file is compressed, so that its images cannot be read at their positions",
            code="source-compressed",
            path=f"{store.root}/{name}",
            hint="unpack it first, for example with gunzip or unxz",
        )
    if not head or any(byte < 0x20 and byte not in b"\t\n\r" for byte in head):
        raise InputError(
            f"{quote(f'{store.root}/{name}')} is {kind_of(head)}; expected a folder, a tar archive, a Parquet file, or "
            "a text file with one path or URI a line",
            code="source-unknown",
            hint="rexport predict labels single images",
        )
    return "list"
