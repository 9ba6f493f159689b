"""The check of a precision on features, class maps and the maps of stages, on numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from exporter.precision.output_gate import (
    OutputComparison,
    compare_neighbours,
    compare_peaks,
    describe_output,
    output_failures,
)
from exporter.precision.table import Bounds
from runtimes.artifacts.manifest import OutputGate

BOUNDS = Bounds(error=0.1, agreement=0.98, drop=0.005)

Values = NDArray[np.float32]


def pairs(count: int, seed: int = 0) -> Values:
    """Features (2 * count, 64) of pairs of images that are close to each other and far from all others."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, 64)).repeat(2, axis=0)
    return (values + 0.01 * random.standard_normal(values.shape)).astype(np.float32)


def maps(count: int) -> Values:
    """Class maps (count, 3, 4, 4) whose best class and peak are clear."""
    values = np.random.default_rng(1).uniform(0, 1, (count, 3, 4, 4))
    values[np.arange(count), np.arange(count) % 3] += 1
    values[np.arange(count), np.arange(count) % 3, 2, 1] = 9
    return values.astype(np.float32)


def records(name: str, expected: Values, given: Values, real: bool = True) -> tuple[OutputGate, ...]:
    """The figures of one output, taken in batches of 7 images."""
    comparison = OutputComparison([name], real)
    for start in range(0, len(expected), 7):
        comparison.add({name: expected[start : start + 7]}, {name: given[start : start + 7]})
    return comparison.records(BOUNDS)


@pytest.mark.parametrize("name", ["features", "cam", "stage1"])
def test_equal_outputs_pass(name: str) -> None:
    values = pairs(50) if name == "features" else maps(100)
    (record,) = records(name, values, values)
    assert (record.name, record.error, record.flips, record.near_ties) == (name, 0, 0, 0)
    assert (record.compared is None) == (name == "stage1")
    assert output_failures([record], 100) == []


def test_the_error_is_taken_over_all_batches() -> None:
    values = pairs(50)
    (record,) = records("stage1", values, values * np.float32(1.05))
    assert record.error == pytest.approx(0.05, rel=1e-5)
    (wrong,) = records("stage1", values, values * np.float32(1.11))
    (reason,) = output_failures([wrong], 100)
    assert reason.code == "output-error"
    assert "stage1" in reason.sentence


def test_one_number_that_is_not_finite_fails() -> None:
    values = pairs(50)
    given = values.copy()
    given[17, 3] = np.nan
    (record,) = records("features", values, given)
    assert output_failures([record], 100) != []


def test_neighbours_that_change_places_are_found() -> None:
    values = pairs(50)
    given = values.copy()
    given[:8:2], given[1:9:2] = values[:8:2], np.roll(values[1:9:2], 1, axis=0)  # the partners of four pairs rotate
    assert compare_neighbours(values, given) == (8, 0)
    (record,) = records("features", values, given)
    (reason,) = [each for each in output_failures([record], 100) if each.code == "output-moved"]
    assert "8 of 100" in reason.sentence


def test_a_change_among_equals_is_borderline() -> None:
    values = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)  # three images each, all the same
    random = np.random.default_rng(0)
    given = (values + 1e-3 * random.standard_normal(values.shape)).astype(np.float32)
    flips, ties = compare_neighbours(values, given)
    assert flips == 0
    assert ties > 0


def test_a_single_image_has_no_neighbour() -> None:
    assert compare_neighbours(pairs(1)[:1], pairs(1)[:1]) == (0, 0)


def test_a_peak_that_moves_is_found() -> None:
    values = maps(100)
    given = values.copy()
    given[:5, :, 0, 3] = 10
    assert compare_peaks(values, given) == (5, 0)
    (record,) = records("cam", values, given)
    assert [each.code for each in output_failures([record], 100)] == ["output-error", "output-moved"]
    high = values.copy()
    high[:5, :, 0, 3] = 8.9
    flips, ties = compare_peaks(high, given)
    assert (flips, ties) == (0, 5)  # fp32 is nearly undecided between the two places


def test_noise_has_no_neighbours_and_no_peaks() -> None:
    values = maps(30)
    given = values.copy()
    given[:, :, 0, 3] = 9.1
    (record,) = records("cam", values, given, real=False)
    assert (record.compared, record.flips) == (None, 0)


def test_the_figures_are_described() -> None:
    record = OutputGate("features", 0.031, "nearest neighbour", 1, 3, {})
    assert "96.00 %" in describe_output(record, 100)
