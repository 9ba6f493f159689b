"""Where a node of a graph stands in the network, told by the names of the modules in ``exporter.models.resnet``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

STEM, HEAD, NETWORK = "stem", "head", "network"

_BLOCK = re.compile(r"(?<![A-Za-z0-9])(layer\d+)\.(\d+)")
_HEAD = re.compile(r"(?<![A-Za-z0-9.])(?:fc|avgpool|logits)(?![\w.])|ReduceMean|GlobalAveragePool")
_STEM = re.compile(r"(?<![A-Za-z0-9.])(?:conv1|bn1|relu|maxpool|input)(?![\w.])")


@dataclass(frozen=True)
class NetworkPosition:
    """Where something stands in a network. Stem and head are stages of one block, which is called as they are."""

    stage: str
    block: str


def places(names: Sequence[str]) -> tuple[NetworkPosition, ...]:
    """The place of each of the nodes or steps, which come in the order of their execution.

    It is told by the module in a name, as ``layer1.0`` in ``layer1.0.conv1/Conv``; a name that tells nothing stands
    where the one before it stands. Where no name at all tells a block, everything is one stage, ``network``.
    """
    if not any(map(_BLOCK.search, names)):
        return (NetworkPosition(NETWORK, NETWORK),) * len(names)
    found, last = [], NetworkPosition(STEM, STEM)
    for name in names:
        if block := _BLOCK.search(name):
            last = NetworkPosition(block[1], block[0])
        elif _HEAD.search(name):
            last = NetworkPosition(HEAD, HEAD)
        elif _STEM.search(name):
            last = NetworkPosition(STEM, STEM)
        found.append(last)
    return tuple(found)
