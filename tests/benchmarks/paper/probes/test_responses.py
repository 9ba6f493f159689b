from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.paper.probes.responses import (
    Moments,
    Ratio,
    Responses,
    combine_outcomes,
    layer_responses,
    median_ratio,
    ratio_of_medians,
    responses_findings,
    spatial_layers,
)
from benchmarks.records import findings
from benchmarks.records.findings import Outcome
from exporter.models.variants import Variant, variant
from runtimes.errors import ArtifactError, UsageError
from tests.benchmarks.paper.nets import (
    BOTTLENECK,
    PLAIN,
    PROJECTED,
    PROVENANCE,
    RESIDUAL,
    assert_untouched,
    copied_state,
    drawn,
    images_for,
    worked_out,
)


@pytest.mark.parametrize("row", [RESIDUAL, PLAIN, PROJECTED, BOTTLENECK], ids=lambda row: row.name)
def test_each_response_is_what_numpy_says_of_the_batch_norms_outputs(row: Variant) -> None:
    model, images = drawn(row), images_for(row, 7)
    state = copied_state(model)
    found = layer_responses("mine", model, torch.split(images, 3))
    with torch.no_grad():
        outputs = worked_out(model, images)
    expected = [float(np.std(outputs[layer].double().numpy())) for layer in found.layers]
    np.testing.assert_allclose(found.std, expected, rtol=1e-5)
    assert (found.name, found.variant, found.images) == ("mine", row, 7)
    assert_untouched(model, state)


def test_layers_are_the_stem_and_the_3x3s_and_no_projection() -> None:
    assert spatial_layers(PROJECTED) == (
        "conv1",
        *(f"layer{stage}.{block}.conv{conv}" for stage in (1, 2) for block in (0, 1) for conv in (1, 2)),
    )
    assert spatial_layers(BOTTLENECK) == (
        "conv1",
        *(f"layer{stage}.{block}.conv2" for stage in (1, 2) for block in (0, 1)),
    )
    assert len(spatial_layers(variant("resnet56"))) == 55


@pytest.mark.parametrize("middle", [0.0, 1e6])
def test_the_spread_of_parts_is_that_of_the_whole(middle: float) -> None:
    values = middle + np.random.default_rng(0).normal(size=1000)
    moments = Moments()
    for part in np.split(values, [1, 10, 500]):
        moments.add(torch.from_numpy(part).reshape(-1, 1))
    np.testing.assert_allclose(moments.std, values.std(), rtol=1e-9)
    assert moments.count == 1000


def test_a_spread_of_float32s_is_summed_in_float64() -> None:
    values = np.random.default_rng(0).normal(3.0, size=1000).astype(np.float32)
    moments = Moments()
    moments.add(torch.from_numpy(values))
    np.testing.assert_allclose(moments.std, values.astype(np.float64).std(), rtol=1e-13)


def test_hooks_come_off_and_the_mode_comes_back_after_an_exception() -> None:
    model, images = drawn(RESIDUAL), images_for(RESIDUAL, 2)
    model.train()
    state = copied_state(model)

    def broken() -> Iterator[Tensor]:
        yield images
        raise InterruptedError

    with pytest.raises(InterruptedError):
        layer_responses("mine", model, broken())
    assert model.training
    assert_untouched(model, state)
    with pytest.raises(RuntimeError):
        layer_responses("mine", model, [images[:, :2]])
    assert_untouched(model, state)


def test_what_cannot_be_measured_is_refused() -> None:
    model, images = drawn(RESIDUAL), images_for(RESIDUAL, 2)
    with pytest.raises(UsageError, match="responses need at least one image"):
        layer_responses("mine", model, [])
    with torch.no_grad():
        model.get_parameter("layer2.0.bn1.weight")[1] = math.inf
    with pytest.raises(ArtifactError, match=r"mine: the response of layer2\.0\.conv1 is not finite"):
        layer_responses("mine", model, [images])
    model.get_submodule("layer2.0").bn1 = nn.Identity()
    with pytest.raises(UsageError, match=r"no batch-norm 'layer2\.0\.bn1' behind the convolution 'layer2\.0\.conv1'"):
        layer_responses("mine", model, [images])


# Ratios ---------------------------------------------------------------------------------------------------------------


def test_of_twins_the_ratio_is_taken_layer_by_layer() -> None:
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


def test_comparisons_are_combined_as_checks_are() -> None:
    assert combine_outcomes(["confirmed", "confirmed"]) == "confirmed"
    assert combine_outcomes(["confirmed", "undecided"]) == "undecided"
    assert combine_outcomes(["undecided", "contradicted", "confirmed"]) == "contradicted"


# Findings -------------------------------------------------------------------------------------------------------------


def made(name: str, level: float, seed: int = 0) -> Responses:
    """Responses that lie around ``level``, as the layers of the named variant have them."""
    row = variant(name)
    names = spatial_layers(row)
    spread = np.exp(np.random.default_rng(seed).normal(scale=0.3, size=len(names)))
    return Responses(name, row, 100, names, tuple((level * spread).tolist()))


def outcomes(*measured: Responses) -> list[Outcome]:
    return [check.outcome for check in responses_findings(measured, PROVENANCE).checks]


def test_the_papers_figure_is_confirmed_where_it_is_so_and_contradicted_where_not() -> None:
    usual = [made("resnet56", 0.4), made("plain20", 2.0), made("resnet20", 0.9), made("plain56", 1.8)]
    found = responses_findings(usual, PROVENANCE)
    assert [check.outcome for check in found.checks] == ["confirmed", "confirmed"]
    assert "resnet20 over plain20 (19 layers)" in found.checks[0].found
    assert "resnet56 over resnet20 (55 and 19 layers)" in found.checks[1].found
    assert outcomes(made("plain20", 0.5), made("resnet20", 0.9), made("resnet56", 1.4)) == ["contradicted"] * 2
    assert outcomes(made("plain20", 1.0, 1), made("resnet20", 1.0, 2)) == ["undecided"]
    # one pair against the claim is enough
    assert outcomes(made("resnet20", 0.9), made("resnet56", 0.4), made("resnet110", 0.8)) == ["contradicted"]


def test_panels_show_the_layers_in_order_and_sorted(tmp_path: Path) -> None:
    measured = [made("resnet20", 0.9), made("plain20", 2.0), made("resnet56", 0.4)]
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
    seeds = [replace(made("resnet20", 0.9, seed), name=f"resnet20, seed {seed}") for seed in (0, 1)]
    found = responses_findings([*seeds, made("plain20", 2.0)], PROVENANCE)
    plain, residual = found.panels[0].lines
    assert residual.y == pytest.approx(np.mean([seed.std for seed in seeds], axis=0))
    assert residual.low == pytest.approx(np.min([seed.std for seed in seeds], axis=0))
    assert residual.high == pytest.approx(np.max([seed.std for seed in seeds], axis=0))
    assert plain.low == ()
    assert [row[0] for row in found.tables[0].rows] == ["plain20", "resnet20, seed 0", "resnet20, seed 1"]


@pytest.mark.parametrize(
    ("names", "checks", "missing"),
    [
        (("resnet20", "resnet56"), 1, ["plain network"]),
        (("plain20", "resnet20"), 1, ["differ in depth"]),
        (("plain20", "resnet56"), 0, ["plain network", "differ in depth"]),
        (("resnet18", "resnet56"), 0, ["plain network", "differ in depth"]),
    ],
)
def test_what_is_not_at_hand_is_left_out_and_said(names: Sequence[str], checks: int, missing: list[str]) -> None:
    found = responses_findings([made(name, 1.0) for name in names], PROVENANCE)
    assert len(found.checks) == checks
    assert len(found.notes) == 1 + len(missing)
    assert all(any(what in note for note in found.notes) for what in missing)
