"""The memory that this process may still take."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from runtimes.processors import control_groups


def available_bytes(root: Path = Path("/")) -> int | None:
    """Return the memory that this process may still take without swapping, or ``None`` if the system does not tell.

    It is the smallest of three numbers: what the machine has left, what the control groups have left, and what
    ``ulimit -v`` leaves.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    known = (_free_of_machine(root), _free_of_groups(root), _free_of_limit(root))
    return min((count for count in known if count is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the lowest memory limit of the control groups of this process in bytes, or ``None`` without a limit.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    return min((limit for limit, _ in _group_limits(root)), default=None)


def _free_of_machine(root: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _free_of_groups(root: Path) -> int | None:
    left = (limit - max(0, _number(usage) - _cache_bytes(usage.parent)) for limit, usage in _group_limits(root))
    return min((max(0, count) for count in left), default=None)


def _group_limits(root: Path) -> list[tuple[int, Path]]:
    """Return the limits of the control groups in bytes, each with the file that tells the usage."""
    groups = control_groups("memory", root / "sys/fs/cgroup", root / "proc/self/cgroup")
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    pairs = ((_number(group / limit), group / usage) for group in groups for limit, usage in names)
    return [(limit, usage) for limit, usage in pairs if limit]


def _cache_bytes(group: Path) -> int:
    """Return the usage of a control group that the kernel frees on demand: the cached content of files."""
    with contextlib.suppress(OSError):
        fields = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sum(int(number) for name, number in fields if name in ("file", "total_cache"))
    return 0


def _number(path: Path) -> int:
    """Return the number in the file, or 0 if it holds none."""
    with contextlib.suppress(OSError):
        text = path.read_text().strip()
        return int(text) if text.isdigit() else 0
    return 0


def _free_of_limit(root: Path) -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    with contextlib.suppress(OSError):
        pages = int((root / "proc/self/statm").read_text().split()[0])
        return max(0, limit - pages * resource.getpagesize())
    return limit
