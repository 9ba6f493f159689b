"""The docstrings of the checked packages follow the rules."""

from __future__ import annotations

from pathlib import Path

from scripts.docstrings import find_faults
from scripts.house.sources import read_house

REPOSITORY = Path(__file__).resolve().parents[1]


def test_docstrings_follow_the_rules() -> None:
    assert find_faults(read_house(REPOSITORY).packages) == []
