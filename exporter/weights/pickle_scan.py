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
from typing import BinaryIO, NamedTuple

from exporter.weights import foreign_files
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

_TORCH_DATA = re.compile(r"torch\.([A-Za-z0-9]{1,20}Storage|b?float\d{1,3}\w{0,16}|u?int\d{1,3}|complex\d{1,3}|bool)")
"""The names of storage classes and dtypes."""

RESAVE = (
    "save only the weights, where the file was made: "
    "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
)
"""The hint for a file that holds more than tensors."""


class ProtocolError(ArtifactError):
    """The pickle has another protocol than ``PROTOCOL``, and nothing else is wrong with it."""


class Content(NamedTuple):
    """The content of a pickle that refers to certain names.

    Attributes:
        pattern: The names.
        what: The content, which completes "the file holds".
        hint: The change that makes such a file readable.
    """

    pattern: str
    what: str
    hint: str


HARMLESS: tuple[Content, ...] = (
    Content(
        r"torch\._utils\._rebuild_qtensor|torch\.per_(tensor|channel)_(affine|symmetric)\w*",
        "quantised tensors; rexport takes float weights and quantises them itself, with --precision int8",
        "save the float model: safetensors.torch.save_file(float_model.state_dict(), 'model.safetensors')",
    ),
    Content(
        r"numpy(\.\w+)*\.(_reconstruct|_frombuffer|ndarray)",
        "NumPy arrays, which are no tensors",
        foreign_files.FROM_NUMPY,
    ),
    Content(
        r"torch\._utils\._rebuild_sparse\w*|torch\.sparse_\w+|torch\.serialization\._get_layout",
        "sparse tensors, not plain ones",
        "save {name: tensor.to_dense() for name, tensor in state.items()}",
    ),
    Content(
        r"torch\._utils\._rebuild_meta\w*",
        "tensors of the meta device, which have shapes and no numbers",
        "load the weights into the model before it is saved",
    ),
    Content(
        r"torch\._utils\._rebuild_(device_tensor_from_\w+|xla_tensor|nested_tensor)",
        "tensors of another device or layout, which the CPU cannot read",
        "save {name: tensor.cpu() for name, tensor in state.items()}",
    ),
)
"""Contents that run no code and that are no plain tensors."""

_CODE: tuple[tuple[str, str], ...] = (
    (r"torch\.nn\..+|(torchvision|timm)\.models\..+|(.+\.)?(ResNet|PreActResNet|WideResNet)\w*", "a whole module"),
    (r"torch\.(ao|quantization)\..+", "modules of a quantised network"),
    (r"argparse\.Namespace|omegaconf\..+", "settings of the training"),
    (r"numpy\..+", "NumPy numbers"),
)
"""Patterns of other names that a pickle may not refer to, each with a description of what such a file holds."""


@dataclass(frozen=True)
class _Item:
    """An item on the unpickler's stack: its nesting depth, its text if it is a string, and whether it is a function."""

    depth: int = 0
    text: str = ""
    function: bool = False


_MARK = _Item(-1)


_FILLS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})
"""Instructions that put the popped items into the container below them."""


_CALLS = frozenset({"REDUCE", "NEWOBJ"})
"""Instructions that call the lowest of the popped items."""


def _enclosing_depth(items: list[_Item]) -> int:
    return 1 + max((item.depth for item in items), default=-1)


@dataclass
class _Walk:
    """The unpickler's stack and memo, with depths instead of values, and the first content that is no plain tensor."""

    stack: list[_Item] = field(default_factory=list)
    memo: dict[int, _Item] = field(default_factory=dict)
    other: tuple[Content, str] | None = None
    tensors: bool = False

    def refer(self, name: str) -> None:
        """Check a name to which the pickle refers.

        Raises:
            UnsafeArtifactError: Weights do not need the name.
        """
        if name in ALLOWED_GLOBALS or _TORCH_DATA.fullmatch(name):
            self.tensors = self.tensors or name.startswith("torch._utils._rebuild")
            return
        if name in ("_codecs.encode", "numpy.dtype") and self.other is not None:  # parts of arrays, refused anyhow
            return
        content = next((row for row in HARMLESS if re.fullmatch(row.pattern, name)), None)
        if content is None:
            raise _unsafe(name)
        self.other = self.other or (content, name)

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
            self.stack.append(_Item(text=argument, function=opcode.name == "GLOBAL"))
        else:
            self._build(opcode)

    def _build(self, opcode: pickletools.OpcodeInfo) -> None:
        before = list(opcode.stack_before)
        popped: list[_Item] = []
        if pickletools.markobject in before:
            popped = self.pop_to_mark()
            before = before[: before.index(pickletools.markobject)]
        popped += [self.stack.pop() for _ in before]
        if opcode.name in _CALLS and not popped[-1].function:
            # PyTorch writes such a value into its message, and searches the message in quadratic time.
            raise ValueError("a value is called that is no function")
        if (
            opcode.name in _FILLS
        ):  # the container was popped last; filling it in several batches does not increase its depth
            container = popped.pop()
            self.stack.append(_Item(max(container.depth, _enclosing_depth(popped))))
        elif opcode.stack_after:
            function = opcode.name == "STACK_GLOBAL"
            self.stack.extend(_Item(_enclosing_depth(popped), function=function) for _ in opcode.stack_after)


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
                walk.refer(str(argument).replace(" ", ".", 1))
            elif opcode.name == "STACK_GLOBAL":
                walk.refer(f"{walk.stack[-2].text}.{walk.stack[-1].text}")
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
    if walk.other is not None:
        raise _not_tensors(walk, *walk.other)
    if protocol != PROTOCOL:
        raise ProtocolError(
            f"the file has pickle protocol {protocol}; only protocol {PROTOCOL}, the default of torch.save, is "
            "supported",
            code="pickle-protocol",
            hint=RESAVE,
        )


def explain(stream: BinaryIO) -> None:
    """Raise an error if the beginning of a pickle shows that it holds something else than tensors.

    Args:
        stream: The pickle, which may be cut off.

    Raises:
        UnsafeArtifactError: As for ``check``.
        ArtifactError: It holds something else than tensors.
    """
    walk = _Walk()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                walk.refer(str(argument).replace(" ", ".", 1))
            elif opcode.name == "STACK_GLOBAL":
                walk.refer(f"{walk.stack[-2].text}.{walk.stack[-1].text}")
            walk.step(opcode, argument)
    except (ValueError, IndexError, KeyError, OverflowError):
        pass  # the pickle is cut off
    if walk.other is not None:
        raise _not_tensors(walk, *walk.other)


def _not_tensors(walk: _Walk, content: Content, name: str) -> ArtifactError:
    hint = RESAVE if walk.tensors and content.hint == foreign_files.FROM_NUMPY else content.hint
    return ArtifactError(f"the file holds {content.what} ({quote(name)})", code="weights-not-tensors", hint=hint)


def _unsafe(name: str) -> UnsafeArtifactError:
    meaning = next((f" ({words})" for pattern, words in _CODE if re.fullmatch(pattern, name)), "")
    return UnsafeArtifactError(
        f"the pickle calls {quote(name)!r}{meaning}, which could run code and which weights do not need",
        code="pickle-calls-code",
        hint=RESAVE,
    )
