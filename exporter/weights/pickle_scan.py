"""A look at a pickle's instructions before anything executes them.

PyTorch's restricted unpickler runs no foreign code, but it can be made to crash or to swell: hashing a tuple nested a
million deep overflows the C stack, and repeated ``_codecs.encode`` doubles a string at each call. So a pickle is
walked here first, as a stack of nesting depths, and only what state dicts and training checkpoints hold goes on.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import BinaryIO

from runtimes.errors import ArtifactError, UnsafeArtifactError, quote

MAX_DEPTH = 64
"""Of containers within containers; a training checkpoint has fewer than ten."""

PROTOCOL = 2
"""What ``torch.save`` writes unless told otherwise, and all that the restricted unpickler knows."""

ALLOWED_GLOBALS = frozenset(
    {
        "collections.OrderedDict",
        "collections.Counter",
        "builtins.set",
        "__builtin__.set",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch.storage.UntypedStorage",
    }
)
"""Names that a pickle may refer to, besides those of ``_TORCH_DATA``."""

_TORCH_DATA = re.compile(r"torch\.([A-Za-z0-9]+Storage|b?float\d+\w*|u?int\d+|complex\d+|bool)")
"""Storage classes and dtypes."""

RESAVE = (
    "where it was made, save the weights alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)
"""The hint for everything that holds more than tensors."""


@dataclass(frozen=True)
class _Item:
    """What stands on the unpickler's stack: how deeply nested it is, and its text if it is a string."""

    depth: int = 0
    text: str = ""


_MARK = _Item(-1)


_FILLS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Instructions that put what was popped into the container below it."""


def _enclosing_depth(items: list[_Item]) -> int:
    return 1 + max((item.depth for item in items), default=-1)


@dataclass
class _Walk:
    """The unpickler's stack and memo, with depths in place of values."""

    stack: list[_Item] = field(default_factory=list)
    memo: dict[int, _Item] = field(default_factory=dict)

    def pop_to_mark(self) -> list[_Item]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Does what the instruction does. Raises ``IndexError`` or ``KeyError`` for one that cannot be done."""
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(str(argument))] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(str(argument))])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif isinstance(argument, str) and not opcode.stack_before:
            self.stack.append(_Item(text=argument))
        else:
            self._build(opcode)

    def _build(self, opcode: pickletools.OpcodeInfo) -> None:
        before = list(opcode.stack_before)
        taken: list[_Item] = []
        if pickletools.markobject in before:
            taken = self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        taken += [self.stack.pop() for _ in before]
        if opcode.name in _FILLS:  # the container was popped last; filling it in batches does not nest it deeper
            container = taken.pop()
            self.stack.append(_Item(max(container.depth, _enclosing_depth(taken))))
        elif opcode.stack_after:
            self.stack.extend(_Item(_enclosing_depth(taken)) for _ in opcode.stack_after)


def check(stream: BinaryIO) -> None:
    """Walks one pickle from the stream's place to just behind its end; nothing of it is executed.

    Raises:
        UnsafeArtifactError: it refers to a function or class that weights do not need, or nests too deeply.
        ArtifactError: it is cut off or damaged, or of a pickle protocol that cannot be read safely.
    """
    walk = _Walk()
    protocol = 0
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "PROTO":
                protocol = int(str(argument))
            elif opcode.name in ("GLOBAL", "INST"):
                _check_global(str(argument).replace(" ", ".", 1))
            elif opcode.name == "STACK_GLOBAL":
                _check_global(f"{walk.stack[-2].text}.{walk.stack[-1].text}")
            walk.step(opcode, argument)
            if walk.stack and walk.stack[-1].depth > MAX_DEPTH:
                raise UnsafeArtifactError(
                    f"its pickle nests more than {MAX_DEPTH} levels deep", code="pickle-too-deep", hint=RESAVE
                )
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ArtifactError(
            f"truncated or damaged: its pickle is broken off ({quote(error)})", code="pickle-damaged"
        ) from error
    if protocol != PROTOCOL:
        raise ArtifactError(
            f"written with pickle protocol {protocol}; protocol {PROTOCOL}, torch.save's default, can be read safely",
            code="pickle-protocol",
            hint=RESAVE,
        )


def _check_global(name: str) -> None:
    if name not in ALLOWED_GLOBALS and not _TORCH_DATA.fullmatch(name):
        raise UnsafeArtifactError(
            f"it is a pickle that calls {quote(name)!r}, which could run code and which weights do not need",
            code="pickle-calls-code",
            hint=RESAVE,
        )
