"""Zeros, projections where the shape changes, or projections everywhere: the paper's Table 3."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments import curves
from benchmarks.paper.experiments.curves import Curves
from benchmarks.records.findings import Check, Findings
from exporter.models.variants import Shortcut

OPTIONS: tuple[Shortcut, ...] = ("A", "B", "C")

PAPER_RESNET34 = {"A": 25.03, "B": 24.52, "C": 24.19}
"""Top-1 error of ResNet-34 on ImageNet's validation images, ten crops, in percent (Table 3)."""


def findings(found: Sequence[Curves], command: str) -> Findings:
    """Of finished runs of one residual net with options A, B and C."""
    options = {one.variant.shortcut: one for one in found}
    a, b, c = (options[option] for option in OPTIONS)
    top = curves.ceiling(found)
    return Findings(
        "shortcuts",
        f"Shortcuts: options A, B and C of {a.variant.name}",
        (
            _check_better(b, a, "option B is slightly better than A"),
            _check_better(c, b, "option C is marginally better than B"),
        ),
        (curves.panel(f"{a.variant.name} by shortcut option", found, "Table 3", top),),
        (curves.table(found, f"What an option costs and brings. {curves.caption(found)}", _paper),),
        (
            *curves.limits(found),
            "The last column is of ResNet-34 on ImageNet: what can be compared is the order and the size of the steps.",
        ),
        curves.provenance(found, command),
    )


def _check_better(better: Curves, worse: Curves, said: str) -> Check:
    return curves.larger(worse, better, "test", said, "section 4.1, Table 3")


def _paper(one: Curves) -> str:
    return f"{PAPER_RESNET34[one.variant.shortcut]:.2f}"
