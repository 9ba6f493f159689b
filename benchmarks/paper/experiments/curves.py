"""Finished runs grouped by network, and their curves as panels: the paper's Figures 1, 4 and 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.paper.experiments.seeds import ErrorDifference, difference, judge_difference, spread
from benchmarks.paper.training.run import CurvePoint, Run, TrainingSegment, curve, open_run
from benchmarks.records.findings import Check, FindingsTable, Line, Mark, Outcome, Panel, Provenance
from exporter.models.variants import Variant, multiply_adds, parameters
from runtimes.errors import UsageError


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
        """Of all its runs."""
        return self.runs[0].identity.variant

    def errors(self, part: str) -> tuple[float, ...]:
        """On ``train``, ``validation`` or ``test``, a seed each; fractions. Those of the finished networks; of cut
        curves those at their end, where that on ``train`` is of the updates' own images."""
        ends = [
            run.outcome if self.until is None and run.outcome is not None else points[-1]
            for run, points in zip(self.runs, self.points, strict=True)
        ]
        return tuple(getattr(end, f"{part}_error") for end in ends)


def gather_runs(
    folders: Sequence[Path], label: Callable[[Variant], str] = lambda variant: variant.name, so_far: bool = False
) -> list[Curves]:
    """The runs in these folders by network, in the order of the first of each.

    ``so_far`` takes unfinished ones as well: all curves are then cut at the last point that all of them have.

    Raises:
        UsageError: a run is not finished, has no point yet, or is not of the same recipe and data as the first.
        ResourceError, ArtifactError: as ``runs.open_run``.
    """
    found = [(open_run(folder), curve(folder)) for folder in folders]
    first = found[0][0].identity
    for folder, (run, points) in zip(folders, found, strict=True):
        if run.outcome is None and not so_far:
            hint = "the command that began it goes on with it; --so-far takes it as it is"
            raise UsageError("this run is not finished", path=folder, hint=hint)
        if not points:
            raise UsageError("this run has no point of its curve yet", path=folder)
        if (run.identity.recipe, run.identity.corpus) != (first.recipe, first.corpus):
            raise UsageError("a run of another recipe or other data than the first", path=folder)
    until = min(points[-1].iteration for _, points in found)
    cut = None if all(run.outcome is not None for run, _ in found) else until
    groups: dict[str, list[tuple[Run, tuple[CurvePoint, ...]]]] = {}
    for run, points in found:
        kept = tuple(point for point in points if point.iteration <= until)
        groups.setdefault(label(run.identity.variant), []).append((run, kept))
    return [
        Curves(name, tuple(run for run, _ in group), tuple(points for _, points in group), cut)
        for name, group in groups.items()
    ]


def panel(title: str, curves: Sequence[Curves], source: str, top: float, marks: Sequence[Mark] = ()) -> Panel:
    """Training error dashed, test error solid, in percent over iterations; of several seeds mean and range."""
    lines = [line for one in curves for line in (_plot_line(one, "train"), _plot_line(one, "test"))]
    return Panel(
        title, "iteration", "error, %", tuple(lines), tuple(marks), y_range=(0.0, round(top, 1)), source=source
    )


def ceiling(curves: Sequence[Curves]) -> float:
    """Where axes end, in percent: above what any curve ends at, so that the ends can be told apart."""
    ends = [
        100 * max(point.train_error, point.test_error)
        for one in curves
        for points in one.points
        for point in points[-3:]
    ]
    return float(min(100, max(20.0, 1.5 * max(ends))))


def marks(curves: Sequence[Curves]) -> tuple[Mark, ...]:
    """The test errors that the paper prints for these networks."""
    return tuple(
        Mark(f"{one.label}, paper", one.label, 100 * one.variant.paper.top1_error)
        for one in curves
        if one.variant.paper.top1_error is not None
    )


def _plot_line(curves: Curves, part: str) -> Line:
    values = 100 * np.array([[getattr(point, f"{part}_error") for point in points] for points in curves.points])
    iterations = tuple(float(point.iteration) for point in curves.points[0])
    several = len(values) > 1
    return Line(
        f"{curves.label}, {'training' if part == 'train' else part}",
        curves.label,
        iterations,
        tuple(values.mean(axis=0).tolist()),
        tuple(values.min(axis=0).tolist()) if several else (),
        tuple(values.max(axis=0).tolist()) if several else (),
        dashed=part == "train",
    )


def table(curves: Sequence[Curves], caption: str, paper: Callable[[Curves], str]) -> FindingsTable:
    """A row a network: size, errors, time of an update; ``paper`` gives the last column, "–" for nothing."""
    headings = ("network", "parameters", "multiply-adds", "seeds", "training %", "test %", "ms a step", "paper: test %")
    rows = [
        (
            one.label,
            f"{parameters(one.variant) / 1e6:.2f} M",
            f"{multiply_adds(one.variant) / 1e6:.1f} M",
            str(len(one.runs)),
            spread(one.errors("train")),
            spread(one.errors("test")),
            _step_ms(one),
            paper(one),
        )
        for one in curves
    ]
    return FindingsTable(caption, headings, tuple(rows))


def caption(curves: Sequence[Curves]) -> str:
    """Of a table of errors."""
    until = curves[0].until
    return "Errors of the finished networks" if until is None else f"Errors at iteration {until:,}"


def _step_ms(one: Curves) -> str:
    steps = [run.step_s for run in one.runs if run.step_s is not None]
    return f"{1e3 * float(np.median(steps)):.1f}" if steps else "–"


def format_test_error(one: Curves) -> str:
    """The test error that the paper prints for the network, in percent."""
    error = one.variant.paper.top1_error
    return "–" if error is None else f"{100 * error:.2f}"


def larger(more: Curves, less: Curves, part: str, said: str, source: str) -> Check:
    """Whether one network's error on a part is larger than the other's, as the paper says."""
    found = compare_errors(more, less, part)
    word = "training" if part == "train" else part
    outcome: Outcome = judge_difference(found)
    return Check(
        said,
        source,
        f"{word} error {spread(more.errors(part))} % of {more.label} against {spread(less.errors(part))} % of "
        f"{less.label}: {found.in_points()}",
        outcome,
    )


def compare_errors(more: Curves, less: Curves, part: str) -> ErrorDifference:
    """The difference of two networks' errors on a part."""
    return difference(more.errors(part), less.errors(part), more.runs[0].images[part])


def limits(curves: Sequence[Curves]) -> list[str]:
    """What a reader must know of such runs, a sentence each."""
    run = curves[0].runs[0]
    notes = []
    scale = run.identity.recipe.scale
    if scale != 1.0:
        word = "shortened" if scale < 1 else "stretched"
        notes.append(f"The whole schedule was {word} to {scale:.3g} of the paper's; errors are not to be held to it.")
    until = curves[0].until
    if until is not None:
        notes.append(
            f"The runs were stopped: errors are those at iteration {until:,} of {run.identity.recipe.iterations:,}, "
            "training errors those of the updates' own augmented images since the point before, of which the intervals "
            "take as many as there are training images."
        )
    if min(len(one.runs) for one in curves) < 2:
        notes.append("One seed of a network: intervals cover the images alone, not what another seed would give.")
    if until is None:
        notes.append(
            "Training errors in the table are of the finished networks in evaluation mode without augmentation; those "
            "of the curves are of the updates' own images."
        )
    if any(one.variant.paper.top1_error is not None for one in curves):
        notes.append("The paper's numbers are of its own data, CIFAR-10 or ImageNet, and of its full schedule.")
    return notes


def provenance(curves: Sequence[Curves], command: str) -> Provenance:
    """Of the runs."""
    run = curves[0].runs[0]
    every = [run for one in curves for run in one.runs]
    sittings = [sitting for run in every for sitting in run.sittings]
    shares = [run.input_share for run in every if run.input_share is not None]
    versions = {
        name: ", ".join(dict.fromkeys(sitting.versions[name] for sitting in sittings)) for name in sittings[0].versions
    }
    return Provenance(
        run.data,
        dict(run.images),
        tuple(sorted({run.identity.seed for run in every})),
        run.identity.recipe.scale,
        f"{run.identity.recipe.describe()}; {' and '.join(dict.fromkeys(map(_arithmetic, sittings)))}"
        + (f"; the input takes {max(shares):.0%} of an update at the most" if shares else ""),
        " and ".join(dict.fromkeys(sitting.machine for sitting in sittings)),
        versions,
        command,
        now(),
        curves[0].until,
    )


def _arithmetic(sitting: TrainingSegment) -> str:
    compiled = ", compiled" if sitting.arithmetic.compiled else ""
    threads = f", {sitting.threads} threads" if sitting.arithmetic.device == "cpu" else ""
    return f"{sitting.arithmetic.precision}{compiled} on {sitting.arithmetic.device}{threads}"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
