from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.paper.experiments.gradients import (
    SAID_HEALTHY,
    SAID_IDENTITY,
    SAID_INITIALISED,
    SAID_NORMALISED,
    SAID_PRESENT,
    gradients_findings,
    limits,
)
from benchmarks.paper.probes import (
    GradientShare,
    GradientShares,
    InitialGradients,
    LossBatch,
    Norms,
    TrainedGradients,
    along_training,
    at_initialisation,
    identity_blocks,
    layer_gradients,
    shortcut_shares,
    spatial_layers,
    without_norms,
)
from benchmarks.records import findings
from benchmarks.records.findings import Check, Findings, Outcome
from exporter.models.resnet import BasicBlock, ResNet, build, initialise
from exporter.models.variants import Variant, variant
from runtimes.errors import ArtifactError, UsageError
from tests.benchmarks.paper.nets import (
    BOTTLENECK,
    PLAIN,
    PROJECTED,
    PROVENANCE,
    RESIDUAL,
    assert_untouched,
    copy_state,
    forward_by_hand,
    noise_batch,
    random_network,
)
from tests.refusals import refuses

ROWS = pytest.mark.parametrize("row", [RESIDUAL, PLAIN, PROJECTED, BOTTLENECK], ids=lambda row: row.name)


def by_hand(model: ResNet, batch: LossBatch) -> tuple[ResNet, dict[str, Tensor]]:
    """A float64 copy of the network after ``backward``, with each step's tensor, which keeps its gradient."""
    own = build(model.variant).double().train()
    own.load_state_dict(model.state_dict())
    steps = forward_by_hand(own, batch.images.double())
    for tensor in steps.values():
        tensor.retain_grad()
    F.cross_entropy(steps["logits"], batch.targets).backward()  # type: ignore[no-untyped-call]
    return own, steps


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


# By layer -------------------------------------------------------------------------------------------------------------


@ROWS
def test_gradients_are_those_of_a_pass_by_hand(row: Variant) -> None:
    model, batch = random_network(row), noise_batch(row, 6, 0)
    state = copy_state(model)
    found = layer_gradients(model, batch)
    own, steps = by_hand(model, batch)
    weights = [gradient(own.get_parameter(f"{layer}.weight")) for layer in spatial_layers(row)]
    np.testing.assert_allclose(found.weight_rms, [float(np.sqrt((one.numpy() ** 2).mean())) for one in weights])
    inputs = [gradient(steps[block]) for block in found.blocks]
    np.testing.assert_allclose(found.input_norm, [np.linalg.norm(one.numpy().ravel()) for one in inputs])
    assert found.layers == spatial_layers(row)
    assert len(found.blocks) == sum(row.depths)
    assert not model.training
    assert_untouched(model, state)


def test_a_gradients_norm_is_the_slope_along_it() -> None:
    model, batch = random_network(RESIDUAL), noise_batch(RESIDUAL, 6, 0)
    own, _ = by_hand(model, batch)
    weight = own.get_parameter("layer1.1.conv2.weight")
    step = 1e-5 * gradient(weight) / gradient(weight).norm()
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            weight.add_(sign * step)
            losses.append(float(F.cross_entropy(own(batch.images.double()), batch.targets)))
    norms = layer_gradients(model, batch)
    rms = norms.weight_rms[norms.layers.index("layer1.1.conv2")]
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(rms * math.sqrt(weight.numel()), rel=1e-6)


@pytest.mark.parametrize("measure", [layer_gradients, lambda model, batch: shortcut_shares("mine", model, batch)])
def test_the_network_stays_as_it_is_after_an_exception(measure: Callable[[ResNet, LossBatch], object]) -> None:
    model, batch = random_network(RESIDUAL), noise_batch(RESIDUAL, 6, 0)
    state = copy_state(model)
    with pytest.raises(IndexError):
        measure(model, replace(batch, targets=batch.targets + 100))
    assert_untouched(model, state)


def test_without_its_batch_norms_a_network_is_convolutions_alone() -> None:
    model, batch = random_network(PLAIN), noise_batch(PLAIN, 3, 0)
    state = copy_state(model)
    bare = without_norms(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in bare.modules())
    x = batch.images
    with torch.no_grad():
        for layer in spatial_layers(PLAIN):
            weight = model.get_parameter(f"{layer}.weight")
            stride = 2 if layer in ("layer2.0.conv1", "layer3.0.conv1") else 1
            x = F.conv2d(x, weight, stride=stride, padding=1).relu()
        torch.testing.assert_close(bare(batch.images), model.fc(x.mean(dim=(2, 3))))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == 11
    assert_untouched(model, state)


def test_initial_gradients_follow_from_the_seed() -> None:
    batch = noise_batch(RESIDUAL, 6, 0)
    normal, bare = at_initialisation(RESIDUAL, 3, batch)
    model = build(RESIDUAL)
    initialise(model, 3)
    assert normal == InitialGradients(RESIDUAL, 3, True, layer_gradients(model, batch))
    assert bare == InitialGradients(RESIDUAL, 3, False, layer_gradients(without_norms(model), batch))
    assert at_initialisation(RESIDUAL, 4, batch)[0].norms != normal.norms


def test_points_of_a_training_are_measured_by_their_states() -> None:
    batch = noise_batch(PLAIN, 6, 0)
    models = [random_network(PLAIN, seed) for seed in (0, 1)]
    found = along_training(PLAIN, ((100 * n, model.state_dict()) for n, model in enumerate(models)), batch)
    assert found == tuple(
        TrainedGradients(PLAIN, 100 * n, layer_gradients(model, batch)) for n, model in enumerate(models)
    )


def test_noise_is_the_same_for_the_same_seed() -> None:
    one, same, other = noise_batch(PLAIN, 4, 0), noise_batch(PLAIN, 4, 0), noise_batch(PLAIN, 4, 1)
    assert one.images.shape == (4, 3, 12, 12)
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.targets, same.targets)
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize("value", [0.0, math.inf])
def test_gradients_without_a_size_are_refused(value: float) -> None:
    model, batch = random_network(RESIDUAL), noise_batch(RESIDUAL, 4, 0)
    with torch.no_grad():
        model.fc.weight.fill_(value)
    with refuses(ArtifactError, "gradient-not-finite", "small-residual"):
        layer_gradients(model, batch)
    with refuses(ArtifactError, "gradient-not-finite", "layer1.0 of small-residual"):
        shortcut_shares("mine", model, batch)


# The + 1 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [RESIDUAL, PROJECTED, BOTTLENECK], ids=lambda row: row.name)
def test_shares_are_those_of_gradients_by_hand(row: Variant) -> None:
    model, batch = random_network(row), noise_batch(row, 6, 0)
    state = copy_state(model)
    found = shortcut_shares("mine", model, batch)
    _, steps = by_hand(model, batch)
    assert found.name == "mine"
    assert [share.block for share in found.blocks] == list(identity_blocks(row))
    for share in found.blocks:
        whole, shortcut = gradient(steps[share.block]), gradient(steps[f"{share.block}.sum"])
        square, branch = float(whole.square().sum()), whole - shortcut
        assert share.shortcut == pytest.approx(float((shortcut * whole).sum()) / square)
        assert share.cross == pytest.approx(float((shortcut * branch).sum()) / square)
        assert share.shortcut - share.cross == pytest.approx(float(shortcut.square().sum()) / square)
        assert share.error < 1e-14
    assert not model.training
    assert_untouched(model, state)


class Halved(nn.Module):
    """A shortcut that is no identity."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


def test_a_shortcut_that_is_halved_is_caught() -> None:
    model, batch = random_network(RESIDUAL), noise_batch(RESIDUAL, 6, 0)
    block = model.get_submodule("layer1.1")
    assert isinstance(block, BasicBlock)
    block.downsample = Halved()
    found = shortcut_shares("mine", model, batch)
    errors = {share.block: share.error for share in found.blocks}
    assert errors.pop("layer1.1") > 0.01
    assert all(error < 1e-14 for error in errors.values())
    assert gradients_findings((), (), (found,), "noise", PROVENANCE).outcome == "contradicted"


def test_identity_blocks_keep_size_and_channels() -> None:
    assert identity_blocks(RESIDUAL) == ("layer1.0", "layer1.1", "layer3.1")
    assert identity_blocks(BOTTLENECK) == ("layer1.1", "layer2.1")
    assert len(identity_blocks(variant("resnet56"))) == 25
    assert identity_blocks(PLAIN) == identity_blocks(replace(RESIDUAL, shortcut="C")) == ()


def test_a_network_without_identity_shortcuts_has_no_shares() -> None:
    with refuses(UsageError, "no-identity-shortcut", "small-plain"):
        shortcut_shares("mine", random_network(PLAIN), noise_batch(PLAIN, 2, 0))


# Findings -------------------------------------------------------------------------------------------------------------


def norms(first_over_last: float) -> Norms:
    """Gradients that grow by that much through three blocks."""
    return Norms(
        ("conv1", "layer1.0.conv1"), (0.2 * first_over_last, 0.1), ("a", "b", "c"), (2 * first_over_last, 3, 2)
    )


def at_start(name: str, normalised: bool, *growths: float) -> list[InitialGradients]:
    return [InitialGradients(variant(name), seed, normalised, norms(one)) for seed, one in enumerate(growths)]


def after_training(name: str, **growths: float) -> list[TrainedGradients]:
    return [
        TrainedGradients(variant(name), int(point.removeprefix("at")), norms(one)) for point, one in growths.items()
    ]


def outcomes(found: Findings) -> dict[str, Outcome]:
    return {check.said: check.outcome for check in found.checks}


def check(found: Findings, said: str) -> Check:
    return next(one for one in found.checks if one.said == said)


def test_growth_is_judged_by_its_limit_either_way() -> None:
    plain = [*at_start("plain20", True, 10, 20), *at_start("plain20", False, 0.5), *at_start("plain56", False, 0.05)]
    found = gradients_findings(plain, (), (), "noise", PROVENANCE)
    assert outcomes(found) == {
        SAID_PRESENT: "confirmed",
        SAID_NORMALISED: "confirmed",
        SAID_INITIALISED: "confirmed",
    }
    assert "14 [10–20] in plain20" in check(found, SAID_PRESENT).found
    exploding = gradients_findings([*plain, *at_start("plain56", True, 12345)], (), (), "noise", PROVENANCE)
    assert "12,000 in plain56" in check(exploding, SAID_NORMALISED).found
    assert outcomes(exploding) == {**outcomes(found), SAID_NORMALISED: "contradicted"}
    vanishing = gradients_findings([*plain, *at_start("plain56", True, 1e-4)], (), (), "noise", PROVENANCE)
    assert outcomes(vanishing) == {
        **outcomes(found),
        SAID_PRESENT: "contradicted",
        SAID_NORMALISED: "contradicted",
    }
    bare = gradients_findings([*plain, *at_start("plain110", False, 1e-4)], (), (), "noise", PROVENANCE)
    assert outcomes(bare) == {**outcomes(found), SAID_INITIALISED: "contradicted"}


def test_residual_nets_are_named_and_not_judged() -> None:
    measured = [*at_start("plain20", False, 0.5), *at_start("resnet20", False, 1e8), *at_start("resnet20", True, 1e8)]
    found = gradients_findings(measured, after_training("resnet20", at9=1e8), (), "noise", PROVENANCE)
    assert outcomes(found) == {SAID_INITIALISED: "confirmed"}
    for growth in ("0.5 in plain20", "1e+08 in resnet20"):
        assert growth in check(found, SAID_INITIALISED).found


def test_health_is_judged_after_the_first_update() -> None:
    start = at_start("plain56", True, 90)
    found = gradients_findings(start, after_training("plain56", at0=1e4, at500=5.0), (), "noise", PROVENANCE)
    assert outcomes(found) == {SAID_PRESENT: "confirmed", SAID_HEALTHY: "confirmed", SAID_NORMALISED: "confirmed"}
    for value in ("5 in plain56", "iteration 500"):
        assert value in check(found, SAID_HEALTHY).found
    ill = gradients_findings(start, after_training("plain56", at500=500.0), (), "noise", PROVENANCE)
    assert outcomes(ill) == {**outcomes(found), SAID_HEALTHY: "contradicted"}
    lost = gradients_findings((), after_training("plain56", at500=1e-3), (), "noise", PROVENANCE)
    assert outcomes(lost) == {SAID_PRESENT: "contradicted", SAID_HEALTHY: "contradicted"}
    assert SAID_HEALTHY not in outcomes(
        gradients_findings(start, after_training("plain56", at0=5), (), "noise", PROVENANCE)
    )


@pytest.mark.parametrize(("error", "outcome"), [(3e-16, "confirmed"), (1e-9, "contradicted")])
def test_the_identity_is_judged_by_rounding(error: float, outcome: Outcome) -> None:
    shares = GradientShares(
        "mine", (GradientShare("a", 0.7, cross=0.1, error=0.0), GradientShare("b", 0.9, cross=0.1, error=error))
    )
    found = gradients_findings((), (), (shares,), "noise", PROVENANCE)
    assert outcomes(found) == {SAID_IDENTITY: outcome}
    for value in (f"{error:.2g}", "2 blocks", "80 % in mine"):
        assert value in found.checks[0].found
    assert found.panels[0].lines[0].y == (0.7, 0.9)


def test_every_measurement_is_in_panels_and_tables(tmp_path: Path) -> None:
    measured = [
        *at_start("resnet20", True, 5, 7),
        *at_start("plain56", True, 100, 400),
        *at_start("plain20", True, 10, 10),
        *at_start("plain20", False, 1, 2),
    ]
    shares = GradientShares("mine", (GradientShare("a", 0.7, cross=0.1, error=0.0),))
    found = gradients_findings(
        measured, after_training("plain20", at0=10, at500=2), (shares,), "8 images of noise", PROVENANCE
    )
    by_layer, bare, by_depth, training, by_block = found.panels
    assert [panel.x_label.split()[0] for panel in found.panels] == ["layer", "layer", "layers", "layer", "block"]
    assert (len(bare.lines), by_block.lines[0].label) == (1, "mine")
    assert [(line.label, line.dashed) for line in by_layer.lines] == [
        ("20 layers, plain", True),
        ("20 layers, residual", False),
        ("56 layers, plain", True),
    ]
    assert by_layer.lines[1].y == pytest.approx((0.2 * math.sqrt(35), 0.1))
    assert by_layer.lines[1].low == pytest.approx((1.0, 0.1))
    assert by_layer.lines[1].high == pytest.approx((1.4, 0.1))
    assert [(line.label, line.x) for line in by_depth.lines] == [
        ("with batch-norm, plain", (20, 56)),
        ("with batch-norm, residual", (20,)),
        ("without batch-norm, plain", (20,)),
    ]
    assert by_depth.lines[0].y == pytest.approx((10, 200))
    assert by_depth.lines[0].high == pytest.approx((10, 400))
    assert [line.label for line in training.lines] == ["after 0 iterations", "after 500 iterations"]
    assert [len(table.rows) for table in found.tables] == [4, 2, 1]
    notes = list(limits("8 images of noise", True, True, True))
    assert list(found.notes) == [note.sentence for note in notes]
    assert len({note.code for note in notes}) == 4
    assert findings.read(findings.write(found, tmp_path)) == found
