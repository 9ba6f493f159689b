"""The number of processors that this process may use, by its CPU affinity and the quotas of its control groups."""

from __future__ import annotations

import os
from pathlib import Path


def usable_processors(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of processors that this process may use, at least 1.

    Args:
        root: The folder where control groups are mounted.
        membership: The file that lists the control groups of this process.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _smallest_quota(root, membership)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _smallest_quota(root: Path, membership: Path) -> float | None:
    """Return the smallest quota of this process's control groups in processors, or ``None`` if there is no limit."""
    quotas = [_read_quota(group) for group in control_groups("cpu", root, membership)]
    return min((quota for quota in quotas if quota is not None), default=None)


def control_groups(controller: str, root: Path, membership: Path) -> list[Path]:
    """Return the folders of the control groups that contain this process, from the innermost group to the root.

    Args:
        controller: The controller, for example ``cpu``. In control groups version 1, each controller has its own folder
            below ``root``.
        root: The folder where control groups are mounted.
        membership: The file that lists the control groups of this process.

    Returns:
        The folders. The list is empty if ``membership`` cannot be read.
    """
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


def _read_quota(folder: Path) -> float | None:
    """Return the quota of one control group in processors, or ``None`` if the group has no readable limit."""
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return None if limit.strip() in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
