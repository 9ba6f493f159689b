"""``interposer.c``, compiled: calls of the system on files below a folder, of which one fails or kills."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("interposer.c")

KILL = 0
"""In place of an error number: the call kills its process."""

_LAYOUT = struct.Struct("5q")


@dataclass(frozen=True)
class Fault:
    """The call that fails.

    Attributes:
        at: Its number, from 1.
        error: The error number, or ``KILL``.
        onward: Whether all later calls fail too, as on a full disk.
    """

    at: int
    error: int
    onward: bool = False


def missing() -> str | None:
    """Return why there is no interposer here, or ``None``."""
    return None if shutil.which("gcc") else "there is no C compiler here; make cpp installs one"


class Interposer:
    """The calls on files below ``folder`` of all processes with ``environment``.

    Args:
        place: An existing folder for the library and its state.
        folder: The folder whose files count. Links in its path are resolved.
    """

    def __init__(self, place: Path, folder: Path) -> None:
        self._library, self._state = place / "interposer.so", place / "state"
        if not self._library.exists():
            command = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
            subprocess.run(command, check=True)
        self.folder = folder.resolve()
        self._state.write_bytes(bytes(_LAYOUT.size))
        with self._state.open("r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), _LAYOUT.size)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a process whose calls count."""
        return {"LD_PRELOAD": str(self._library), "FAULTS_STATE": str(self._state), "FAULTS_FOLDER": str(self.folder)}

    def arm(self, fault: Fault | None) -> None:
        """Count from zero. ``None`` lets all calls pass."""
        at, error, onward = (0, 0, False) if fault is None else (fault.at, fault.error, fault.onward)
        _LAYOUT.pack_into(self._numbers, 0, 0, at, error, onward, 0)

    def calls(self) -> int:
        """How many calls there were."""
        return int(_LAYOUT.unpack_from(self._numbers)[0])

    def faults(self) -> int:
        """How many of them failed."""
        return int(_LAYOUT.unpack_from(self._numbers)[4])


class ArmedProcess(Interposer):
    """The interposer that this process was started with."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["FAULTS_FOLDER"])
        with open(os.environ["FAULTS_STATE"], "r+b") as file:
            self._numbers = mmap.mmap(file.fileno(), _LAYOUT.size)
