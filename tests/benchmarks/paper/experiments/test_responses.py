from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.experiments.responses import (
    Ratio,
    limits,
    median_ratio,
    ratio_of_medians,
    responses_findings,
)
from benchmarks.paper.probes import Responses, spatial_layers
from benchmarks.records import findings
from benchmarks.records.findings import Outcome
from exporter.models.variants import variant
from tests.benchmarks.paper.nets import PROVENANCE

# Ratios ---------------------------------------------------------------------------------------------------------------


def test_counterparts_are_compared_layer_by_layer() -> None:
    plain = np.exp(np.random.default_rng(0).normal(size=19)).tolist()
    halved = [response / 2 for response in plain]
    assert median_ratio(halved, plain) == Ratio(0.5, (0.5, 0.5))
    assert ratio_of_medians(halved, plain).interval[1] > 0.7  # the layers' own spread does not cancel


def test_the_bootstraps_interval_is_about_that_of_theory() -> None:
    random = np.random.default_rng(3)
    one, other = np.exp(random.normal(size=(2, 400))).tolist()
    found = ratio_of_medians(one, other)
    assert found.value == pytest.approx(np.median(one) / np.median(other))
    # a median's standard error is sqrt(pi / 2 / n), here of logarithms of unit variance
    reach = 1.96 * math.sqrt(2 * math.pi / 2 / 400)
    np.testing.assert_allclose(np.log(found.interval), math.log(found.value) + np.array([-reach, reach]), atol=0.06)


@pytest.mark.parametrize(
    ("interval", "outcome"), [((0.2, 0.9), "confirmed"), ((0.8, 1.1), "undecided"), ((1.01, 2.0), "contradicted")]
)
def test_only_an_interval_beside_one_decides(interval: tuple[float, float], outcome: Outcome) -> None:
    assert Ratio(0.9, interval).smaller == outcome


# Findings -------------------------------------------------------------------------------------------------------------


def responses_of(name: str, level: float, seed: int = 0) -> Responses:
    """Responses that lie around ``level``, as the layers of the named variant have them."""
    row = variant(name)
    names = spatial_layers(row)
    spread = np.exp(np.random.default_rng(seed).normal(scale=0.3, size=len(names)))
    return Responses(name, row, 100, names, tuple((level * spread).tolist()))


def outcomes(*measured: Responses) -> list[Outcome]:
    return [check.outcome for check in responses_findings(measured, PROVENANCE).checks]


def test_the_papers_figure_is_confirmed_or_contradicted() -> None:
    usual = [
        responses_of("resnet56", 0.4),
        responses_of("plain20", 2.0),
        responses_of("resnet20", 0.9),
        responses_of("plain56", 1.8),
    ]
    found = responses_findings(usual, PROVENANCE)
    assert [check.outcome for check in found.checks] == ["confirmed", "confirmed"]
    assert "resnet20 over plain20" in found.checks[0].found
    assert "resnet56 over resnet20" in found.checks[1].found
    assert (
        outcomes(responses_of("plain20", 0.5), responses_of("resnet20", 0.9), responses_of("resnet56", 1.4))
        == ["contradicted"] * 2
    )
    assert outcomes(responses_of("plain20", 1.0, 1), responses_of("resnet20", 1.0, 2)) == ["undecided"]
    # one pair against the claim is enough
    assert outcomes(responses_of("resnet20", 0.9), responses_of("resnet56", 0.4), responses_of("resnet110", 0.8)) == [
        "contradicted"
    ]


def test_panels_show_the_layers_in_order_and_sorted(tmp_path: Path) -> None:
    measured = [responses_of("resnet20", 0.9), responses_of("plain20", 2.0), responses_of("resnet56", 0.4)]
    found = responses_findings(measured, PROVENANCE)
    in_order, by_size = found.panels
    assert [(line.label, line.family, line.dashed) for line in in_order.lines] == [
        ("20 layers, plain", "20 layers", True),
        ("20 layers, residual", "20 layers", False),
        ("56 layers, residual", "56 layers", False),
    ]
    assert in_order.lines[1].y == pytest.approx(measured[0].std)
    assert by_size.lines[1].y == pytest.approx(sorted(measured[0].std, reverse=True))
    assert in_order.lines[2].x == tuple(range(1, 56))
    assert [row[:3] for row in found.tables[0].rows] == [
        ("plain20", "19", "100"),
        ("resnet20", "19", "100"),
        ("resnet56", "55", "100"),
    ]
    assert findings.read(findings.write(found, tmp_path)) == found


def test_seeds_of_one_network_are_a_line_in_its_range() -> None:
    seeds = [replace(responses_of("resnet20", 0.9, seed), name=f"resnet20, seed {seed}") for seed in (0, 1)]
    found = responses_findings([*seeds, responses_of("plain20", 2.0)], PROVENANCE)
    plain, residual = found.panels[0].lines
    assert residual.y == pytest.approx(np.mean([seed.std for seed in seeds], axis=0))
    assert residual.low == pytest.approx(np.min([seed.std for seed in seeds], axis=0))
    assert residual.high == pytest.approx(np.max([seed.std for seed in seeds], axis=0))
    assert plain.low == ()
    assert [row[0] for row in found.tables[0].rows] == ["plain20", "resnet20, seed 0", "resnet20, seed 1"]


@pytest.mark.parametrize(
    ("names", "checks", "plain", "deeper"),
    [
        (("resnet20", "resnet56"), 1, False, True),
        (("plain20", "resnet20"), 1, True, False),
        (("plain20", "resnet56"), 0, False, False),
        (("resnet18", "resnet56"), 0, False, False),
    ],
)
def test_comparisons_without_a_pair_are_noted(names: Sequence[str], checks: int, plain: bool, deeper: bool) -> None:
    found = responses_findings([responses_of(name, 1.0) for name in names], PROVENANCE)
    pair = (responses_of("resnet20", 1.0), responses_of("plain20", 1.0))
    notes = list(limits([pair] if plain else [], [pair] if deeper else []))
    assert len(found.checks) == checks
    assert list(found.notes) == [note.sentence for note in notes]
    assert [note.code for note in notes[1:]] == [
        *([] if plain else ["no-plain-counterpart"]),
        *([] if deeper else ["no-deeper-counterpart"]),
    ]
