"""The outputs of a network in PyTorch: that each is made of the others, in all families."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exporter.models import resnet
from exporter.models.custom import CustomNetwork
from exporter.models.layers import foldable_norms, layers, multiply_adds, parameters
from exporter.models.outputs import OUTPUTS, output_names
from exporter.models.several_outputs import reference_outputs, with_outputs
from exporter.models.variants import Variant
from exporter.precision.fold import narrow
from exporter.weights.matching import shapes
from runtimes.errors import ArtifactError, CompatibilityError, ModelMismatchError, UsageError
from tests.exporter.small import BASIC, BOTTLENECK, LATER
from tests.refusals import refuses

NETWORKS = {row.name: row for row in (BASIC, BOTTLENECK, *LATER.values())}


def filled(row: Variant) -> resnet.ResNet:
    model = resnet.build(row)
    resnet.initialise(model, 1)
    resnet.settle_statistics(model, 1)
    if row.classes:
        nn.init.normal_(model.fc.bias, generator=torch.Generator().manual_seed(3))
    return model


def noise(row: Variant) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(2).standard_normal((3, row.in_channels, *row.size)).astype(np.float32)


@pytest.mark.parametrize("row", NETWORKS.values(), ids=NETWORKS)
def test_each_output_is_made_of_the_others(row: Variant) -> None:
    model, names = filled(row), output_names(OUTPUTS, row)
    values = reference_outputs(with_outputs(model, names), names, noise(row))
    last = f"stage{len(row.depths)}"
    assert list(values) == ["logits", "features", *(f"stage{n + 1}" for n in range(len(row.depths))), "cam"]
    with torch.inference_mode():
        np.testing.assert_array_equal(values["logits"], model(torch.from_numpy(noise(row))).numpy())
    size = np.abs(values["logits"]).max()
    np.testing.assert_allclose(values[last].mean((2, 3)), values["features"], rtol=1e-5, atol=1e-6)
    bias = model.fc.bias.detach().numpy()
    np.testing.assert_allclose(values["cam"].mean((2, 3)) + bias, values["logits"], rtol=0, atol=1e-5 * size)
    assert values["cam"].shape == (3, row.classes, *values[last].shape[2:])


def test_maps_are_those_of_the_stages() -> None:
    row = LATER["small-preactivation"]
    model, names = filled(row), ("stage1", "stage2")
    seen: list[torch.Tensor] = []
    model.get_submodule("layer1").register_forward_hook(lambda _, __, value: seen.append(value))
    model.get_submodule("last_relu").register_forward_hook(lambda _, __, value: seen.append(value))
    values = reference_outputs(with_outputs(model, names), names, noise(row))
    for name, value in zip(names, seen, strict=True):
        np.testing.assert_array_equal(values[name], value.numpy())


def test_outputs_of_half_precision_are_float32() -> None:
    model, names = filled(BASIC), output_names(OUTPUTS, BASIC)
    exact = reference_outputs(with_outputs(model, names), names, noise(BASIC))
    half = reference_outputs(
        with_outputs(narrow(model, foldable_norms(BASIC), torch.float16), names), names, noise(BASIC)
    )
    for name, values in half.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, exact[name], rtol=0, atol=0.02 * np.abs(exact[name]).max())


def test_logits_alone_are_the_network_itself() -> None:
    model = resnet.build(BASIC)
    assert with_outputs(model, ("logits",)) is model


@pytest.mark.parametrize("row", [BASIC, LATER["small-preactivation"]], ids=lambda row: row.name)
def test_a_trunk_has_all_but_the_classifier(row: Variant) -> None:
    trunk, whole = replace(row, classes=0), filled(row)
    state = {name: value for name, value in whole.state_dict().items() if not name.startswith("fc.")}
    model = resnet.build(trunk)
    model.load_state_dict(state)
    assert dict(shapes(trunk)) == {name: tuple(value.shape) for name, value in state.items()}
    assert parameters(trunk) == sum(value.numel() for value in model.parameters())
    assert multiply_adds(row) - multiply_adds(trunk) == row.features * row.classes
    assert [layer.norm for layer in layers(trunk)] == [layer.norm for layer in layers(row)]
    names = output_names(("features",), trunk)
    (features,) = reference_outputs(with_outputs(model, names), names, noise(row)).values()
    expected = reference_outputs(with_outputs(whole, names), names, noise(row))["features"]
    np.testing.assert_array_equal(features, expected)


@pytest.mark.parametrize("output", ["logits", "cam"])
def test_a_trunk_has_no_classes(output: str) -> None:
    with refuses(ModelMismatchError, "output-needs-classifier", output, "--output features"):
        output_names(("features", output), replace(BASIC, classes=0))


def test_names_are_checked() -> None:
    with refuses(UsageError, "output-unknown", "stage1", "stages"):
        output_names(("stage1",), BASIC)
    with refuses(UsageError, "outputs-empty"):
        output_names((), BASIC)


def test_the_inside_of_another_module_is_unknown() -> None:
    network = CustomNetwork(nn.Identity(), "Identity", 10, 3, (8, 8))
    assert output_names(("logits",), network) == ("logits",)
    with refuses(CompatibilityError, "outputs-need-variant", "Identity"):
        output_names(("features",), network)


def test_numbers_that_are_not_finite_are_refused() -> None:
    model, names = filled(BASIC), ("features", "stage1")
    with torch.no_grad():
        model.get_parameter("conv1.weight")[0] = torch.inf
    with refuses(ArtifactError, "reference-not-finite", "features"):
        reference_outputs(with_outputs(model, names), names, noise(BASIC))
