"""What grows with the number of rows: the work for twice the rows is at most about twice the work.

Work is a count of calls, which no load of the machine changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.compare.compare import Limits, compare
from benchmarks.records import store
from benchmarks.records.identity import latest
from benchmarks.records.result import Result
from tests.benchmarks.results import EMPTY

ROWS, WHOLE_ROWS = 40, 12
"""Rows of figures alone, and of whole commands, whose rows cost more."""


def rows(count: int) -> list[Result]:
    """Rows of as many networks, each of a run of its own."""
    return [
        replace(EMPTY, run=f"{number:012}", identity=replace(EMPTY.identity, subject=f"network-{number}"))
        for number in range(count)
    ]


def calls(work: Callable[[], object]) -> int:
    """The number of calls of Python functions and steps of generators in the work."""
    count = 0

    def see(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def saved(results: list[Result], path: Path) -> Path:
    path.write_bytes(b"".join(store.format_line(result, {}) for result in results))
    return path


def growth(work: Callable[[int], Callable[[], object]], count: int = ROWS) -> float:
    """How many times more calls twice the rows need. ``work`` prepares what is counted."""
    work(2)()  # what is imported or kept the first time
    return calls(work(2 * count)) / calls(work(count))


def test_quadratic_work_is_seen() -> None:
    def work(count: int) -> Callable[[], object]:
        results = rows(count)
        return lambda: [Figures.of(result, results) for result in results]

    assert growth(work) > 3


@pytest.mark.parametrize("step", [latest, Figures.of_all], ids=["latest", "figures"])
def test_work_grows_with_the_rows(step: Callable[[list[Result]], object]) -> None:
    def work(count: int) -> Callable[[], object]:
        results = rows(count)
        return lambda: step(results)

    assert growth(work) < 2.3


@pytest.mark.slow
@pytest.mark.parametrize("step", [store.read, lambda path: compare(path, path, Limits())], ids=["read", "compare"])
def test_commands_grow_with_the_rows(step: Callable[[Path], object], tmp_path: Path) -> None:
    def work(count: int) -> Callable[[], object]:
        path = saved(rows(count), tmp_path / f"{count}.jsonl")
        return lambda: step(path)

    assert growth(work, WHOLE_ROWS) < 2.3
