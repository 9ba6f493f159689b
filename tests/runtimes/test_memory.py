"""The memory that is left, in machines that are folders of files."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from runtimes.memory import available_bytes, memory_limit


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with 12 kB left, in whose control group ``box`` this process is."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemFree: 1 kB\nMemAvailable:       12 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/box\n")
    (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True)
    return tmp_path


def test_this_machine_tells_what_is_left() -> None:
    assert (available_bytes() or 0) > 1 << 20


def test_the_kernel_says_what_can_be_had(machine: Path) -> None:
    assert available_bytes(machine) == 12 * 1024
    (machine / "proc/meminfo").write_text("MemTotal: 99 kB\n")
    assert available_bytes(machine) is None
    assert available_bytes(machine / "nowhere") is None


def test_a_control_group_limits_it(machine: Path) -> None:
    group = machine / "sys/fs/cgroup/box"
    (group / "memory.max").write_text("max\n")
    assert (available_bytes(machine), memory_limit(machine)) == (12 * 1024, None)
    (group / "memory.max").write_text("5000\n")
    assert (available_bytes(machine), memory_limit(machine)) == (5000, 5000)
    (group / "memory.current").write_text("4500\n")
    assert available_bytes(machine) == 500
    (group / "memory.stat").write_text("anon 3500\nfile 1000\nkernel 7\n")
    assert available_bytes(machine) == 1500
    (group / "memory.current").write_text("9000\n")
    assert available_bytes(machine) == 0


def test_the_older_control_groups_limit_it_too(machine: Path) -> None:
    (machine / "proc/self/cgroup").write_text("5:memory:/box\n4:cpu:/box\n")
    group = machine / "sys/fs/cgroup/memory/box"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("1000\n")
    (group / "memory.usage_in_bytes").write_text("900\n")
    (group / "memory.stat").write_text("cache 700\ntotal_cache 800\n")
    assert (available_bytes(machine), memory_limit(machine)) == (900, 1000)
    assert memory_limit(machine / "nowhere") is None


def test_the_limit_of_the_shell_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * page, resource.RLIM_INFINITY))
    (machine / "proc/self/statm").write_text("1 1 1 1 0 1 0\n")
    (machine / "proc/meminfo").write_text("MemAvailable: 1000 kB\n")
    assert available_bytes(machine) == 2 * page
