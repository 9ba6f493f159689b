"""CIFAR-10 as its author publishes it (Krizhevsky 2009): the Python version's pickles and the binary version.

A pickle is a program. Ours is walked first and may hold only the instructions that plain tables need; what it then
calls are stand-ins of this file that take shapes and bytes, so that nothing of NumPy or any other library is reached.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.data.archives import Members
from exporter.data.class_folders import Split
from runtimes.errors import ArtifactError, UnsafeArtifactError, quote

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the published targets."""

MAX_BATCH_BYTES = 64 << 20
"""Of one file; the published ones have 31 MB."""

_ROW_BYTES = 3 * 32 * 32

_Table = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read(members: Members, wanted: Split = "test") -> tuple[NDArray[np.uint8], NDArray[np.int64], Split] | None:
    """Images (n, 32, 32, 3), targets (n,) and which they are: the wanted ones or, where they are not there, the others.

    ``None`` if CIFAR-10's files are not among the members.

    Raises:
        ArtifactError: a file is damaged or holds something else.
        UnsafeArtifactError: a pickle that asks for more than a table needs.
        ResourceError: a file cannot be read.
    """
    for pattern, split, parse in sorted(_BATCHES, key=lambda row: row[1] != wanted):
        names = [name for name in members.files if re.fullmatch(pattern, PurePosixPath(name).name)]
        if names:
            rows, targets = zip(*(_table(members, name, parse) for name in names), strict=True)
            planes = np.concatenate(rows).reshape(-1, 3, 32, 32)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(targets), split
    return None


def _table(members: Members, name: str, parse: Callable[[bytes], _Table]) -> _Table:
    try:
        return parse(members.read(name, MAX_BATCH_BYTES))
    except ArtifactError as error:
        raise type(error)(error.what, code=error.code, path=members.place / name, hint=error.hint) from error


def _from_binary(content: bytes) -> _Table:
    if not content or len(content) % (1 + _ROW_BYTES):
        raise ArtifactError(
            f"{len(content):,} bytes are no whole number of records of {1 + _ROW_BYTES:,} bytes",
            code="cifar-record-size",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _ROW_BYTES)
    return records[:, 1:], _check_targets(records[:, 0].astype(np.int64))


def _from_pickle(content: bytes) -> _Table:
    table = _unpickle(content)
    if not isinstance(table, dict):
        raise ArtifactError(f"a pickled {type(table).__name__}; expected a dictionary with data and labels")
    named = {key.decode("ascii", "replace") if isinstance(key, bytes) else key: value for key, value in table.items()}
    data, labels = named.get("data"), named.get("labels")
    if not isinstance(data, _Array) or not isinstance(labels, list):
        raise ArtifactError("expected a dictionary with an array under data and a list under labels")
    if not all(type(label) is int and abs(label) < 1000 for label in labels):
        raise ArtifactError("its labels are not small whole numbers")
    rows = data.rows()
    if len(rows) != len(labels):
        raise ArtifactError(f"{len(rows)} images and {len(labels)} labels")
    return rows, _check_targets(np.array(labels, np.int64))


def _check_targets(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    if targets.min() < 0 or targets.max() >= len(CLASSES):
        raise ArtifactError(
            f"labels from {targets.min()} to {targets.max()}; CIFAR-10's are 0 to 9", code="cifar-label-range"
        )
    return targets


_BATCHES: tuple[tuple[str, Split, Callable[[bytes], _Table]], ...] = (
    (r"test_batch", "test", _from_pickle),
    (r"test_batch\.bin", "test", _from_binary),
    (r"data_batch_\d", "train", _from_pickle),
    (r"data_batch_\d\.bin", "train", _from_binary),
)
"""Names of the published files. Of those that are there, the first of the wanted split are taken."""

_INSTRUCTIONS = frozenset(
    [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "NONE",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
        "MEMOIZE",
        "BININT",
        "BININT1",
        "BININT2",
        "NEWTRUE",
        "NEWFALSE",
        "SHORT_BINSTRING",
        "BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "EMPTY_DICT",
        "EMPTY_LIST",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "APPEND",
        "APPENDS",
        "SETITEM",
        "SETITEMS",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
    ]
)
_MAKES_CONTAINER = frozenset(["EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"])
_MAX_CONTAINERS = 64
"""The published files have a dozen. Bounds the nesting too, whose depth could overflow the interpreter's stack."""

_MAX_INSTRUCTIONS = 1 << 20
"""A batch of 10,000 images with their file names takes some 30,000."""


def _walk(content: bytes) -> None:
    """Reads the pickle's instructions without executing them.

    Raises:
        UnsafeArtifactError: an instruction, or a number of them, that a table does not need.
        ArtifactError: no pickle, or broken off.
    """
    containers = end = 0
    try:
        for count, (instruction, argument, place) in enumerate(pickletools.genops(content)):
            name = instruction.name
            containers += name in _MAKES_CONTAINER
            distant = name == "LONG_BINPUT" and int(str(argument)) > _MAX_INSTRUCTIONS
            too_many = count > _MAX_INSTRUCTIONS or containers > _MAX_CONTAINERS
            if name not in _INSTRUCTIONS or distant or too_many:
                raise UnsafeArtifactError(f"its pickle holds what no table of images needs ({name} at byte {place})")
            end = int(place or 0) + 1
    except ValueError as error:
        raise ArtifactError(f"no pickle, or a damaged one: {quote(error)}") from error
    if end != len(content):
        raise ArtifactError(f"{len(content) - end:,} bytes follow its pickle")


def _unpickle(content: bytes) -> object:
    _walk(content)
    try:
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except ArtifactError:
        raise
    except Exception as error:  # the stack machine stumbles in many ways over a damaged program
        raise ArtifactError(f"a damaged pickle: {quote(error) or type(error).__name__}") from error


class _Type:
    """Stands in for ``numpy.dtype``: a code such as ``u1``."""

    __slots__ = ("code",)

    def __init__(self, code: object) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which unsigned bytes have not."""


class _Array:
    """Stands in for ``numpy.ndarray``: the state that its pickle carries."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def rows(self) -> NDArray[np.uint8]:
        """(n, 3072) uint8. Raises ArtifactError if that is not what it holds."""
        match self.state:
            case (int(), (int(count), int(width)), _Type(code="u1"), order, bytes(content)) if (
                width == _ROW_BYTES and 0 < count == len(content) / width and order in (0, 1, False, True)
            ):
                return np.frombuffer(content, np.uint8).reshape((count, width), order="F" if order else "C")
        raise ArtifactError(f"its data is no array of uint8 (n, {_ROW_BYTES})")


class _Call:
    """Stands in for a function. The program can call it and cannot alter it."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise UnsafeArtifactError("its pickle tries to alter a function")


class _Unpickler(pickle.Unpickler):
    """Knows three names, and none of them is what it says."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in. Raises UnsafeArtifactError for any other name."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return _Call(lambda *_: _Array())
        if (module, name) == ("numpy", "dtype"):
            return _Call(lambda code, *_: _Type(code))
        if (module, name) == ("numpy", "ndarray"):
            return None
        raise UnsafeArtifactError(
            f"its pickle calls {quote(f'{module}.{name}')!r}, which could run code and which CIFAR-10 does not need",
            hint="take the file from its author's page",
        )
