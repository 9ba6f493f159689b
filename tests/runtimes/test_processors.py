"""How many processors: affinity, and both generations of control groups, from files as the system writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.processors import usable_processors

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _eight_processors(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "real" not in request.node.name:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def groups(folder: Path, membership: str, **written: str) -> tuple[Path, Path]:
    """A made-up system: ``membership`` is the process's file, ``written`` the others with ``__`` for a slash."""
    for name, text in written.items():
        place = folder / "root" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs_", "cpu.cfs_")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    (folder / "membership").write_text(membership)
    return folder / "root", folder / "membership"


@pytest.mark.parametrize(
    ("membership", "written", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu_max": "9900000 100000\n"}, 8),
        ("0::/a/b\n", {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a__b__cpu_max": "200000 100000\n", "a__cpu_max": "300000 100000\n"}, 2),
        ("0::/not/mounted/here\n", {"cpu_max": "400000 100000\n"}, 4),
        ("0::/../outside\n", {"cpu_max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/x\n3:memory:/x\n",
            {"cpu__x__cfs_quota_us": "300000\n", "cpu__x__cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu,cpuacct:/x\n", {"cpu__x__cfs_quota_us": "-1\n", "cpu__x__cfs_period_us": "100000\n"}, 8),
        ("4:cpuacct,cpu:/x\n", {"cpu__x__cfs_quota_us": "300000\n", "cpu__x__cfs_period_us": "100000\n"}, 3),
        ("0::/\n", {"cpu_max": "nonsense\n"}, 8),
        ("0::/\n", {"cpu_max": "100000 0\n"}, 8),
        ("nonsense\n", {}, 8),
        ("", {}, 8),
    ],
)
def test_the_tightest_quota_counts(tmp_path: Path, membership: str, written: dict[str, str], expected: int) -> None:
    assert usable_processors(*groups(tmp_path, membership, **written)) == expected


def test_without_control_groups_it_is_the_affinity(tmp_path: Path) -> None:
    assert usable_processors(tmp_path, tmp_path / "none") == 8


def test_a_real_affinity_is_followed() -> None:
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", "from runtimes.processors import usable_processors as u; print(u())"],
        cwd=REPO,
        preexec_fn=lambda: os.sched_setaffinity(0, {one}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


def test_the_real_number_is_within_the_affinity() -> None:
    assert 1 <= usable_processors() <= len(os.sched_getaffinity(0))
