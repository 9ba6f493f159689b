"""All errors that rexport raises on purpose.

The tree, with the exit code of ``rexport`` and ``rbench`` for each error::

    RexportError
     +-- CheckFailedError          1   a check failed: parity, accuracy, an unreadable image
     +-- UsageError                2   an argument is wrong (also a ValueError)
     +-- ArtifactError             3   a file is broken or of another kind than expected
     |    +-- IntegrityError       3   the digest or checksum of a file does not match
     |    +-- UnsafeArtifactError  3   reading the file could run code or reach outside its folder
     +-- InputError                3   an image or array is wrong (also a ValueError)
     +-- CompatibilityError        4   a valid file does not suit this machine, version or model
     |    +-- ModelMismatchError   4   weights, labels or data belong to another model
     +-- BackendUnavailableError   5   a library or device is missing
     +-- ResourceError             6   disk, memory or permission is lacking; has ``errno``
          +-- DeviceLostError      6   the GPU failed, and this process cannot use it any more

A message says what is wrong, what was expected, and what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from runtimes.escaping import MAX_LINE, MAX_QUOTED, QuotedText, printable, shell_word


def quote(text: object) -> str:
    """Return external text for a message: ``printable``, and cut to ``MAX_QUOTED`` characters.

    ``repr`` of it puts it in quotation marks and escapes nothing again.
    """
    return QuotedText(printable(text, MAX_QUOTED))


LEAST_SIMILARITY = 0.75
"""Share of equal characters from which on one name is suggested for another."""

_LOOKALIKES = str.maketrans("oil", "011")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` probably means, or ``None``.

    Case does not count, and letters count as the digits that they look like: ``resnet5O`` means ``resnet50``. Of two
    equally similar names, the one with the longer common beginning wins, else the first.
    """
    from difflib import SequenceMatcher

    def plain(text: str) -> str:
        return text.lower().translate(_LOOKALIKES)

    def nearness(word: str) -> tuple[float, int]:
        both = plain(name), plain(word)
        return SequenceMatcher(None, *both).ratio(), len(os.path.commonprefix(both))  # noqa: RUF071 - of names

    best = max(known, key=nearness, default=None)
    return best if best is not None and nearness(best)[0] >= LEAST_SIMILARITY else None


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the nearest known name, else all known names."""
    names = tuple(known)
    meant = nearest(name, names)
    return f"one of {', '.join(names)}" if meant is None else f"did you mean {meant}?"


class Reason(NamedTuple):
    """The reason for an error, a skip or a warning: a stable code for programs and a sentence for people.

    Attributes:
        code: Lower-case words joined by hyphens, for example ``backend-unknown``. One code stands for one sentence.
        sentence: One line, with the values filled in.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence


class RexportError(Exception):
    """The root of the tree of errors.

    ``str(error)`` is one line: the file, what is wrong, and in parentheses what to do.

    Args:
        what: What is wrong and what was expected.
        code: The stable code of the sentence, as in ``Reason``. Only tests leave it empty.
        path: The file concerned, if there is one.
        hint: The command or change that solves the problem, if there is one.

    Attributes:
        exit_code: The exit code of the commands ``rexport`` and ``rbench`` for this class of errors.
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
        """Replace the sentence ``what`` and the ``hint``; kind, code and path stay."""
        self.what = what
        self.hint = hint
        prefix = "" if self.path is None else f"{quote(self.path)}: "
        self.args = (printable(prefix + what + (f" ({hint})" if hint else ""), MAX_LINE),)

    def rename(self, old: Path, new: Path) -> None:
        """Name ``new`` in place of ``old``: the file that a user asked for in place of a temporary file.

        Args:
            old: A file, or a folder of files.
            new: The path that takes its place.
        """
        if self.path is not None and self.path.is_relative_to(old):
            self.path = new / self.path.relative_to(old)
        before, after = quote(old), quote(new)
        self.say(self.what.replace(before, after), self.hint and self.hint.replace(before, after))


class CheckFailedError(RexportError):
    """The result of completed work did not pass its check."""

    exit_code = 1


class UsageError(RexportError, ValueError):
    """An argument is wrong."""

    exit_code = 2


class ArtifactError(RexportError):
    """A file is broken, or not of the requested kind."""

    exit_code = 3


class IntegrityError(ArtifactError):
    """The content of a file is not what its manifest, its name or a checksum says."""


class UnsafeArtifactError(ArtifactError):
    """Reading the file could run code or reach outside its folder. No part of the file was used."""


class InputError(RexportError, ValueError):
    """An image or an array does not fit the model's input."""

    exit_code = 3


class CompatibilityError(RexportError):
    """A valid file cannot be used with this machine, version or model."""

    exit_code = 4


class ModelMismatchError(CompatibilityError):
    """Weights, labels or data belong to another model."""


class BackendUnavailableError(RexportError):
    """The library or device of a backend is missing. The hint, where there is one, is the command that installs it."""

    exit_code = 5


class ResourceError(RexportError):
    """Disk space, memory or a permission is lacking.

    Args:
        what: As for ``RexportError``.
        code: As for ``RexportError``.
        path: As for ``RexportError``.
        hint: As for ``RexportError``.
        errno: The error number of the operating system, or ``None`` if there is none.
    """

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
        """Return the error for a failed system call, for example "cannot write: No space left on device".

        Args:
            error: The error of the system call.
            path: The file concerned.
            doing: The failed action as a verb, for example ``write``.
        """
        reason = error.strerror or error
        hint = _os_hint(error.errno, Path(path))
        return cls(f"cannot {doing}: {reason}", code="file-access-failed", path=path, hint=hint, errno=error.errno)


def _os_hint(number: int | None, path: Path) -> str | None:
    """Return the command that shows more about the system's reason, or ``None``."""
    from errno import EACCES, EDQUOT, ENOSPC, EPERM

    folder = shell_word(path if os.path.isdir(path) else path.parent)  # noqa: PTH112 - it never raises
    if number in (ENOSPC, EDQUOT):
        return f"df -h {folder} shows the space that is left"
    return f"ls -ld {folder} shows who may use it" if number in (EACCES, EPERM) else None


class DeviceLostError(ResourceError):
    """The device failed, and this process cannot recover: every later call on the device fails too."""
