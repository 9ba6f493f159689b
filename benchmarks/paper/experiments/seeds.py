"""Errors of several seeds against those of several others, and what a claim about them comes to. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.records.findings import Outcome
from benchmarks.stats.intervals import student
from exporter.proportions import wilson


@dataclass(frozen=True)
class ErrorDifference:
    """How much larger the one error is than the other, as a fraction, with a 95 % interval.

    ``over`` says what the interval covers: ``seeds`` where both have several, else the ``images`` alone: another seed
    may then lie outside.
    """

    value: float
    low: float
    high: float
    over: Literal["seeds", "images"]

    def in_points(self) -> str:
        """For people: ``+1.20 [0.90, 1.50] points over seeds``."""
        return f"{100 * self.value:+.2f} [{100 * self.low:.2f}, {100 * self.high:.2f}] points over {self.over}"


def difference(more: Sequence[float], less: Sequence[float], images: int) -> ErrorDifference:
    """The mean of ``more`` minus that of ``less``; each holds an error a seed, and each error is of ``images``.

    With two or more seeds on both sides by Welch (1947), with Student's t and his degrees of freedom. Otherwise, and
    where all seeds agree to the digit, the first seeds' errors with Newcombe's interval (1998, method 10).
    """
    value = float(np.mean(more) - np.mean(less))
    errors = [float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else math.nan for side in (more, less)]
    total = sum(errors)
    if not total > 0:
        first = more[0] - less[0]
        return ErrorDifference(first, *_newcombe(more[0], less[0], images, first), over="images")
    freedom = total**2 / sum(error**2 / (len(side) - 1) for error, side in zip(errors, (more, less), strict=True))
    reach = student(freedom) * math.sqrt(total)
    return ErrorDifference(value, value - reach, value + reach, "seeds")


def _newcombe(more: float, less: float, images: int, value: float) -> tuple[float, float]:
    (low, high), (other_low, other_high) = (wilson(round(share * images), images) for share in (more, less))
    return (
        value - math.hypot(more - low, other_high - less),
        value + math.hypot(high - more, less - other_low),
    )


def judge_difference(found: ErrorDifference) -> Outcome:
    """Whether it is larger, as claimed: ``undecided`` where the interval holds zero."""
    if found.low > 0:
        return "confirmed"
    return "contradicted" if found.high < 0 else "undecided"


def spread(errors: Sequence[float]) -> str:
    """Percent for people: ``8.91``, or of several seeds ``8.91 ± 0.12``, the standard deviation."""
    middle = f"{100 * float(np.mean(errors)):.2f}"
    return middle if len(errors) < 2 else f"{middle} ± {100 * float(np.std(errors, ddof=1)):.2f}"
