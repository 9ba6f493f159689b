"""Errors and curves of several seeds: their differences, their spread, and what a claim about them comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Line, Outcome, floats
from benchmarks.stats.comparison import welch_freedom
from benchmarks.stats.intervals import student
from exporter.models.variants import Variant
from exporter.proportions import newcombe


@dataclass(frozen=True)
class ErrorDifference:
    """How much larger one error is than another, as a fraction, with a 95 % interval.

    ``over`` says what the interval covers: ``seeds`` where both errors have several, else the ``images`` alone, and
    another seed may then lie outside.
    """

    value: float
    low: float
    high: float
    over: Literal["seeds", "images"]

    @property
    def outcome(self) -> Outcome:
        """Whether the first error is larger, as claimed."""
        return judge_larger(self.low, self.high)

    def in_points(self) -> str:
        """For people: ``+1.20 [0.90, 1.50] points over seeds``."""
        return f"{100 * self.value:+.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}] points over {self.over}"


def judge_larger(low: float, high: float) -> Outcome:
    """Whether a difference with this interval is larger than zero: ``undecided`` where the interval holds zero."""
    if low > 0:
        return "confirmed"
    return "contradicted" if high < 0 else "undecided"


def difference(more: Sequence[float], less: Sequence[float], images: int) -> ErrorDifference:
    """The mean of ``more`` minus that of ``less``; each holds an error a seed, and each error is of ``images``.

    With two or more seeds on both sides by Welch (1947), with Student's t and his degrees of freedom. Otherwise, and
    where all seeds agree to the digit, the first seeds' errors with Newcombe's interval (1998, method 10).
    """
    value = float(np.mean(more) - np.mean(less))
    errors = [float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else math.nan for side in (more, less)]
    total = sum(errors)
    if not total > 0:
        return ErrorDifference(more[0] - less[0], *newcombe(more[0], images, less[0], images), over="images")
    reach = student(welch_freedom(errors, (len(more), len(less)))) * math.sqrt(total)
    return ErrorDifference(value, value - reach, value + reach, "seeds")


def spread(errors: Sequence[float]) -> str:
    """Percent for people: ``8.91``, or of several seeds ``8.91 ± 0.12``, the standard deviation."""
    middle = f"{100 * float(np.mean(errors)):.2f}"
    return middle if len(errors) < 2 else f"{middle} ± {100 * float(np.std(errors, ddof=1)):.2f}"


def seeds_line(
    label: str, family: str, x: Sequence[float], values: NDArray[np.float64], *, dashed: bool = False, log: bool = False
) -> Line:
    """The mean of the seeds' ``values`` (seeds, points), in the range that they span; ``log`` takes the geometric
    mean."""
    middle = np.exp(np.log(values).mean(axis=0)) if log else values.mean(axis=0)
    band = (floats(values.min(axis=0)), floats(values.max(axis=0))) if len(values) > 1 else ((), ())
    return Line(label, family, floats(x), floats(middle), *band, dashed=dashed)


def layers_line(variant: Variant, values: NDArray[np.float64], *, log: bool = False) -> Line:
    """The values (seeds, layers) of one network by layer; networks of one depth are one family."""
    family = f"{count_layers(variant)} layers"
    label, numbers = f"{family}, {variant.family}", range(1, values.shape[1] + 1)
    return seeds_line(label, family, numbers, values, dashed=not variant.residual, log=log)


def line_by_number(label: str, y: Sequence[float]) -> Line:
    """The values by their number from 1."""
    return Line(label, label, floats(range(1, len(y) + 1)), floats(y))
