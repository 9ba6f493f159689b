"""Foreign tensors made into exactly the state of a variant, or refused with the reason."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from exporter.models.variants import VARIANTS, Shortcut, Variant, layers
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, quote

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("module.", "model.", "_orig_mod.")
"""What wrappers put before every name: DataParallel, training frameworks, torch.compile."""

SHORTCUTS: tuple[Shortcut, ...] = ("A", "B", "C")

MAX_NAMED = 5
"""Names that a message gives; the rest is a count."""

SUBNORMAL_SHARE = 0.01
"""Of a tensor's numbers; from here on a notice warns of slow arithmetic."""

_COUNTER = "num_batches_tracked"

Shapes = dict[str, tuple[int, ...]]

Notify: TypeAlias = Callable[[str | Reason], None]
"""Takes a line that the user must see, as a ``Reason`` where it warns of something."""


def fit(state: Mapping[str, Tensor], variant: Variant, notify: Notify) -> dict[str, Tensor]:
    """The state dict of ``build(variant)``: every name, in its order, float32, contiguous, memory of its own.

    Wrappers' prefixes are stripped where every name has them, ``linear`` is taken for ``fc``, absent batch counters
    become 0, and other float types are converted with a notice through ``notify``. ``state`` stays as it is.

    Raises:
        ModelMismatchError: names, shapes or dtypes are not the variant's; the message says which variant's they are.
        ArtifactError: a number is NaN or infinite, or a running variance is negative.
    """
    given = rename_tensors(state)
    expected = shapes(variant)
    _check_shapes(given, expected, variant)
    converted = {name: _convert_tensor(name, given.get(name), shape) for name, shape in expected.items()}
    _check_values(converted)
    _notice(given, converted, notify)
    return converted


def rename_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that our modules have."""
    names = {name: name for name in state}
    while prefix := next((p for p in PREFIXES if names and all(new.startswith(p) for new in names.values())), None):
        names = {old: new[len(prefix) :] for old, new in names.items()}
    if not any(new.startswith("fc.") for new in names.values()):
        names = {old: f"fc.{new[7:]}" if new.startswith("linear.") else new for old, new in names.items()}
    return {new: state[old] for old, new in names.items()}


def recognise(state: Mapping[str, Tensor]) -> tuple[Variant, ...]:
    """The variants whose tensors have exactly these names and shapes, with the state's classes and channels.

    Wrappers' prefixes and ``linear`` are read as ``fit`` reads them. Several variants can have the same tensors:
    shortcut option A holds no weights, so that a residual network with it looks like its plain twin. The stride and the
    input size leave no trace in a state, and are those of the variant's row.
    """
    given = rename_tensors(state)
    return tuple(candidate for candidate in _candidates(given, None) if not _difference(given, shapes(candidate)))


def shapes(variant: Variant) -> Shapes:
    """Name and shape of everything in the variant's state dict; nothing is allocated."""
    import torch

    from exporter.models.resnet import build

    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(variant).state_dict().items()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of names; batch counters do not count.

    64 hexadecimal digits: the same weights give the same ones, whatever file they came from.
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
        rows = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return ", ".join(f"{len(names)} {what}{_some(names)}" for what, names in rows)


def _some(names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > MAX_NAMED else ""
    return f" ({', '.join(quote(name) for name in names[:MAX_NAMED])}{more})"


def _difference(given: Mapping[str, Tensor], expected: Shapes) -> _Difference:
    return _Difference(
        [name for name in expected if name not in given and not name.endswith(_COUNTER)],
        [name for name in given if name not in expected],
        [
            f"{name}: {tuple(given[name].shape)} in the file, {shape} needed"
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
                f"looks like {describe_variant(candidate)}, not {describe_variant(variant)}: {difference}",
                code="other-variant",
                hint=f"use {_remedy(candidate, variant)}",
            )
    raise ModelMismatchError(
        f"does not fit {describe_variant(variant)}, and looks like no other variant: {difference}",
        code="variant-unrecognised",
        hint="rexport list shows the variants",
    )


def recognise_variant(state: Mapping[str, Tensor]) -> str | None:
    """The name of the variant whose tensors these are, the residual one of two; ``None`` where there is none."""
    return next((candidate.name for candidate in recognise(state)), None)


def describe_variant(variant: Variant) -> str:
    """The variant's name and those options that decide its shapes, in words."""
    channels = f", {variant.in_channels} input channels" if variant.in_channels != 3 else ""
    shortcut = f", shortcut {variant.shortcut}" if variant.shortcut != VARIANTS[variant.name].shortcut else ""
    return f"{variant.name} with {variant.classes} classes{channels}{shortcut}"


def _remedy(candidate: Variant, asked: Variant) -> str:
    """The variant or the options to name in place of what was asked for. Another variant needs no options: its classes,
    channels and shortcut are read from the file."""
    if candidate.name != asked.name:
        return candidate.name
    fields = (("--num-classes", "classes"), ("--in-channels", "in_channels"), ("--shortcut", "shortcut"))
    return " ".join(
        f"{flag} {getattr(candidate, key)}" for flag, key in fields if getattr(candidate, key) != getattr(asked, key)
    )


def _candidates(given: Mapping[str, Tensor], asked: str | None) -> Iterator[Variant]:
    """Variants with as many tensors as the file has, in its classes and channels; the likeliest come first: those of
    the name that was ``asked`` for."""
    stem, head = given.get("conv1.weight"), given.get("fc.weight")
    if stem is None or head is None or stem.dim() != 4 or head.dim() != 2:
        return
    count = sum(not name.endswith(_COUNTER) for name in given)
    rows = [
        replace(row, classes=head.shape[0], in_channels=stem.shape[1], shortcut=shortcut)
        for row in VARIANTS.values()
        for shortcut in (SHORTCUTS if row.residual else (row.shortcut,))
    ]
    for candidate in sorted(rows, key=lambda row: (row.name != asked, row.shortcut != VARIANTS[row.name].shortcut)):
        # A convolution comes with its weight and four tensors of batch-norm, the classifier with weight and bias.
        if sum(5 if layer.kernel else 2 for layer in layers(candidate)) == count:
            yield candidate


# Values ---------------------------------------------------------------------------------------------------------------


def _convert_tensor(name: str, tensor: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    import torch

    if tensor is None:
        return torch.zeros(shape, dtype=torch.int64)
    floats = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    integers = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    counter = name.endswith(_COUNTER)
    if tensor.dtype not in (integers if counter else floats):
        raise ModelMismatchError(
            f"tensor {quote(name)!r} is {_dtype(tensor)}; "
            + ("an integer" if counter else "a float of 16 to 64 bits")
            + " is needed",
            code="tensor-dtype-wrong",
            hint="quantized weights cannot be taken: save the float ones" if not counter else None,
        )
    wanted = torch.int64 if counter else torch.float32
    return tensor.detach().to(wanted, copy=True, memory_format=torch.contiguous_format)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_values(state: Mapping[str, Tensor]) -> None:
    import torch

    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        lowest, highest = (float(value) for value in tensor.aminmax())  # NaN if there is one
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
            raise ArtifactError(
                f"tensor {quote(name)!r} has {wrong:,} NaN or infinite of {tensor.numel():,} values",
                code="weights-not-finite",
            )
        if name.endswith("running_var") and lowest < 0:
            count = int((tensor < 0).sum())
            raise ArtifactError(
                f"tensor {quote(name)!r} has {count:,} negative values; a variance has none", code="variance-negative"
            )


def _notice(given: Mapping[str, Tensor], state: Mapping[str, Tensor], notify: Notify) -> None:
    dtypes = sorted({_dtype(tensor) for tensor in given.values() if tensor.is_floating_point()} - {"float32"})
    if dtypes:
        notify(Reason("weights-converted", f"weights are {' and '.join(dtypes)}: converted to float32"))
    slow = [
        name
        for name, tensor in state.items()
        if tensor.is_floating_point() and _subnormal_share(tensor) > SUBNORMAL_SHARE
    ]
    if slow:
        notify(
            Reason(
                "weights-subnormal",
                f"weights are subnormal in {len(slow)} tensors{_some(slow)}: arithmetic may be slow",
            )
        )


def _subnormal_share(tensor: Tensor) -> float:
    import torch

    sizes = tensor.abs()
    small = (sizes < torch.finfo(torch.float32).tiny).logical_and_(sizes > 0)
    return int(small.count_nonzero()) / max(1, tensor.numel())
