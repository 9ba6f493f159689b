"""Description of a file with weights: its layout, its network, and what an export would leave out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.format import count
from exporter.weights import matching, translation
from exporter.weights.entries import Selection
from exporter.weights.translation import list_names
from runtimes import codec
from runtimes.escaping import MAX_LINE, printable


@dataclass(frozen=True)
class CheckpointFacts:
    """The facts about a file with weights.

    Attributes:
        file: The name of the file.
        key: The entry that holds the weights, or ``None`` for the top level.
        averaged: The entries and prefixes with averaged weights, which an export takes only on request.
        layout: The layout of the names, or ``None`` if it is unknown.
        prefix: The prefix of the names.
        classifier: The name of the classifier in the file, or ``None`` if the layout is unknown.
        tensors: The number of tensors of the network.
        parameters: The number of numbers in these tensors.
        dtypes: Their dtypes.
        variants: The variants that have exactly these tensors. There can be several.
        classes: The number of classes, 0 for a trunk without a classifier, or ``None`` if no variant matches.
        in_channels: The number of input channels, or ``None`` if no variant matches.
        left_out: The names of the tensors that an export leaves out, by the reason.
    """

    file: str
    key: str | None
    averaged: tuple[str, ...]
    layout: str | None
    prefix: str
    classifier: str | None
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    variants: tuple[str, ...]
    classes: int | None
    in_channels: int | None
    left_out: Mapping[str, tuple[str, ...]]


def inspect(path: Path, selection: Selection) -> CheckpointFacts:
    """Return the facts about a file with weights.

    Args:
        path: The file.
        selection: The part of the file to read.

    Raises:
        RexportError: As for ``exporter.weights.translation.read``.
    """
    foreign = translation.read(path, replace(selection, headless=True))
    translated = foreign.translation
    fitting = matching.recognise(translated.tensors)
    return CheckpointFacts(
        file=path.name,
        key=foreign.stored.entry,
        averaged=(*foreign.stored.averages, *translated.averaged),
        layout=None if translated.layout is None else translated.layout.title,
        prefix=translated.prefix,
        classifier=translated.head,
        tensors=len(translated.tensors),
        parameters=sum(tensor.numel() for tensor in translated.tensors.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in translated.tensors.values()})),
        variants=tuple(dict.fromkeys(variant.name for variant in fitting)),
        classes=fitting[0].classes if fitting else None,
        in_channels=fitting[0].in_channels if fitting else None,
        left_out=translated.left_out,
    )


def as_json(facts: CheckpointFacts) -> str:
    """Return the facts as a JSON object."""
    return codec.dumps(facts, indent=2)


def as_text(facts: CheckpointFacts) -> str:
    """Return the facts as text, with one fact on each line."""
    lines = {
        "weights": facts.file + ("" if facts.key is None else f", entry {facts.key}"),
        "averaged weights": ", ".join(facts.averaged) or "none",
        "layout": facts.layout or "unknown",
        "prefix": facts.prefix or "none",
        "classifier": facts.classifier or ("none" if facts.classes == 0 else "unknown"),
        "variant": " or ".join(facts.variants) or "unknown (rexport list shows the variants)",
        "classes": "unknown" if facts.classes is None else str(facts.classes),
        "input channels": "unknown" if facts.in_channels is None else str(facts.in_channels),
        "tensors": f"{count(facts.tensors, 'tensor')}, {facts.parameters:,} numbers, {', '.join(facts.dtypes)}",
        "left out": "; ".join(f"{reason}: {list_names(names)}" for reason, names in facts.left_out.items()) or "none",
    }
    width = max(map(len, lines))
    return "\n".join(printable(f"{key:<{width}}  {value}", MAX_LINE) for key, value in lines.items())
