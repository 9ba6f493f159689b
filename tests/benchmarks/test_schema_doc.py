"""docs/schema.md against the dataclasses: every field with its type, unit and version, and none that is not there."""

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

from benchmarks.analysis.figures import NAMES, Figures
from benchmarks.compare.compare import ComparisonReport, check_facts
from benchmarks.records import result, store
from benchmarks.records.result import Result

DOCUMENT = (Path(__file__).parents[2] / "docs/schema.md").read_text()

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

NEW = (
    *(
        "Baseline",
        "Result",
        "Identity",
        "Asked",
        "Ran",
        "Evaluation",
        "GpuUse",
        "RoofInputs",
        "RecordedFigures",
        "Estimate",
    ),
    *("Reason", "Figures", "ServedLoad"),
)
SINCE = {
    **dict.fromkeys(NEW, 5),
    **dict.fromkeys(("RowComparison.backend", "RowComparison.regressions", "RowComparison.remarks"), 5),
    **dict.fromkeys(("LoadResult.served", "Conditions.gpu", "GpuConditions", "GpuState.mig_device"), 5),
    **{
        f"Gpu.{name}": 5
        for name in ("power_limit_default_w", "compute_mode", "mig", "mps", "persistence", "ecc", "application_mhz")
    },
    "Environment": 1,
    "Environment.gpus": 3,
    "Gpu": 3,
    "GpuState": 3,
}
"""Since when a table or a field is there; others since version 4."""


def is_object(hint: Any) -> bool:
    """Whether JSON has an object of it."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))


def tables(cls: type) -> dict[str, type]:
    """The dataclass and all that are in it, by name."""
    found: dict[str, type] = {}

    def visit(hint: Any) -> None:
        if is_object(hint) and hint.__name__ not in found:
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
    if is_object(hint):
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
    hints = {name: typing.get_type_hints(cls) for name, cls in (tables(Result) | tables(ComparisonReport)).items()}
    figures = {name: getattr(Figures, name).func for name in NAMES}
    hints["Figures"] = {name: typing.get_type_hints(function)["return"] for name, function in figures.items()}
    return {
        f"{table}.{name}": (words(hint), unit(name), str(SINCE.get(f"{table}.{name}", SINCE.get(table, 4))))
        for table, fields in hints.items()
        for name, hint in fields.items()
    }


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
    ("old", "new", "faults"),
    [
        ("| `seed` |", "| `sead` |", ("Asked.seed", "Asked.sead")),
        ("| `p99` |", "| `p98` |", ("Figures.p99", "Figures.p98")),
        ("| `settled` |", "| `p50_s` |", ("Series.settled", "Series.p50_s")),
        ("| `threads` |", "| `seed` |", ("Asked.threads", "Asked.seed")),
        ("| `batch` | integer |", "| `batch` | number |", ("Identity.batch",)),
        ("| `p50` | [Estimate](#estimate) or null |", "| `p50` | number |", ("Figures.p50",)),
        ("| s | 5 | of opening", "| ms | 5 | of opening", ("Figures.load_s",)),
        ("| 5 | in each process |", "| 4 | in each process |", ("Asked.rounds",)),
        ("| 4 | threads that call |", "| 4 | threads |", ("LoadResult.clients",)),
        ("it is 5 now", "it is 3 now", ("the present version",)),
    ],
)
def test_a_wrong_document_is_caught(old: str, new: str, faults: tuple[str, ...]) -> None:
    assert DOCUMENT.count(old) >= 1
    found = problems(DOCUMENT.replace(old, new, 1))
    assert [any(problem.startswith(fault) for problem in found) for fault in faults] == [True] * len(faults)


def test_the_examples_have_the_figures_of_their_facts(tmp_path: Path) -> None:
    lines = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = store.read(path)
    assert [result.status for result in results] == ["skipped", "ok"]
    for line, figures in zip(lines, Figures.of_all(results), strict=True):
        assert {name: value for name, value in figures.as_json().items() if value is not None} == line["figures"]
        check_facts(figures.result, "schema.md")
    assert [len(process.latency.rounds_s) for process in results[1].samples] == [2, 2]


def test_every_link_has_a_heading() -> None:
    headings = {line.split(" ", 1)[1].lower() for line in DOCUMENT.splitlines() if line.startswith("## ")}
    assert {*re.findall(r"\(#(\w+)\)", DOCUMENT)} <= headings
