"""Positions of graph nodes in the network, read from the module names of ``exporter.models.resnet``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

STEM, HEAD, NETWORK = "stem", "head", "network"
"""The names of stages outside the blocks."""

_BLOCK = re.compile(r"(?<![A-Za-z0-9])(layer\d+)\.(\d+)")
_HEAD = re.compile(
    r"(?<![A-Za-z0-9.])(?:fc|avgpool|logits)(?![\w.])|ReduceMean|GlobalAveragePool"
    r"|(?<![\w.])(?:norm|last_relu)(?![\w.])"  # not batch_norm
)
_STEM = re.compile(r"(?<![A-Za-z0-9.])(?:conv1|bn1|relu|maxpool|input)(?![\w.])")


@dataclass(frozen=True)
class NetworkPosition:
    """The position of a node in a network.

    Attributes:
        stage: The stage, for example ``layer1``. ``STEM`` and ``HEAD`` are stages, and ``NETWORK`` is the only stage of
            an unknown network.
        block: The block, for example ``layer1.0``. ``STEM``, ``HEAD`` and ``NETWORK`` have one block of the same name.
    """

    stage: str
    block: str


def places(names: Sequence[str]) -> tuple[NetworkPosition, ...]:
    """Return the position of each node.

    The position follows from the module in the name, for example ``layer1.0`` in ``layer1.0.conv1/Conv``. A name
    without a known module gets the position of the previous name. If no name contains a block, all positions are
    ``NETWORK``.

    Args:
        names: The names of the nodes or executed steps, in the order of execution.
    """
    if not any(map(_BLOCK.search, names)):
        return (NetworkPosition(NETWORK, NETWORK),) * len(names)
    positions, current = [], NetworkPosition(STEM, STEM)
    for name in names:
        if block := _BLOCK.search(name):
            current = NetworkPosition(block[1], block[0])
        elif _HEAD.search(name):
            current = NetworkPosition(HEAD, HEAD)
        elif _STEM.search(name):
            current = NetworkPosition(STEM, STEM)
        positions.append(current)
    return tuple(positions)
