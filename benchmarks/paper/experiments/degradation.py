"""Does a deeper plain net train worse than a shallower one, and a residual net not? The paper's Figures 1 and 6."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments.curves import Comparison, Curves, larger
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings


def findings(curves: Sequence[Curves], command: str) -> Findings:
    """The findings on runs of CIFAR nets, plain and residual, of two or more depths each."""
    by_depth = sorted(curves, key=lambda one: count_layers(one.variant))
    plain, residual = ([one for one in by_depth if one.variant.family == kind] for kind in ("plain", "residual"))
    return Comparison(
        "degradation",
        "Degradation: deeper plain nets train worse, deeper residual nets do not",
        _checks(plain, residual),
        [("Plain nets", plain, "Figure 6, left"), ("Residual nets", residual, "Figure 6, middle")],
        _paper_error,
        levels=True,
    ).findings(curves, command)


def _paper_error(curves: Curves) -> str:
    error = curves.variant.paper.top1_error
    return "–" if error is None else f"{100 * error:.2f}"


def _checks(plain: Sequence[Curves], residual: Sequence[Curves]) -> list[Check]:
    first, last = "section 1, Figure 1", "section 4.2, Figure 6"
    checks = []
    if len(plain) > 1:
        shallow, deep = plain[0], plain[-1]
        checks.append(larger(deep, shallow, "train", "a deeper plain net has a higher training error", first))
        checks.append(larger(deep, shallow, "test", "and a higher test error", first))
    if len(residual) > 1:
        shallow, deep = residual[0], residual[-1]
        checks.append(larger(shallow, deep, "train", "a deeper residual net has a lower training error", last))
        checks.append(larger(shallow, deep, "test", "and a lower test error", last))
    if plain and residual:
        claim = "at the greatest depth the residual net trains better than the plain one"
        checks.append(larger(plain[-1], residual[-1], "train", claim, last))
    return checks
