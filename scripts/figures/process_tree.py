"""The processes that a process has started, and theirs, by ``/proc``."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """The command lines of all processes below ``pid``, by their ids. Arguments are joined by spaces."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                children[int(parent)].append(int(folder.name))
    below, waiting = dict[int, str](), [pid]
    while waiting:
        for child in children[waiting.pop()]:
            with contextlib.suppress(OSError):
                below[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                waiting.append(child)
    return below


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 once it has ended.

    Memory that several processes share counts fully: a share of it would change as the others come and go.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Rss:")), 0)
