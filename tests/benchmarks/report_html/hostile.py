"""Results and findings in which every text is written by an enemy of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import count
from typing import Any, TypeVar

from benchmarks.accuracy.packing import PackedPredictions
from benchmarks.analysis.figures import Figures
from benchmarks.records.findings import Findings
from runtimes.errors import Reason
from tests.benchmarks.paper.samples import degradation, responses
from tests.benchmarks.report_html.measured import COLD, COMPARED, clients, stalled
from tests.benchmarks.results import ON_A_GPU, change, change_facts

LENGTH = 5_000

ATTACK = (
    '"><script>window.attacked = 1; alert(1)</script><img src="https://example.org/x.png" onerror=\'alert(2)\'>'
    "</title></style></svg><a href='javascript:alert(3)'>link</a> \u202egnp.exe \x1b[2J\x1b]8;;https://example.org\x07 "
)

WORDS = ("status", "shape", "arrivals", "verdict", "experiment", "outcome", "x_scale", "y_scale", "asked", "packed")
"""Fields that hold one of a few words, or that readers check: a file with other words in them is refused."""

T = TypeVar("T")


def poison(facts: T) -> T:
    """The same facts with an attack, its number and ``LENGTH`` letters in place of each text."""
    numbers = count()

    def attack(value: Any, name: str = "") -> Any:
        if name in WORDS and not isinstance(value, PackedPredictions) and not dataclasses.is_dataclass(value):
            return value
        if isinstance(value, Reason):
            return Reason(value.code, attack(value.sentence))
        if isinstance(value, str):
            return f"{next(numbers)}{ATTACK}{'W' * LENGTH}"
        if isinstance(value, tuple):
            return tuple(map(attack, value))
        if isinstance(value, Mapping):
            return {attack(key): attack(item) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return dataclasses.replace(value, **{key: attack(item, key) for key, item in inner.items()})
        return value

    poisoned: T = attack(facts)
    return poisoned


def hostile_results() -> tuple[Figures, ...]:
    """Two configurations that took turns, one that was skipped, one of a GPU, and loads."""
    results: list[Figures] = []
    subject, sha256, run = (f"{ATTACK}{'S' * LENGTH}" for _ in range(3))
    for figures in (
        COMPARED[0],
        COMPARED[3],
        COMPARED[-1],
        ON_A_GPU,
        stalled("server", 1200),
        clients(1),
        clients(2),
        COLD,
    ):
        poisoned = poison(figures.result)
        same = change_facts(
            poisoned, subject=subject, sha256=sha256, run=run, environment=poison(figures.result.environment)
        )
        results.append(change(same, **figures.stated) if hasattr(figures, "stated") else Figures(same))
    return tuple(results)


def hostile_findings() -> tuple[Findings, ...]:
    """Two experiments."""
    return poison(degradation((0,))), poison(responses())
