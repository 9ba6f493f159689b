"""A residual network computed from a state dict in torchvision's layout alone: nothing of the exporter is used.

Everything is read off the names and shapes: a block with ``conv3`` is a bottleneck, its 3x3 strides, and where there
is a ``downsample`` it is a strided 1x1 convolution. The first block of each stage after the first strides by 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5

State = Mapping[str, Tensor]


def _normalised(x: Tensor, state: State, name: str) -> Tensor:
    statistics = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, *statistics, state[f"{name}.weight"], state[f"{name}.bias"], eps=EPSILON)


def _block(x: Tensor, state: State, name: str, stride: int) -> Tensor:
    y = x
    last = 3 if f"{name}.conv3.weight" in state else 2
    striding = 2 if last == 3 else 1
    for number in range(1, last + 1):
        weight = state[f"{name}.conv{number}.weight"]
        y = F.conv2d(y, weight, stride=stride if number == striding else 1, padding=weight.shape[2] // 2)
        y = _normalised(y, state, f"{name}.bn{number}")
        y = F.relu(y) if number < last else y
    if f"{name}.downsample.0.weight" in state:
        x = _normalised(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), state, f"{name}.downsample.1")
    return F.relu(x + y)


def logits(x: Tensor, state: State) -> Tensor:
    """Images (n, c, h, w) to logits (n, classes)."""
    x = F.conv2d(x, state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(_normalised(x, state, "bn1")), 3, stride=2, padding=1)
    found = (re.fullmatch(r"layer(\d+)\.(\d+)\.conv1\.weight", name) for name in state)
    for stage, index in sorted((int(match[1]), int(match[2])) for match in found if match):
        x = _block(x, state, f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])
