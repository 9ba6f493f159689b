"""``Reader``: one way in which rexport reads files that others may have made, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtimes.errors import ArtifactError, CompatibilityError, InputError, ResourceError, RexportError
from scripts.fuzz.mutations import BYTES, Mutation


def place_alone(folder: Path, name: str, content: bytes) -> Path:
    """Write a file that nothing else belongs to, and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
        name: The name of the reader.
        modules: The modules of rexport whose parsing this reader covers, for example ``runtimes.codec``.
        samples: Returns good files, in a folder that it may fill.
        read: Reads the file at a path and uses what it holds, as the commands do.
        mutations: The mutations of the good files.
        file: The name of the file.
        place: Writes a file with what belongs to it into an empty folder, and returns the path for ``read``.
        errors: The documented errors.
        part: The beginning of messages that name a part of the file instead of the file, or ``None``.
        limit_s: The largest processor time for one file of at most ``mutations.MAX_BYTES``.
        limit_bytes: The largest growth of the resident memory for one file.
    """

    name: str
    modules: tuple[str, ...]
    samples: Callable[[Path], Iterable[bytes]]
    read: Callable[[Path], object]
    mutations: Sequence[Mutation] = BYTES
    file: str = "file"
    place: Callable[[Path, str, bytes], Path] = place_alone
    errors: tuple[type[RexportError], ...] = (ArtifactError, CompatibilityError, ResourceError, InputError)
    part: str | None = None
    limit_s: float = 5.0
    limit_bytes: int = 512 << 20
