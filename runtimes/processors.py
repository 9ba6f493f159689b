"""How many processors this process may use: its affinity and its control group's quota, not what the host has."""

from __future__ import annotations

import os
from pathlib import Path


def usable_processors(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """At least 1. ``root`` and ``membership`` are where the system tells of control groups."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(root, membership)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _quota(root: Path, membership: Path) -> float | None:
    """Processors that the tightest of this process's control groups allows, or ``None`` without a limit."""
    quotas = [_quota_of(group) for group in control_groups("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def control_groups(controller: str, root: Path, membership: Path) -> list[Path]:
    """The folders of the groups that hold this process for a controller, from its own up to the top; none where the
    system tells of no groups. In the older version each controller has a folder below ``root``."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2) if line.count(":") >= 2 else ("", "-", "")
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        group = top / path.lstrip("/")
        groups += [folder for folder in (group, *group.parents) if folder == top or top in folder.parents]
    return groups


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if limit.strip() in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
