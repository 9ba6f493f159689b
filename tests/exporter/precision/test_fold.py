from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exporter.models.layers import foldable_norms
from exporter.models.resnet import ResNet, build, initialise, settle_statistics
from exporter.models.variants import VARIANTS, Variant, customise
from exporter.precision.fold import fold_batch_norms, narrow
from runtimes.errors import CheckFailedError
from tests.exporter.small import BASIC, BOTTLENECK, LATER
from tests.refusals import refuses

ROWS = [BASIC, BOTTLENECK, VARIANTS["plain20"], customise(VARIANTS["resnet18"], size=(32, 32)), *LATER.values()]

STAY = {
    "small-preactivation": {"layer1.0.bn1", "layer1.1.bn1", "layer2.0.bn1", "norm"},
    "small-wide": {"layer2.0.bn1", "norm"},
    "small-bare": {"layer1.0.bn1", "layer2.0.bn1"},
}
"""The batch norms that read a sum of two values, or a value that has another reader."""


def build_filled(row: Variant) -> ResNet:
    """Untrained, with means and variances that folding must get right."""
    model = build(row)
    initialise(model, 0)
    settle_statistics(model, 0)
    with torch.no_grad():
        for number, norm in enumerate(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
            norm.bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(number))
    return model


def difference(model: nn.Module, other: nn.Module, row: Variant) -> float:
    """Of the logits for noise, over the largest."""
    noise = torch.randn(3, row.in_channels, *row.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = model(noise).numpy(), other(noise).numpy()
    assert ours.dtype == np.float32
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_folded_network_gives_the_same_logits(row: Variant) -> None:
    model = build_filled(row)
    result = fold_batch_norms(model, foldable_norms(model.variant))
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    left = {name for name, module in result.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert bool(norms) == (row.norm == "batch")
    assert left == STAY.get(row.name, set())
    assert norms - left == foldable_norms(row).keys()
    assert difference(result, model, row) < 2e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_typed_network_is_narrow_inside_and_float32_outside(
    row: Variant, dtype: torch.dtype, tolerance: float
) -> None:
    model = build_filled(row)
    typed = narrow(model, foldable_norms(model.variant), dtype)
    assert {value.dtype for value in typed.parameters()} == {dtype}
    assert {value.device.type for value in typed.parameters()} == {"cpu"}
    assert {name for name, _ in typed.named_modules()} == {name for name, _ in model.named_modules()}
    assert 0 < difference(typed, model, row) < tolerance


def test_a_batch_norm_behind_nothing_it_could_go_into_is_found() -> None:
    model = build_filled(BASIC)
    model.set_submodule("conv1", nn.Sequential(model.conv1, nn.ReLU()))
    with refuses(CheckFailedError, "batch-norm-misplaced", "bn1", "conv1 (Sequential)"):
        fold_batch_norms(model, foldable_norms(model.variant))


def test_a_weight_that_overflows_is_named() -> None:
    model = build_filled(BASIC)
    with torch.no_grad():
        model.fc.weight[0, 0] = 1e6
    with refuses(CheckFailedError, "parameter-overflows", "fc.weight", "float16", "--precision", "bf16"):
        narrow(model, foldable_norms(model.variant), torch.float16)
    narrow(model, foldable_norms(model.variant), torch.bfloat16)


def test_a_weight_that_is_no_number_is_left_to_parity() -> None:
    model = build_filled(BASIC)
    with torch.no_grad():
        model.fc.weight[0, 0] = torch.nan
    narrow(model, foldable_norms(model.variant), torch.float16)
