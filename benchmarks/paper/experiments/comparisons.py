"""The experiments on networks trained alike: degradation, depth and shortcuts (Figures 1, 4 and 6, Tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.paper.experiments.curves import Curves, check_larger, note_single_seed, provenance, spread
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Findings, FindingsTable, Mark, Panel
from exporter.models.variants import Shortcut, multiply_adds, parameters
from runtimes.errors import Reason

DEPTH_NETWORKS: tuple[tuple[str, Shortcut | None], ...] = (
    ("plain18", None),
    ("plain34", None),
    ("resnet18", "A"),
    ("resnet34", "A"),
)
"""With option A a residual net has as many parameters as the plain net of its depth (section 4.1)."""

SHORTCUT_OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")

PAPER_DEPTH = {"plain18": 0.2794, "plain34": 0.2854, "resnet18": 0.2788, "resnet34": 0.2503}
"""Top-1 errors on ImageNet's validation images, ten crops, with option A (Table 2)."""

PAPER_SHORTCUTS = {"A": 0.2503, "B": 0.2452, "C": 0.2419}
"""Top-1 errors of ResNet-34 on ImageNet's validation images, ten crops (Table 3)."""


def degradation_findings(curves: Sequence[Curves], command: str) -> Findings:
    """Does a deeper plain net train worse than a shallower one, and a residual net not? The paper's Figures 1 and 6.

    The runs are of CIFAR nets, plain and residual, of two or more depths each.
    """
    by_depth = sorted(curves, key=lambda one: count_layers(one.variant))
    plain, residual = ([one for one in by_depth if one.variant.family == kind] for kind in ("plain", "residual"))
    first, last = "section 1, Figure 1", "section 4.2, Figure 6"
    checks = []
    if len(plain) > 1:
        shallow, deep = plain[0], plain[-1]
        checks.append(check_larger(deep, shallow, "train", "a deeper plain net has a higher training error", first))
        checks.append(check_larger(deep, shallow, "test", "and a higher test error", first))
    if len(residual) > 1:
        shallow, deep = residual[0], residual[-1]
        checks.append(check_larger(shallow, deep, "train", "a deeper residual net has a lower training error", last))
        checks.append(check_larger(shallow, deep, "test", "and a lower test error", last))
    if plain and residual:
        claim = "at the greatest depth the residual net trains better than the plain one"
        checks.append(check_larger(plain[-1], residual[-1], "train", claim, last))
    groups = [("Plain nets", plain, "Figure 6, left"), ("Residual nets", residual, "Figure 6, middle")]
    return Findings(
        "degradation",
        "Degradation: deeper plain nets train worse, deeper residual nets do not",
        tuple(checks),
        _panels(curves, groups, levels=True),
        (_table(curves, lambda one: one.variant.paper.top1_error),),
        _sentences(curves),
        provenance(curves, command),
    )


def depth_findings(curves: Sequence[Curves], command: str) -> Findings:
    """The ImageNet nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4, Table 2."""
    by_name = {one.variant.name: one for one in curves}
    plain18, plain34, resnet18, resnet34 = (by_name[name] for name, _ in DEPTH_NETWORKS)
    figure, table = "section 4.1, Figure 4", "section 4.1, Table 2"
    plain, residual = [plain18, plain34], [resnet18, resnet34]
    small_images = Reason(
        "small-images",
        f"ImageNet's nets on images of {curves[0].variant.size[0]} pixels: the stem halves them twice, and the last "
        "stage sees what is left.",
    )
    return Findings(
        "depth",
        "Depth: 34 layers against 18, plain and residual",
        (
            check_larger(plain34, plain18, "train", "the 34-layer plain net has the higher training error", figure),
            check_larger(resnet18, resnet34, "train", "the 34-layer residual net has the lower training error", figure),
            check_larger(plain34, resnet34, "test", "of 34 layers, the residual net generalises better", table),
        ),
        _panels(curves, [("Plain nets", plain, "Figure 4, left"), ("Residual nets", residual, "Figure 4, right")]),
        (_table(curves, lambda one: PAPER_DEPTH[one.variant.name]),),
        _sentences(curves, small_images),
        provenance(curves, command),
    )


def shortcuts_findings(curves: Sequence[Curves], command: str) -> Findings:
    """Zeros, projections where the shape changes, or projections everywhere, in one residual net: Table 3."""
    by_option = {one.variant.shortcut: one for one in curves}
    a, b, c = (by_option[option] for option in SHORTCUT_OPTIONS)
    name, source = a.variant.name, "section 4.1, Table 3"
    last_column = Reason(
        "paper-column-of-resnet34",
        "The last column is of ResNet-34 on ImageNet: what can be compared is the order and the size of the steps.",
    )
    return Findings(
        "shortcuts",
        f"Shortcuts: options A, B and C of {name}",
        (
            check_larger(a, b, "test", "option B is slightly better than A", source),
            check_larger(b, c, "test", "option C is marginally better than B", source),
        ),
        _panels(curves, [(f"{name} by shortcut option", curves, "Table 3")]),
        (_table(curves, lambda one: PAPER_SHORTCUTS[one.variant.shortcut], "What an option costs and brings. "),),
        _sentences(curves, last_column),
        provenance(curves, command),
    )


def _panels(
    curves: Sequence[Curves], groups: Sequence[tuple[str, Sequence[Curves], str]], *, levels: bool = False
) -> tuple[Panel, ...]:
    """A panel for each title, networks and figure of the paper, unless there are no networks: training errors dashed,
    test errors solid, and with ``levels`` the test errors that the paper prints."""
    last = [point for one in curves for points in one.points for point in points[-3:]]
    highest = 100 * max(max(point.train_error, point.test_error) for point in last)
    ceiling = round(float(min(100, max(20.0, 1.5 * highest))), 1)  # the ends of curves can be told apart below it
    panels = []
    for title, networks, source in groups:
        lines, marks = [], []
        for one in networks:
            lines.append(one.line(f"{one.label}, training", "train", dashed=True))
            lines.append(one.line(f"{one.label}, test", "test"))
            error = one.variant.paper.top1_error
            if levels and error is not None:
                marks.append(Mark(f"{one.label}, paper", one.label, 100 * error))
        parts = "iteration", "error, %", tuple(lines), tuple(marks)
        if networks:
            panels.append(Panel(title, *parts, y_range=(0.0, ceiling), source=source))
    return tuple(panels)


def _table(curves: Sequence[Curves], paper: Callable[[Curves], float | None], caption: str = "") -> FindingsTable:
    """The networks' errors; ``paper`` gives the paper's of a network, a fraction, for the last column."""
    columns: dict[str, Callable[[Curves], str]] = {
        "network": lambda one: one.label,
        "parameters": lambda one: f"{parameters(one.variant) / 1e6:.2f} M",
        "multiply-adds": lambda one: f"{multiply_adds(one.variant) / 1e6:.1f} M",
        "seeds": lambda one: str(len(one.runs)),
        "training %": lambda one: spread(one.errors("train")),
        "test %": lambda one: spread(one.errors("test")),
        "ms a step": _format_step,
        "paper: test %": lambda one: _format_error(paper(one)),
    }
    until = curves[0].until
    errors = "Errors of the finished networks" if until is None else f"Errors at iteration {until:,}"
    return FindingsTable.of(caption + errors, curves, columns)


def _format_step(curves: Curves) -> str:
    steps = [run.step_s for run in curves.runs if run.step_s is not None]
    return f"{1e3 * float(np.median(steps)):.1f}" if steps else "–"


def _format_error(error: float | None) -> str:
    return "–" if error is None else f"{100 * error:.2f}"


def _sentences(curves: Sequence[Curves], *own: Reason) -> tuple[str, ...]:
    """The limits of such runs, and those of the experiment itself."""
    return tuple(note.sentence for note in (*limits(curves), *own))


def limits(curves: Sequence[Curves]) -> Iterator[Reason]:
    """What a reader must know of such runs."""
    recipe, until = curves[0].runs[0].identity.recipe, curves[0].until
    if recipe.scale != 1.0:
        yield Reason(
            "schedule-scaled",
            f"The whole schedule was {'shortened' if recipe.scale < 1 else 'stretched'} to {recipe.scale:.3g} of the "
            "paper's; errors are not to be held to it.",
        )
    if until is not None:
        yield Reason(
            "runs-stopped",
            f"The runs were stopped: errors are those at iteration {until:,} of {recipe.iterations:,}, training errors "
            "those of the updates' own augmented images since the point before, of which the intervals take as many as "
            "there are training images.",
        )
    if min(len(one.runs) for one in curves) < 2:
        yield note_single_seed()
    if until is None:
        yield Reason(
            "curves-of-augmented-images",
            "Training errors in the table are of the finished networks in evaluation mode without augmentation; those "
            "of the curves are of the updates' own images.",
        )
    if any(one.variant.paper.top1_error is not None for one in curves):
        yield Reason(
            "paper-on-other-data",
            "The paper's numbers are of its own data, CIFAR-10 or ImageNet, and of its full schedule.",
        )
