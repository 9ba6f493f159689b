"""Does a deeper plain net train worse than a shallower one, and a residual net not? The paper's Figures 1 and 6."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments import curves
from benchmarks.paper.experiments.curves import Curves
from benchmarks.paper.training.recipe import count_layers
from benchmarks.records.findings import Check, Findings


def findings(found: Sequence[Curves], command: str) -> Findings:
    """Of finished runs of CIFAR nets, plain and residual, of two or more depths each."""
    families = {family: _by_depth(found, family) for family in ("plain", "residual")}
    top = curves.ceiling(found)
    panels = [
        curves.panel(f"{family.capitalize()} nets", nets, f"Figure 6, {side}", top, curves.marks(nets))
        for (family, nets), side in zip(families.items(), ("left", "middle"), strict=True)
        if nets
    ]
    return Findings(
        "degradation",
        "Degradation: deeper plain nets train worse, deeper residual nets do not",
        tuple(_checks(families["plain"], families["residual"])),
        tuple(panels),
        (curves.table(found, curves.caption(found), curves.format_test_error),),
        tuple(curves.limits(found)),
        curves.provenance(found, command),
    )


def _by_depth(found: Sequence[Curves], family: str) -> list[Curves]:
    return sorted((one for one in found if one.variant.family == family), key=lambda one: count_layers(one.variant))


def _checks(plain: Sequence[Curves], residual: Sequence[Curves]) -> list[Check]:
    checks = []
    if len(plain) > 1:
        said = "a deeper plain net has a higher training error"
        checks.append(curves.larger(plain[-1], plain[0], "train", said, "section 1, Figure 1"))
        said = "and a higher test error"
        checks.append(curves.larger(plain[-1], plain[0], "test", said, "section 1, Figure 1"))
    if len(residual) > 1:
        said = "a deeper residual net has a lower training error"
        checks.append(curves.larger(residual[0], residual[-1], "train", said, "section 4.2, Figure 6"))
        said = "and a lower test error"
        checks.append(curves.larger(residual[0], residual[-1], "test", said, "section 4.2, Figure 6"))
    if plain and residual:
        said = "at the greatest depth the residual net trains better than the plain one"
        checks.append(curves.larger(plain[-1], residual[-1], "train", said, "section 4.2, Figure 6"))
    return checks
