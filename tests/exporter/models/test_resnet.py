from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from exporter.models.layers import parameters
from exporter.models.resnet import BasicBlock, Bottleneck, PaddedIdentity, ResNet, build, initialise, settle_statistics
from exporter.models.variants import VARIANTS, Variant, customise, variant
from exporter.weights.matching import shapes, state_digest
from tests.exporter import torchvision_layout

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
FIVE = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

FIRST_BLOCK_OF_RESNET50 = [
    "layer1.0.conv1.weight",
    *(f"layer1.0.bn1.{name}" for name in BN),
    "layer1.0.conv2.weight",
    *(f"layer1.0.bn2.{name}" for name in BN),
    "layer1.0.conv3.weight",
    *(f"layer1.0.bn3.{name}" for name in BN),
    "layer1.0.downsample.0.weight",
    *(f"layer1.0.downsample.1.{name}" for name in BN),
]

ENTRIES = {"resnet18": 122, "resnet34": 218, "resnet50": 320, "resnet101": 626, "resnet152": 932}
"""Of torchvision's state dicts. Each convolution brings 6 (its weight, five of its batch-norm), the classifier 2:
resnet18 has 1 + 16 + 3 convolutions, resnet34 1 + 32 + 3, resnet50 1 + 48 + 4, 101 1 + 99 + 4, 152 1 + 150 + 4."""


def blocks(model: ResNet) -> Iterator[BasicBlock | Bottleneck]:
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            yield module


def build_filled(row: Variant, seed: int = 0) -> ResNet:
    model = build(row)
    initialise(model, seed)
    return model


def noise(row: Variant, images: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(images, row.in_channels, *row.size, generator=torch.Generator().manual_seed(seed))


def named_as_torchvision(row: Variant) -> list[str]:
    """torchvision's naming rule, written out: the names of a state dict in order."""

    def conv_bn(conv: str, bn: str) -> list[str]:
        return [f"{conv}.weight", *(f"{bn}.{name}" for name in BN)]

    names = conv_bn("conv1", "bn1")
    for stage, depth in enumerate(row.depths, start=1):
        for index in range(depth):
            block = f"layer{stage}.{index}"
            for number in range(1, 4 if row.block == "bottleneck" else 3):
                names += conv_bn(f"{block}.conv{number}", f"{block}.bn{number}")
            if index == 0 and (stage > 1 or row.block == "bottleneck"):
                names += conv_bn(f"{block}.downsample.0", f"{block}.downsample.1")
    return [*names, "fc.weight", "fc.bias"]


@pytest.mark.parametrize("name", FIVE)
def test_state_dicts_have_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        names = list(build(variant(name)).state_dict())
    assert names == named_as_torchvision(variant(name))
    assert len(names) == ENTRIES[name]


def test_the_first_block_of_resnet50() -> None:
    with torch.device("meta"):
        state = build(variant("resnet50")).state_dict()
    assert [name for name in state if name.startswith("layer1.0.")] == FIRST_BLOCK_OF_RESNET50
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["fc.weight"].shape == (1000, 2048)


def build_randomised(row: Variant, seed: int) -> ResNet:
    """He weights under batch-norms that no two channels share, such as a trained network has."""
    model = build_filled(row, seed)
    settle_statistics(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.uniform_(0.5, 1.0, generator=generator)
                module.bias.uniform_(-0.1, 0.1, generator=generator)
                drift = torch.rand(module.running_var.shape, generator=generator)
                module.running_var.mul_(0.8 + 0.4 * drift)
                module.running_mean.mul_(0.5 + drift)
    return model


@pytest.mark.parametrize("name", FIVE)
def test_logits_are_those_of_torchvisions_layout(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = customise(variant(name), size=(64, 64))
    model = build_randomised(row, seed=3)
    with torch.inference_mode():
        ours = model(noise(row))
        theirs = torchvision_layout.logits(noise(row), model.state_dict())
    ratio = float((ours - theirs).abs().max() / theirs.abs().max())
    with capsys.disabled():
        print(f"\n{name}: the logits differ by {ratio:.1e} of the largest", end="")  # noqa: T201
    assert ratio <= 1e-5


def test_the_layouts_comparison_sees_a_stride_elsewhere() -> None:
    row = customise(variant("resnet50"), size=(64, 64), stride="v1")
    model = build_randomised(row, seed=3)
    with torch.inference_mode():
        ours, theirs = model(noise(row)), torchvision_layout.logits(noise(row), model.state_dict())
    assert float((ours - theirs).abs().max() / theirs.abs().max()) > 1e-3


def test_option_a_keeps_every_second_pixel_and_pads_with_zeros() -> None:
    shortcut = PaddedIdentity(2, 5, stride=2)
    x = torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(1, 2, 3, 3)
    zeros = [[0.0, 0.0], [0.0, 0.0]]
    expected = [[zeros, [[0, 2], [6, 8]], [[9, 11], [15, 17]], zeros, zeros]]
    np.testing.assert_array_equal(shortcut(x).numpy(), np.array(expected, np.float32))
    assert not list(shortcut.parameters())
    assert not shortcut.state_dict()


def test_option_a_without_a_stride_only_pads() -> None:
    x = torch.ones(1, 1, 2, 2)
    np.testing.assert_array_equal(PaddedIdentity(1, 4, stride=1)(x).numpy().sum(axis=(2, 3)), [[0, 4, 0, 0]])


def test_option_a_has_no_parameters_and_passes_equal_shapes() -> None:
    shortcuts = [block.downsample for block in blocks(build(variant("resnet20")))]
    assert [type(shortcut) for shortcut in shortcuts if shortcut is not None] == [PaddedIdentity] * 2
    assert not any("downsample" in name for name in build(variant("resnet20")).state_dict())


@pytest.mark.parametrize(("option", "projections"), [("A", 0), ("B", 2), ("C", 9)])
def test_options_project_where_they_should(option: str, projections: int) -> None:
    row = customise(variant("resnet20"), shortcut=option)  # type: ignore[arg-type]
    found = [block.downsample for block in blocks(build(row)) if isinstance(block.downsample, nn.Sequential)]
    assert len(found) == projections


def test_a_block_adds_its_shortcut() -> None:
    """With all of the branch at zero, a block is its shortcut and a ReLU."""
    model = build(variant("resnet20"))
    block = next(blocks(model))
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(1, 16, 4, 4)
    with torch.inference_mode():
        np.testing.assert_array_equal(block(x).numpy(), x.relu().numpy())


def test_plain_nets_have_no_shortcut() -> None:
    model = build(variant("plain20"))
    assert all(block.downsample is None for block in blocks(model))
    block = next(blocks(model))
    nn.init.zeros_(block.conv2.weight)
    with torch.inference_mode():
        assert not block(torch.randn(1, 16, 4, 4)).any()


@pytest.mark.parametrize(("stride", "expected"), [("v1", (2, 1)), ("v1.5", (1, 2))])
def test_where_bottlenecks_stride(stride: str, expected: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = build(customise(variant("resnet50"), stride=stride))  # type: ignore[arg-type]
    for stage in ("layer2", "layer3", "layer4"):
        block = model.get_submodule(f"{stage}.0")
        assert isinstance(block, Bottleneck)
        assert (block.conv1.stride[0], block.conv2.stride[0]) == expected


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 47), (64, 32)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "plain18"])
def test_any_size_and_channels_run(name: str, size: tuple[int, int]) -> None:
    row = customise(variant(name), size=size, in_channels=4, classes=7)
    with torch.device("meta"):
        assert build(row)(torch.empty(2, 4, *size)).shape == (2, 7)


def test_weights_have_hes_deviation_and_no_bias() -> None:
    model = build_filled(variant("resnet18"))
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            weight = module.weight.detach()
            expected = math.sqrt(2 / weight[0].numel())
            # The deviation of n normal numbers scatters by 1 / sqrt(2 n); five of these are never reached.
            slack = 5 / math.sqrt(2 * weight.numel())
            assert float(weight.std()) == pytest.approx(expected, rel=slack), name
            assert abs(float(weight.mean())) < 5 * expected / math.sqrt(weight.numel()), name
    assert not model.fc.bias.any()
    assert all(bool((norm.weight == 1).all()) for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))


def test_a_seed_gives_one_network() -> None:
    first, again, other = (build_filled(variant("resnet20"), seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    model = build(variant("resnet20"))
    torch.set_rng_state(before)
    initialise(model, 0)
    settle_statistics(model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def build_settled(row: Variant, images: int) -> ResNet:
    model = build_filled(row)
    settle_statistics(model, 0, images)
    return model


def relative_error_of_float32(model: ResNet, x: Tensor) -> float:
    """Of the largest logit, against the same network in float64."""
    with torch.inference_mode():
        single = model(x)
        double = model.double()(x.double())
    return float((single - double).abs().max() / double.abs().max())


@pytest.mark.parametrize(
    ("name", "size", "images"),
    [("resnet152", 33, 4), ("resnet1202", 32, 1), ("resnet50", 1, 4), ("plain34", 32, 4), ("plain110", 32, 4)],
)
def test_settled_networks_have_moderate_logits(name: str, size: int, images: int) -> None:
    row = customise(variant(name), size=(size, size))
    with torch.inference_mode():
        logits = build_settled(row, images)(noise(row))
    assert bool(logits.isfinite().all())
    assert 0.1 < float(logits.abs().max()) < 100


def test_unsettled_networks_explode() -> None:
    """Why the statistics are settled."""
    row = customise(variant("resnet152"), size=(33, 33))
    with torch.inference_mode():
        assert not float(build_filled(row)(noise(row)).abs().max()) < 1e4


@pytest.mark.parametrize(("name", "size"), [("resnet152", 33), ("plain34", 33), ("plain110", 32), ("resnet110", 32)])
def test_settled_networks_are_computed_alike_everywhere(name: str, size: int) -> None:
    row = customise(variant(name), size=(size, size))
    assert relative_error_of_float32(build_settled(row, 4), noise(row)) < 1e-5


def test_the_statistics_of_training_make_deep_networks_chaotic() -> None:
    """Why they are not those of a batch, which would be the obvious choice."""
    row = customise(variant("resnet152"), size=(33, 33))
    model = build_filled(row)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(noise(row, 4, seed=0))
    assert relative_error_of_float32(model.eval(), noise(row)) > 5e-5


def test_settling_leaves_mode_hooks_and_weights() -> None:
    model = build_filled(variant("resnet20")).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    settle_statistics(model, 0)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    means = [value for name, value in model.state_dict().items() if name.endswith("running_mean")]
    assert all(bool(mean.any()) for mean in means)


def test_images_do_not_mix() -> None:
    row = variant("resnet20")
    model = build_settled(row, 4)
    x = noise(row, 3)
    with torch.inference_mode():
        together, alone = model(x), torch.cat([model(one[None]) for one in x])
    np.testing.assert_allclose(together.numpy(), alone.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_built_as_its_row_says(name: str) -> None:
    """The state dict has the names, order and shapes that arithmetic gives, and the same number of parameters."""
    with torch.device("meta"):
        model = build(variant(name))
    assert isinstance(model, ResNet)
    assert not model.training
    tensors = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(tensors.items()) == list(shapes(variant(name)).items())
    assert parameters(variant(name)) == sum(parameter.numel() for parameter in model.parameters())


def test_an_untrained_network_does_not_depend_on_the_threads() -> None:
    digests = set()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = build(variant("resnet20"))
            initialise(model, 0)
            settle_statistics(model, 0)
            assert torch.get_num_threads() == count
            digests.add(state_digest(model.state_dict()))
    finally:
        torch.set_num_threads(threads)
    assert len(digests) == 1
