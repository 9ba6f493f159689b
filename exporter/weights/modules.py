"""Networks from PyTorch modules: a variant if the module computes one, else the module as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.data.noise import noise
from exporter.guesses import GuessLog
from exporter.models.custom import AnyNetwork, CustomNetwork
from exporter.models.factory import build_module
from exporter.models.memory import require_image_memory
from exporter.models.variants import Stride, Variant, assume_size, variant
from exporter.weights import checkpoint, matching, translation
from exporter.weights.entries import ANY_ENTRY, Selection
from exporter.weights.matching import Notify, describe_variant
from exporter.weights.recognition import VariantOptions
from exporter.weights.sources import ORIGINS, LoadedWeights, record_of_file
from exporter.weights.translation import ForeignWeights
from runtimes.artifacts.manifest import Weights
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, RexportError, UsageError, quote
from runtimes.parity import LogitComparison

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

IMAGES = 3
"""The number of noise images for the comparison of a module with a variant and with itself."""

STRIDES: tuple[Stride, ...] = ("v1.5", "v1")
"""The strides of bottlenecks, the more frequent first. The tensors of a module do not show its stride."""

TOLERANCE = 1e-4
"""The largest difference of a logit between module and variant, divided by the largest logit."""

ASSUMED_SIZE = (224, 224)
"""The assumed (height, width) of the images of a module that is no variant, in pixels."""

ASSUMED_CHANNELS = 3
"""The assumed number of input channels of a module without convolutions."""


@dataclass(frozen=True)
class ModuleWeights:
    """The network of a module, with its weights.

    Attributes:
        network: A variant, or the module as it is.
        weights: The weights of the network.
    """

    network: AnyNetwork
    weights: LoadedWeights


@dataclass(frozen=True)
class NamedModule:
    """A module of the user.

    Attributes:
        module: The module, which is not changed.
        name: The name for messages and for the manifest: its class, or the reference that built it.
        record: The origin of its weights, or ``None`` if they are the module's own.
    """

    module: nn.Module
    name: str
    record: Weights | None = None

    @classmethod
    def of(cls, module: nn.Module) -> NamedModule:
        """Return the module without the wrappers of ``torch.compile`` and ``DataParallel``, named by its class."""
        from torch import nn

        module = getattr(module, "_orig_mod", module)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        return cls(module, quote(type(module).__name__))


@dataclass(frozen=True)
class FactoryRequest:
    """A module that the user's code builds.

    Attributes:
        name: The reference, as for ``exporter.models.factory.build_module``.
        weights: The file with the weights, or ``None`` for the module's own.
        selection: The part of the file to read.
    """

    name: str
    weights: str | None = None
    selection: Selection = ANY_ENTRY


def from_factory(request: FactoryRequest, options: VariantOptions, seed: int, notify: Notify) -> ModuleWeights:
    """Run the user's code, and return the network of the module that it builds.

    Args:
        request: The request.
        options: The options of the user.
        seed: The seed of the noise.
        notify: Receives notices for the user: which code runs, and which weights are taken.

    Raises:
        UsageError: The weights are those of a variant, and not a file.
        RexportError: As for ``build_module``, ``load_state`` and ``from_module``.
    """
    name, weights, log = request.name, request.weights, GuessLog(notify)
    if weights in ORIGINS:
        raise UsageError(
            f"--weights {weights} is for variants, but {name} is your own code",
            code="module-weights-not-file",
            hint="--weights FILE loads a file; without --weights the module's own weights are taken",
        )
    named = replace(NamedModule.of(build_module(name, log)), name=name)
    if weights is not None:
        named = load_state(named, Path(weights), request.selection, log)
    else:
        log(Reason("module-own-weights", f"{name}: the weights are the module's own and count as trained"))
    built = from_module(named, options, seed, log, request.selection.headless)
    return replace(built, weights=replace(built.weights, guesses=log.guesses))


def load_state(named: NamedModule, path: Path, selection: Selection, notify: Notify) -> NamedModule:
    """Return a copy of a module with the weights of a file. All names and shapes must match.

    Args:
        named: The module.
        path: The file, as for ``checkpoint.read``.
        selection: The part of the file to read.
        notify: Receives notices for the user.

    Raises:
        ModelMismatchError: Tensors are missing, unexpected, or have another shape or type.
        RexportError: As for ``checkpoint.read``.
    """
    stored = checkpoint.read(path, selection.key, selection.sha256)
    expected = _tensors(named.module)
    try:
        foreign = ForeignWeights(path, stored, translation.unwrap(stored.tensors, expected, selection.prefix))
        foreign.check_copies()
        for notice in foreign.notices():
            notify(notice)
        state = matching.fit_exactly(foreign.translation.tensors, expected, named.name, notify)
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=path, hint=error.hint) from error
    loaded = _copy(named)
    loaded.load_state_dict(state, strict=False)
    return replace(named, module=loaded, record=record_of_file(foreign, state))


def from_module(
    named: NamedModule, options: VariantOptions, seed: int, notify: Notify, headless: bool = False
) -> ModuleWeights:
    """Return the network of a module: the variant that it computes, else the module as it is.

    A module is a variant if it is from ``exporter.models.resnet``, or has the tensors and the outputs of a variant: on
    seeded noise, in evaluation mode, on the CPU. Any other module must take images and return logits. The module is not
    changed.

    Args:
        named: The module.
        options: The options of the user. With a name, the module must be this variant.
        seed: The seed of the noise.
        notify: Receives notices for the user: which of the two it is, and what was assumed.
        headless: Whether the module may be a trunk without a classifier, which returns pooled features.

    Raises:
        ModelMismatchError: The module is not the named variant, or does not return logits for images.
        UsageError: The variant is unknown, or does not take the options.
        ArtifactError: A weight or a logit is not finite.
    """
    log = notify = GuessLog(notify)
    if named.module.training:
        notify(Reason("module-in-training", f"{named.name} is in training mode; a copy is exported in evaluation mode"))
    module = _copy(named)
    own = _tensors(module)
    own_record = Weights("module", True, matching.state_digest(own), source=named.name)
    reason = "its tensors match no variant"
    try:
        state = translation.translate(own, headless=headless).tensors
        candidates = tuple(_candidates_of(named.module, state, options))
    except ModelMismatchError as error:
        if options.name is not None:
            raise
        reason, candidates = error.what, ()  # as of a trunk without a classifier, whose features would be the logits
    differences = []
    for candidate in candidates:
        fitted = matching.fit(state, candidate, notify)
        difference = _difference(module, candidate, fitted, seed, named.name)
        if difference <= TOLERANCE:
            record = named.record or replace(own_record, sha256=matching.state_digest(fitted))
            notify(Reason("module-is-variant", f"{named.name} is recognised as {describe_variant(candidate)}"))
            return ModuleWeights(candidate, LoadedWeights(fitted, record, None, None, None, log.guesses))
        differences.append(difference)
    if candidates:
        names = " or ".join(dict.fromkeys(map(describe_variant, candidates)))
        reason = f"it has the tensors of {names}, but its outputs differ by {min(differences):.1e} of the largest logit"
    if options.name is not None:
        raise ModelMismatchError(
            f"the module {named.name} is not {options.name}: {reason} (limit {TOLERANCE:.0e})",
            code="module-outputs-differ",
            hint=f"without the variant {options.name} the module is exported as it is",
        )
    network = _custom_network(named.name, module, options, seed, reason, notify)
    return ModuleWeights(network, LoadedWeights(own, named.record or own_record, None, None, None, log.guesses))


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a module without entries that are no tensors."""
    import torch

    entries = module.state_dict().items()
    return {name: entry.detach().cpu() for name, entry in entries if isinstance(entry, torch.Tensor)}


def _copy(named: NamedModule) -> nn.Module:
    """Return a copy of the module in float32 on the CPU, in evaluation mode."""
    try:
        return copy.deepcopy(named.module).cpu().float().eval()
    except Exception as error:  # whatever the foreign module raises
        raise ModelMismatchError(
            f"the module {named.name} cannot be copied: {type(error).__name__}: {quote(error)}",
            code="module-not-copied",
            hint="export a module that copy.deepcopy copies",
        ) from error


def _candidates_of(module: nn.Module, state: Mapping[str, Tensor], options: VariantOptions) -> Iterator[Variant]:
    """Yield the possible variants of a module, restricted by the options, with each possible stride."""
    from exporter.models.resnet import ResNet

    own = module.variant if isinstance(module, ResNet) else None
    if own is not None and bool(own.classes) != ("fc.weight" in state):
        own = None  # its classifier was replaced
    fitting = (own,) if own is not None else matching.recognise(state)
    if options.name is not None:
        fitting = tuple(candidate for candidate in fitting if candidate.name == options.name) or (
            variant(options.name),
        )
    for candidate in fitting:
        unknown = own is None and options.stride is None and candidate.block == "bottleneck"
        for stride in STRIDES if unknown else (candidate.stride,):
            yield options.apply(replace(candidate, stride=stride))


def _difference(module: nn.Module, candidate: Variant, state: Mapping[str, Tensor], seed: int, name: str) -> float:
    """Return the largest difference of the module's logits from the candidate's, divided by the largest logit."""
    import torch

    from exporter.models.resnet import build

    model = build(candidate)
    model.load_state_dict(state)
    inputs = noise((IMAGES, candidate.in_channels, *candidate.size), seed)
    outputs = _logits(module, inputs, name)
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs)).numpy()
    if outputs.shape != expected.shape:
        return float("inf")
    return LogitComparison.compare(outputs, expected).relative_difference


def _custom_network(
    name: str, module: nn.Module, options: VariantOptions, seed: int, reason: str, notify: Notify
) -> CustomNetwork:
    """Return the module as a network, after checks of what it takes and returns."""
    for option in ("stride", "shortcut"):
        if getattr(options, option) is not None:
            raise UsageError(
                f"--{option} changes a variant, but {name} is exported as it is, because {reason}",
                code="option-needs-variant",
                hint=f"leave --{option} out",
            )
    _check_weights(module)
    declared, source = _declared_shape(module)
    channels, size = options.in_channels or declared[0], options.size or (declared[1], declared[2])
    if options.size is None and source == "assumed":
        size = assume_size(size, options.resized)
    require_image_memory(name, channels, size, IMAGES)
    inputs = noise((IMAGES, channels, *size), seed)
    logits = _logits(module, inputs, name)
    classes = logits.shape[1]
    if options.classes not in (None, classes):
        raise ModelMismatchError(
            f"the module {name} has {classes} classes, not {options.classes}",
            code="module-class-count",
            hint="leave --num-classes out",
        )
    if not np.isfinite(logits).all():
        raise ArtifactError(f"the module {name} returns logits that are not finite for noise", code="module-not-finite")
    _check_repeats(module, inputs, logits, name)
    assumed = [
        f"{words} {source} ({option})"
        for words, option, given in (
            (f"{channels} input channels", "--in-channels", options.in_channels),
            (f"the size {size[0]}x{size[1]}", "--size", options.size),
        )
        if given is None
    ]
    note = "; ".join(("", *assumed))
    notify(
        Reason(
            "module-is-custom",
            f"{name} is exported as it is, because {reason}: images of {channels} channels and {size[0]}x{size[1]} "
            f"pixels, {classes} classes{note}",
        )
    )
    return CustomNetwork(module, name, classes, channels, size)


def _check_weights(module: nn.Module) -> None:
    """Raise an error for a parameter or running statistic that is not finite. Other buffers may hold infinities."""
    statistics = {name: value for name, value in _tensors(module).items() if ".running_" in f".{name}"}
    matching.check_values({name: value.detach() for name, value in module.named_parameters()} | statistics)


def _declared_shape(module: nn.Module) -> tuple[tuple[int, int, int], str]:
    """Return the (channels, height, width) of the images that a module declares, else assumed ones, and which in words.

    Modules of Lightning have ``example_input_array``, those of timm have ``pretrained_cfg``.
    """
    from torch import nn

    example = tuple(getattr(getattr(module, "example_input_array", None), "shape", ()))
    config = getattr(module, "pretrained_cfg", None)
    shape = tuple(config.get("input_size", ())) if isinstance(config, dict) else ()
    for declared, source in ((example[1:], "of its example_input_array"), (shape, "of its pretrained_cfg")):
        if len(declared) == 3 and all(isinstance(side, int) and side > 0 for side in declared):
            return (declared[0], declared[1], declared[2]), source
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    channels = ASSUMED_CHANNELS if first is None else first.in_channels
    return (channels, *ASSUMED_SIZE), "assumed"


def _logits(module: nn.Module, inputs: NDArray[np.floating[Any]], name: str) -> NDArray[np.float32]:
    """Return the outputs of a module for images (n, c, h, w) in its own float type, after a check that they are logits.

    Raises:
        ModelMismatchError: The module raises an error, or does not return one tensor (n, classes) of floats.
    """
    import torch

    with torch.inference_mode():
        try:
            outputs = module(torch.from_numpy(inputs))
        except Exception as error:  # whatever the foreign module raises
            shape = "x".join(map(str, inputs.shape))
            raise ModelMismatchError(
                f"the module {name} fails for images of shape {shape}: {type(error).__name__}: {quote(error)}",
                code="module-not-callable",
                hint="--size and --in-channels say which images it takes",
            ) from error
    if not isinstance(outputs, torch.Tensor):
        raise _not_logits(name, f"a {quote(type(outputs).__name__)}")
    if outputs.dim() != 2 or len(outputs) != len(inputs) or not outputs.is_floating_point():
        raise _not_logits(name, f"{_dtype(outputs)} {tuple(outputs.shape)} for {len(inputs)} images")
    return outputs.float().numpy()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _not_logits(name: str, found: str) -> ModelMismatchError:
    return ModelMismatchError(
        f"the module {name} returns {found}; one tensor of float logits (n, classes) is expected",
        code="module-output-shape",
        hint="wrap it in a module that takes images and returns the logits alone",
    )


def _check_repeats(module: nn.Module, inputs: NDArray[np.float32], logits: NDArray[np.float32], name: str) -> None:
    """Raise an error if the logits of an image change with the call or with the other images of the batch."""
    again = LogitComparison.compare(_logits(module, inputs, name), logits).relative_difference
    if not again <= TOLERANCE:
        raise ModelMismatchError(
            f"the module {name} returns other logits for the same images (difference {again:.1e} of the largest logit)",
            code="module-random",
            hint="remove randomness in evaluation mode, as dropout with training=True",
        )
    alone = LogitComparison.compare(_logits(module, inputs[:1], name), logits[:1]).relative_difference
    if not alone <= TOLERANCE and _depends_on_batch(module, inputs, name):
        raise ModelMismatchError(
            f"the logits of the module {name} for an image depend on the other images of the batch (difference "
            f"{alone:.1e} of the largest logit)",
            code="module-depends-on-batch",
            hint="normalise with running statistics, not with those of the batch",
        )


def _depends_on_batch(module: nn.Module, inputs: NDArray[np.float32], name: str) -> bool:
    """Return whether the logits of an image depend on the batch in float64, too, where rounding does not matter.

    Batches of different size round differently, and some untrained networks enlarge that to percents.
    """
    wide, images = copy.deepcopy(module).double(), inputs.astype(np.float64)
    try:
        logits, alone = _logits(wide, images, name), _logits(wide, images[:1], name)
    except ModelMismatchError:  # the module mixes float types, so float32 decides
        return True
    return not LogitComparison.compare(alone, logits[:1]).relative_difference <= TOLERANCE
