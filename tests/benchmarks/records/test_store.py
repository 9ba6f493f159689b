"""Rows whose numbers a figure is divided by."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import headlines
from benchmarks.records import store
from benchmarks.records.result import RoofInputs
from runtimes.errors import ArtifactError
from tests.benchmarks.results import EMPTY, FASTER, REFERENCE, change, change_facts
from tests.refusals import refuses

ROOF = RoofInputs(41_000_000, 1_100_000, 4e11, 2e10)


@pytest.mark.parametrize("name", store.ROOF_DIVISORS)
def test_a_roof_of_zero_is_refused(name: str, tmp_path: Path) -> None:
    good = change_facts(EMPTY, roof=ROOF)
    assert store.parse_line(store.format_line(good, {}), 1, "rows") == good
    kind = type(getattr(ROOF, name))
    bad = change_facts(EMPTY, roof=dataclasses.replace(ROOF, **{name: kind(0)}))
    with refuses(ArtifactError, "row-not-positive", "line 1", f"roof.{name}"):
        store.parse_line(store.format_line(bad, {}), 1, tmp_path / "rows.jsonl")


@pytest.mark.parametrize(("field", "said"), [("batch", "identity.batch"), ("threads", "ran.threads")])
def test_counts_of_zero_are_refused(field: str, said: str, tmp_path: Path) -> None:
    bad = change_facts(REFERENCE.result, **{field: 0})
    with refuses(ArtifactError, "row-not-positive", said):
        store.parse_line(store.format_line(bad, {}), 1, tmp_path / "rows.jsonl")


def test_a_row_without_times_is_not_compared() -> None:
    process = REFERENCE.result.samples[0]
    silent = dataclasses.replace(process, latency=dataclasses.replace(process.latency, rounds_s=((),)))
    bare = change(REFERENCE, samples=(silent,))
    assert headlines([bare]) == ()
    assert Figures(FASTER.result, reference=bare.result).ratio is None
