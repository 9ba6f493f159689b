"""A check of the instructions of a pickle before PyTorch executes them.

PyTorch's restricted unpickler runs no foreign code, but a pickle can crash it or exhaust memory. Hashing a tuple nested
a million deep overflows the C stack, and repeated calls of ``_codecs.encode`` double a string each time. Therefore the
check simulates the unpickler's stack with nesting depths instead of values. It accepts only the content of state dicts
and training checkpoints.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from typing import BinaryIO

from runtimes.errors import ArtifactError, UnsafeArtifactError, quote

MAX_DEPTH = 64
"""The largest depth of nested containers. A training checkpoint has a depth below ten."""

PROTOCOL = 2
"""The default pickle protocol of ``torch.save``, and the only one that the restricted unpickler knows."""

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
"""The names that a pickle may refer to, besides those of ``_TORCH_DATA``."""

_TORCH_DATA = re.compile(r"torch\.([A-Za-z0-9]+Storage|b?float\d+\w*|u?int\d+|complex\d+|bool)")
"""The names of storage classes and dtypes."""

_MEANINGS = (
    (r"torch\._utils\._rebuild_qtensor|torch\.(ao|quantization)\..+", "quantised weights"),
    (r"torch\.nn\..+|(torchvision|timm)\.models\..+|(.+\.)?(ResNet|PreActResNet|WideResNet)\w*", "a whole module"),
    (r"numpy\..+", "NumPy data"),
    (r"argparse\.Namespace|omegaconf\..+", "settings of the training"),
)
"""Patterns of names that a pickle may not refer to, each with a description of what such a file holds."""

RESAVE = (
    "save only the weights, where the file was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)
"""The hint for a file that holds more than tensors."""


@dataclass(frozen=True)
class _Item:
    """An item on the unpickler's stack: its nesting depth, and its text if it is a string."""

    depth: int = 0
    text: str = ""


_MARK = _Item(-1)


_FILLS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Instructions that put the popped items into the container below them."""


def _enclosing_depth(items: list[_Item]) -> int:
    return 1 + max((item.depth for item in items), default=-1)


@dataclass
class _Walk:
    """The unpickler's stack and memo, with depths instead of values."""

    stack: list[_Item] = field(default_factory=list)
    memo: dict[int, _Item] = field(default_factory=dict)

    def pop_to_mark(self) -> list[_Item]:
        """Pop the items above the last mark, and the mark."""
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items

    def step(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        """Execute an instruction. An instruction that cannot be executed raises ``IndexError`` or ``KeyError``."""
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
        popped: list[_Item] = []
        if pickletools.markobject in before:
            popped = self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        popped += [self.stack.pop() for _ in before]
        if (
            opcode.name in _FILLS
        ):  # the container was popped last; filling it in several batches does not increase its depth
            container = popped.pop()
            self.stack.append(_Item(max(container.depth, _enclosing_depth(popped))))
        elif opcode.stack_after:
            self.stack.extend(_Item(_enclosing_depth(popped)) for _ in opcode.stack_after)


def check(stream: BinaryIO) -> None:
    """Check one pickle in a stream, from the current position to the end of the pickle. Nothing is executed.

    Raises:
        UnsafeArtifactError: The pickle refers to a function or class that weights do not need, or nests too deeply.
        ArtifactError: The pickle is truncated or damaged, or has another protocol than ``PROTOCOL``.
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
                    f"the pickle nests containers more than {MAX_DEPTH} levels deep",
                    code="pickle-too-deep",
                    hint=RESAVE,
                )
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ArtifactError(
            f"the file is truncated or damaged: its pickle cannot be read ({quote(error)})", code="pickle-damaged"
        ) from error
    if protocol != PROTOCOL:
        raise ArtifactError(
            f"the file has pickle protocol {protocol}; only protocol {PROTOCOL}, the default of torch.save, is "
            "supported",
            code="pickle-protocol",
            hint=RESAVE,
        )


def _check_global(name: str) -> None:
    if name not in ALLOWED_GLOBALS and not _TORCH_DATA.fullmatch(name):
        meaning = next((f" ({words})" for pattern, words in _MEANINGS if re.fullmatch(pattern, name)), "")
        raise UnsafeArtifactError(
            f"the pickle calls {quote(name)!r}{meaning}, which could run code and which weights do not need",
            code="pickle-calls-code",
            hint=RESAVE,
        )
