"""Writes ``tests/exporter/models/oracle.json``: logits and counts of the networks as their own libraries compute them.

    python -m scripts.oracle_vectors
    python -m scripts.oracle_vectors --check

The first line runs in an environment with torchvision, timm and transformers. It fills each network of these libraries
by a rule of names and shapes (``fill``), and runs it on seeded noise. A test fills ours by the same rule and compares.
Three networks for CIFAR come from no library: this program writes them down again from the papers, with the key names
of the repositories that people train with.

The file also holds the parameters, and the multiply-adds at the default size of the variant. PyTorch's
``FlopCounterMode`` counts these in the other library's network.

The second line runs in an environment with rexport alone. It compares all networks of the file with ours, also the deep
ones, which the tests leave out to save time.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporter.models.variants import Variant

PATH = Path(__file__).parents[1] / "tests" / "exporter" / "models" / "oracle.json"
"""The file with the numbers."""

IMAGES = 2
"""The number of noise images."""

KEPT = 8
"""The number of logits of each image in the file."""

TOLERANCE = 1e-5
"""The largest difference of a logit from that of the other library, divided by the largest logit."""

SIZES = {"imagenet": 64, "cifar": 32}
"""The height and width of the noise images in pixels."""

_NOISE = np.random.default_rng(20151210).standard_normal(65_521).astype(np.float32)
"""The numbers from which all tensors are filled. Their count is a prime, so no two rows of a tensor are the same."""


def noise_digest() -> int:
    """Return a checksum of the numbers, which tells whether NumPy's generator still gives the same ones."""
    return zlib.crc32(_NOISE.tobytes())


def fill(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the tensor of a network by its name and shape, float32.

    Convolutions get He et al.'s variance 2 / fan-in and the classifier 1 / fan-in. Norms get scales of 0.5 to 0.9, so
    that the sum of the blocks of a deep network stays moderate, and variances of 0.5 to 1.5.

    Args:
        name: The name in the state dict of ``exporter.models.resnet``.
        shape: The shape there.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    row = np.roll(_NOISE, -(zlib.crc32(name.encode()) % len(_NOISE)))
    if name.endswith("running_var"):
        row = np.float32(0.5) + np.abs(row) % 1
    elif len(shape) > 1:
        row = row * np.float32(math.sqrt((1 if len(shape) == 2 else 2) / math.prod(shape[1:])))
    elif name.endswith("weight"):
        row = np.float32(0.5) + np.float32(0.4) * (np.abs(row) % 1)
    else:
        row = np.float32(0.1) * row
    values: NDArray[np.float32] = np.resize(row, shape)
    return values


def images(size: int) -> NDArray[np.float32]:
    """Return the noise images, float32 (IMAGES, 3, size, size)."""
    return np.resize(_NOISE, (IMAGES, 3, size, size))


@dataclass(frozen=True)
class Peer:
    """A network of another library.

    Attributes:
        variant: The name of our variant.
        origin: The library or repository.
        build: Returns the network, in evaluation mode or not.
        rename: Returns our name of a tensor from the other library's name.
        size: The default size of the variant in pixels, for which multiply-adds are counted.
    """

    variant: str
    origin: str
    build: Callable[[], nn.Module]
    rename: Callable[[str], str] = str
    size: int = 224


TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2",
)  # fmt: skip
"""The networks that torchvision has under the same names."""

TIMM = (
    "resnet26", "resnet18d", "resnet26d", "resnet34d", "resnet50d", "resnet101d", "resnet152d", "resnet200d",
    "resnet10t", "resnet14t", "resnet26t", "seresnet50", "seresnext50_32x4d", "ecaresnet50d", "ecaresnet50t",
    "ecaresnetlight", "ecaresnet50d_pruned", "ecaresnet101d_pruned", "resnetrs50", "resnetrs101", "resnetrs152",
    "resnetrs200", "resnetaa50", "resnetaa50d", "resnetblur50", "resnet50_gn", "resnetv2_18", "resnetv2_34",
    "resnetv2_50", "resnetv2_101", "resnetv2_152",
)  # fmt: skip
"""The networks that timm has under the same names."""


def peers() -> Iterator[Peer]:
    """Yield all networks of the libraries, in the order of the file."""
    import timm
    import torchvision
    from transformers import ResNetConfig, ResNetForImageClassification

    for name in TORCHVISION:
        yield Peer(name, f"torchvision {torchvision.__version__}", partial(getattr(torchvision.models, name)))
    for name in TIMM:
        rename = rename_v2 if name.startswith("resnetv2") else str
        yield Peer(name, f"timm {timm.__version__}", partial(timm.create_model, name), rename)
    import transformers

    for name, layer, depths, widths in (
        ("resnet18", "basic", [2, 2, 2, 2], [64, 128, 256, 512]),
        ("resnet50", "bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
    ):
        config = ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=layer, num_labels=1000)
        build = partial(ResNetForImageClassification, config)
        yield Peer(name, f"transformers {transformers.__version__}", build, rename_transformers)
    yield Peer("cifar-resnet18", "pytorch-cifar, from the paper", cifar_resnet18, rename_cifar, 32)
    yield Peer("preact-resnet18", "pytorch-cifar, from the paper", preact_resnet18, rename_cifar, 32)
    yield Peer("wrn-28-10", "WideResNet-pytorch, from the paper", wrn_28_10, rename_wrn, 32)


def rename_v2(name: str) -> str:
    """Return our name of a tensor of timm's pre-activation networks."""
    name = re.sub(r"^stages\.(\d+)\.blocks\.", lambda match: f"layer{int(match[1]) + 1}.", name)
    for before, after in (
        (r"^stem\.conv\.", "conv1."),
        (r"^head\.fc\.", "fc."),
        (r"\.norm(\d)\.", r".bn\1."),
        (r"\.downsample\.conv\.", ".downsample.0."),
    ):
        name = re.sub(before, after, name)
    return name


def rename_transformers(name: str) -> str:
    """Return our name of a tensor of ``transformers.ResNetForImageClassification``."""
    name = re.sub(r"^resnet\.encoder\.stages\.(\d+)\.layers\.", lambda match: f"layer{int(match[1]) + 1}.", name)
    for kind, ours in (("convolution", "conv"), ("normalization", "bn")):
        name = name.replace(f"resnet.embedder.embedder.{kind}.", f"{ours}1.")
        name = name.replace(f".shortcut.{kind}.", f".downsample.{int(ours == 'bn')}.")
        position = re.search(rf"\.layer\.(\d)\.{kind}\.", name)
        if position is not None:
            name = name.replace(position[0], f".{ours}{int(position[1]) + 1}.")
    return name.replace("classifier.1.", "fc.")


def rename_cifar(name: str) -> str:
    """Return our name of a tensor of kuangliu's pytorch-cifar."""
    return name.replace(".shortcut.", ".downsample.").replace("linear.", "fc.")


def rename_wrn(name: str) -> str:
    """Return our name of a tensor of xternalz's WideResNet-pytorch."""
    name = re.sub(r"^block(\d)\.layer\.", r"layer\1.", name)
    return re.sub(r"^bn1\.", "norm.", name).replace(".convShortcut.", ".downsample.0.")


# Networks for CIFAR, from the papers ----------------------------------------------------------------------------------


def _conv(channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Module:
    from torch import nn

    return nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, bias=False)


def cifar_resnet18() -> nn.Module:
    """Return ResNet-18 (He et al. 2015, Table 1) behind a 3x3 convolution, without pooling, for 10 classes."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = _conv(channels, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
            projects = (channels, stride) != (width, 1)
            modules = [_conv(channels, width, 1, stride), nn.BatchNorm2d(width)] if projects else []
            self.shortcut = nn.Sequential(*modules)

        def forward(self, x: Tensor) -> Tensor:
            y = self.bn1(self.conv1(x)).clamp_min(0)
            return (self.bn2(self.conv2(y)) + self.shortcut(x)).clamp_min(0)  # type: ignore[no-any-return]

    return _assemble(Block, 64, (64, 128, 256, 512), 2, {"conv1": _conv(3, 64, 3), "bn1": nn.BatchNorm2d(64)}, "linear")


def preact_resnet18() -> nn.Module:
    """Return the pre-activation ResNet-18 (He et al. 2016, Figure 1b), which ends in no norm, for 10 classes."""
    return _assemble(_preactivation("shortcut"), 64, (64, 128, 256, 512), 2, {"conv1": _conv(3, 64, 3)}, "linear")


def wrn_28_10() -> nn.Module:
    """Return WRN-28-10 (Zagoruyko and Komodakis 2016, Table 1), which ends in a norm and a ReLU, for 10 classes."""
    from torch import nn

    block = _preactivation("convShortcut")
    return _assemble(block, 16, (160, 320, 640), 4, {"conv1": _conv(3, 16, 3)}, "fc", {"bn1": nn.BatchNorm2d(640)})


def _preactivation(shortcut: str) -> type[nn.Module]:
    """Return the class of a pre-activation block whose projection has the given name."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.bn1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, width, 3, stride)
            self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv(width, width, 3)
            self.projects = (channels, stride) != (width, 1)
            if self.projects:
                projection = _conv(channels, width, 1, stride)
                self.add_module(shortcut, nn.Sequential(projection) if shortcut == "shortcut" else projection)

        def forward(self, x: Tensor) -> Tensor:
            activated = self.bn1(x).clamp_min(0)
            y = self.conv2(self.bn2(self.conv1(activated)).clamp_min(0))
            return y + (self.get_submodule(shortcut)(activated) if self.projects else x)  # type: ignore[no-any-return]

    return Block


def _assemble(
    block: type[nn.Module],
    channels: int,
    widths: tuple[int, ...],
    depth: int,
    stem: Mapping[str, nn.Module],
    head: str,
    last: Mapping[str, nn.Module] | None = None,
) -> nn.Module:
    """Return a network of stages between a stem and a head. ``last`` is the norm before the average, if any."""
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            before = channels
            for name, module in stem.items():
                self.add_module(name, module)
            for number, width in enumerate(widths, start=1):
                steps = [(before, 1 if number == 1 else 2)] + [(width, 1)] * (depth - 1)
                stage = nn.Sequential(*(block(inputs, width, stride) for inputs, stride in steps))
                if last is None:
                    self.add_module(f"layer{number}", stage)
                else:
                    self.add_module(f"block{number}", nn.Module())
                    self.get_submodule(f"block{number}").add_module("layer", stage)
                before = width
            for name, module in (last or {}).items():
                self.add_module(name, module)
            self.add_module(head, nn.Linear(before, 10))

        def forward(self, x: Tensor) -> Tensor:
            for module in stem.values():
                x = module(x)
            x = x.clamp_min(0) if "bn1" in stem else x
            for number in range(1, len(widths) + 1):
                x = self.get_submodule(f"layer{number}" if last is None else f"block{number}.layer")(x)
            for module in (last or {}).values():
                x = module(x).clamp_min(0)
            return self.get_submodule(head)(x.mean((2, 3)))  # type: ignore[no-any-return]

    return Network()


# The file -------------------------------------------------------------------------------------------------------------


def measure(peer: Peer) -> dict[str, object]:
    """Return the logits and counts of a network, as the file holds them. The call blocks for some seconds."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = peer.build().eval()
    state = {}
    for name, tensor in model.state_dict().items():
        ours, shape = peer.rename(name), tuple(tensor.shape)
        shape = shape[:2] if ours == "fc.weight" else shape  # timm's classifier is a 1x1 convolution
        state[name] = torch.from_numpy(fill(ours, shape)).to(tensor.dtype).reshape(tensor.shape)
    model.load_state_dict(state)
    size = SIZES["imagenet" if peer.size == 224 else "cifar"]
    with torch.inference_mode():
        output = model(torch.from_numpy(images(size)))
    logits = getattr(output, "logits", output).numpy()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        model.to("meta")(torch.empty(1, 3, peer.size, peer.size, device="meta"))
    return {
        "variant": peer.variant,
        "library": peer.origin,
        "size": size,
        "parameters": parameters,
        "multiply_adds": counter.get_total_flops() // 2,
        "largest": float(np.abs(logits).max()),
        "logits": [[float(f"{value:.8g}") for value in row[:KEPT]] for row in logits],
    }


def logits_of(variant: Variant) -> NDArray[np.float32]:
    """Return the logits of our network for the noise images of the variant's size, float32 (IMAGES, classes)."""
    import torch

    from exporter.models.resnet import build
    from exporter.weights.matching import shapes

    # The filter of a blur is not in the state dict, so it needs its numbers from the beginning.
    with torch.device("cpu" if variant.blur == "binomial" else "meta"):
        model = build(variant)
    state = {name: torch.from_numpy(fill(name, shape)) for name, shape in shapes(variant).items()}
    model.load_state_dict(state, assign=True)
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.from_numpy(images(variant.size[0]))).numpy()
    return logits


def difference(variant: Variant, recorded: Mapping[str, Any]) -> float:
    """Return the largest difference of our logits from those of a row of the file, divided by its largest logit."""
    from exporter.models.variants import customise

    ours = logits_of(customise(variant, size=(recorded["size"], recorded["size"])))
    return float(np.abs(ours[:, :KEPT] - np.array(recorded["logits"])).max() / recorded["largest"])


def check() -> bool:
    """Print the difference of each network in the file, and return whether all are within ``TOLERANCE``."""
    from exporter.models.variants import VARIANTS

    passed = True
    for recorded in json.loads(PATH.read_text(encoding="utf-8"))["networks"]:
        found = difference(VARIANTS[recorded["variant"]], recorded)
        passed = passed and found <= TOLERANCE
        sys.stdout.write(f"{found:.1e}  {recorded['variant']} of {recorded['library']}\n")
    return passed


def main() -> None:
    """Write the file, or compare it with our networks."""
    if sys.argv[1:] == ["--check"]:
        raise SystemExit(0 if check() else 1)
    rows = []
    for peer in peers():
        rows.append(json.dumps(measure(peer)))
        sys.stderr.write(f"{peer.variant} of {peer.origin}\n")
    lines = ",\n".join(rows)
    PATH.write_text(f'{{"noise": {noise_digest()}, "networks": [\n{lines}\n]}}\n', encoding="utf-8")
    sys.stderr.write(f"{PATH}\n")


if __name__ == "__main__":
    main()
