"""Findings as experiments leave them, with curves that look like the paper's, drawn with a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.records.findings import Check, Findings, FindingsTable, Line, Mark, Panel, Provenance, floats

SEEDS = (0, 1, 2)
POINTS = 64

ENDS = {  # test and training error at the end, in percent
    "plain20": (9.6, 5.2),
    "plain56": (13.9, 10.4),
    "resnet20": (8.8, 3.4),
    "resnet56": (7.1, 0.9),
}
PRINTED = {"resnet20": 8.75, "resnet32": 7.51, "resnet44": 7.17, "resnet56": 6.97, "resnet110": 6.43}


def _curve(end: float, dashed: bool, seed: int) -> NDArray[np.float64]:
    """An error that falls, and falls again where the learning rate does."""
    random = np.random.default_rng([seed, int(10 * end), dashed])
    at = np.linspace(0, 1, POINTS)
    plateau = end + 9 * (at < 0.5) + 1.2 * ((at >= 0.5) & (at < 0.75))
    noise = random.normal(scale=0.12 if dashed else 0.5, size=POINTS) * np.where(at < 0.5, 2.5, 0.6)
    curve: NDArray[np.float64] = np.clip(plateau + 60 * np.exp(-at / 0.06) + noise, 0.05, 95)
    return curve


def _lines(name: str, seeds: tuple[int, ...]) -> list[Line]:
    iterations = floats(np.linspace(500, 64_000, POINTS))
    lines = []
    for part, end, dashed in (("test", ENDS[name][0], False), ("training", ENDS[name][1], True)):
        curves = np.array([_curve(end, dashed, seed) for seed in seeds])
        middle, low, high = curves.mean(axis=0), curves.min(axis=0), curves.max(axis=0)
        band = (floats(low), floats(high)) if dashed else ((), ())
        lines.append(Line(f"{name}, {part}", name, iterations, floats(middle), *band, dashed=dashed))
        if not dashed:
            lines += [
                Line(f"{name}, {part}, seed {seed}", name, iterations, floats(curve), thin=True)
                for seed, curve in zip(seeds, curves, strict=True)
            ]
    return lines


def degradation(seeds: tuple[int, ...] = SEEDS) -> Findings:
    """Two panels, four networks, some seeds, the paper's levels."""
    panels = tuple(
        Panel(
            f"{family} nets",
            "iteration",
            "error, %",
            tuple(line for depth in (20, 56) for line in _lines(f"{prefix}{depth}", seeds)),
            tuple(Mark(f"{name}, paper", name, error) for name, error in PRINTED.items() if name.startswith(prefix)),
            y_range=(0.0, 24.0),
            source=f"Figure 6, {side}",
        )
        for family, prefix, side in (("Plain", "plain", "left"), ("Residual", "resnet", "middle"))
    )
    rows = [
        (name, f"{test:.2f} ± 0.21", f"{train:.2f} ± 0.09", f"{PRINTED[name]:.2f}" if name in PRINTED else "–")
        for name, (test, train) in ENDS.items()
    ]
    return Findings(
        "degradation",
        "Degradation: deeper plain nets train worse, deeper residual nets do not",
        (
            Check(
                "a deeper plain net has a higher training error",
                "section 1, Figure 1",
                "training error 10.40 ± 0.09 % of plain56 against 5.20 ± 0.09 % of plain20: +5.20 [4.97, 5.43] points "
                "over seeds",
                "confirmed",
            ),
            Check(
                "a deeper residual net has a lower test error",
                "section 4.2, Figure 6",
                "test error 8.80 ± 0.21 % of resnet20 against 7.10 ± 0.21 % of resnet56: +1.70 [1.22, 2.18] points "
                "over seeds",
                "confirmed",
            ),
        ),
        panels,
        (FindingsTable("Errors of the finished networks, mean ± standard deviation", HEADINGS, tuple(rows)),),
        (
            "The whole schedule was shortened to 0.1 of the paper's; errors are not to be held to it.",
            "Training errors of the curves are of the updates' own images.",
        ),
        PROVENANCE,
    )


HEADINGS = ("network", "test %", "training %", "paper: test %")

PROVENANCE = Provenance(
    "CIFAR-10, JPEG copies",
    {"train": 45_000, "validation": 5_000, "test": 10_000},
    SEEDS,
    0.1,
    "SGD, momentum 0.9, weight decay 0.0001, batch 128, learning rate 0.1, divided by 10 at 3,200 and 4,800 of 6,400 "
    "iterations; 4 pixels of padding, random crop and flip; fp32",
    "Fast Processor 9, 2 threads",
    {"torch": "2.11.0", "numpy": "2.4.6"},
    "rbench paper degradation --data ../shared/data/cifar10 --scale 0.1 --seeds 3 -o results/paper",
    "2026-02-01T03:04:05+00:00",
)


def responses() -> Findings:
    """Figure 7: three depths, each plain (dashed) and residual, by layer and sorted; undecided."""
    random = np.random.default_rng(7)
    curves = [
        (f"{prefix}{depth}", depth, prefix == "plain", scale * (0.4 + random.random(depth - 2)))
        for depth, scale in ((20, 1.0), (56, 0.6), (110, 0.35))
        for prefix, scale in (("plain", 1.6 * scale), ("resnet", scale))
    ]
    panels = tuple(
        Panel(
            title,
            axis,
            "standard deviation",
            tuple(
                Line(
                    name,
                    f"{depth} layers",
                    floats(np.arange(1, depth - 1)),
                    floats(np.sort(std)[::-1] if is_sorted else std),
                    dashed=dashed,
                )
                for name, depth, dashed, std in curves
            ),
            y_scale="log",
            source=source,
        )
        for title, axis, is_sorted, source in (
            ("Layers in order", "layer", False, "Figure 7, top"),
            ("Layers sorted by magnitude", "layer, strongest first", True, "Figure 7, bottom"),
        )
    )
    check = Check(
        "residual nets have smaller responses than their plain counterparts",
        "section 4.2, Figure 7",
        "of 3 pairs 2 have smaller medians, the third's interval holds 1",
        "undecided",
    )
    return Findings("responses", "Layer responses", (check,), panels, (), (), PROVENANCE)
