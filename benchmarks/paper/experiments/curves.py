"""Runs grouped by network, and their curves as panels: the paper's Figures 1, 4 and 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.paper.experiments.seeds import difference, seeds_line, spread
from benchmarks.paper.training.run import CurvePoint, Run, TrainingSegment, curve, open_run
from benchmarks.records.findings import Check, Experiment, Findings, FindingsTable, Line, Mark, Panel, Provenance
from exporter.models.variants import Variant, multiply_adds, parameters
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
    groups: dict[str, list[tuple[Run, tuple[CurvePoint, ...]]]] = {}
    for run, points in gathered:
        kept = tuple(point for point in points if point.iteration <= until)
        groups.setdefault(label(run.identity.variant), []).append((run, kept))
    return [
        Curves(name, tuple(run for run, _ in group), tuple(points for _, points in group), cut)
        for name, group in groups.items()
    ]


@dataclass(frozen=True)
class Comparison:
    """An experiment on trained networks: what differs from one experiment to the next.

    Attributes:
        checks: the claims that were checked.
        panels: the title, the networks and the paper's figure of each panel; one without networks is left out.
        paper: the table's last column: the paper's error of a network in percent.
        caption: what stands in front of the table's caption.
        notes: limits of this experiment beside those of all.
        levels: whether the panels show the test errors that the paper prints.
    """

    experiment: Experiment
    title: str
    checks: Sequence[Check]
    panels: Sequence[tuple[str, Sequence[Curves], str]]
    paper: Callable[[Curves], str]
    caption: str = ""
    notes: tuple[Reason, ...] = ()
    levels: bool = False

    def findings(self, curves: Sequence[Curves], command: str) -> Findings:
        """The findings on all the networks' curves."""
        until = curves[0].until
        errors = "Errors of the finished networks" if until is None else f"Errors at iteration {until:,}"
        last = [point for one in curves for points in one.points for point in points[-3:]]
        ends = [100 * max(point.train_error, point.test_error) for point in last]
        ceiling = round(float(min(100, max(20.0, 1.5 * max(ends)))), 1)  # the ends of curves can be told apart below it
        return Findings(
            self.experiment,
            self.title,
            tuple(self.checks),
            tuple(self._panel(*panel, ceiling) for panel in self.panels if panel[1]),
            (_table(curves, self.caption + errors, self.paper),),
            tuple(note.sentence for note in (*limits(curves), *self.notes)),
            provenance(curves, command),
        )

    def _panel(self, title: str, curves: Sequence[Curves], source: str, ceiling: float) -> Panel:
        """Training errors dashed, test errors solid."""
        kinds = (("training", "train"), ("test", "test"))
        lines = [
            one.line(f"{one.label}, {name}", part, dashed=part == "train") for one in curves for name, part in kinds
        ]
        marks = [
            Mark(f"{one.label}, paper", one.label, 100 * one.variant.paper.top1_error)
            for one in curves
            if self.levels and one.variant.paper.top1_error is not None
        ]
        y_range = (0.0, ceiling)
        return Panel(title, "iteration", "error, %", tuple(lines), tuple(marks), y_range=y_range, source=source)


def _table(curves: Sequence[Curves], caption: str, paper: Callable[[Curves], str]) -> FindingsTable:
    columns: dict[str, Callable[[Curves], str]] = {
        "network": lambda one: one.label,
        "parameters": lambda one: f"{parameters(one.variant) / 1e6:.2f} M",
        "multiply-adds": lambda one: f"{multiply_adds(one.variant) / 1e6:.1f} M",
        "seeds": lambda one: str(len(one.runs)),
        "training %": lambda one: spread(one.errors("train")),
        "test %": lambda one: spread(one.errors("test")),
        "ms a step": _step_ms,
        "paper: test %": paper,
    }
    return FindingsTable.of(caption, curves, columns)


def _step_ms(curves: Curves) -> str:
    steps = [run.step_s for run in curves.runs if run.step_s is not None]
    return f"{1e3 * float(np.median(steps)):.1f}" if steps else "–"


def larger(more: Curves, less: Curves, part: str, claim: str, source: str) -> Check:
    """Whether one network's error on a part is larger than the other's, as the paper says."""
    errors = difference(more.errors(part), less.errors(part), more.runs[0].images[part])
    word = "training" if part == "train" else part
    measured = (
        f"{word} error {spread(more.errors(part))} % of {more.label} against {spread(less.errors(part))} % of "
        f"{less.label}: {errors.in_points()}"
    )
    return Check(claim, source, measured, errors.outcome)


def limits(curves: Sequence[Curves]) -> list[Reason]:
    """What a reader must know of such runs."""
    run, until = curves[0].runs[0], curves[0].until
    scale = run.identity.recipe.scale
    notes = []
    if scale != 1.0:
        notes.append(
            Reason(
                "schedule-scaled",
                f"The whole schedule was {'shortened' if scale < 1 else 'stretched'} to {scale:.3g} of the paper's; "
                "errors are not to be held to it.",
            )
        )
    if until is not None:
        notes.append(
            Reason(
                "runs-stopped",
                f"The runs were stopped: errors are those at iteration {until:,} of "
                f"{run.identity.recipe.iterations:,}, training errors those of the updates' own augmented images since "
                "the point before, of which the intervals take as many as there are training images.",
            )
        )
    if min(len(one.runs) for one in curves) < 2:
        notes.append(single_seed())
    if until is None:
        notes.append(
            Reason(
                "curves-of-augmented-images",
                "Training errors in the table are of the finished networks in evaluation mode without augmentation; "
                "those of the curves are of the updates' own images.",
            )
        )
    if any(one.variant.paper.top1_error is not None for one in curves):
        notes.append(
            Reason(
                "paper-on-other-data",
                "The paper's numbers are of its own data, CIFAR-10 or ImageNet, and of its full schedule.",
            )
        )
    return notes


def single_seed() -> Reason:
    """The note that one seed of a network says nothing of other seeds."""
    return Reason(
        "single-seed",
        "One seed of a network: intervals cover the images alone, not what another seed would give.",
    )


def provenance(curves: Sequence[Curves], command: str) -> Provenance:
    """What the runs rest on."""
    run = curves[0].runs[0]
    runs = [run for one in curves for run in one.runs]
    segments = [segment for run in runs for segment in run.sittings]
    shares = [run.input_share for run in runs if run.input_share is not None]
    return Provenance(
        data=run.data,
        images=dict(run.images),
        seeds=tuple(sorted({run.identity.seed for run in runs})),
        scale=run.identity.recipe.scale,
        recipe=f"{run.identity.recipe.describe()}; {' and '.join(dict.fromkeys(map(_arithmetic, segments)))}"
        + (f"; the input takes {max(shares):.0%} of an update at the most" if shares else ""),
        machine=" and ".join(dict.fromkeys(segment.machine for segment in segments)),
        versions={
            name: ", ".join(dict.fromkeys(segment.versions[name] for segment in segments))
            for name in segments[0].versions
        },
        command=command,
        time=now(),
        until=curves[0].until,
    )


def _arithmetic(segment: TrainingSegment) -> str:
    compiled = ", compiled" if segment.arithmetic.compiled else ""
    threads = f", {segment.threads} threads" if segment.arithmetic.device == "cpu" else ""
    return f"{segment.arithmetic.precision}{compiled} on {segment.arithmetic.device}{threads}"


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
