from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.paper.experiments.constructed_solution import (
    ConstructionResult,
    Curve,
    compare_networks,
    deepen,
    identity_findings,
)
from benchmarks.records import findings
from benchmarks.records.findings import Outcome
from exporter.models.variants import Variant, variant
from runtimes.errors import ArtifactError, UsageError
from tests.benchmarks.paper.nets import (
    BOTTLENECK,
    DEEPER,
    DEEPER_PLAIN,
    PLAIN,
    PROJECTED,
    PROVENANCE,
    RESIDUAL,
    assert_untouched,
    copied_state,
    drawn,
    images_for,
)

PAIRS = [
    (RESIDUAL, DEEPER),
    (PLAIN, DEEPER_PLAIN),
    (PROJECTED, replace(PROJECTED, name="deeper-projected", depths=(2, 4))),
    (BOTTLENECK, replace(BOTTLENECK, name="deeper-bottleneck", depths=(3, 3))),
    (variant("resnet20"), variant("resnet32")),
    (variant("plain20"), variant("plain32")),
]


@pytest.mark.parametrize(("row", "deeper"), PAIRS, ids=lambda row: row.name)
def test_a_deepened_network_gives_the_same_logits_to_the_bit(row: Variant, deeper: Variant) -> None:
    model, images = drawn(row), images_for(row, 8)
    state = copied_state(model)
    built = deepen(model, deeper)
    assert built.variant == deeper
    with torch.inference_mode():
        wanted, given = model(images), built(images)
    np.testing.assert_array_equal(given.numpy(), wanted.numpy(), strict=True)
    found = compare_networks(model, built, torch.split(images, 5))
    assert (found.images, found.differing, found.difference) == (8, 0, 0.0)
    assert (found.shallower, found.deeper, found.residual) == (row.name, deeper.name, row.residual)
    assert found.largest == pytest.approx(float(wanted.abs().max()), rel=1e-5)
    assert_untouched(model, state)


@pytest.mark.parametrize(("row", "deeper"), PAIRS[:2], ids=lambda row: row.name)
@pytest.mark.parametrize("poked", ["layer1.2.bn2.weight", "layer2.1.bn2.bias", "layer1.0.conv1.weight"])
def test_one_number_poked_is_seen(row: Variant, deeper: Variant, poked: str) -> None:
    model = drawn(row)
    built = deepen(model, deeper)
    with torch.no_grad():
        built.get_parameter(poked).view(-1)[0] += 0.25
    found = compare_networks(model, built, [images_for(row, 8)])
    assert found.differing > 0
    assert found.difference > 1e-4 * found.largest
    assert identity_findings([found], None, PROVENANCE).outcome == "contradicted"


def test_what_is_added_is_drawn_from_the_seed_but_for_what_makes_it_an_identity() -> None:
    model = drawn(RESIDUAL)
    one, same, other = deepen(model, DEEPER, 1), deepen(model, DEEPER, 1), deepen(model, DEEPER, 2)
    torch.testing.assert_close(one.state_dict(), same.state_dict(), rtol=0, atol=0)
    added = "layer2.2.conv1.weight"
    assert not torch.equal(one.get_parameter(added), other.get_parameter(added))
    assert one.get_parameter("layer2.2.bn2.weight").count_nonzero() == 0
    assert one.get_parameter("layer2.0.bn2.weight").count_nonzero() > 0


@pytest.mark.parametrize(
    ("row", "deeper", "why"),
    [
        (RESIDUAL, DEEPER_PLAIN, "they differ in more than depth"),
        (RESIDUAL, replace(DEEPER, classes=6), "they differ in more than depth"),
        (DEEPER, RESIDUAL, r"its stages have \(2, 1, 2\) blocks, the other's \(3, 3, 2\)"),
        (
            replace(RESIDUAL, shortcut="C"),
            replace(DEEPER, shortcut="C"),
            r"with shortcut C every block is projected \(take shortcut A or B\)",
        ),
        (
            replace(BOTTLENECK, residual=False),
            replace(BOTTLENECK, residual=False, depths=(3, 3)),
            "a plain bottleneck is narrower than what it would have to copy",
        ),
    ],
)
def test_networks_that_cannot_be_deepened_so_are_refused(row: Variant, deeper: Variant, why: str) -> None:
    with pytest.raises(UsageError, match=f"{deeper.name} cannot be built from {row.name} and identity layers: {why}"):
        deepen(drawn(row), deeper)


def test_modes_come_back_after_an_exception() -> None:
    model = drawn(RESIDUAL)
    built = deepen(model, DEEPER)
    model.train()

    def broken() -> Iterator[Tensor]:
        yield images_for(RESIDUAL, 2)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compare_networks(model, built, broken())
    assert (model.training, built.training) == (True, False)


def test_what_cannot_be_compared_is_refused() -> None:
    model = drawn(PLAIN)
    built = deepen(model, DEEPER_PLAIN)
    with pytest.raises(UsageError, match="outputs are compared on at least one image"):
        compare_networks(model, built, [])
    with torch.no_grad():
        built.fc.bias[0] = math.nan
    with pytest.raises(ArtifactError, match="the logits of deeper-plain are not finite with these weights"):
        compare_networks(model, built, [images_for(PLAIN, 2)])


# Findings -------------------------------------------------------------------------------------------------------------

EXACT = ConstructionResult("plain20", "plain56", False, 100, 0, 0.0, 12.0)


def curve(label: str, *final: float) -> Curve:
    points = (0.9, 0.4, 0.2)
    return Curve(label, (1.0, 2.0, 3.0), tuple((*points[:2], end) for end in final), final, 50_000)


@pytest.mark.parametrize(
    ("constructed", "outcome"),
    [
        (EXACT, "confirmed"),
        (replace(EXACT, differing=90, difference=1e-5), "confirmed"),
        (replace(EXACT, differing=90, difference=0.1), "contradicted"),
        (replace(EXACT, residual=True), "confirmed"),
        (replace(EXACT, residual=True, differing=1, difference=1e-7), "contradicted"),
    ],
)
def test_residual_nets_are_held_to_the_bit_and_plain_ones_to_rounding(
    constructed: ConstructionResult, outcome: Outcome
) -> None:
    found = identity_findings([constructed], None, PROVENANCE)
    assert [check.outcome for check in found.checks] == [outcome]
    assert any("left open" in note for note in found.notes)
    assert found.panels == ()


@pytest.mark.parametrize(
    ("shallower", "deeper", "outcome"),
    [
        ((0.05, 0.051), (0.10, 0.104), "confirmed"),
        ((0.05, 0.08), (0.06, 0.10), "undecided"),
        ((0.10, 0.101), (0.05, 0.052), "contradicted"),
        ((0.05,), (0.10,), "confirmed"),
        ((0.05,), (0.0501,), "undecided"),
    ],
)
def test_the_trained_network_is_held_to_the_level_of_the_built_one(
    shallower: tuple[float, ...], deeper: tuple[float, ...], outcome: Outcome
) -> None:
    training = curve("plain20", *shallower), curve("plain56", *deeper)
    found = identity_findings([EXACT], training, PROVENANCE)
    assert found.checks[-1].outcome == outcome
    assert any("One seed" in note for note in found.notes) == (len(shallower) == 1)


def test_the_panel_has_both_curves_and_the_level(tmp_path: Path) -> None:
    training = curve("plain20", 0.04, 0.06), curve("plain56", 0.10)
    found = identity_findings([EXACT, replace(EXACT, residual=True)], training, PROVENANCE)
    (panel,) = found.panels
    assert [line.y for line in panel.lines] == [pytest.approx((90, 40, 5)), pytest.approx((90, 40, 10))]
    assert panel.lines[0].low == pytest.approx((90, 40, 4))
    assert panel.lines[1].low == ()
    assert panel.marks[0].y == pytest.approx(5)
    assert panel.marks[0].family == panel.lines[0].family
    assert "all equal to the bit" in found.checks[0].found
    assert [len(table.rows) for table in found.tables] == [2, 2]
    assert findings.read(findings.write(found, tmp_path)) == found
