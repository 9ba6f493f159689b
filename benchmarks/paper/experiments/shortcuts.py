"""Zeros, projections where the shape changes, or projections everywhere: the paper's Table 3."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments.curves import Comparison, Curves, larger
from benchmarks.records.findings import Findings
from exporter.models.variants import Shortcut
from runtimes.errors import Reason

OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")

PAPER_RESNET34 = {"A": 25.03, "B": 24.52, "C": 24.19}
"""Top-1 error of ResNet-34 on ImageNet's validation images, ten crops, in percent (Table 3)."""


def findings(curves: Sequence[Curves], command: str) -> Findings:
    """The findings on runs of one residual net with options A, B and C."""
    by_option = {one.variant.shortcut: one for one in curves}
    a, b, c = (by_option[option] for option in OPTIONS)
    source = "section 4.1, Table 3"
    return Comparison(
        "shortcuts",
        f"Shortcuts: options A, B and C of {a.variant.name}",
        [
            larger(a, b, "test", "option B is slightly better than A", source),
            larger(b, c, "test", "option C is marginally better than B", source),
        ],
        [(f"{a.variant.name} by shortcut option", curves, "Table 3")],
        lambda one: f"{PAPER_RESNET34[one.variant.shortcut]:.2f}",
        caption="What an option costs and brings. ",
        notes=(
            Reason(
                "paper-column-of-resnet34",
                "The last column is of ResNet-34 on ImageNet: what can be compared is the order and the size of the "
                "steps.",
            ),
        ),
    ).findings(curves, command)
