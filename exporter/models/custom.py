"""A network that is no variant: a PyTorch module of the user that classifies images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from exporter.models.variants import Variant

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class CustomNetwork:
    """A module that is no variant, with the facts that a variant has in its row.

    Attributes:
        module: The module in evaluation mode, float32 on the CPU: (n, in_channels, height, width) to (n, classes).
        name: The class of the module, or the reference ``package.module:factory`` that built it.
        classes: The number of outputs.
        in_channels: The number of input channels.
        size: The (height, width) of the input in pixels.
    """

    module: nn.Module
    name: str
    classes: int
    in_channels: int
    size: tuple[int, int]


AnyNetwork: TypeAlias = Variant | CustomNetwork
"""A network that can be exported. Both kinds have ``name``, ``classes``, ``in_channels`` and ``size``."""
