"""The ImageNet nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4 and Table 2."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments import curves
from benchmarks.paper.experiments.curves import Curves
from benchmarks.records.findings import Check, Findings
from exporter.models.variants import Shortcut

NETWORKS: tuple[tuple[str, Shortcut | None], ...] = (
    ("plain18", None),
    ("plain34", None),
    ("resnet18", "A"),
    ("resnet34", "A"),
)
"""With option A, so that a residual net has not one parameter more than its plain twin (section 4.1)."""

VARIANTS = tuple(name for name, _ in NETWORKS)

PAPER_TOP1_ERROR = {"plain18": 27.94, "plain34": 28.54, "resnet18": 27.88, "resnet34": 25.03}
"""Percent on ImageNet's validation images, ten crops, with option A (Table 2)."""


def findings(found: Sequence[Curves], command: str) -> Findings:
    """Of finished runs of all four nets."""
    nets = {one.variant.name: one for one in found}
    top = curves.ceiling(found)
    panels = tuple(
        curves.panel(title, [nets[name] for name in names], f"Figure 4, {side}", top)
        for title, names, side in (
            ("Plain nets", VARIANTS[:2], "left"),
            ("Residual nets", VARIANTS[2:], "right"),
        )
    )
    return Findings(
        "depth",
        "Depth: 34 layers against 18, plain and residual",
        tuple(_checks(nets)),
        panels,
        (curves.table(found, curves.caption(found), _paper),),
        (
            *curves.limits(found),
            f"ImageNet's nets on images of {found[0].variant.size[0]} pixels: the stem halves them twice, and the last "
            "stage sees what is left.",
        ),
        curves.provenance(found, command),
    )


def _paper(one: Curves) -> str:
    return f"{PAPER_TOP1_ERROR[one.variant.name]:.2f}"


def _checks(nets: dict[str, Curves]) -> list[Check]:
    plain18, plain34, resnet18, resnet34 = (nets[name] for name in VARIANTS)
    return [
        curves.larger(
            plain34, plain18, "train", "the 34-layer plain net has the higher training error", "section 4.1, Figure 4"
        ),
        curves.larger(
            resnet18,
            resnet34,
            "train",
            "the 34-layer residual net has the lower training error",
            "section 4.1, Figure 4",
        ),
        curves.larger(
            plain34, resnet34, "test", "of 34 layers, the residual net generalises better", "section 4.1, Table 2"
        ),
    ]
