"""The ImageNet nets of 18 and 34 layers, plain and residual, on the data at hand: the paper's Figure 4 and Table 2."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper.experiments.curves import Comparison, Curves, larger
from benchmarks.records.findings import Findings
from exporter.models.variants import Shortcut
from runtimes.errors import Reason

NETWORKS: tuple[tuple[str, Shortcut | None], ...] = (
    ("plain18", None),
    ("plain34", None),
    ("resnet18", "A"),
    ("resnet34", "A"),
)
"""With option A a residual net has as many parameters as the plain net of its depth (section 4.1)."""

PAPER_TOP1_ERROR = {"plain18": 27.94, "plain34": 28.54, "resnet18": 27.88, "resnet34": 25.03}
"""Percent on ImageNet's validation images, ten crops, with option A (Table 2)."""


def findings(curves: Sequence[Curves], command: str) -> Findings:
    """The findings on runs of all four nets."""
    by_name = {one.variant.name: one for one in curves}
    plain18, plain34, resnet18, resnet34 = (by_name[name] for name, _ in NETWORKS)
    figure = "section 4.1, Figure 4"
    return Comparison(
        "depth",
        "Depth: 34 layers against 18, plain and residual",
        [
            larger(plain34, plain18, "train", "the 34-layer plain net has the higher training error", figure),
            larger(resnet18, resnet34, "train", "the 34-layer residual net has the lower training error", figure),
            larger(
                plain34, resnet34, "test", "of 34 layers, the residual net generalises better", "section 4.1, Table 2"
            ),
        ],
        [
            ("Plain nets", [plain18, plain34], "Figure 4, left"),
            ("Residual nets", [resnet18, resnet34], "Figure 4, right"),
        ],
        lambda one: f"{PAPER_TOP1_ERROR[one.variant.name]:.2f}",
        notes=(
            Reason(
                "small-images",
                f"ImageNet's nets on images of {curves[0].variant.size[0]} pixels: the stem halves them twice, and the "
                "last stage sees what is left.",
            ),
        ),
    ).findings(curves, command)
