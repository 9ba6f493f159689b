"""The recipes of int8 and fp8: how ranges of values are estimated and how the rounding of weights is compensated.

This module imports nothing heavy, because the ``--help`` of commands lists the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtimes.artifacts.manifest import DEFAULT_RECIPE
from runtimes.errors import UsageError, suggest

Ranges: TypeAlias = Literal["MINMAX", "MEAN_NO_OUTLIERS_MINMAX", "MEAN_QUANTILE", "HISTOGRAM"]
"""How NNCF estimates the range of an activation: a name in its ``RangeEstimatorParametersSet``."""

BiasCorrection: TypeAlias = Literal["fast", "full", "none"]
"""How the biases compensate for the rounding of weights: NNCF's fast algorithm, its slow one, or not at all."""

Quantiser: TypeAlias = Literal["nncf", "modelopt"]
"""The library that places the nodes and calibrates them: NNCF, or NVIDIA ModelOpt."""


@dataclass(frozen=True)
class CalibrationRecipe:
    """A row of ``RECIPES``.

    Attributes:
        name: The name for users.
        times: The number of calibration images, as a multiple of the requested one.
        ranges: How ranges are estimated. ``None`` means the default of the precision: the mean of the extremes of all
            images for int8, and the extremes of all images for fp8.
        bias_correction: How biases are corrected. It has no effect in fp8.
        precisions: The precisions that have this recipe.
        quantiser: The quantisation library.
    """

    name: str
    times: int = 1
    ranges: Ranges | None = None
    bias_correction: BiasCorrection = "fast"
    precisions: tuple[str, ...] = ("int8", "fp8")
    quantiser: Quantiser = "nncf"


RECIPES: dict[str, CalibrationRecipe] = {
    row.name: row
    for row in (
        CalibrationRecipe(DEFAULT_RECIPE),
        CalibrationRecipe("more-images", times=4),
        CalibrationRecipe("no-outliers", ranges="MEAN_NO_OUTLIERS_MINMAX"),
        CalibrationRecipe("quantile", ranges="MEAN_QUANTILE"),
        CalibrationRecipe("histogram", ranges="HISTOGRAM"),
        CalibrationRecipe("minmax", ranges="MINMAX", precisions=("int8",)),
        CalibrationRecipe("full-bias-correction", bias_correction="full", precisions=("int8",)),
        CalibrationRecipe("no-bias-correction", bias_correction="none", precisions=("int8",)),
        CalibrationRecipe("modelopt", quantiser="modelopt"),
    )
}
"""All recipes by name, in the order in which they are tried."""


def recipes_for(precision: str, target: str) -> Mapping[str, CalibrationRecipe]:
    """Return the recipes of a precision by name, in the order in which they are tried.

    Args:
        precision: A calibrated precision.
        target: The deployment target. Graphs of ModelOpt are for ``tensorrt`` alone.
    """
    return {
        name: row
        for name, row in RECIPES.items()
        if precision in row.precisions and (row.quantiser == "nncf" or target == "tensorrt")
    }


def recipe(name: str) -> CalibrationRecipe:
    """Return the recipe with this name.

    Raises:
        UsageError: The name is unknown.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}", code="recipe-unknown", hint=suggest(name, RECIPES))
    return RECIPES[name]
