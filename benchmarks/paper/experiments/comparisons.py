"""The experiments on networks trained alike: degradation, depth and shortcuts (Figures 1, 4 and 6, Tables 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.paper.experiments.curves import Curves, check_larger, note_single_seed, provenance, spread
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Findings, FindingsTable, Mark, Panel
from exporter.models.layers import multiply_adds, parameters
from exporter.models.variants import Shortcut
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
    plain, residual = ([one for one in by_depth if one.variant.paper_word == kind] for kind in ("plain", "residual"))
    first, last = "section 1, Figure 1", "section 4.2, Figure 6"
    checks = []
    if len(plain) > 1:
        shallow, deep = plain[0], plain[-1]
        checks.append(check_larger(deep, shallow, "train", "a deeper plain net has a higher training error", first))
        checks.append(check_larger(deep, shallow, "test", "a deeper plain net has a higher test error", first))
    if len(residual) > 1:
        shallow, deep = residual[0], residual[-1]
        checks.append(check_larger(shallow, deep, "train", "a deeper residual net has a lower training error", last))
        checks.append(check_larger(shallow, deep, "test", "a deeper residual net has a lower test error", last))
    if plain and residual:
        claim = "at the greatest depth the residual net trains better than the plain one"
        checks.append(check_larger(plain[-1], residual[-1], "train", claim, last))
    groups = [("Plain nets", plain, "Figure 6, left"), ("Residual nets", residual, "Figure 6, middle")]
    return Findings(
        "degradation",
        "Degradation: deeper plain nets train worse, deeper residual nets do not",
        tuple(checks),
        _panels(curves, groups, levels=True),
        _tables(curves, "CIFAR-10", lambda one: one.variant.paper.top1_error),
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
        f"The networks are those for ImageNet, on images of {curves[0].variant.size[0]} pixels: the stem halves their "
        "size twice.",
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
        _tables(curves, "ImageNet, ten crops", lambda one: PAPER_DEPTH[one.variant.name]),
        _sentences(curves, small_images),
        provenance(curves, command),
    )


def shortcuts_findings(curves: Sequence[Curves], command: str) -> Findings:
    """Zeros, projections where the shape changes, or projections everywhere, in one residual net: Table 3."""
    by_option = {one.variant.shortcut: one for one in curves}
    a, b, c = (by_option[option] for option in SHORTCUT_OPTIONS)
    name, source = a.variant.name, "section 4.1, Table 3"
    other_network = Reason(
        "paper-of-resnet34",
        "The paper's errors are of ResNet-34 on ImageNet: only the order and the size of the steps compare.",
    )
    return Findings(
        "shortcuts",
        f"Shortcuts: options A, B and C of {name}",
        (
            check_larger(a, b, "test", "option B is slightly better than A", source),
            check_larger(b, c, "test", "option C is marginally better than B", source),
        ),
        _panels(curves, [(f"{name} by shortcut option", curves, "Table 3")]),
        (*_tables(curves), _paper_table("ResNet-34 on ImageNet, ten crops", "option", PAPER_SHORTCUTS)),
        _sentences(curves, other_network),
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


def _tables(
    curves: Sequence[Curves], data: str = "", paper: Callable[[Curves], float | None] = lambda _: None
) -> tuple[FindingsTable, ...]:
    """The networks' errors; and the errors of the same networks in the paper, fractions, on the paper's ``data``."""
    columns: dict[str, Callable[[Curves], str]] = {
        "network": lambda one: one.label,
        "parameters": lambda one: f"{parameters(one.variant) / 1e6:.2f} M",
        "multiply-adds": lambda one: f"{multiply_adds(one.variant) / 1e6:.1f} M",
        "seeds": lambda one: str(len(one.runs)),
        "training error, %": lambda one: spread(one.errors("train")),
        "test error, %": lambda one: spread(one.errors("test")),
        "ms per update": _format_step,
    }
    until = curves[0].until
    caption = "Errors of the trained networks" if until is None else f"Errors at iteration {until:,}"
    own = FindingsTable.of(caption, curves, columns)
    known = {one.label: error for one in curves if (error := paper(one)) is not None}
    return (own, _paper_table(data, "network", known)) if known else (own,)


def _paper_table(data: str, heading: str, errors: Mapping[str, float]) -> FindingsTable:
    """Test errors that the paper reports, in a table of their own: they are of other images than ours."""
    rows = tuple((name, f"{100 * error:.2f}") for name, error in errors.items())
    return FindingsTable(f"In the paper ({data})", (heading, "test error, %"), rows)


def _format_step(curves: Curves) -> str:
    steps = [run.step_s for run in curves.runs if run.step_s is not None]
    return f"{1e3 * float(np.median(steps)):.1f}" if steps else "–"


def _sentences(curves: Sequence[Curves], *own: Reason) -> tuple[str, ...]:
    """The limits of the runs, and those of the experiment itself."""
    return tuple(note.sentence for note in (*limits(curves), *own))


def limits(curves: Sequence[Curves]) -> Iterator[Reason]:
    """The notes that a reader of the errors needs."""
    recipe, until = curves[0].runs[0].identity.recipe, curves[0].until
    if recipe.scale != 1.0:
        yield Reason(
            "schedule-scaled",
            f"The schedule has {100 * recipe.scale:.3g} % of the paper's length: errors of the two do not compare.",
        )
    if until is not None:
        yield Reason(
            "runs-stopped",
            f"The runs stopped at iteration {until:,} of {recipe.iterations:,}. Training errors are those of the "
            "updates' augmented images since the previous point; their intervals assume as many images as the training "
            "set has.",
        )
    if min(len(one.runs) for one in curves) < 2:
        yield note_single_seed()
    if until is None:
        yield Reason(
            "curves-of-augmented-images",
            "Training errors in the table are of the trained networks in evaluation mode without augmentation. Those "
            "of the curves are of the updates' augmented images.",
        )
    if any(one.variant.paper.top1_error is not None for one in curves):
        yield Reason(
            "paper-on-other-data",
            "The paper's errors are of its own data, CIFAR-10 or ImageNet, and of its full schedule.",
        )
