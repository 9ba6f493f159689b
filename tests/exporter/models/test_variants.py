from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from exporter.models.resnet import ResNet, build
from exporter.models.variants import VARIANTS, Variant, customise, layers, multiply_adds, parameters, variant
from runtimes.errors import UsageError
from tests.refusals import refuses

NAMES = tuple(VARIANTS)

TORCHVISION_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}

TABLE_1 = {"resnet18": 1.8e9, "resnet34": 3.6e9, "resnet50": 3.8e9, "resnet101": 7.6e9, "resnet152": 11.3e9}
TABLE_1_TOLERANCE = 0.02
"""The paper prints two or three digits, some rounded and some cut off, and does not say what it leaves out."""

TABLE_6 = {"resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7, "resnet1202": 19.4}
"""Parameters in millions."""

CHANGED: tuple[tuple[str, Variant], ...] = (
    ("v1.5", variant("resnet50")),
    ("v1", customise(variant("resnet50"), stride="v1")),
    ("shortcut A", customise(variant("resnet50"), shortcut="A")),
    ("shortcut C", customise(variant("resnet34"), shortcut="C")),
    ("v1 at 33x47", customise(variant("resnet50"), stride="v1", size=(33, 47))),
    ("v1.5 at 33x47", customise(variant("resnet101"), size=(33, 47))),
    ("plain at 65x97, one channel", customise(variant("plain18"), size=(65, 97), in_channels=1, classes=7)),
    ("cifar", variant("resnet20")),
    ("cifar B at 31x29", customise(variant("resnet20"), shortcut="B", size=(31, 29), in_channels=4)),
    ("cifar C", customise(variant("resnet56"), shortcut="C")),
    ("cifar plain at 1x1", customise(variant("plain20"), size=(1, 1))),
)


def on_meta(row: Variant) -> ResNet:
    """The module without memory for its numbers."""
    with torch.device("meta"):
        return build(row)


@contextmanager
def record_layers(model: ResNet) -> Iterator[list[tuple[str, nn.Module, tuple[int, ...]]]]:
    """Name, module and output shape of each convolution and the classifier, in the order in which they run."""
    calls: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def listen(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
            calls.append((name, module, tuple(output.shape)))

        module.register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            listen(name, module)
    yield calls


def forward_on_meta(row: Variant) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    model = on_meta(row)
    with record_layers(model) as calls:
        model(torch.empty(1, row.in_channels, *row.size, device="meta"))
    return calls


def count_multiply_adds(row: Variant) -> int:
    """Multiply-adds of one image, from the real module's weights and output shapes."""
    total = 0
    for _, module, shape in forward_on_meta(row):
        assert isinstance(module, (nn.Conv2d, nn.Linear))
        pixels = shape[2] * shape[3] if len(shape) == 4 else 1
        total += module.weight.numel() * pixels
    return total


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_the_modules(name: str) -> None:
    row = variant(name)
    assert parameters(row) == sum(parameter.numel() for parameter in on_meta(row).parameters())


@pytest.mark.parametrize("name", TORCHVISION_PARAMETERS)
def test_parameters_are_torchvisions(name: str) -> None:
    assert parameters(variant(name)) == TORCHVISION_PARAMETERS[name]


@pytest.mark.parametrize("name", TABLE_1)
def test_multiply_adds_meet_table_1(name: str) -> None:
    row = variant(name)
    row = customise(row, stride="v1") if row.block == "bottleneck" else row
    assert multiply_adds(row) == pytest.approx(TABLE_1[name], rel=TABLE_1_TOLERANCE)


@pytest.mark.parametrize("name", TABLE_6)
def test_parameters_meet_table_6_to_its_digits(name: str) -> None:
    printed = TABLE_6[name]
    digits = len(str(printed).partition(".")[2])
    assert round(parameters(variant(name)) / 1e6, digits) == printed


def test_the_rows_hold_the_papers_figures() -> None:
    assert {name: variant(name).paper.multiply_adds for name in TABLE_1} == TABLE_1
    millions = {name: (variant(name).paper.parameters or 0) / 1e6 for name in TABLE_6}
    assert millions == pytest.approx(TABLE_6)


def test_the_stride_in_the_3x3_costs_more() -> None:
    assert multiply_adds(variant("resnet50")) == 4_089_184_256
    assert multiply_adds(customise(variant("resnet50"), stride="v1")) < 4_089_184_256


@pytest.mark.parametrize("row", [row for _, row in CHANGED], ids=[name for name, _ in CHANGED])
def test_multiply_adds_are_what_the_module_does(row: Variant) -> None:
    assert multiply_adds(row) == count_multiply_adds(row)
    assert parameters(row) == sum(parameter.numel() for parameter in on_meta(row).parameters())


@pytest.mark.parametrize("row", [row for _, row in CHANGED], ids=[name for name, _ in CHANGED])
def test_layers_have_the_modules_names_and_shapes(row: Variant) -> None:
    expected = {
        layer.name: (1, layer.out_channels, *layer.out_size) if layer.kernel else (1, layer.out_channels)
        for layer in layers(row)
    }
    assert {name: shape for name, _, shape in forward_on_meta(row)} == expected


@pytest.mark.parametrize("row", [row for _, row in CHANGED], ids=[name for name, _ in CHANGED])
def test_layers_have_the_modules_kernels_and_strides(row: Variant) -> None:
    modules = dict(on_meta(row).named_modules())
    for layer in layers(row):
        module = modules[layer.name]
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == (layer.kernel, layer.kernel), layer.name
            assert module.stride == (layer.stride, layer.stride), layer.name
            assert (module.in_channels, module.out_channels) == (layer.in_channels, layer.out_channels), layer.name


def test_a_wrong_row_is_seen() -> None:
    """The comparison of the tests above can fail."""
    row = variant("resnet50")
    assert count_multiply_adds(row) != multiply_adds(dataclasses.replace(row, stride="v1"))


def test_plain_nets_are_residual_nets_without_shortcuts() -> None:
    for name in NAMES:
        if name.startswith("plain"):
            twin = dataclasses.replace(variant(f"resnet{name.removeprefix('plain')}"), shortcut="A", residual=False)
            assert [*layers(variant(name))] == [*layers(twin)]


def test_rows_are_under_their_own_names() -> None:
    assert all(row.name == name for name, row in VARIANTS.items())


@pytest.mark.parametrize("typed", ["resnet50", "ResNet50", "RESNET50"])
def test_a_variant_is_found_in_any_case(typed: str) -> None:
    assert variant(typed) is VARIANTS["resnet50"]


@pytest.mark.parametrize(
    ("typed", "meant"), [("resnet5O", "resnet50"), ("resnet51", "resnet50"), ("plan34", "plain34")]
)
def test_the_nearest_variant_is_suggested(typed: str, meant: str) -> None:
    with refuses(UsageError, "variant-unknown", f"'{typed}'", f"(did you mean {meant}?)"):
        variant(typed)


def test_an_unlike_name_is_answered_with_all_variants() -> None:
    with refuses(UsageError, "variant-unknown", "'vgg16'", *VARIANTS):
        variant("vgg16")


@pytest.mark.parametrize(
    ("name", "change", "code", "values"),
    [
        ("resnet18", {"classes": 0}, "dimension-below-one", ["classes", 0]),
        ("resnet18", {"in_channels": -3}, "dimension-below-one", ["input channels", -3]),
        ("resnet18", {"size": (0, 5)}, "dimension-below-one", ["height", 0]),
        ("resnet18", {"size": (5, 0)}, "dimension-below-one", ["width", 0]),
        ("plain18", {"shortcut": "B"}, "plain-has-no-shortcut", ["plain18"]),
        ("resnet18", {"stride": "v1"}, "stride-needs-bottlenecks", ["resnet18"]),
    ],
)
def test_changes_that_make_no_sense_are_refused(
    name: str, change: dict[str, object], code: str, values: list[object]
) -> None:
    with refuses(UsageError, code, *values):
        customise(variant(name), **change)  # type: ignore[arg-type]
