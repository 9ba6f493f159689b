"""The recipes of int8: how the ranges of values are estimated and how the rounding of weights is compensated.

This module imports nothing heavy, because the ``--help`` of commands lists the names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtimes.artifacts.manifest import DEFAULT_RECIPE
from runtimes.errors import UsageError, suggest

Ranges: TypeAlias = Literal["MINMAX", "MEAN_NO_OUTLIERS_MINMAX", "MEAN_QUANTILE", "HISTOGRAM"]
"""How NNCF estimates the range of an activation: a name in its ``RangeEstimatorParametersSet``."""

BiasCorrection: TypeAlias = Literal["fast", "full", "none"]
"""How the biases compensate for the rounding of weights: NNCF's fast algorithm, its slow one, or not at all."""


@dataclass(frozen=True)
class CalibrationRecipe:
    """A row of ``RECIPES``.

    Attributes:
        name: The name for users.
        times: The number of calibration images, as a multiple of the requested one.
        ranges: How ranges are estimated. ``None`` means NNCF's default: the mean of the extremes of all images.
        bias_correction: How biases are corrected.
    """

    name: str
    times: int = 1
    ranges: Ranges | None = None
    bias_correction: BiasCorrection = "fast"


RECIPES: dict[str, CalibrationRecipe] = {
    row.name: row
    for row in (
        CalibrationRecipe(DEFAULT_RECIPE),
        CalibrationRecipe("more-images", times=4),
        CalibrationRecipe("no-outliers", ranges="MEAN_NO_OUTLIERS_MINMAX"),
        CalibrationRecipe("quantile", ranges="MEAN_QUANTILE"),
        CalibrationRecipe("histogram", ranges="HISTOGRAM"),
        CalibrationRecipe("minmax", ranges="MINMAX"),
        CalibrationRecipe("full-bias-correction", bias_correction="full"),
        CalibrationRecipe("no-bias-correction", bias_correction="none"),
    )
}
"""All recipes by name, in the order in which they are tried."""


def recipe(name: str) -> CalibrationRecipe:
    """Return the recipe with this name.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}", code="recipe-unknown", hint=suggest(name, RECIPES))
    return RECIPES[name]
