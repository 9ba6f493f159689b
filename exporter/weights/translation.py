"""Translation of foreign tensors to the names of ``exporter.models.resnet``, by the table of layouts."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.format import count
from exporter.weights import checkpoint
from exporter.weights.entries import ANY_ENTRY, Selection, StoredState
from exporter.weights.layouts import AVERAGED, LAYOUTS, LEFT_OUT, UNSUPPORTED, WRAPPERS, Layout
from runtimes.errors import ModelMismatchError, Reason, RexportError, UsageError, quote
from runtimes.escaping import shell_word

if TYPE_CHECKING:
    from torch import Tensor

MAX_NAMED = 5
"""The largest number of names in a message."""

OUTSIDE = "outside the prefix"
"""The reason for leaving out tensors whose names do not begin with the prefix that the user chose."""

AVERAGED_COPY = "averaged copy of the weights"
"""The reason for leaving out a second copy of the network."""

_LAST_CONVOLUTION = re.compile(r"layer(\d+)\.(\d+)\.conv(\d+)\.weight")


@dataclass(frozen=True)
class Translation:
    """Tensors under the names of ``exporter.models.resnet``.

    Attributes:
        tensors: The tensors. Those with names that no rule concerns keep their names.
        layout: The layout, or ``None`` if no layout was recognised. The names then lose only wrappers' prefixes.
        prefix: The prefix that was removed.
        head: The name of the classifier in the file, or ``None`` if no layout was recognised or there is no classifier.
        left_out: The names in the file of the tensors that belong to no network, by the reason.
        averaged: The prefixes of copies with averaged weights, which were left out.
    """

    tensors: dict[str, Tensor]
    layout: Layout | None = None
    prefix: str = ""
    head: str | None = None
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    averaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignWeights:
    """The weights of a file.

    Attributes:
        path: The file.
        stored: The tensors under their names in the file, and the entry of the file that holds them.
        translation: The tensors under the names of ``exporter.models.resnet``.
    """

    path: Path
    stored: StoredState
    translation: Translation

    def check_copies(self) -> None:
        """Check that the file holds the network once, or that the user chose one of its copies.

        Training often keeps averaged weights (EMA, SWA) beside the others. Nothing in a file says which of the two the
        accuracy was measured with.

        Raises:
            ModelMismatchError: The file holds the network several times.
        """
        chosen, prefix = self.stored.entry, self.translation.prefix
        for here, copies, option in (
            (chosen, self.stored.averages, "--key"),
            (prefix, self.translation.averaged, "--strip-prefix"),
        ):
            if copies:
                names = [*([] if here is None else [here]), *copies]
                place = f"under {quote(here)!r}" if here else "without a prefix"
                others = list_names([repr(quote(name)) for name in copies])
                raise ModelMismatchError(
                    f"the file holds the network several times: {place}, and under {others}, which may be averaged "
                    "weights (EMA, SWA)",
                    code="weights-copies-ambiguous",
                    hint=" or ".join(f"{option} {shell_word(name)}" for name in names[:MAX_NAMED]),
                )

    def notices(self) -> Iterator[Reason]:
        """Yield what the user must know: the tensors that were left out, and what the layout leaves open."""
        name, translation = quote(self.path.name), self.translation
        if translation.left_out:
            number = count(sum(map(len, translation.left_out.values())), "tensor")
            reasons = "; ".join(f"{reason}: {list_names(names)}" for reason, names in translation.left_out.items())
            yield Reason("tensors-left-out", f"{name}: left out {number} ({reasons})")
        if translation.layout is not None and translation.layout.remark is not None:
            yield Reason("layout-remark", f"{name}: {translation.layout.remark}; check the preprocessing")


def read(path: str | os.PathLike[str], selection: Selection = ANY_ENTRY) -> ForeignWeights:
    """Read the weights of a file, and translate their names.

    Args:
        path: The file.
        selection: The part of the file to read.

    Raises:
        RexportError: As for ``checkpoint.read`` and ``translate``.
    """
    file = Path(path)
    stored = checkpoint.read(file, selection.key, selection.sha256)
    try:
        return ForeignWeights(file, stored, translate(stored.tensors, selection.prefix, selection.headless))
    except RexportError as error:
        raise type(error)(error.what, code=error.code, path=file, hint=error.hint) from error


def translate(state: Mapping[str, Tensor], prefix: str | None = None, headless: bool = False) -> Translation:
    """Return the tensors under the names of ``exporter.models.resnet``.

    Args:
        state: The tensors under their names in the file.
        prefix: The beginning of the names of the network, or ``None`` to search for it. If it is given, tensors with
            other names are left out, except a classifier.
        headless: Whether the network may have no classifier.

    Raises:
        ModelMismatchError: The network is of an unsupported kind, has no classifier or one of several layers, or occurs
            several times; tensors are outside its prefix, or two have the same name after the translation.
        UsageError: No name begins with the prefix.
    """
    for row in UNSUPPORTED:
        name = next((name for name in state if re.fullmatch(row.pattern, name)), None)
        if name is not None:
            raise ModelMismatchError(
                f"the weights are those of {row.title} ({quote(name)}), which is not supported",
                code="network-unsupported",
                hint="rexport list shows the networks that can be exported",
            )
    given = None if prefix is None else _complete_prefix(prefix, state)
    for layout in LAYOUTS:
        if any(not any(re.fullmatch(mark, name) for name in state) for mark in layout.marks):
            continue
        prefixes = _prefixes(layout, state)
        if given is not None:  # copies inside the chosen prefix are left out
            prefixes = {name for name in prefixes if name == given or re.fullmatch(re.escape(given) + AVERAGED, name)}
        if prefixes if given is None else given in prefixes:
            return _translate(state, layout, prefixes, given, headless=headless)
    return _unwrap(state, given)


def unwrap(state: Mapping[str, Tensor], expected: Collection[str], prefix: str | None = None) -> Translation:
    """Return the tensors of a network without a table of names. Only a prefix of all its names is removed.

    Args:
        state: The tensors under their names in the file.
        expected: The names in the network. A prefix that they have themselves stays.
        prefix: The beginning of the names of the network, or ``None`` to search for it.

    Raises:
        UsageError: No name begins with the prefix.
        ModelMismatchError: The whole network is under a prefix, and other tensors are outside it.
    """
    if prefix is not None:
        return _unwrap(state, _complete_prefix(prefix, state))
    needed = {name for name in expected if not name.endswith("num_batches_tracked")}
    beginnings = Counter(name.removesuffix(own) for name in state for own in _endings(name) if own in needed)
    found, count = max(beginnings.items(), key=lambda item: item[1], default=("", 0))
    outside = [name for name in state if not name.startswith(found)]
    if found and outside and count == len(needed):
        raise _outside_prefix(found, outside)
    kept = {name[len(found) :] if name.startswith(found) else name: tensor for name, tensor in state.items()}
    return Translation(kept, prefix=found) if len(kept) == len(state) else Translation(dict(state))


def _endings(name: str) -> Iterator[str]:
    """Yield a name and what follows each of its dots."""
    yield name
    while "." in name:
        name = name.partition(".")[2]
        yield name


def list_names(names: Collection[str]) -> str:
    """Return the first names as text, made safe for a message."""
    more = ", ..." if len(names) > MAX_NAMED else ""
    return ", ".join(quote(name) for name in list(names)[:MAX_NAMED]) + more


def _complete_prefix(prefix: str, state: Mapping[str, Tensor]) -> str:
    """Return the prefix with the dot that ends it."""
    full = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    if not any(name.startswith(full) for name in state):
        beginnings = dict.fromkeys(f"{name.partition('.')[0]}." for name in state)
        raise UsageError(
            f"no tensor's name begins with {quote(full)!r}",
            code="prefix-absent",
            hint=f"the names begin with {list_names(beginnings)}",
        )
    return full


def _prefixes(layout: Layout, state: Mapping[str, Tensor]) -> set[str]:
    """Return the prefixes under which the state has the stem and the first block of the layout."""
    stem, block = re.compile(rf"(?P<prefix>(.+\.)?){layout.stem}"), re.compile(layout.block)
    prefixes = {match["prefix"] for match in map(stem.fullmatch, state) if match}
    return {
        prefix
        for prefix in prefixes
        if re.fullmatch(layout.prefix, prefix)
        and any(name.startswith(prefix) and block.fullmatch(name, len(prefix)) for name in state)
    }


def _unwrap(state: Mapping[str, Tensor], prefix: str | None) -> Translation:
    """Return the tensors of an unknown layout without the prefix that the user gave or that all names have."""
    if prefix is not None:
        kept = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
        outside = tuple(name for name in state if not name.startswith(prefix))
        return Translation(kept, prefix=prefix, left_out={OUTSIDE: outside} if outside else {})
    common, rest = "", list(state)
    while wrapper := next((w for w in WRAPPERS if rest and all(name.startswith(w) for name in rest)), None):
        common, rest = common + wrapper, [name[len(wrapper) :] for name in rest]
    return Translation({name[len(common) :]: tensor for name, tensor in state.items()}, prefix=common)


def _translate(
    state: Mapping[str, Tensor], layout: Layout, prefixes: set[str], given: str | None, *, headless: bool
) -> Translation:
    explicit = given is not None
    prefix, averaged = _choose_prefix(prefixes) if given is None else (given, tuple(sorted(prefixes - {given})))
    left_out: dict[str, list[str]] = {}
    kept: dict[str, Tensor] = {}
    rows = (*layout.left_out, *LEFT_OUT)
    for name, tensor in state.items():
        reason = AVERAGED_COPY if name.startswith(averaged) else None
        reason = reason or next((row.reason for row in rows if re.fullmatch(row.pattern, name)), None)
        if reason is None:
            kept[name] = tensor
        else:
            left_out.setdefault(reason, []).append(name)
    head = _find_head(kept, layout, prefix, explicit=explicit)
    if head is None and not headless:
        extras = f"; besides it the file holds: {', '.join(left_out)}" if left_out else ""
        raise ModelMismatchError(
            f"the network ({layout.title}) has no classifier, so it gives features and no logits{extras}",
            code="classifier-missing",
            hint="--output features exports the trunk",
        )
    translated: dict[str, Tensor] = {}
    for name, tensor in kept.items():
        if head is not None and name.rpartition(".")[0] == head:
            new = f"fc.{name[len(head) + 1 :]}"
        elif name.startswith(prefix):
            new = _rename(name[len(prefix) :], layout)
        else:
            left_out.setdefault(OUTSIDE, []).append(name)
            continue
        if new in translated:
            raise ModelMismatchError(
                f"two tensors of the file have the name {quote(new)!r} in torchvision's layout",
                code="names-collide",
                hint="save the state dict of one network alone",
            )
        translated[new] = tensor.flatten(1) if new == "fc.weight" and tensor.dim() == 4 else tensor
    if OUTSIDE in left_out and not explicit:
        raise _outside_prefix(prefix, left_out[OUTSIDE])
    if head is not None:
        _check_head_width(translated)
    groups = {reason: tuple(names) for reason, names in left_out.items()}
    return Translation(translated, layout, prefix, head, groups, () if explicit else averaged)


def _outside_prefix(prefix: str, names: Collection[str]) -> ModelMismatchError:
    return ModelMismatchError(
        f"the network is under the prefix {quote(prefix)!r}, and the purpose of other tensors is unknown: "
        f"{list_names(names)}",
        code="tensors-outside-prefix",
        hint=f"--strip-prefix {shell_word(prefix)} leaves them out",
    )


def _choose_prefix(prefixes: set[str]) -> tuple[str, tuple[str, ...]]:
    """Return the prefix of the network, and the prefixes of copies with averaged weights.

    Raises:
        ModelMismatchError: Several prefixes remain, or none that is not of averaged weights.
    """
    if len(prefixes) == 1:
        return next(iter(prefixes)), ()
    averaged = sorted(prefix for prefix in prefixes if re.fullmatch(AVERAGED, prefix))
    plain = sorted(prefixes - set(averaged))
    if len(plain) != 1:
        raise ModelMismatchError(
            f"the file holds {len(prefixes)} networks, under the prefixes {list_names(sorted(prefixes))}",
            code="networks-ambiguous",
            hint=" or ".join(f"--strip-prefix {shell_word(prefix)}" for prefix in sorted(prefixes)),
        )
    return plain[0], tuple(averaged)


def _rename(name: str, layout: Layout) -> str:
    return next((new for rule in layout.renamings if (new := rule.apply(name)) is not None), name)


def _find_head(state: Mapping[str, Tensor], layout: Layout, prefix: str, *, explicit: bool) -> str | None:
    """Return the name of the classifier's module in the file, or ``None`` if there is no linear layer.

    The classifier is inside the prefix, or beside the network. A prefix that the user chose excludes a second one.

    Raises:
        ModelMismatchError: The classifier has an unknown name or several layers.
    """
    parent = prefix.rstrip(".").rpartition(".")[0]
    starts = (prefix, f"{parent}." if parent else "", "")
    modules = [name.removesuffix(".weight") for name, tensor in state.items() if _is_linear(name, tensor)]
    heads = {}
    for module in modules:
        start = next(start for start in starts if module.startswith(start))
        if re.fullmatch(layout.heads, module[len(start) :]):
            heads[module] = start + module[len(start) :].partition(".")[0]
    if explicit and any(module.startswith(prefix) for module in heads):
        heads = {module: root for module, root in heads.items() if module.startswith(prefix)}
    linear = [module for module in modules if state[f"{module}.weight"].dim() == 2]
    if not heads and linear:
        raise ModelMismatchError(
            f"no classifier is known by its name; the linear layers are {list_names(linear)}",
            code="classifier-unnamed",
            hint="save the state dict with the name fc for the classifier",
        )
    if not heads:
        return None
    head, root = next(iter(heads.items()))
    own = (f"{head}.weight", f"{head}.bias")
    others = [name for name in state if name.startswith(f"{root}.") and name not in own]
    modules_of_head = {*heads, *(name.rpartition(".")[0] for name in others)}
    layers = [
        module for module in dict.fromkeys(name.rpartition(".")[0] for name in state) if module in modules_of_head
    ]
    if len(layers) > 1:
        raise ModelMismatchError(
            f"the classifier has {len(layers)} layers with weights ({list_names(layers)}), not one linear layer",
            code="classifier-not-linear",
            hint="export a network that ends in global average pooling and one linear layer",
        )
    return head


def _is_linear(name: str, tensor: Tensor) -> bool:
    """Return whether a tensor can be the weights of a classifier: of a linear layer, or of a 1x1 convolution."""
    return name.endswith(".weight") and (tensor.dim() == 2 or (tensor.dim() == 4 and tensor.shape[2:].numel() == 1))


def _check_head_width(tensors: Mapping[str, Tensor]) -> None:
    """Raise an error if the classifier takes another number of features than the last block gives."""
    numbers = [
        (*map(int, match.groups()), tensors[match[0]].shape[0])
        for match in map(_LAST_CONVOLUTION.fullmatch, tensors)
        if match and tensors[match[0]].dim() == 4
    ]
    features = max(numbers)[-1] if numbers else None
    taken = tensors["fc.weight"].shape[1]
    if features is not None and taken != features:
        pooling = ": it follows average and maximum pooling, as fastai's" if taken == 2 * features else ""
        raise ModelMismatchError(
            f"the classifier takes {taken} features, but the last block gives {features}{pooling}",
            code="classifier-width",
            hint="export a network that ends in global average pooling and one linear layer",
        )
