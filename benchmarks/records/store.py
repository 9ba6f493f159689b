"""The file of results: JSON lines, one result a line, each line whole or not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.records import migration
from benchmarks.records.result import SCHEMA_VERSION, Row
from runtimes import codec, files
from runtimes.errors import ArtifactError, CompatibilityError, quote

FILE_LIMIT_BYTES = 1 << 30


FILE_NAME = "results.jsonl"
"""What a run calls its rows in the folder that it writes into."""


def find_rows_file(path: str | os.PathLike[str]) -> Path:
    """The file of rows that is meant: the path itself, or ``results.jsonl`` in it if it is a folder."""
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)


def read(path: str | os.PathLike[str]) -> tuple[Row, ...]:
    """The rows of a file, oldest first; those of older schema versions as rows of the present one.

    Raises:
        ResourceError: the file cannot be read.
        ArtifactError: a line is no row; the message names the line.
        CompatibilityError: a row is of a newer rbench.
    """
    lines = files.read_bounded(path, FILE_LIMIT_BYTES).splitlines()
    return tuple(_parse_line(line, number, path) for number, line in enumerate(lines, start=1))


def _parse_line(line: bytes, number: int, path: str | os.PathLike[str]) -> Row:
    try:
        data = _load_json(line)
        version = _version_of(data)
        if version > SCHEMA_VERSION:
            raise CompatibilityError(
                f"line {number}: a row of schema version {version}; this rbench reads up to {SCHEMA_VERSION}",
                path=path,
                hint="pip install --upgrade rexport",
            )
        if version < 1:
            raise ArtifactError(f"field 'schema_version': expected 1 to {SCHEMA_VERSION}, got {version}")
        if isinstance(data, dict) and 1 <= version <= migration.LAST_OF_ONE_PROCESS:
            data = migration.migrate_row(data, SCHEMA_VERSION)
        return codec.decode(Row, data)
    except ArtifactError as error:
        raise ArtifactError(f"line {number}: {error.what}", path=path) from error


def _load_json(line: bytes) -> object:
    try:
        data: object = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"not valid JSON: {quote(error)}") from error
    return data


def _version_of(data: object) -> int:
    """What the row says of itself; one that says nothing, or nonsense, is checked as a present one."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    return version if isinstance(version, int) and not isinstance(version, bool) else SCHEMA_VERSION


class ResultsFile:
    """A JSON-lines file that rows are added to. Older rows are kept; several processes may add at once."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Makes the folder where it is missing, and reads what is in the file.

        Raises:
            ResourceError: the folder cannot be written into, or the file cannot be read.
            ArtifactError, CompatibilityError: the file holds something else than rows; it is left as it is.
        """
        self.path = Path(path)
        files.check_writable(self.path.parent)
        if self.path.exists():
            read(self.path)

    def append(self, row: Row) -> None:
        """Adds the row's line. A kill at any moment leaves the file with it or without it.

        Raises:
            ResourceError: with the system's reason; the file is as it was.
        """
        line = codec.dumps(row).encode() + b"\n"
        with files.folder_lock(self.path.parent):
            old = files.read_bounded(self.path, FILE_LIMIT_BYTES) if self.path.exists() else b""
            if old and not old.endswith(b"\n"):
                old += b"\n"
            with files.write_atomically(self.path) as temporary:
                temporary.write_bytes(old + line)
