"""The variant of weights that nobody named: of a checkpoint by its tensors, of a module by its outputs as well."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from exporter.data.dataset import noise
from exporter.models.variants import Shortcut, Stride, Variant, customise, variant
from exporter.weights import checkpoint, matching
from exporter.weights.matching import Notify, describe_variant
from exporter.weights.sources import LoadedWeights
from runtimes.artifacts.manifest import Weights
from runtimes.errors import ModelMismatchError, Reason, RexportError, quote
from runtimes.parity import LogitComparison

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

IMAGES = 2
"""How many images of noise a module and its variant are compared on."""

STRIDES: tuple[Stride, ...] = ("v1.5", "v1")
"""The likelier one first; a module's tensors do not tell which it has."""

TOLERANCE = 1e-4
"""The largest difference of a logit between the two, over the largest logit."""


@dataclass(frozen=True)
class VariantOptions:
    """What the user says of the variant; ``None`` leaves it to the weights, or else to the variant's row.

    Attributes:
        name: of the variant, as ``rexport list`` prints it.
        classes, in_channels, size, stride, shortcut: as ``exporter.models.variants.customise`` takes them.
    """

    name: str | None = None
    classes: int | None = None
    in_channels: int | None = None
    size: tuple[int, int] | None = None
    stride: Stride | None = None
    shortcut: Shortcut | None = None

    def apply(self, row: Variant) -> Variant:
        """The row with these options in it; raises as ``customise``."""
        return customise(
            row,
            classes=self.classes,
            in_channels=self.in_channels,
            size=self.size,
            stride=self.stride,
            shortcut=self.shortcut,
        )


@dataclass(frozen=True)
class RecognisedWeights:
    """Weights, and the variant that they fit."""

    variant: Variant
    weights: LoadedWeights


def from_checkpoint(path: str | os.PathLike[str], options: VariantOptions, notify: Notify) -> RecognisedWeights:
    """The weights of a file, and their variant. ``notify`` is told which variant was recognised, if none was named.

    Raises:
        ModelMismatchError: the tensors are those of no variant, of several, or of another than was named.
        UsageError: there is no variant of that name, or it does not take the options.
        ResourceError, UnsafeArtifactError, IntegrityError, ArtifactError: as ``checkpoint.read`` and ``matching.fit``.
    """
    place = Path(path)
    state = checkpoint.read(place)
    try:
        found = options.apply(_choose(state, options.name))
        fitted = matching.fit(state, found, notify)
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=place, hint=error.hint) from error
    if options.name is None:
        stride = "" if found.block == "basic" or options.stride else f", and stride {found.stride} is assumed"
        notify(Reason("variant-recognised", f"{quote(place.name)}: recognised as {describe_variant(found)}{stride}"))
    elif found != options.apply(variant(options.name)):
        notify(Reason("variant-adapted", f"{quote(place.name)}: {describe_variant(found)}, by its tensors"))
    return RecognisedWeights(found, _loaded(fitted, "file", place.name))


def from_module(module: nn.Module, options: VariantOptions, seed: int, notify: Notify) -> RecognisedWeights:
    """The weights of a module in memory, and their variant. The module must be one of ``exporter.models.resnet``, or
    answer as that of a variant does: on seeded noise, in evaluation mode, on the CPU. It stays as it is.

    Raises:
        ModelMismatchError: its tensors are those of no variant, or of another than was named; or its outputs differ.
        UsageError: there is no variant of that name, or it does not take the options.
        ArtifactError: as ``matching.fit``.
    """
    import torch

    module = getattr(module, "_orig_mod", module)  # torch.compile's wrapper
    title = quote(type(module).__name__)
    entries = module.state_dict().items()
    state = {name: entry.detach().cpu() for name, entry in entries if isinstance(entry, torch.Tensor)}
    candidates = tuple(_candidates_of(module, state, options))
    if not candidates:
        raise ModelMismatchError(
            f"the module {title} has other tensors than each of the networks that can be exported",
            code="module-unrecognised",
            hint="rexport.variants() lists these, torchvision's ResNets and the CIFAR ResNets of the paper",
        )
    twin = _copy(module, title)
    differences = []
    for candidate in candidates:
        fitted = matching.fit(state, candidate, notify)
        difference = _difference(twin, candidate, fitted, seed, title)
        if difference <= TOLERANCE:
            return RecognisedWeights(candidate, _loaded(fitted, "module", title))
        differences.append(difference)
    names = " or ".join(dict.fromkeys(map(describe_variant, candidates)))
    raise ModelMismatchError(
        f"the module {title} has the tensors of {names}, but not its outputs: they differ by {min(differences):.1e} of "
        f"the largest logit, {TOLERANCE:.0e} is allowed",
        code="module-outputs-differ",
        hint="export a module that computes what the paper's network does, and gives logits",
    )


def _choose(state: Mapping[str, Tensor], name: str | None) -> Variant:
    """The variant of that name, with what the state tells of it, or the only one that has its tensors."""
    fitting = matching.recognise(state)
    if name is not None:
        return next((candidate for candidate in fitting if candidate.name == name), variant(name))
    if not fitting:
        raise ModelMismatchError(
            f"its {len(state)} tensors are those of no variant",
            code="checkpoint-unrecognised",
            hint="rexport.variants() lists these; variant=NAME says what differs from one of them",
        )
    if len(fitting) > 1:
        names = [candidate.name for candidate in fitting]
        raise ModelMismatchError(
            f"{' and '.join(names)} have the same tensors, so that the file does not tell which of them it is",
            code="variant-ambiguous",
            hint=" or ".join(f'variant="{each}"' for each in names),
        )
    return fitting[0]


def _candidates_of(module: nn.Module, state: Mapping[str, Tensor], options: VariantOptions) -> Iterator[Variant]:
    """The variants that the module may be, of the name that was asked for, in each stride that its tensors allow."""
    from exporter.models.resnet import ResNet

    own = module.variant if isinstance(module, ResNet) else None
    fitting = (own,) if own is not None else matching.recognise(state)
    if options.name is not None:
        fitting = tuple(each for each in fitting if each.name == options.name) or (variant(options.name),)
    for each in fitting:
        unknown = own is None and options.stride is None and each.block == "bottleneck"
        for stride in STRIDES if unknown else (each.stride,):
            yield options.apply(replace(each, stride=stride))


def _copy(module: nn.Module, title: str) -> nn.Module:
    """The module in float32 on the CPU, in evaluation mode."""
    try:
        return copy.deepcopy(module).cpu().float().eval()
    except Exception as error:  # whatever the foreign module raises
        raise _uncallable(title, error) from error


def _difference(twin: nn.Module, candidate: Variant, state: Mapping[str, Tensor], seed: int, title: str) -> float:
    """How far the module's logits are from the candidate's, over the largest of these."""
    import torch

    from exporter.models.resnet import build

    model = build(candidate)
    model.load_state_dict(state)
    inputs = torch.from_numpy(noise((IMAGES, candidate.in_channels, *candidate.size), seed))
    with torch.inference_mode():
        expected = cast("NDArray[np.float32]", model(inputs).numpy())
        try:
            given = twin(inputs)
        except Exception as error:  # whatever the foreign module raises
            raise _uncallable(title, error) from error
    if not isinstance(given, torch.Tensor) or tuple(given.shape) != expected.shape:
        got = tuple(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
        raise ModelMismatchError(
            f"the module {title} gives {got}, where {expected.shape} logits are expected",
            code="module-output-shape",
            hint="export a module that takes images and gives one tensor of logits",
        )
    return LogitComparison.compare(given.float().numpy(), expected).relative_difference


def _uncallable(title: str, error: Exception) -> ModelMismatchError:
    return ModelMismatchError(
        f"the module {title} cannot be compared with a variant: {type(error).__name__}: {quote(error)}",
        code="module-not-callable",
        hint="export a module that computes on the CPU from one tensor of images",
    )


def _loaded(state: dict[str, Tensor], origin: str, source: str) -> LoadedWeights:
    digest = matching.state_digest(state)
    if origin == "file":
        return LoadedWeights(state, Weights("file", True, digest, source=quote(source)), None, None, None)
    return LoadedWeights(state, Weights("module", True, digest, source=source), None, None, None)
