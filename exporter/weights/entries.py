"""The entry of a training checkpoint that holds the weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from exporter.weights import pickle_scan, safetensors_header
from exporter.weights.layouts import AVERAGE
from runtimes.errors import ArtifactError, ModelMismatchError, UsageError, quote
from runtimes.escaping import shell_word

if TYPE_CHECKING:
    from torch import Tensor

MAX_TENSORS = safetensors_header.MAX_TENSORS
"""The largest number of entries in a state dict."""

MAX_NAME = 500
"""The largest number of characters in the name of a tensor."""

CONTAINERS = (
    "state_dict", "model", "model_state", "model_state_dict", "net", "network", "weights", "teacher", "student"
)  # fmt: skip
"""The entries of a training checkpoint that may hold the weights, also one inside another."""

_AVERAGE = re.compile(AVERAGE, re.IGNORECASE)
"""The names of entries of a training checkpoint that hold averaged weights. They are read only on request."""

MAX_DEPTH = 3
"""The largest depth at which entries of a training checkpoint are searched for weights."""

MAX_HINTS = 5
"""The largest number of entries in a hint."""


@dataclass(frozen=True)
class Selection:
    """The part of a checkpoint that is read. ``None`` means that the file determines it.

    Attributes:
        key: The entry that holds the weights, with dots for entries inside others.
        prefix: The beginning of the names of the network's tensors.
        headless: Whether the network may be a trunk without a classifier.
        sha256: The SHA-256 that the file must have, as 64 hexadecimal digits in lower case.
    """

    key: str | None = None
    prefix: str | None = None
    headless: bool = False
    sha256: str | None = None


ANY_ENTRY = Selection()
"""The selection that the file determines."""


@dataclass(frozen=True)
class StoredState:
    """The named tensors of a file.

    Attributes:
        tensors: The tensors on the CPU, with their stored dtypes. They may share memory with each other.
        entry: The entry of a training checkpoint that holds them, with dots for entries inside others, or ``None``.
        averages: The other entries that hold the same network, which may be averaged weights.
        sha256: The SHA-256 of the file, if it was compared with the expected one.
    """

    tensors: dict[str, Tensor]
    entry: str | None = None
    averages: tuple[str, ...] = ()
    sha256: str | None = None


_DIGEST = re.compile(r"(sha256:)?(?P<digits>[0-9a-f]{64})", re.IGNORECASE)


def parse_digest(text: str) -> str:
    """Return a SHA-256 digest as 64 hexadecimal digits in lower case.

    Args:
        text: The digits in upper or lower case, also after ``sha256:``.

    Raises:
        UsageError: The text is no SHA-256 digest.
    """
    match = _DIGEST.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"a SHA-256 has 64 hexadecimal digits, not {quote(text)!r}",
            code="expected-digest-invalid",
            hint="sha256sum FILE prints it",
        )
    return match["digits"].lower()


def choose(content: object, key: str | None) -> StoredState:
    """Return the dict that holds the weights. Each of its entries is a plain tensor.

    Args:
        content: The content of a file of ``torch.save``.
        key: The entry to take, with dots for entries inside others, or ``None`` to search for it.

    Raises:
        ArtifactError: The content or the entry is no dict of tensors.
        UsageError: There is no entry ``key`` with tensors.
        ModelMismatchError: Several entries may be the weights, or only averaged weights are there.
    """
    if not isinstance(content, Mapping):
        raise ArtifactError(
            f"the file holds a {type(content).__name__}, not a state dict",
            code="state-dict-missing",
            hint=pickle_scan.RESAVE,
        )
    entry, averages = (key, ()) if key is not None else _choose_entry(content)
    chosen = content if entry is None else _entry(content, entry)
    location = "" if entry is None else f" under {quote(entry)!r}"
    if len(chosen) > MAX_TENSORS:
        raise ArtifactError(
            f"the state dict{location} has {len(chosen):,} entries; at most {MAX_TENSORS:,} are supported",
            code="too-many-entries",
        )
    tensors: dict[str, Tensor] = {}
    for name, value in chosen.items():
        if isinstance(name, str) and len(name) > MAX_NAME:
            raise ArtifactError(
                f"the name of an entry{location} has {len(name):,} characters; at most {MAX_NAME} are supported",
                code="entry-name-long",
            )
        if not isinstance(name, str) or not _is_tensor(value):
            raise ArtifactError(
                f"entry {quote(name)!r}{location} is a {type(value).__name__}, not a tensor",
                code="entry-not-tensor",
                hint=pickle_scan.RESAVE,
            )
        tensors[name] = value.detach()
    return StoredState(tensors, entry, averages)


def _choose_entry(content: Mapping[object, object]) -> tuple[str | None, tuple[str, ...]]:
    """Return the entry that holds the weights, ``None`` for the top level, and the entries with averaged weights."""
    everything = dict(_entries(content, None))
    averages = tuple(name for name in everything if any(map(_AVERAGE.fullmatch, name.split("."))))
    plain = [name for name, _ in _entries(content, CONTAINERS) if name not in averages]
    if len(plain) > 1:
        raise ModelMismatchError(
            f"the entries {' and '.join(map(repr, plain))} both hold weights",
            code="weights-entries-ambiguous",
            hint=_key_options(plain),
        )
    if plain:
        weights = everything[plain[0]]
        return plain[0], tuple(
            name
            for name, other in everything.items()
            if name != plain[0] and (name in averages or not _shapes(weights) - _shapes(other))
        )
    if averages:
        raise ModelMismatchError(
            f"the file holds only averaged weights, under {' and '.join(map(repr, averages))}",
            code="weights-averaged-only",
            hint=_key_options(averages),
        )
    other = list(everything)
    if not other and any(map(_is_tensor, content.values())):
        return None, ()
    if {"state", "param_groups"} <= content.keys():
        raise ArtifactError(
            "the file holds the state of an optimizer, and no weights",
            code="weights-optimizer-only",
            hint="use the file that was saved from model.state_dict()",
        )
    raise ArtifactError(
        f"the file holds no weights, neither at its top level nor under {', '.join(CONTAINERS)}",
        code="tensors-missing",
        hint=_key_options(other) if other else pickle_scan.RESAVE,
    )


def _entries(
    content: Mapping[object, object], names: Sequence[str] | None, depth: int = MAX_DEPTH
) -> Iterator[tuple[str, Mapping[object, object]]]:
    """Yield the entries that hold tensors, with dots for entries inside others. ``None`` means all names."""
    for name, inner in content.items():
        if not isinstance(name, str) or not isinstance(inner, Mapping) or (names is not None and name not in names):
            continue
        if any(map(_is_tensor, inner.values())):
            yield name, inner
        elif depth > 1:
            yield from ((f"{name}.{rest}", state) for rest, state in _entries(inner, names, depth - 1))


def _shapes(state: Mapping[object, object]) -> Counter[tuple[int, ...]]:
    """Return how many tensors of each shape there are. A copy of a network has the same ones, whatever their names."""
    return Counter(tuple(value.shape) for value in state.values() if _is_tensor(value))


def _entry(content: Mapping[object, object], key: str) -> Mapping[object, object]:
    """Return the entry of a checkpoint, with dots for entries inside others.

    Raises:
        UsageError: There is no such entry with tensors.
    """
    inner: object = content
    for part in key.split("."):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    if isinstance(inner, Mapping) and any(map(_is_tensor, inner.values())):
        return inner
    other = [name for name, _ in _entries(content, None)]
    raise UsageError(
        f"the file has no entry {quote(key)!r} that holds tensors",
        code="weights-entry-absent",
        hint=_key_options(other) if other else "omit --key",
    )


def _key_options(names: Sequence[str]) -> str:
    """Return the options for the first entries, as a hint."""
    return " or ".join(f"--key {shell_word(name)}" for name in names[:MAX_HINTS])


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    import torch

    return type(value) in (torch.Tensor, torch.nn.Parameter)
