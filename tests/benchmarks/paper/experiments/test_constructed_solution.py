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
    compare_networks,
    deepen,
    identity_findings,
    limits,
)
from benchmarks.paper.experiments.curves import Curves
from benchmarks.records import findings
from benchmarks.records.findings import Outcome
from exporter.models.variants import Variant, variant
from runtimes.errors import ArtifactError, UsageError
from tests.benchmarks.paper import finished
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
from tests.refusals import refuses

PAIRS = [
    (RESIDUAL, DEEPER),
    (PLAIN, DEEPER_PLAIN),
    (PROJECTED, replace(PROJECTED, name="deeper-projected", depths=(2, 4))),
    (BOTTLENECK, replace(BOTTLENECK, name="deeper-bottleneck", depths=(3, 3))),
    (variant("resnet20"), variant("resnet32")),
    (variant("plain20"), variant("plain32")),
]


@pytest.mark.parametrize(("row", "deeper"), PAIRS, ids=lambda row: row.name)
def test_a_deepened_network_gives_the_same_logits(row: Variant, deeper: Variant) -> None:
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
@pytest.mark.parametrize("changed", ["layer1.2.bn2.weight", "layer2.1.bn2.bias", "layer1.0.conv1.weight"])
def test_one_changed_number_is_found(row: Variant, deeper: Variant, changed: str) -> None:
    model = drawn(row)
    built = deepen(model, deeper)
    with torch.no_grad():
        built.get_parameter(changed).view(-1)[0] += 0.25
    found = compare_networks(model, built, [images_for(row, 8)])
    assert found.differing > 0
    assert found.difference > 1e-4 * found.largest
    assert identity_findings([found], None, PROVENANCE).outcome == "contradicted"


def test_added_layers_are_drawn_from_the_seed() -> None:
    model = drawn(RESIDUAL)
    one, same, other = deepen(model, DEEPER, 1), deepen(model, DEEPER, 1), deepen(model, DEEPER, 2)
    torch.testing.assert_close(one.state_dict(), same.state_dict(), rtol=0, atol=0)
    added = "layer2.2.conv1.weight"
    assert not torch.equal(one.get_parameter(added), other.get_parameter(added))
    assert one.get_parameter("layer2.2.bn2.weight").count_nonzero() == 0
    assert one.get_parameter("layer2.0.bn2.weight").count_nonzero() > 0


@pytest.mark.parametrize(
    ("row", "deeper", "code", "values"),
    [
        (RESIDUAL, DEEPER_PLAIN, "deepen-other-kind", ()),
        (RESIDUAL, replace(DEEPER, classes=6), "deepen-other-kind", ()),
        (DEEPER, RESIDUAL, "deepen-shallower", ((2, 1, 2), (3, 3, 2))),
        (replace(RESIDUAL, shortcut="C"), replace(DEEPER, shortcut="C"), "deepen-projected", ("shortcut C",)),
        (
            replace(BOTTLENECK, residual=False),
            replace(BOTTLENECK, residual=False, depths=(3, 3)),
            "deepen-plain-bottleneck",
            (),
        ),
    ],
)
def test_networks_that_cannot_be_deepened_are_refused(
    row: Variant, deeper: Variant, code: str, values: tuple[object, ...]
) -> None:
    with refuses(UsageError, code, deeper.name, row.name, *values):
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


def test_outputs_that_cannot_be_compared_are_refused() -> None:
    model = drawn(PLAIN)
    built = deepen(model, DEEPER_PLAIN)
    with refuses(UsageError, "comparison-without-images"):
        compare_networks(model, built, [])
    with torch.no_grad():
        built.fc.bias[0] = math.nan
    with refuses(ArtifactError, "variant-logits-not-finite", "deeper-plain"):
        compare_networks(model, built, [images_for(PLAIN, 2)])


# Findings -------------------------------------------------------------------------------------------------------------

EXACT = ConstructionResult("plain20", "plain56", False, 100, 0, 0.0, 12.0)


def trained(name: str, *final: float) -> Curves:
    """The curves of a network that ends with these training errors, a seed each."""
    points = [
        tuple(
            replace(point, train_error=error)
            for point, error in zip(finished.points(end, end), (0.9, 0.4, end), strict=False)
        )
        for end in final
    ]
    return replace(finished.curves(name, [(end, end) for end in final]), points=tuple(points))


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
def test_residual_nets_must_agree_to_the_bit(constructed: ConstructionResult, outcome: Outcome) -> None:
    found = identity_findings([constructed], None, PROVENANCE)
    assert [check.outcome for check in found.checks] == [outcome]
    assert [note.code for note in limits(None)] == ["identity-by-running-statistics", "no-plain-runs"]
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
def test_training_is_judged_by_the_level_of_the_built_net(
    shallower: tuple[float, ...], deeper: tuple[float, ...], outcome: Outcome
) -> None:
    training = trained("plain20", *shallower), trained("plain56", *deeper)
    found = identity_findings([EXACT], training, PROVENANCE)
    assert found.checks[-1].outcome == outcome
    codes = [note.code for note in limits(training)]
    assert len(codes) == len(found.notes)
    assert ("single-seed" in codes) == (len(shallower) == 1)


def test_the_panel_has_both_curves_and_the_level(tmp_path: Path) -> None:
    training = trained("plain20", 0.04, 0.06), trained("plain56", 0.10)
    found = identity_findings([EXACT, replace(EXACT, residual=True)], training, PROVENANCE)
    (panel,) = found.panels
    assert [line.y for line in panel.lines] == [pytest.approx((90, 40, 5)), pytest.approx((90, 40, 10))]
    assert panel.lines[0].low == pytest.approx((90, 40, 4))
    assert panel.lines[1].low == ()
    assert panel.marks[0].y == pytest.approx(5)
    assert panel.marks[0].family == panel.lines[0].family
    assert [len(table.rows) for table in found.tables] == [2, 2]
    assert findings.read(findings.write(found, tmp_path)) == found
