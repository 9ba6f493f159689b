"""A page in a folder: its files are written in an order in which an older page works until the new one does.

The large contents have names with a digest, so that new ones never replace those of an older page. The description
names them, and is replaced after them. Contents that no description names any more are removed in the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from exporter.deploy import page_files
from exporter.deploy.web_runtime import CODE, WASM
from runtimes import files
from runtimes.serving.page_markup import STYLE

DESCRIPTION = "model.json"
"""The description of the model, which names the contents."""

CONTENTS = (f"runtime/{CODE}", f"runtime/{WASM}", "model.onnx")
"""The contents, without their digests."""


def name_content(name: str, content: bytes) -> str:
    """Return the path of a content in the folder of its page.

    Args:
        name: One of ``CONTENTS``.
        content: The content, whose digest becomes a part of the name.
    """
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}.{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}"))


def files_beside(page: Path) -> tuple[Path, ...]:
    """Return the files of a page whose names have no digest, so that they may be those of somebody else."""
    return tuple(page.with_name(name) for name in (*page_files.MODULES, STYLE, DESCRIPTION))


def write_folder(page: Path, markup: str, description: str, contents: Mapping[str, bytes]) -> None:
    """Write a page with its files. If that fails or is killed, an older page still works.

    Args:
        page: The HTML file, in an existing folder. It is written last.
        markup: Its text.
        description: The text of the description.
        contents: The contents that the description names, by their paths as from ``name_content``.

    Raises:
        ResourceError: A file cannot be written.
    """
    folder = page.parent
    before = set(_contents_in(folder))
    try:
        for name, content in contents.items():
            files.check_writable((folder / name).parent)
            write_file(folder / name, content)
        for name in (*page_files.MODULES, STYLE):
            write_file(folder / name, page_files.read_file(name).encode())
        write_file(folder / DESCRIPTION, description.encode())
        write_file(page, markup.encode())
    except BaseException:
        with contextlib.suppress(OSError):
            if not (folder / DESCRIPTION).exists() or (folder / DESCRIPTION).read_bytes() != description.encode():
                _remove(set(_contents_in(folder)) - before)
        raise
    _remove(before - {folder / name for name in contents})


def write_file(path: Path, content: bytes) -> None:
    """Write a file of a page.

    Args:
        path: The file, which is replaced if it exists.
        content: Its content.

    Raises:
        ResourceError: The file cannot be written.
    """
    with files.write_atomically(path) as temporary:
        temporary.write_bytes(content)


def _contents_in(folder: Path) -> Iterator[Path]:
    """Yield the contents of pages in the folder. A name without a digest, as ``model.onnx``, is a file of the user."""
    for name in CONTENTS:
        path = folder / name
        shape = re.compile(rf"{re.escape(path.stem)}\.[0-9a-f]{{8}}{re.escape(path.suffix)}")
        yield from (each for each in path.parent.glob("*") if shape.fullmatch(each.name))


def _remove(paths: set[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
