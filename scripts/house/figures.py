"""The figures of a house: what is measured, which bound holds for it, and what stands behind each number."""

from __future__ import annotations

import ast
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scripts.house.graph import floors, graph_of
from scripts.house.imports import arrows, file_circles, folder_circles, rooms
from scripts.house.names import body_length, class_names, copies, long_test_names, participles
from scripts.house.sentences import sentences
from scripts.house.sources import Function, House, Source

BOUNDS: dict[str, float] = {
    "rooms": 24,
    "floors": 12,
    "arrows": 100,
    "file-circles": 0,
    "folder-circles": 0,
    "class-names": 0,
    "participles": 30,
    "sentences": 350,
    "lines": 16_500,
    "fields": 32,
    "long-test-names": 0,
}
LONG_FILE = 400
LISTED_FILES = 10
# The class of the stored result is looked for in this order.
STORED_RESULTS = (("benchmarks/records/result.py", "Result"), ("benchmarks/results.py", "Row"))


@dataclass(frozen=True)
class Figure:
    """A figure is one number with its meaning and the items behind it; it has no value if nothing could be measured."""

    name: str
    meaning: str
    value: float | None
    items: tuple[str, ...] = ()

    @property
    def bound(self) -> float | None:
        """The largest value that is allowed; figures for information have none."""
        return BOUNDS.get(self.name)

    @property
    def is_exceeded(self) -> bool:
        """This says whether the value breaks its bound; so does a value that is missing."""
        return self.bound is not None and (self.value is None or self.value > self.bound)


def figures(house: House) -> list[Figure]:
    """The figures of a house, those with a bound first."""
    return [*_structure(house), *_wording(house), *_sizes(house), *_shares(house)]


def _structure(house: House) -> Iterator[Figure]:
    names = rooms(house.benchmarks)
    entries = arrows(house.benchmarks)
    levels = floors(graph_of(names, entries))
    highest = max(levels.values(), default=0)
    shown = [
        f"{level}: {', '.join(name for name in names if levels[name] == level)}"
        for level in sorted({*levels.values()}, reverse=True)
    ]
    lines = [f"{start} -> {end} ({entry.importer}:{entry.line})" for (start, end), entry in entries.items()]
    yield _count("rooms", "files and folders directly below benchmarks/", names)
    yield Figure("floors", "longest path of the arrows between these rooms", highest, tuple(shown))
    yield _count("arrows", "pairs of rooms of which one imports the other", lines)
    yield _count("file-circles", "circles of imports between files", file_circles(house.packages))
    yield _count(
        "folder-circles", "circles of imports between neighbours with a folder", folder_circles(house.packages)
    )


def _wording(house: House) -> Iterator[Figure]:
    yield _count("class-names", "class names with more than one meaning", class_names(house.packages))
    yield _count("participles", "functions and methods named by a participle", participles(house.packages))
    yield _count("sentences", "strings of four words or more that tests compare with", sentences(house.tests))


def _sizes(house: House) -> Iterator[Figure]:
    benchmarks = sum(source.line_count for source in house.benchmarks)
    yield Figure("lines", "lines of Python below benchmarks/", benchmarks, _lengths(house.benchmarks))
    yield _fields(house)
    yield _count("long-test-names", "names of tests longer than sixty characters", long_test_names(house.tests))
    yield _count("copies", "bodies of four lines or more that several functions share", copies(house.packages))
    files = _lengths(house.everything)
    longest = max((source.line_count for source in house.everything), default=0)
    yield Figure("longest-file", "lines of the longest Python file, tests included", longest, files[:LISTED_FILES])
    long = [source for source in house.everything if source.line_count > LONG_FILE]
    yield _count("long-files", "files of more than four hundred lines, tests included", _lengths(long))


def _shares(house: House) -> Iterator[Figure]:
    functions = [(source, node) for source in house.packages for node in source.functions()]
    lengths = sorted(body_length(node) for _, node in functions) or [0]
    ranked = sorted(functions, key=lambda pair: -body_length(pair[1]))
    shown = tuple(f"{body_length(node)} {source.place(node)} {node.name}" for source, node in ranked[:LISTED_FILES])
    silent = [f"{source.place(node)} {node.name}" for source, node in functions if ast.get_docstring(node) is None]
    lines = sum(source.line_count for source in house.packages)
    docstring_lines = sum(_docstring_lines(source) for source in house.packages)
    yield Figure("functions", "functions and methods of the three packages", len(functions))
    yield Figure("body-median", "median length of their bodies, in lines", statistics.median(lengths))
    yield Figure("body-p90", "length that nine in ten bodies do not exceed", lengths[math.ceil(0.9 * len(lengths)) - 1])
    yield Figure("body-max", "length of the longest body", lengths[-1], shown)
    yield Figure(
        "docstrings",
        "percent of functions that have a docstring",
        _percent(len(functions) - len(silent), len(functions)),
        tuple(silent),
    )
    yield Figure("docstring-lines", "percent of lines that belong to docstrings", _percent(docstring_lines, lines))


def _count(name: str, meaning: str, items: Sequence[str]) -> Figure:
    return Figure(name, meaning, len(items), tuple(items))


def _lengths(sources: Sequence[Source]) -> tuple[str, ...]:
    """The files with their numbers of lines, longest first."""
    return tuple(
        f"{source.line_count} {source.path}" for source in sorted(sources, key=lambda source: -source.line_count)
    )


def _fields(house: House) -> Figure:
    """The fields of the stored result are the annotated names in its class body, inherited ones not included."""
    by_path = {str(source.path): source for source in house.benchmarks}
    for path, name in STORED_RESULTS:
        for node in ast.walk(by_path[path].tree) if path in by_path else ():
            if isinstance(node, ast.ClassDef) and node.name == name:
                fields = [ast.unparse(part.target) for part in node.body if isinstance(part, ast.AnnAssign)]
                return _count("fields", f"fields of {name} in {path}", fields)
    return Figure("fields", "fields of the stored result, whose class was not found", None)


def _docstring_lines(source: Source) -> int:
    """The number of lines that the docstrings of a file, its classes and its functions take."""
    owners = ast.Module | ast.ClassDef | Function
    nodes = [node for node in ast.walk(source.tree) if isinstance(node, owners)]
    texts = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    return sum((text.end_lineno or text.lineno) - text.lineno + 1 for text in texts)


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
