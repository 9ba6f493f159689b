"""Every writer, with each of its calls of the system failing in turn: the old output or the new one is there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import interposer
from tests.faults.interposer import Interposer
from tests.faults.writers import WRITERS

QUICK = ("results", "report md", "findings", "picture", "timing cache", "sample", "tuned")
"""Writers whose walk takes less than a second."""

REPO = Path(__file__).resolve().parents[1]


def walk(folder: Path, *names: str) -> list[dict[str, object]]:
    """What came of the writers, in a process whose calls on files fail."""
    if (reason := interposer.missing()) is not None:
        pytest.skip(reason)
    for name in ("state", "target"):
        (folder / name).mkdir()
    faults = Interposer(folder / "state", folder / "target")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.walk", str(folder / "inputs"), *names],
        cwd=REPO,
        env=os.environ | faults.environment | {"PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]


def require_whole(walks: list[dict[str, object]], names: tuple[str, ...]) -> None:
    """Check that all writers were walked, and that nothing was wrong."""
    assert [each["name"] for each in walks] == list(names)
    assert {each["name"]: each["problems"] for each in walks if each["problems"]} == {}
    assert all(each["failures"] >= each["calls"] for each in walks)  # type: ignore[operator]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What came of the quick writers and the careless one, in one process."""
    return walk(tmp_path_factory.mktemp("faults"), *QUICK, "careless")


def test_a_failed_write_leaves_the_old_or_the_new(quick: list[dict[str, object]]) -> None:
    require_whole(quick[:-1], QUICK)


def test_the_walk_sees_a_careless_writer(quick: list[dict[str, object]]) -> None:
    said = " ".join(quick[-1]["problems"])  # type: ignore[arg-type]
    for problem in ("left over: .half", "mixed: net", "exit code 70", "unnamed file:"):
        assert problem in said


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in WRITERS if name not in QUICK and not WRITERS[name].is_heavy])
def test_so_do_all_other_writers(tmp_path: Path, name: str) -> None:
    """The heavy ones, which write through the same functions, are walked by ``python -m scripts.figures``."""
    for library in WRITERS[name].libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    require_whole(walk(tmp_path, name), (name,))
