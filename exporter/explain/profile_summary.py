"""What a library made of a graph: precisions, times and leftover conversions, by the network's stages and blocks."""

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
"""Operators that change a type or a layout and compute nothing."""


@dataclass(frozen=True)
class Remark:
    """Steps of one operator that cost time and need not.

    Attributes:
        kind: ``weighted`` for convolutions and matrix products that ran in a wider type than the graph's, ``float``
            for other steps that did, residual additions above all, ``conversion`` for changes of type or layout that
            remained as steps of their own.
        operator: the library's word.
        precision: that it ran in.
        nodes: names of the steps.
        duration_s: of one run, together; ``None`` where the library does not tell.
    """

    kind: Literal["weighted", "float", "conversion"]
    operator: str
    precision: str
    nodes: tuple[str, ...]
    duration_s: float | None


@dataclass(frozen=True)
class ExecutedPart:
    """A stage or a block as it ran.

    Attributes:
        precisions: how many of its weighted layers ran in each, the most frequent first.
        duration_s: of one run; ``None`` where the library does not tell.
        share: of the network's time, likewise.
        remarks: the most expensive first.
        blocks: of a stage that has several.
    """

    name: str
    precisions: Mapping[str, int]
    duration_s: float | None
    share: float | None
    remarks: tuple[Remark, ...]
    blocks: tuple[ExecutedPart, ...] = ()


@dataclass(frozen=True)
class Execution:
    """A graph as it ran once.

    Attributes:
        description: of the runtime.
        precisions: how many of its weighted layers ran in each, the most frequent first.
        kept: how many weighted layers ran in the graph's precision, or in one as narrow.
        duration_s: of one run under the library's profiler, which costs time itself; ``None`` where it does not tell.
        weighted_share: of that time in weighted layers.
        conversion_share: of that time in conversions of type and layout, at the entry and the exit as well.
        stages: in the network's order.
    """

    description: Description
    precisions: Mapping[str, int]
    kept: int
    duration_s: float | None
    weighted_share: float | None
    conversion_share: float | None
    stages: tuple[ExecutedPart, ...]


def bits(precision: str) -> int:
    """Of one number: 8 for ``int8``, 16 for ``bf16`` and ``bfloat16``, 32 for ``fp32`` and ``float32``."""
    digits = re.search(r"\d+", precision)
    return int(digits[0]) if digits else 32


def execution(layers: Sequence[Layer], precision: str, description: Description) -> Execution:
    """The steps of a library's profile, in their order, summed up for a graph of ``precision``.

    What is expected is not remarked on: conversions before the first weighted layer and after the last one of the
    body. Where no weighted layer at all kept the graph's precision, that is said once, by ``kept``, and not of each.
    """
    weighted = [layer for layer in layers if layer.weighted]
    kept = sum(not _is_wide(layer, precision) for layer in weighted)
    where = places([" ".join((layer.name, *layer.nodes)) for layer in layers])
    blamed = _classify_steps(layers, where, precision, quiet=kept == 0)
    total = _duration(layers)
    steps = list(zip(where, layers, blamed, strict=True))
    stages = []
    for stage in dict.fromkeys(place.stage for place in where):
        members = [step for step in steps if step[0].stage == stage]
        names = dict.fromkeys(place.block for place, _, _ in members)
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
    layers: Sequence[Layer], where: Sequence[NetworkPosition], precision: str, quiet: bool
) -> list[_Kind | None]:
    """What there is to say of each step; ``quiet`` of all that ran wide."""
    body = [
        number
        for number, (layer, place) in enumerate(zip(layers, where, strict=True))
        if layer.weighted and place.stage != HEAD
    ]
    first, last = (body[0], body[-1]) if body else (0, -1)
    kinds: list[_Kind | None] = []
    for number, layer in enumerate(layers):
        inside = first < number < last
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
    )


def _precisions(layers: Sequence[Layer]) -> dict[str, int]:
    return dict(Counter(layer.precision for layer in layers if layer.weighted).most_common())


def _remarks(blamed: Iterable[tuple[_Kind, Layer]]) -> tuple[Remark, ...]:
    def group_key(item: tuple[_Kind, Layer]) -> tuple[str, str, str]:
        kind, layer = item
        return kind, layer.operator, layer.precision

    remarks = []
    for _, group in groupby(sorted(blamed, key=group_key), key=group_key):
        members = list(group)
        kind, layer = members[0]
        names = tuple(layer.name for _, layer in members)
        remarks.append(Remark(kind, layer.operator, layer.precision, names, _duration([layer for _, layer in members])))
    return tuple(sorted(remarks, key=lambda remark: -(remark.duration_s or 0)))


def _duration(layers: Iterable[Layer]) -> float | None:
    """Seconds of all together; ``None`` if the library does not tell of one."""
    durations = [layer.duration_s for layer in layers]
    known = [duration for duration in durations if duration is not None]
    return sum(known) if len(known) == len(durations) else None


def _share(part: float | None, total: float | None) -> float | None:
    return None if part is None or not total else part / total
