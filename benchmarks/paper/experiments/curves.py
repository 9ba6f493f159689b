"""Runs grouped by network, a seed each: their errors, their curves, and whether one network's errors are the larger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.training.recipe import count_layers
from benchmarks.paper.training.run import CurvePoint, Run, TrainingSegment, curve, open_run
from benchmarks.records.findings import Check, Line, Outcome, Provenance, floats
from benchmarks.stats.comparison import welch_freedom
from benchmarks.stats.intervals import student
from exporter.models.variants import Variant
from exporter.proportions import newcombe
from runtimes.errors import Reason, UsageError


@dataclass(frozen=True)
class Curves:
    """The runs of one network, a seed each, with the points of their curves, which all end at the same iteration.

    ``label`` names the network where its name alone does not tell: ``resnet20, option A``. ``until`` is where the
    curves were cut because not all runs are finished, or ``None``.
    """

    label: str
    runs: tuple[Run, ...]
    points: tuple[tuple[CurvePoint, ...], ...]
    until: int | None = None

    @property
    def variant(self) -> Variant:
        """The network that all runs train."""
        return self.runs[0].identity.variant

    def errors(self, part: str) -> tuple[float, ...]:
        """The final error on ``train``, ``validation`` or ``test``, a fraction a seed. Cut curves give the error at
        their end, where that on ``train`` is of the updates' own images."""
        ends = [
            run.outcome if self.until is None and run.outcome is not None else points[-1]
            for run, points in zip(self.runs, self.points, strict=True)
        ]
        return tuple(getattr(end, f"{part}_error") for end in ends)

    def line(self, label: str, part: str, *, dashed: bool = False) -> Line:
        """The errors on a part in percent over iterations: the seeds' mean and range."""
        iterations = [point.iteration for point in self.points[0]]
        errors = [[getattr(point, f"{part}_error") for point in points] for points in self.points]
        return seeds_line(label, self.label, iterations, 100 * np.array(errors), dashed=dashed)


def gather_runs(
    folders: Sequence[Path], label: Callable[[Variant], str] = lambda variant: variant.name, so_far: bool = False
) -> list[Curves]:
    """The runs in these folders by network, in the order of the first of each.

    ``so_far`` takes unfinished ones as well: all curves are then cut at the last point that all of them have.

    Raises:
        UsageError: a run is not finished, has no point yet, or is not of the same recipe and data as the first.
        ResourceError, ArtifactError: a run cannot be read.
    """
    gathered = [(open_run(folder), curve(folder)) for folder in folders]
    first = gathered[0][0].identity
    for folder, (run, points) in zip(folders, gathered, strict=True):
        if run.outcome is None and not so_far:
            hint = "the command that began it goes on with it; --so-far takes it as it is"
            raise UsageError("this run is not finished", code="run-unfinished", path=folder, hint=hint)
        if not points:
            raise UsageError("this run has no point of its curve yet", code="run-without-points", path=folder)
        if (run.identity.recipe, run.identity.corpus) != (first.recipe, first.corpus):
            raise UsageError("a run of another recipe or other data than the first", code="runs-differ", path=folder)
    until = min(points[-1].iteration for _, points in gathered)
    cut = None if all(run.outcome is not None for run, _ in gathered) else until
    networks: dict[str, Curves] = {}
    for run, points in gathered:
        name = label(run.identity.variant)
        kept = tuple(point for point in points if point.iteration <= until)
        known = networks.get(name, Curves(name, (), (), cut))
        networks[name] = replace(known, runs=(*known.runs, run), points=(*known.points, kept))
    return list(networks.values())


# Errors of several seeds ----------------------------------------------------------------------------------------------


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
    errors = [float(np.var(side, ddof=1)) / len(side) if len(side) > 1 else math.nan for side in (more, less)]
    total = sum(errors)
    if not total > 0:
        return ErrorDifference(more[0] - less[0], *newcombe(more[0], images, less[0], images), over="images")
    value = float(np.mean(more) - np.mean(less))
    reach = student(welch_freedom(errors, (len(more), len(less)))) * math.sqrt(total)
    return ErrorDifference(value, value - reach, value + reach, "seeds")


def spread(errors: Sequence[float]) -> str:
    """Percent for people: ``8.91``, or of several seeds ``8.91 ± 0.12``, the standard deviation."""
    middle = f"{100 * float(np.mean(errors)):.2f}"
    return middle if len(errors) < 2 else f"{middle} ± {100 * float(np.std(errors, ddof=1)):.2f}"


def check_larger(
    more: Curves, less: Curves, part: str, claim: str, source: str, labels: tuple[str, str] | None = None
) -> Check:
    """Whether one network's error on a part is larger than the other's, as the paper says. ``labels`` name the networks
    in place of their own labels."""
    errors = difference(more.errors(part), less.errors(part), more.runs[0].images[part])
    of_more, of_less = labels or (more.label, less.label)
    measured = (
        f"{'training' if part == 'train' else part} error {spread(more.errors(part))} % of {of_more} against "
        f"{spread(less.errors(part))} % of {of_less}: {errors.in_points()}"
    )
    return Check(claim, source, measured, errors.outcome)


def note_single_seed() -> Reason:
    """The note that one seed of a network says nothing of other seeds."""
    return Reason("single-seed", "One seed per network: intervals cover the images, not the variation between seeds.")


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
    label, numbers = f"{family}, {variant.paper_word}", range(1, values.shape[1] + 1)
    return seeds_line(label, family, numbers, values, dashed=not variant.residual, log=log)


def provenance(curves: Sequence[Curves], command: str) -> Provenance:
    """What the runs rest on."""
    runs = [run for one in curves for run in one.runs]
    first, recipe = runs[0], runs[0].identity.recipe
    segments = [segment for run in runs for segment in run.sittings]
    arithmetic = " and ".join(dict.fromkeys(map(_describe_arithmetic, segments)))
    shares = [run.input_share for run in runs if run.input_share is not None]
    input_share = f"; the input takes {max(shares):.0%} of an update at the most" if shares else ""
    return Provenance(
        data=first.data,
        images=dict(first.images),
        seeds=tuple(sorted({run.identity.seed for run in runs})),
        scale=recipe.scale,
        recipe=f"{recipe.describe()}; {arithmetic}{input_share}",
        machine=" and ".join(dict.fromkeys(segment.machine for segment in segments)),
        versions={
            name: ", ".join(dict.fromkeys(segment.versions[name] for segment in segments))
            for name in segments[0].versions
        },
        command=command,
        time=now(),
        until=curves[0].until,
    )


def _describe_arithmetic(segment: TrainingSegment) -> str:
    compiled = ", compiled" if segment.arithmetic.compiled else ""
    threads = f", {segment.threads} threads" if segment.arithmetic.device == "cpu" else ""
    return f"{segment.arithmetic.precision}{compiled} on {segment.arithmetic.device}{threads}"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
