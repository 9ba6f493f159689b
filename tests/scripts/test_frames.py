from __future__ import annotations

import ast
from pathlib import Path

import pytest

from scripts import frames
from scripts.frames import Frame

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def way() -> frames.Way:
    return frames.walk(ROOT)


def test_the_way_from_rbench_run_to_the_timed_call_is_short(way: frames.Way) -> None:
    assert [frame.name for frame in (way.parent[0], way.parent[-1])] == ["main", "Worker.turn"]
    assert [frame.name for frame in (way.worker[0], way.worker[-1])] == ["main", "FakeSession.run"]
    assert way.frames <= frames.MOST_FRAMES
    assert len(way.types) <= frames.MOST_TYPES


def test_frames_are_of_our_packages_and_no_modules(way: frames.Way) -> None:
    for frame in (*way.parent, *way.worker):
        assert frame.path.parts[0] in frames.PACKAGES
        assert frame.name != "<module>"
        assert (ROOT / frame.path).exists()


SOURCE = """
import click
from benchmarks.things import Base
class Own:
    def __init__(self, part: Part) -> None: ...
    @property
    def call(self, given: Given, command: click.Command) -> Returned:
        made: Local = Made(Nested())
        raise BrokenError(made)
    def other(self) -> Unused: ...
class Part: ...
class Given: ...
class Command: ...
class Returned: ...
class Local: ...
class Made: ...
class Nested: ...
class Unused: ...
class BrokenError(Exception): ...
"""


def test_types_are_those_that_the_functions_name(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/own.py").write_text(SOURCE)
    (line,) = {
        node.lineno for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.Name) and node.id == "property"
    }
    found = frames._types(tmp_path, [Frame(Path("benchmarks/own.py"), line, "Own.call")])
    assert found == {"Own", "Part", "Given", "Returned", "Local", "Made", "Nested"}


def test_a_root_without_the_packages_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=tmp_path.name):
        frames.walk(tmp_path)
