from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.paper.probes import LossBatch, RunningSpread, layer_gradients, layer_responses, spatial_layers
from exporter.models.variants import Variant, variant
from runtimes.errors import ArtifactError, UsageError
from tests.benchmarks.paper.nets import (
    BOTTLENECK,
    PLAIN,
    PROJECTED,
    RESIDUAL,
    assert_untouched,
    copy_state,
    forward_by_hand,
    images_for,
    random_network,
)
from tests.refusals import refuses


@pytest.mark.parametrize("row", [RESIDUAL, PLAIN, PROJECTED, BOTTLENECK], ids=lambda row: row.name)
def test_each_response_is_numpys_deviation(row: Variant) -> None:
    model, images = random_network(row), images_for(row, 7)
    state = copy_state(model)
    found = layer_responses("mine", model, torch.split(images, 3))
    with torch.no_grad():
        outputs = forward_by_hand(model, images)
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
    spread = RunningSpread()
    for part in np.split(values, [1, 10, 500]):
        spread.add(torch.from_numpy(part).reshape(-1, 1))
    np.testing.assert_allclose(spread.std, values.std(), rtol=1e-9)
    assert spread.count == 1000


def test_a_spread_of_float32s_is_summed_in_float64() -> None:
    values = np.random.default_rng(0).normal(3.0, size=1000).astype(np.float32)
    spread = RunningSpread()
    spread.add(torch.from_numpy(values))
    np.testing.assert_allclose(spread.std, values.astype(np.float64).std(), rtol=1e-13)


def test_hooks_and_mode_are_undone_after_an_exception() -> None:
    model, images = random_network(RESIDUAL), images_for(RESIDUAL, 2)
    model.train()
    state = copy_state(model)

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


def test_networks_that_cannot_be_measured_are_refused() -> None:
    model, images = random_network(RESIDUAL), images_for(RESIDUAL, 2)
    with refuses(UsageError, "responses-without-images"):
        layer_responses("mine", model, [])
    with torch.no_grad():
        model.get_parameter("layer2.0.bn1.weight")[1] = math.inf
    with refuses(ArtifactError, "response-not-finite", "mine", "layer2.0.conv1"):
        layer_responses("mine", model, [images])
    model.get_submodule("layer2.0").bn1 = nn.Identity()
    with refuses(UsageError, "no-batch-norm", "'layer2.0.bn1'", "'layer2.0.conv1'"):
        layer_responses("mine", model, [images])


def test_networks_whose_blocks_end_otherwise_are_refused() -> None:
    row = replace(RESIDUAL, name="mine", shortcut="B", order="pre")
    model = random_network(row)
    with refuses(UsageError, "experiment-needs-post-activation", "mine"):
        layer_responses("mine", model, [images_for(row, 2)])
    with refuses(UsageError, "experiment-needs-post-activation", "mine"):
        layer_gradients(model, LossBatch(images_for(row, 2), torch.zeros(2, dtype=torch.int64), "noise"))
