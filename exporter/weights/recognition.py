"""Recognition of the variant of a checkpoint by its tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.guesses import GuessLog
from exporter.models.variants import Shortcut, Stride, Variant, customise, variant
from exporter.weights import matching, translation
from exporter.weights.entries import ANY_ENTRY, Selection
from exporter.weights.matching import Notify, describe_variant
from exporter.weights.sources import LoadedWeights, record_of_file
from exporter.weights.translation import Translation, list_names
from runtimes.errors import ModelMismatchError, Reason, RexportError, quote
from runtimes.escaping import shell_word

if TYPE_CHECKING:
    from torch import Tensor

_NETWORK = re.compile(r"(conv1|bn1|maxpool|layer\d+|norm|fc)\..+")
"""The names of tensors that belong to a network."""


@dataclass(frozen=True)
class VariantOptions:
    """The options of the variant that the user gives.

    ``None`` means that the weights or the variant's row determine it.

    Attributes:
        name: The name of the variant, as printed by ``rexport list``.
        classes: As for ``exporter.models.variants.customise``.
        in_channels: As for ``exporter.models.variants.customise``.
        size: As for ``exporter.models.variants.customise``.
        stride: As for ``exporter.models.variants.customise``.
        shortcut: As for ``exporter.models.variants.customise``.
        resized: As for ``exporter.models.variants.customise``.
    """

    name: str | None = None
    classes: int | None = None
    in_channels: int | None = None
    size: tuple[int, int] | None = None
    stride: Stride | None = None
    shortcut: Shortcut | None = None
    resized: int | None = None

    @property
    def chosen(self) -> frozenset[str]:
        """The fields of the variant that the user gives."""
        names = ("classes", "in_channels", "size", "stride", "shortcut")
        return frozenset(name for name in names if getattr(self, name) is not None)

    def apply(self, row: Variant) -> Variant:
        """Return a copy of ``row`` with these options.

        Raises:
            UsageError: As for ``exporter.models.variants.customise``.
        """
        return customise(
            row,
            classes=self.classes,
            in_channels=self.in_channels,
            size=self.size,
            stride=self.stride,
            shortcut=self.shortcut,
            resized=self.resized,
        )


@dataclass(frozen=True)
class RecognisedWeights:
    """Weights with their variant.

    Attributes:
        variant: The variant.
        weights: The weights, which fit the variant.
    """

    variant: Variant
    weights: LoadedWeights


def from_checkpoint(
    path: str | os.PathLike[str], options: VariantOptions, notify: Notify, selection: Selection = ANY_ENTRY
) -> RecognisedWeights:
    """Read the weights of a file, and recognise their layout and their variant.

    Args:
        path: The file.
        options: The options of the user.
        notify: Receives notices for the user: the parts of the file that were chosen and left out, and without a name
            in the options the recognised variant and what was assumed.
        selection: The part of the file to read.

    Raises:
        ModelMismatchError: The tensors belong to no variant, to several, or to another than the named one; or as for
            ``translation.translate``.
        UsageError: The variant is unknown, or does not take the options, or the selection is not in the file.
        ResourceError: As for ``checkpoint.read``.
        UnsafeArtifactError: As for ``checkpoint.read``.
        IntegrityError: As for ``checkpoint.read``.
        ArtifactError: As for ``checkpoint.read`` and ``matching.fit``.
    """
    log = notify = GuessLog(notify)
    foreign = translation.read(path, selection)
    try:
        foreign.check_copies()
        for notice in foreign.notices():
            notify(notice)
        recognised, assumed = recognise(foreign.translation, options, foreign.path)
        fitted = matching.fit(foreign.translation.tensors, recognised, notify)
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=foreign.path, hint=error.hint) from error
    name = quote(foreign.path.name)
    if options.name is None:
        note = "; assumed: " + ", ".join(_in_words(recognised, field) for field in assumed) if assumed else ""
        others = matching.assumptions(recognised, matching.recognise(foreign.translation.tensors))
        note += "".join(f"; {text}" for text in others)
        notify(Reason("variant-recognised", f"{name}: recognised as {describe_variant(recognised)}{note}"))
    elif replace(recognised, stride="v1.5") != replace(options.apply(variant(options.name)), stride="v1.5"):
        notify(Reason("variant-adapted", f"{name}: the tensors match {describe_variant(recognised)}"))
    layout = foreign.translation.layout
    if "stride" in assumed and layout is not None and layout.stride is not None:
        notify(
            Reason(
                "stride-from-layout",
                f"{name}: stride {recognised.stride} is assumed, the default of {layout.title} (--stride)",
            )
        )
    record = replace(record_of_file(foreign, fitted), assumed=assumed)
    return RecognisedWeights(recognised, LoadedWeights(fitted, record, None, None, None, log.guesses))


def recognise(translated: Translation, options: VariantOptions, file: Path) -> tuple[Variant, tuple[str, ...]]:
    """Return the variant of a file's tensors, and the fields that neither the tensors nor the user determine.

    Args:
        translated: The tensors.
        options: The options of the user.
        file: The file, for hints.

    Raises:
        ModelMismatchError: The tensors belong to no variant, or to several and the options have no name.
        UsageError: The variant is unknown, or does not take the options.
    """
    row = _choose(translated.tensors, options.name, file)
    bottleneck = row.block == "bottleneck" and row.blur == "none"
    if bottleneck and translated.layout is not None and translated.layout.stride is not None:
        row = replace(row, stride=translated.layout.stride)
    unknown = (("stride", bottleneck and options.stride is None), ("size", options.size is None))
    return options.apply(row), tuple(field for field, assumed in unknown if assumed)


def _in_words(recognised: Variant, field: str) -> str:
    """Return a field of a variant, its value and the option that changes it."""
    value = "x".join(map(str, recognised.size)) if field == "size" else getattr(recognised, field)
    return f"{field} {value} (--{field})"


def _choose(state: Mapping[str, Tensor], name: str | None, file: Path) -> Variant:
    """Return the variant with the given name, adapted to the tensors, or the only variant that matches them."""
    fitting = matching.recognise(state)
    path = shell_word(file)
    if name is not None:
        return next((candidate for candidate in fitting if candidate.name == name), variant(name))
    fitting = matching.without_blur(fitting)
    if not fitting:
        known = {name: tensor for name, tensor in state.items() if _NETWORK.fullmatch(name)}
        for candidate in matching.recognise(known) if len(known) < len(state) else ():
            unknown = [name for name in state if name not in known]
            raise ModelMismatchError(
                f"besides those of {describe_variant(candidate)} there are tensors that do not belong to it: "
                f"{list_names(unknown)}",
                code="tensors-unexpected",
                hint="save the state dict of the network alone",
            )
        raise ModelMismatchError(
            f"the {len(state)} tensors match no variant",
            code="checkpoint-unrecognised",
            hint=f"rexport list shows the variants; VARIANT --weights {path} reports the differences from one of them",
        )
    if len(fitting) > 1:
        names = [candidate.name for candidate in fitting]
        raise ModelMismatchError(
            f"{' and '.join(names)} have the same tensors, so the file does not show which of them it is",
            code="variant-ambiguous",
            hint="use " + " or ".join(f"{candidate_name} --weights {path}" for candidate_name in names),
        )
    return fitting[0]
