"""The page of growth says what its data says, and the exponents are those of known curves."""

from __future__ import annotations

import pytest

from scripts.figures import growth
from scripts.figures.growth import Case, exponent, fitted


def curve(power: float) -> list[Case]:
    return [Case("label", size, 3 * size**power, 1) for size in (10, 20, 50, 100)]


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_known_exponent_is_found(power: float) -> None:
    assert exponent(curve(power)) == pytest.approx(power)
    slope, error = fitted(curve(power))
    assert slope == pytest.approx(power)
    assert error < 1e-6


def test_the_page_has_the_table_of_its_data() -> None:
    page = growth.PAGE.read_text(encoding="utf-8")
    assert f"{growth.BEGIN}\n{growth.tabulate()}\n{growth.END}" in page


@pytest.mark.parametrize("kind", [kind for kind in growth.SIZES if kind != "export-whole"])
def test_what_was_measured_grows_near_linearly(kind: str) -> None:
    assert fitted(growth.read_cases(kind))[0] <= growth.LARGEST_EXPONENT
