"""Every error that rexport raises on purpose.

::

    RexportError
     +-- CheckFailedError          1   it ran, and a check failed: parity, accuracy, an unreadable image
     +-- UsageError                2   the call itself is wrong (also a ValueError)
     +-- ArtifactError             3   a file is broken or not what it should be
     |    +-- IntegrityError       3   its digest or checksum does not match
     |    +-- UnsafeArtifactError  3   reading it could run code or reach outside its folder
     +-- InputError                3   an image or array is wrong (also a ValueError)
     +-- CompatibilityError        4   sound, but not for this machine, version or model
     |    +-- ModelMismatchError   4   weights, labels or data of another model
     +-- BackendUnavailableError   5   a library or device is missing
     +-- ResourceError             6   disk, memory or permission; keeps ``errno``
          +-- DeviceLostError      6   the GPU failed, and this process cannot use it any more

The number is the exit code of both commands. A message says what was wrong, what was expected and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MAX_QUOTED = 200
"""Longest piece of foreign text that a message repeats, in characters."""


def quote(text: object) -> str:
    """Foreign text made safe for a message: control characters escaped, cut to 200 characters."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return plain if len(plain) <= MAX_QUOTED else plain[: MAX_QUOTED - 1] + "…"


LEAST_SIMILARITY = 0.75
"""Share of equal characters from which on one name is suggested for another."""

_LOOKALIKES = str.maketrans("oil", "011")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` was probably meant to be, or ``None``. Case does not count, and letters count as the
    digits that they look like: ``resnet5O`` is resnet50. Of two equally near ones, that with the longer beginning in
    common, else the first."""
    from difflib import SequenceMatcher

    def plain(text: str) -> str:
        return text.lower().translate(_LOOKALIKES)

    def nearness(word: str) -> tuple[float, int]:
        both = plain(name), plain(word)
        return SequenceMatcher(None, *both).ratio(), len(os.path.commonprefix(both))  # noqa: RUF071 - of names

    best = max(known, key=nearness, default=None)
    return best if best is not None and nearness(best)[0] >= LEAST_SIMILARITY else None


def suggest(name: str, known: Iterable[str]) -> str:
    """The hint for an unknown name: the nearest known one, else all of them."""
    names = tuple(known)
    meant = nearest(name, names)
    return f"one of {', '.join(names)}" if meant is None else f"did you mean {meant}?"


class Reason(NamedTuple):
    """Why something was refused, skipped or doubted: a stable code for programs, and a sentence for people.

    Attributes:
        code: lower-case words joined by hyphens, as ``backend-unknown``. One code stands for one sentence.
        sentence: one line, with the values that it is about.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class RexportError(Exception):
    """Root of the tree. ``str()`` is one line: the file, what is wrong, and what to do in parentheses.

    Attributes:
        code: the stable code of the sentence, as in ``Reason``; empty for an error of a test.
        what: what was wrong and what was expected.
        path: the file it is about, or ``None``.
        hint: the command or change that mends it, or ``None``.
    """

    exit_code = 70

    def __init__(
        self, what: str, *, code: str = "", path: str | os.PathLike[str] | None = None, hint: str | None = None
    ) -> None:
        super().__init__()
        self.code = code
        self.path = None if path is None else Path(path)
        self.say(what, hint)

    def say(self, what: str, hint: str | None) -> None:
        """Puts the error into these words; its kind, code and path stay."""
        self.what = what
        self.hint = hint
        place = "" if self.path is None else f"{quote(self.path)}: "
        self.args = (place + what + (f" ({hint})" if hint else ""),)


class CheckFailedError(RexportError):
    """The work was done and its result did not pass."""

    exit_code = 1


class UsageError(RexportError, ValueError):
    """An argument is wrong."""

    exit_code = 2


class ArtifactError(RexportError):
    """A file is broken, or not of the kind that was asked for."""

    exit_code = 3


class IntegrityError(ArtifactError):
    """A file's bytes are not those that its manifest or its name promises."""


class UnsafeArtifactError(ArtifactError):
    """Reading the file could run code or reach outside its folder; nothing of it was used."""


class InputError(RexportError, ValueError):
    """An image or an array does not fit."""

    exit_code = 3


class CompatibilityError(RexportError):
    """A sound file that this machine, version or model cannot take."""

    exit_code = 4


class ModelMismatchError(CompatibilityError):
    """Weights, labels or data that belong to another model."""


class BackendUnavailableError(RexportError):
    """A backend's library or device is not here; the hint is the command that brings it."""

    exit_code = 5


class ResourceError(RexportError):
    """The disk, the memory or a permission was lacking. ``errno`` is the system's number, or ``None``."""

    exit_code = 6

    def __init__(
        self,
        what: str,
        *,
        code: str = "",
        path: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(what, code=code, path=path, hint=hint)
        self.errno = errno

    @classmethod
    def from_os(cls, error: OSError, path: str | os.PathLike[str], doing: str) -> ResourceError:
        """The error for a failed system call: "cannot write: No space left on device"."""
        reason = error.strerror or error
        hint = _os_hint(error.errno, Path(path))
        return cls(f"cannot {doing}: {reason}", code="file-access-failed", path=path, hint=hint, errno=error.errno)


def _os_hint(number: int | None, path: Path) -> str | None:
    """The command that shows more of the system's reason, where one does."""
    import shlex
    from errno import EACCES, EDQUOT, ENOSPC, EPERM

    folder = shlex.quote(quote(path if os.path.isdir(path) else path.parent))  # noqa: PTH112 - it never raises
    if number in (ENOSPC, EDQUOT):
        return f"df -h {folder} shows the space that is left"
    return f"ls -ld {folder} shows who may use it" if number in (EACCES, EPERM) else None


class DeviceLostError(ResourceError):
    """The device failed in a way from which this process cannot recover: every later call on it fails too."""
