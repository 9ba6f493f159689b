"""The judge of one file: which rule of a reader it breaks."""

from __future__ import annotations

import re
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from runtimes.errors import RexportError
from scripts.fuzz.reader import Reader

MAX_MESSAGE = 1_500
"""The largest length of a message: a few pieces of external text of at most ``runtimes.errors.MAX_QUOTED``."""

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


class Verdict(NamedTuple):
    """What a reader did with a file.

    Attributes:
        fault: The rule that it broke, or ``None``.
        refusal: The message by which it refused the file, or ``None``.
    """

    fault: str | None
    refusal: str | None


def judge(reader: Reader, folder: Path, content: bytes) -> Verdict:
    """Let a reader read a file, and return the verdict.

    Args:
        reader: The reader.
        folder: An empty folder.
        content: The content of the file.
    """
    path = reader.place(folder, reader.file, content)
    before = _inventory(folder)
    reset_peak_memory()
    memory, start = peak_memory(), time.process_time()
    fault, refusal = _outcome(reader, path)
    if fault is None and (used := time.process_time() - start) > reader.limit_s:
        fault = f"takes {used:.1f} s of processor time for {len(content):,} bytes; at most {reader.limit_s:g} s"
    if fault is None and (grown := peak_memory() - memory) > reader.limit_bytes:
        fault = f"needs {grown:,} bytes of memory for {len(content):,} bytes; at most {reader.limit_bytes:,}"
    if fault is None and _inventory(folder) != before:
        fault = "changes the files in the folder"
    return Verdict(fault, refusal)


def _outcome(reader: Reader, path: Path) -> Verdict:
    try:
        reader.read(path)
    except RexportError as error:
        return Verdict(_fault_of(error, reader, path), str(error))
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"raises {type(error).__name__} in {Path(frame.filename).name}, {frame.name}: {str(error)[:200]}"
        return Verdict(fault, None)
    return Verdict(None, None)


def _fault_of(error: RexportError, reader: Reader, path: Path) -> str | None:
    """Return the rule of messages that an error breaks, or ``None``."""
    message = str(error)
    if not isinstance(error, reader.errors):
        return f"raises {type(error).__name__} ({error.code}), which is not documented: {message[:200]}"
    if not _CODE.fullmatch(error.code):
        return f"raises an error without a code: {message[:200]}"
    parts = (reader.file, str(path), reader.part or reader.file)
    if not any(part in message for part in parts):
        return f"does not name the file ({error.code}): {message[:200]}"
    if len(message) > MAX_MESSAGE or not message.isprintable():
        return f"has a message that is long or not printable ({error.code}): {message[:200]!r}"
    if "weights_only" in message:
        return f"advises to load the file unsafely ({error.code}): {message[:200]}"
    return None


def _inventory(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): ((status := path.lstat()).st_size, status.st_mtime_ns)
        for path in folder.rglob("*")
    }  # fmt: skip


def reset_peak_memory() -> None:
    """Let the peak of this process's resident memory start anew, as far as the system permits."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory() -> int:
    """Return the peak of this process's resident memory in bytes, or 0 where the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0
