"""Networks small enough to be differentiated in a moment; computed by hand; looked over for what was left on them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.paper.probes import LossBatch
from benchmarks.records.findings import Provenance
from exporter.models.resnet import BasicBlock, Bottleneck, ResNet, build, initialise, settle_statistics
from exporter.models.variants import Variant

RESIDUAL = Variant("small-residual", "basic", (2, 1, 2), (4, 8, 8), "cifar", "A", classes=5, size=(12, 12))
PLAIN = replace(RESIDUAL, name="small-plain", residual=False)
DEEPER = replace(RESIDUAL, name="deeper-residual", depths=(3, 3, 2))
DEEPER_PLAIN = replace(DEEPER, name="deeper-plain", residual=False)
PROJECTED = Variant("small-projected", "basic", (2, 2), (4, 8), "imagenet", "B", classes=5, size=(32, 32))
BOTTLENECK = Variant("small-bottleneck", "bottleneck", (2, 2), (4, 8), "imagenet", "B", classes=5, size=(32, 32))

PROVENANCE = Provenance("noise", {"test": 8}, (0,), None, "", "a processor", {}, "rbench paper", "2026-01-02T03:04:05Z")


def random_network(variant: Variant, seed: int = 0) -> ResNet:
    """An untrained network whose batch-norms have statistics to compute with, scales and shifts."""
    model = build(variant)
    initialise(model, seed)
    settle_statistics(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.3, generator=generator)
    return model


def noise_batch(variant: Variant, count: int, seed: int) -> LossBatch:
    """Normal images and even targets, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, variant.in_channels, *variant.size, generator=generator)
    targets = torch.randint(variant.classes, (count,), generator=generator)
    return LossBatch(images, targets, f"{count} images of seeded noise, seed {seed}")


def images_for(variant: Variant, count: int, seed: int = 1) -> Tensor:
    """Noise (count, c, h, w) float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, variant.in_channels, *variant.size, generator=generator)


def hooks_on(model: nn.Module) -> int:
    """How many hooks there are on the module and in it."""
    return sum(
        len(hooks)
        for module in model.modules()
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict in memory of its own."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_untouched(model: nn.Module, state: dict[str, Tensor]) -> None:
    """No hook is on it, no gradient is kept, and its state is that one to the bit."""
    assert hooks_on(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    now = model.state_dict()
    assert list(now) == list(state)
    assert all(now[name].dtype == tensor.dtype and torch.equal(now[name], tensor) for name, tensor in state.items())


def forward_by_hand(model: ResNet, images: Tensor) -> dict[str, Tensor]:
    """The forward pass, step by step.

    What stands behind each convolution's batch-norm by the convolution's name, each block's input by the block's, its
    sum in front of the last ReLU as "layer1.0.sum", and "logits".
    """
    found = {"conv1": model.bn1(model.conv1(images))}
    x = model.maxpool(found["conv1"].relu())
    for stage in model.stages:
        for index, block in enumerate(model.get_submodule(stage).children()):
            assert isinstance(block, (BasicBlock, Bottleneck))
            name = f"{stage}.{index}"
            found[name] = y = x
            steps = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
            if isinstance(block, Bottleneck):
                steps.append((block.conv3, block.bn3))
            for number, (conv, norm) in enumerate(steps, start=1):
                found[f"{name}.conv{number}"] = y = norm(conv(y if number == 1 else y.relu()))
            if block.residual:
                y = y + (x if block.downsample is None else block.downsample(x))
            found[f"{name}.sum"] = y
            x = y.relu()
    found["logits"] = model.fc(x.mean(dim=(2, 3)))
    return found
