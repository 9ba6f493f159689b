"""CIFAR-10 as its author publishes it (Krizhevsky 2009): the Python version's pickles and the binary version.

A pickle is a program. The published files alone are unpickled, by their digests; every other one is refused unread.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from exporter.data.archives import Members
from exporter.data.class_folders import Split
from runtimes.errors import ArtifactError, UnsafeArtifactError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of the published targets."""

PUBLISHED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The pickles that may be executed. MD5 is what is known of them; nobody can make another file for a given digest."""

MAX_BATCH_BYTES = 64 << 20
"""Of one file; the published ones have 31 MB."""

_ROW_BYTES = 3 * 32 * 32

_Table = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read(members: Members, wanted: Split = "test") -> tuple[NDArray[np.uint8], NDArray[np.int64], Split] | None:
    """Images (n, 32, 32, 3), targets (n,) and which they are: the wanted ones or, where they are not there, the others.

    ``None`` if CIFAR-10's files are not among the members.

    Raises:
        ArtifactError: a file is damaged or holds something else.
        UnsafeArtifactError: a pickle that is not the published file of its name.
        ResourceError: a file cannot be read.
    """
    for pattern, split, parse in sorted(_BATCHES, key=lambda row: row[1] != wanted):
        names = [name for name in members.files if re.fullmatch(pattern, PurePosixPath(name).name)]
        if names:
            rows, targets = zip(*(_read_table(members, name, parse) for name in names), strict=True)
            planes = np.concatenate(rows).reshape(-1, 3, 32, 32)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(targets), split
    return None


def _read_table(members: Members, name: str, parse: Callable[[str, bytes], _Table]) -> _Table:
    try:
        return parse(PurePosixPath(name).name, members.read(name, MAX_BATCH_BYTES))
    except ArtifactError as error:
        raise type(error)(error.what, code=error.code, path=members.place / name, hint=error.hint) from error


def _parse_binary(_: str, content: bytes) -> _Table:
    if not content or len(content) % (1 + _ROW_BYTES):
        raise ArtifactError(
            f"{len(content):,} bytes are no whole number of records of {1 + _ROW_BYTES:,} bytes",
            code="cifar-record-size",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _ROW_BYTES)
    targets = records[:, 0].astype(np.int64)
    if targets.max() >= len(CLASSES):
        raise ArtifactError(
            f"labels from {targets.min()} to {targets.max()}; CIFAR-10's are 0 to 9", code="cifar-label-range"
        )
    return records[:, 1:], targets


def _parse_pickle(name: str, content: bytes) -> _Table:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != PUBLISHED_MD5.get(name):
        raise UnsafeArtifactError(
            f"a pickle that is not the published {name}; unpickling it could run code",
            code="cifar-pickle-unknown",
            hint="take the file from its author's page, or the binary version: test_batch.bin, data_batch_1.bin",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of how arrays were pickled in 2009
        table = pickle.loads(content, encoding="bytes")
    return table[b"data"], np.array(table[b"labels"], np.int64)


_BATCHES: tuple[tuple[str, Split, Callable[[str, bytes], _Table]], ...] = (
    (r"test_batch", "test", _parse_pickle),
    (r"test_batch\.bin", "test", _parse_binary),
    (r"data_batch_\d", "train", _parse_pickle),
    (r"data_batch_\d\.bin", "train", _parse_binary),
)
"""Names of the published files. Of those that are there, the first of the wanted split are taken."""
