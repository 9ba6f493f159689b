"""The processes of a run: which processes belong to it, and the names of those that do not."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class Family:
    """The parent of this process and all its descendants, which are the processes of a run.

    Args:
        parent: The number of the parent; ``None`` for that of this process.
        root: The folder that holds ``proc``.
    """

    def __init__(self, parent: int | None = None, root: Path = Path("/")) -> None:
        self._parent = os.getppid() if parent is None else parent
        self._root = root

    def __contains__(self, pid: int) -> bool:
        """Return whether a process belongs to the run. A process that cannot be examined does not."""
        seen: set[int] = set()
        while pid != self._parent:
            above = self._parent_of(pid)
            if above is None or above in seen:
                return False
            seen.add(above)
            pid = above
        return True

    def name(self, pid: int) -> str:
        """Return the name and number of a process, or its number if the system hides its name."""
        with suppress(OSError):
            return f"{(self._root / f'proc/{pid}/comm').read_text().strip()} ({pid})"
        return f"process {pid}"

    def _parent_of(self, pid: int) -> int | None:
        try:
            line = (self._root / f"proc/{pid}/stat").read_text()
        except OSError:
            return None
        return int(line.rpartition(")")[2].split()[1]) or None
