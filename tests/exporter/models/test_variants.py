from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from exporter.models.layers import layers, multiply_adds, parameters
from exporter.models.resnet import Blur, ResNet, build
from exporter.models.variants import FAMILIES, FAMILY_OF, VARIANTS, Paper, Variant, customise, variant
from runtimes.errors import UsageError
from tests.refusals import refuses

NAMES = tuple(VARIANTS)

TORCHVISION_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}

PAPERS_PARAMETERS = {"wrn-16-8": 11.0, "wrn-28-10": 36.5, "wrn-40-2": 2.2, "resnext50_32x4d": 25.0}
"""In millions, of Zagoruyko and Komodakis 2016 (Tables 4 and 5) and Xie et al. 2016 (Table 1)."""

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
    ("groups", variant("resnext50_32x4d")),
    ("width", customise(variant("wide_resnet50_2"), stride="v1", size=(65, 33))),
    ("deep stem at 45x39", customise(variant("resnet50d"), size=(45, 39))),
    ("tiered stem", customise(variant("resnet10t"), in_channels=1, shortcut="C")),
    ("SE", variant("seresnext50_32x4d")),
    ("ECA at 31x33", customise(variant("ecaresnet50t"), size=(31, 33))),
    ("RS", variant("resnetrs50")),
    ("blur by averages at 70x50", customise(variant("resnetaa50"), size=(70, 50))),
    ("blur by averages, deep stem", variant("resnetaa50d")),
    ("binomial blur at 67x51", customise(variant("resnetblur50"), size=(67, 51))),
    ("group norm", variant("resnet50_gn")),
    ("pre-activation", customise(variant("resnetv2_50"), stride="v1", size=(67, 51))),
    ("pre-activation C", customise(variant("resnetv2_18"), shortcut="C")),
    ("pre-activation, CIFAR", variant("preact-resnet18")),
    ("wide, CIFAR", variant("wrn-16-8")),
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
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear, Blur)):
            listen(name, module)
    yield calls


def forward_on_meta(row: Variant) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    model = on_meta(row)
    with record_layers(model) as calls:
        model(torch.empty(1, row.in_channels, *row.size, device="meta"))
    return calls


def count_multiply_adds(row: Variant) -> int:
    """Multiply-adds of one image, as PyTorch counts them for the operators that it runs."""
    with FlopCounterMode(display=False) as counter:
        on_meta(row)(torch.empty(1, row.in_channels, *row.size, device="meta"))
    return int(counter.get_total_flops()) // 2


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
    expected = {layer.name: (1, layer.out_channels, *layer.out_size) for layer in layers(row)}
    assert {name: shape for name, _, shape in forward_on_meta(row)} == expected


@pytest.mark.parametrize("row", [row for _, row in CHANGED], ids=[name for name, _ in CHANGED])
def test_layers_have_the_modules_kernels_and_strides(row: Variant) -> None:
    modules = dict(on_meta(row).named_modules())
    for layer in layers(row):
        module = modules[layer.name]
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size == layer.kernel, layer.name
            assert module.groups == layer.groups, layer.name
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


@pytest.mark.parametrize("name", PAPERS_PARAMETERS)
def test_parameters_meet_later_papers_to_their_digits(name: str) -> None:
    assert round(parameters(variant(name)) / 1e6, 1) == PAPERS_PARAMETERS[name]


def test_rows_are_under_their_own_names() -> None:
    assert all(row.name == name for name, row in VARIANTS.items())
    assert [row for rows in FAMILIES.values() for row in rows] == [*VARIANTS.values()]
    assert FAMILY_OF["resnext50_32x4d"] == "ResNeXt"


def test_no_two_rows_are_the_same_network() -> None:
    networks = [dataclasses.replace(row, name="", paper=Paper()) for row in VARIANTS.values()]
    assert len(set(networks)) == len(networks)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("resnet50", "resnet50"),
        ("ResNet50", "resnet50"),
        ("RESNET-50", "resnet50"),
        ("wide-resnet50-2", "wide_resnet50_2"),
        ("WRN_28_10", "wrn-28-10"),
        ("cifar_resnet18", "cifar-resnet18"),
    ],
)
def test_a_variant_is_found_in_any_spelling(typed: str, name: str) -> None:
    assert variant(typed) is VARIANTS[name]


@pytest.mark.parametrize("page", ["README.md", "docs/networks.md"])
def test_the_pages_tell_the_number_of_networks(page: str) -> None:
    text = (Path(__file__).parents[3] / page).read_text(encoding="utf-8")
    assert re.search(rf"\b{len(VARIANTS)}\b", text)


def test_no_spelling_means_two_variants() -> None:
    assert all(variant(name) is row for name, row in VARIANTS.items())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet5O", "resnet50"),
        ("resnet51", "resnet50"),
        ("plan34", "plain34"),
        ("resnext50", "resnext50_32x4d"),
        ("wide_resnet50", "wide_resnet50_2"),
        ("timm/resnet50d.ra2_in1k", "resnet50d"),
        ("seresnet50t", "seresnet50"),
        ("resnetv2_50x1_bit", "resnetv2_50"),
    ],
)
def test_the_nearest_variant_is_suggested(typed: str, meant: str) -> None:
    with refuses(UsageError, "variant-unknown", f"'{typed}'", f"(did you mean {meant}?)"):
        variant(typed)


def test_an_unlike_name_is_answered_with_the_list() -> None:
    with refuses(UsageError, "variant-unknown", "'vgg16'", "rexport list"):
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
        ("resnetaa50", {"stride": "v1"}, "stride-in-blur", ["resnetaa50"]),
        ("resnetblur50", {"size": (64, 16)}, "size-below-blur", ["resnetblur50", 17]),
        ("resnetv2_50", {"shortcut": "A"}, "preactivation-projects", ["resnetv2_50"]),
    ],
)
def test_changes_that_make_no_sense_are_refused(
    name: str, change: dict[str, object], code: str, values: list[object]
) -> None:
    with refuses(UsageError, code, *values):
        customise(variant(name), **change)  # type: ignore[arg-type]
