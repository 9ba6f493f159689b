"""Summary of a library's profile: precisions, times and conversions for the stages and blocks of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from exporter.models.positions import HEAD, NetworkPosition, places
from runtimes.protocol import Description, Layer

CONVERSIONS = (
    "QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Cast", "Convert",
    "Reorder", "ReorderInput", "ReorderOutput", "Transpose",
)  # fmt: skip
"""Operators that only change a type or a layout."""


@dataclass(frozen=True)
class ProfileRemark:
    """Steps of one operator that cost avoidable time.

    Attributes:
        kind: ``weighted`` for convolutions and matrix products in a wider type than the graph's. ``float`` for other
            steps in a wider type, mostly residual additions. ``conversion`` for changes of type or layout that remained
            as steps.
        operator: The library's name of the operator.
        precision: The precision of the steps.
        nodes: The names of the steps.
        duration_s: The total time in one run, or ``None`` if the library does not report it.
    """

    kind: Literal["weighted", "float", "conversion"]
    operator: str
    precision: str
    nodes: tuple[str, ...]
    duration_s: float | None


@dataclass(frozen=True)
class ExecutedPart:
    """A stage or a block as it was executed.

    Attributes:
        name: The name of the stage or block.
        precisions: The number of weighted layers by precision, the most frequent first.
        duration_s: The time in one run, or ``None`` if the library does not report it.
        share: The share of the network's time, 0 to 1, or ``None``.
        remarks: The remarks, the most expensive first.
        blocks: The blocks of a stage. Empty if the stage is its only block.
        steps: The executed steps in their order, of a block or of a stage without blocks.
    """

    name: str
    precisions: Mapping[str, int]
    duration_s: float | None
    share: float | None
    remarks: tuple[ProfileRemark, ...]
    blocks: tuple[ExecutedPart, ...] = ()
    steps: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Execution:
    """One execution of a graph.

    Attributes:
        description: The description of the runtime.
        precisions: The number of weighted layers by precision, the most frequent first.
        kept: The number of weighted layers that ran in the precision of the graph or in one as narrow.
        duration_s: The time of one run under the library's profiler, which itself takes time, or ``None`` if the
            library does not report it.
        weighted_share: The share of the time in weighted layers.
        conversion_share: The share of the time in conversions, including those of input and output.
        stages: The stages in the order of the network.
    """

    description: Description
    precisions: Mapping[str, int]
    kept: int
    duration_s: float | None
    weighted_share: float | None
    conversion_share: float | None
    stages: tuple[ExecutedPart, ...]


def bits(precision: str) -> int:
    """Return the bits of a number in a precision: 8 for ``int8``, 16 for ``bf16`` and ``bfloat16``, 32 for ``fp32``."""
    digits = re.search(r"\d+", precision)
    return int(digits[0]) if digits else 32


def execution(layers: Sequence[Layer], precision: str, description: Description) -> Execution:
    """Summarise the steps of a library's profile.

    Conversions before the first weighted layer and after the last one of the body are expected and have no remarks. If
    no weighted layer ran in the precision of the graph, ``kept`` is 0, and steps in a wider type have no remarks.

    Args:
        layers: The steps in the order of execution.
        precision: The precision of the graph.
        description: The description of the runtime.
    """
    weighted = [layer for layer in layers if layer.weighted]
    kept = sum(not _is_wide(layer, precision) for layer in weighted)
    positions = places([" ".join((layer.name, *layer.nodes)) for layer in layers])
    kinds = _classify_steps(layers, positions, precision, quiet=kept == 0)
    total = _duration(layers)
    steps = list(zip(positions, layers, kinds, strict=True))
    stages = []
    for stage in dict.fromkeys(position.stage for position in positions):
        members = [step for step in steps if step[0].stage == stage]
        names = dict.fromkeys(position.block for position, _, _ in members)
        blocks = [_part(name, [step for step in members if step[0].block == name], total) for name in names]
        stages.append(_part(stage, members, total, tuple(blocks) if list(names) != [stage] else ()))
    return Execution(
        description=description,
        precisions=_precisions(layers),
        kept=kept,
        duration_s=total,
        weighted_share=_share(_duration(weighted), total),
        conversion_share=_share(_duration([layer for layer in layers if layer.operator in CONVERSIONS]), total),
        stages=tuple(stages),
    )


_Kind = Literal["weighted", "float", "conversion"]
_Step = tuple[NetworkPosition, Layer, "_Kind | None"]


def _is_wide(layer: Layer, precision: str) -> bool:
    return "float" in layer.precision and bits(layer.precision) > bits(precision)


def _classify_steps(
    layers: Sequence[Layer], positions: Sequence[NetworkPosition], precision: str, quiet: bool
) -> list[_Kind | None]:
    """Return the kind of remark for each step. With ``quiet``, steps in a wider type have none."""
    body = [
        index
        for index, (layer, position) in enumerate(zip(layers, positions, strict=True))
        if layer.weighted and position.stage != HEAD
    ]
    first, last = (body[0], body[-1]) if body else (0, -1)
    kinds: list[_Kind | None] = []
    for index, layer in enumerate(layers):
        inside = first < index < last
        wide = not quiet and _is_wide(layer, precision)
        if layer.weighted:
            kinds.append("weighted" if wide else None)
        elif layer.operator in CONVERSIONS:
            kinds.append("conversion" if inside else None)
        else:
            kinds.append("float" if wide and inside else None)
    return kinds


def _part(
    name: str, steps: Sequence[_Step], total: float | None, blocks: tuple[ExecutedPart, ...] = ()
) -> ExecutedPart:
    layers = [layer for _, layer, _ in steps]
    duration = _duration(layers)
    return ExecutedPart(
        name=name,
        precisions=_precisions(layers),
        duration_s=duration,
        share=_share(duration, total),
        remarks=_remarks((kind, layer) for _, layer, kind in steps if kind is not None),
        blocks=blocks,
        steps=() if blocks else tuple(layers),
    )


def _precisions(layers: Sequence[Layer]) -> dict[str, int]:
    return dict(Counter(layer.precision for layer in layers if layer.weighted).most_common())


def _remarks(steps: Iterable[tuple[_Kind, Layer]]) -> tuple[ProfileRemark, ...]:
    def group_key(item: tuple[_Kind, Layer]) -> tuple[str, str, str]:
        kind, layer = item
        return kind, layer.operator, layer.precision

    remarks = []
    for _, group in groupby(sorted(steps, key=group_key), key=group_key):
        members = list(group)
        kind, layer = members[0]
        names = tuple(layer.name for _, layer in members)
        remarks.append(
            ProfileRemark(kind, layer.operator, layer.precision, names, _duration([layer for _, layer in members]))
        )
    return tuple(sorted(remarks, key=lambda remark: -(remark.duration_s or 0)))


def _duration(layers: Iterable[Layer]) -> float | None:
    """Return the total time in seconds, or ``None`` if the library does not report that of a step."""
    durations = [layer.duration_s for layer in layers]
    known = [duration for duration in durations if duration is not None]
    return sum(known) if len(known) == len(durations) else None


def _share(part: float | None, total: float | None) -> float | None:
    return None if part is None or not total else part / total
