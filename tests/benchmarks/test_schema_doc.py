"""SCHEMA.md against the dataclasses: every field with its type, unit and version, and none that is not there."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import integrity
from benchmarks.compare.compare import ComparisonReport
from benchmarks.records import result
from benchmarks.records.result import Row
from runtimes import codec
from tests.benchmarks.records.test_migration import NEW_IN_2, NEW_IN_3, NEW_IN_4

DOCUMENT = Path(result.__file__).with_name("SCHEMA.md").read_text()

UNITS = {
    "_per_s": "1/s",
    "_bytes_per_s": "bytes/s",
    "_s": "s",
    "_bytes": "bytes",
    "_j": "J",
    "_w": "W",
    "_c": "°C",
    "mhz": "MHz",
    "_mhz_max": "MHz",
}
"""Of a field, by the longest of these that its name ends in."""

VERSIONS = {
    **{f"Row.{name}": 4 for name in NEW_IN_4},
    **{f"Row.{name}": 3 for name in NEW_IN_3},
    **{f"Row.{name}": 2 for name in NEW_IN_2},
    "Environment.gpus": 3,
}
"""Since when a field is there; others since their table is."""

FIRST = {"Row": 1, "Environment": 1, "Gpu": 3, "GpuState": 3}
"""Since when a table is there; others since version 4."""


def tables(cls: type) -> dict[str, type]:
    """The dataclass and all that are in it, by name."""
    found: dict[str, type] = {}

    def visit(hint: Any) -> None:
        if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint.__name__ not in found:
            found[hint.__name__] = hint
            for inner in typing.get_type_hints(hint).values():
                visit(inner)
        for inner in typing.get_args(hint):
            visit(inner)

    visit(cls)
    return found


def words(hint: Any) -> str:
    """A type in JSON's terms."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(words, members))
    if origin is typing.Literal:
        return ", ".join(f"`{member}`" for member in members)
    if origin is tuple:
        return f"list of {words(members[0])}" if members[-1] is Ellipsis else f"[{', '.join(map(words, members))}]"
    if origin is not None:
        return f"object of {words(members[1])}"
    return {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "null"}[hint]


def unit(name: str) -> str:
    ends = [end for end in UNITS if name.replace("_interval", "").endswith(end)]
    return UNITS[max(ends, key=len)] if ends else ""


def expected() -> dict[str, tuple[str, str, str]]:
    """Type, unit and version of each field, by "Table.field"."""
    found = {}
    for table, cls in {**tables(Row), **tables(ComparisonReport)}.items():
        for name, hint in typing.get_type_hints(cls).items():
            since = VERSIONS.get(f"{table}.{name}", FIRST.get(table, 4))
            found[f"{table}.{name}"] = (words(hint), unit(name), str(since))
    return found


def documented(text: str) -> Iterator[tuple[str, tuple[str, str, str], str]]:
    """Each field's "Table.field", its type, unit and version, and its meaning."""
    table = ""
    for line in text.splitlines():
        if line.startswith("## "):
            table = line.removeprefix("## ")
        if found := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.*?) ?\| (\d+) \| (.+) \|", line):
            yield f"{table}.{found[1]}", (found[2], found[3].strip(), found[4]), found[5]


def problems(text: str) -> list[str]:
    """What is wrong with the document."""
    there = list(documented(text))
    names, wanted = [name for name, _, _ in there], expected()
    wrong = [f"{name} is not documented" for name in wanted if name not in names]
    wrong += [f"{name} is documented and is no field" for name in names if name not in wanted]
    wrong += [f"{name} is documented twice" for name in {*names} if names.count(name) > 1]
    for name, said, meaning in there:
        if name in wanted and said != wanted[name]:
            wrong.append(f"{name} is documented as {said}, and is {wanted[name]}")
        if len(meaning.split()) < 2:
            wrong.append(f"{name} has no meaning")
    if f"it is {result.SCHEMA_VERSION} now" not in text or f"| {result.SCHEMA_VERSION} |" not in text:
        wrong.append("the present version is not documented")
    return wrong


def test_every_field_is_documented_as_it_is() -> None:
    assert problems(DOCUMENT) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| `p99_s` |", "| `p98_s` |", "Row.p99_s is not documented"),
        ("| `p99_s` |", "| `p98_s` |", "Row.p98_s is documented and is no field"),
        ("| `settled` |", "| `p50_s` |", "Series.settled is not documented"),
        ("| `p90_s` |", "| `p50_s` |", "Row.p50_s is documented twice"),
        ("| `batch` | integer |", "| `batch` | number |", r"Row.batch is documented as ('number', '', '1')"),
        ("| `p50_s` | number or null | s |", "| `p50_s` | number or null | ms |", "Row.p50_s is documented as"),
        ("| s | 4 | from 10,000", "| s | 3 | from 10,000", "Row.p999_s is documented as"),
        ("| 4 | threads that call |", "| 4 | threads |", "LoadResult.clients has no meaning"),
        ("it is 4 now", "it is 3 now", "the present version is not documented"),
    ],
)
def test_a_document_that_is_wrong_is_caught(old: str, new: str, message: str) -> None:
    assert DOCUMENT.count(old) >= 1
    assert any(message in problem for problem in problems(DOCUMENT.replace(old, new, 1)))


def test_the_examples_are_rows_with_figures_of_their_own_samples() -> None:
    examples = [codec.decode(Row, json.loads(text)) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)]
    assert [row.status for row in examples] == ["skipped", "ok"]
    for row in examples:
        integrity.check(row, "SCHEMA.md")
    assert [len(sitting.latency.rounds_s) for sitting in examples[1].sittings] == [2, 2]


def test_every_link_has_a_heading() -> None:
    headings = {line.split(" ", 1)[1].lower() for line in DOCUMENT.splitlines() if line.startswith("## ")}
    assert {*re.findall(r"\(#(\w+)\)", DOCUMENT)} <= headings
