"""Each sentence that the product says is pinned here alone; other tests name its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.house.sources import read_house
from scripts.sentences import TABLE, Scan, differences, read_table, scan

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def product() -> Scan:
    return scan(read_house(REPOSITORY).packages)


def test_the_source_says_what_the_table_holds(product: Scan) -> None:
    assert differences(read_table(REPOSITORY / TABLE), product.table()) == []


def test_every_refusal_has_a_code_with_one_sentence(product: Scan) -> None:
    assert product.faults == ()
