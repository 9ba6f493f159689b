"""Conversion of foreign tensors to the state of a variant, with a reason if they do not match."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from exporter.models.layers import VariantLayer, layers
from exporter.models.variants import VARIANTS, Norm, Paper, Shortcut, Variant
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, quote

if TYPE_CHECKING:
    from torch import Tensor

SHORTCUTS: tuple[Shortcut, ...] = ("A", "B", "C")
"""All shortcut options."""

MAX_NAMED = 5
"""The largest number of names in a message."""

SUBNORMAL_SHARE = 0.01
"""The share of subnormal numbers in a tensor above which a notice warns of slow arithmetic."""

_COUNTER = "num_batches_tracked"
_BLOCK = re.compile(r"layer(\d{1,3})\.(\d+)\.")

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""

Notify: TypeAlias = Callable[[str | Reason], None]
"""A function that receives a line for the user. A line with a warning is a ``Reason``."""


def fit(state: Mapping[str, Tensor], variant: Variant, notify: Notify) -> dict[str, Tensor]:
    """Return the state dict of ``build(variant)`` from foreign tensors.

    Missing batch counters become 0. Other float types are converted with a notice.

    Args:
        state: The tensors, which are not changed, under the names of ``exporter.models.resnet``.
        variant: The variant.
        notify: Receives notices for the user.

    Returns:
        All tensors in the order of the module, float32 and contiguous. Batch counters are int64. The memory belongs to
        the caller.

    Raises:
        ModelMismatchError: Names, shapes or dtypes do not match the variant. If they match another variant, the message
            names it.
        ArtifactError: A number is NaN or infinite, or a running variance is negative.
    """
    expected = shapes(variant)
    _check_shapes(state, expected, variant)
    converted = {
        name: _convert_tensor(name, state.get(name), shape, name.endswith(_COUNTER)) for name, shape in expected.items()
    }
    check_values(converted)
    _notice(state, converted, notify)
    return converted


def fit_exactly(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str, notify: Notify
) -> dict[str, Tensor]:
    """Return the state dict of a module that is no variant, from the tensors of a file.

    Missing batch counters keep their values. Other float types are converted with a notice.

    Args:
        state: The tensors of the file, which are not changed.
        expected: The tensors of the module, of which names, shapes and types count.
        name: The name of the module for messages.
        notify: Receives notices for the user.

    Raises:
        ModelMismatchError: Names, shapes or dtypes do not match.
        ArtifactError: A number is NaN or infinite, or a running variance is negative.
    """
    difference = _difference(state, {key: tuple(tensor.shape) for key, tensor in expected.items()})
    if difference:
        raise ModelMismatchError(
            f"the weights do not fit {name}: {difference}",
            code="weights-misfit",
            hint="--key and --strip-prefix choose the weights in the file"
            if difference.missing or difference.reshaped
            else "save the state dict of the module alone, without these tensors",
        )
    converted = {key: _convert_like(key, state[key], tensor) for key, tensor in expected.items() if key in state}
    check_values(converted)
    _notice(state, converted, notify)
    return converted


def recognise(state: Mapping[str, Tensor]) -> tuple[Variant, ...]:
    """Return the variants whose tensors have exactly the names and shapes of ``state``.

    The names are those of ``exporter.models.resnet``. Classes and channels are those of the state. Several variants can
    have the same tensors, in the order of ``rexport list``: shortcut option A has no weights, so a residual network
    with it looks like the plain network, and a blur has none either. Stride and input size do not follow from tensors
    and are those of the variant's row.
    """
    return tuple(candidate for candidate in _candidates(state, None) if not _difference(state, shapes(candidate)))


def without_blur(candidates: Sequence[Variant]) -> tuple[Variant, ...]:
    """Return the variants without those that another one of them equals but for the blur.

    Anti-aliased networks are rare and have no tensors of their own. A checkpoint is taken for the network without blur,
    and the user is told the names of the others.
    """

    def bare(variant: Variant) -> Variant:
        return replace(variant, name="", size=(1, 1), paper=Paper(), blur="none")

    plain = {bare(variant) for variant in candidates if variant.blur == "none"}
    return tuple(variant for variant in candidates if variant.blur == "none" or bare(variant) not in plain)


def assumptions(variant: Variant, candidates: Sequence[Variant]) -> tuple[str, ...]:
    """Return what was assumed of a recognised network, because its tensors do not show it, as text.

    Args:
        variant: The network that was chosen.
        candidates: The networks with these tensors, as from ``recognise``.
    """
    texts = []
    if variant.stem == "cifar" and len(variant.depths) == len(VARIANTS["resnet18"].depths):
        texts.append("no pooling after the first convolution is assumed")
    others = [candidate.name for candidate in candidates if candidate.name != variant.name]
    if others:
        texts.append(f"{' and '.join(others)} would have the same tensors")
    return tuple(texts)


@lru_cache(maxsize=256)
def shapes(variant: Variant) -> Shapes:
    """Return the name and shape of each tensor in the variant's state dict, in its order. Nothing is allocated."""
    result: dict[str, tuple[int, ...]] = {}
    for layer in layers(variant):
        norm = _norm_shapes(layer, variant.norm)
        result |= norm if layer.norm_first else {}
        result |= {f"{layer.name}.weight": layer.shape} if layer.learnt else {}
        result |= {f"{layer.name}.bias": (layer.out_channels,)} if layer.bias else {}
        result |= {} if layer.norm_first else norm
    return MappingProxyType(result)


def _norm_shapes(layer: VariantLayer, norm: Norm) -> dict[str, tuple[int, ...]]:
    if not layer.norm:
        return {}
    names = ("weight", "bias") if norm == "group" else ("weight", "bias", "running_mean", "running_var")
    result: dict[str, tuple[int, ...]] = {f"{layer.norm}.{name}": (layer.norm_channels,) for name in names}
    return result if norm == "group" else result | {f"{layer.norm}.{_COUNTER}": ()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict as 64 hexadecimal digits.

    It covers the names, dtypes, shapes and bytes in the order of names, but no batch counters. The same weights have
    the same digest in all files.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith(_COUNTER):
            tensor = state[name].detach().contiguous()
            digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


# Names and shapes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Difference:
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        rows = (("missing", self.missing), ("unexpected", self.unexpected), ("of wrong shape", self.reshaped))
        return ", ".join(f"{len(names)} {kind}{_in_parentheses(names)}" for kind, names in rows if names)


def _in_parentheses(names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > MAX_NAMED else ""
    return f" ({', '.join(quote(name) for name in names[:MAX_NAMED])}{more})"


def _difference(given: Mapping[str, Tensor], expected: Shapes) -> _Difference:
    return _Difference(
        [name for name in expected if name not in given and not name.endswith(_COUNTER)],
        [name for name in given if name not in expected],
        [
            f"{name}: {tuple(given[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in given and tuple(given[name].shape) != shape
        ],
    )


def _check_shapes(given: Mapping[str, Tensor], expected: Shapes, variant: Variant) -> None:
    difference = _difference(given, expected)
    if not difference:
        return
    for candidate in _candidates(given, variant.name):
        if not _difference(given, shapes(candidate)):
            raise ModelMismatchError(
                f"the weights match {describe_variant(candidate)}, not {describe_variant(variant)}: {difference}",
                code="other-variant",
                hint=f"use {_suggest_options(candidate, variant)}",
            )
    raise ModelMismatchError(
        f"the weights fit neither {describe_variant(variant)} nor another variant: {difference}",
        code="variant-unrecognised",
        hint="rexport list shows the variants"
        if difference.missing or difference.reshaped
        else "save the state dict of the network alone, without these tensors",
    )


def describe_variant(variant: Variant) -> str:
    """Return the name of a variant with the options that determine its shapes, as text."""
    channels = f", {variant.in_channels} input channels" if variant.in_channels != 3 else ""
    shortcut = f", shortcut {variant.shortcut}" if variant.shortcut != VARIANTS[variant.name].shortcut else ""
    head = f"with {variant.classes} classes" if variant.classes else "without a classifier"
    return f"{variant.name} {head}{channels}{shortcut}"


def _suggest_options(candidate: Variant, requested: Variant) -> str:
    """Return the variant or the options to use instead of the requested ones.

    For another variant no options are needed, because classes, channels and shortcut are read from the file.
    """
    if not candidate.classes and requested.classes:
        return "--output features without --num-classes"
    if candidate.name != requested.name:
        return candidate.name
    fields = (("--num-classes", "classes"), ("--in-channels", "in_channels"), ("--shortcut", "shortcut"))
    return " ".join(
        f"{flag} {getattr(candidate, key)}"
        for flag, key in fields
        if getattr(candidate, key) != getattr(requested, key)
    )


def _candidates(given: Mapping[str, Tensor], requested: str | None) -> Iterator[Variant]:
    """Yield the variants with the number of blocks in each stage, the classes and the channels of the file.

    The variants named ``requested`` come first, and those with the shortcut option of their row before others.
    """
    stem, head = given.get("conv1.weight", given.get("conv1.0.weight")), given.get("fc.weight")
    if stem is None or stem.dim() != 4 or (head is not None and head.dim() != 2):
        return
    depths, classes = _depths(given), 0 if head is None else head.shape[0]
    rows = [
        replace(row, classes=classes, in_channels=stem.shape[1], shortcut=shortcut)
        for row in VARIANTS.values()
        if row.depths == depths
        for shortcut in (SHORTCUTS if row.residual and row.order == "post" else (row.shortcut,))
    ]
    yield from sorted(rows, key=lambda row: (row.name != requested, row.shortcut != VARIANTS[row.name].shortcut))


def _depths(names: Iterable[str]) -> tuple[int, ...]:
    """Return the number of blocks in each stage of a network with these tensors."""
    stages = Counter(stage for stage, _ in {match.groups() for match in map(_BLOCK.match, names) if match})
    return tuple(stages[name] for name in sorted(stages, key=int))


# Values ---------------------------------------------------------------------------------------------------------------


def _convert_like(name: str, tensor: Tensor, expected: Tensor) -> Tensor:
    floats = expected.is_floating_point()
    if floats or tensor.is_floating_point():
        return _convert_tensor(name, tensor, tuple(expected.shape), integer=not floats)
    return tensor


def _convert_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...], integer: bool) -> Tensor:
    import torch

    if tensor is None:
        return torch.zeros(shape, dtype=torch.int64)
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if tensor.dtype not in (integers if integer else floats):
        raise ModelMismatchError(
            f"tensor {quote(name)!r} has dtype {_dtype(tensor)}; expected "
            + ("an integer" if integer else "a float of 16 to 64 bits"),
            code="tensor-dtype-wrong",
            hint=None if integer else _dtype_hint(tensor),
        )
    dtype = torch.int64 if integer else torch.float32
    return tensor.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _dtype_hint(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "rexport exports networks of real numbers"
    if tensor.is_floating_point():
        return "save the weights in float32, or multiply by their scales first: tensor.float() * scale"
    return "save the float weights; --precision int8 quantises them"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def check_values(state: Mapping[str, Tensor]) -> None:
    """Check that all floats of a state dict are finite, and that its running variances are not negative.

    Raises:
        ArtifactError: A number is NaN or infinite, or a running variance is negative.
    """
    import torch

    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        lowest, highest = (float(value) for value in tensor.aminmax())  # NaN if there is one
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
            raise ArtifactError(
                f"tensor {quote(name)!r} has {wrong:,} NaN or infinite values of {tensor.numel():,}",
                code="weights-not-finite",
            )
        if name.endswith("running_var") and lowest < 0:
            count = int((tensor < 0).sum())
            raise ArtifactError(
                f"the variances in tensor {quote(name)!r} have {count:,} negative values", code="variance-negative"
            )


def _notice(given: Mapping[str, Tensor], state: Mapping[str, Tensor], notify: Notify) -> None:
    dtypes = sorted({_dtype(tensor) for tensor in given.values() if tensor.is_floating_point()} - {"float32"})
    if dtypes:
        notify(Reason("weights-converted", f"the weights are {' and '.join(dtypes)} and are converted to float32"))
    slow = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and _subnormal_share(tensor) > SUBNORMAL_SHARE
    ]
    if slow:
        notify(
            Reason(
                "weights-subnormal",
                f"the weights of {len(slow)} tensors{_in_parentheses(slow)} are subnormal, which can make arithmetic "
                "slow",
            )
        )


def _subnormal_share(tensor: Tensor) -> float:
    import torch

    sizes = tensor.abs()
    small = (sizes < torch.finfo(torch.float32).tiny).logical_and_(sizes > 0)
    return int(small.count_nonzero()) / max(1, tensor.numel())
