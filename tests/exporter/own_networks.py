"""Networks as users write them, which are no variants: small, with features that the variants do not have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHAPE = (1, 3, 24, 24)
"""The shape of an input of all these networks."""

CLASSES = 5
"""The number of outputs of all these networks."""


class Vgg(nn.Module):
    """Convolutions in one ``nn.Sequential``, and a classifier of two layers with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, CLASSES)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))  # type: ignore[no-any-return]


class FunctionalResNet(nn.Module):
    """A residual block with functional activations and pooling, and a size that is read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.first, self.second = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.first_norm, self.second_norm = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        inner = F.relu(self.first_norm(self.first(x)))
        x = F.relu(x + self.second_norm(self.second(inner)))
        return self.head(F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Scales channels by a hard sigmoid of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * F.hardsigmoid(scale)


class MobileNet(nn.Module):
    """An inverted residual with a depthwise convolution, hard swish and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.block = nn.Sequential(
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            SqueezeExcite(16),
            nn.Hardswish(),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.block(x)).mean((2, 3)))  # type: ignore[no-any-return]


class DenseNet(nn.Module):
    """Batch norms of concatenated values, which no convolution can take in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1)) for width in (8, 12)
        )
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.head(F.relu(self.norm(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Patches, a class token, positions, and one encoder block with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 16))
        self.positions = nn.Parameter(torch.zeros(1, 10, 16))
        self.norm, self.last_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        inner = self.norm(x)
        x = x + self.attention(inner, inner, inner, need_weights=False)[0]
        x = x + self.mlp(self.last_norm(x))
        return self.head(x[:, 0])  # type: ignore[no-any-return]


NETWORKS: dict[str, type[nn.Module]] = {
    network.__name__: network for network in (Vgg, FunctionalResNet, MobileNet, DenseNet, Transformer)
}
"""All networks by the names of their classes."""


def filled(network: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network with seeded weights, and batch norms that folding must get right."""
    torch.manual_seed(seed)
    module = network()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
                norm.running_mean.normal_(0, 0.1)
                norm.running_var.uniform_(0.5, 1.5)
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.1)
        for name, value in module.named_parameters():
            if name in ("token", "positions"):
                value.normal_(0, 0.5)
    return module
