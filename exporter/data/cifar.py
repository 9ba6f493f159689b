"""CIFAR-10 as published by its author (Krizhevsky 2009): the pickles of the Python version, or the binary version.

Unpickling can run code. Only the published files are unpickled, which are identified by their digests. Any other pickle
is rejected.
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
"""The class names in the order of the published targets."""

PUBLISHED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""The digests of the pickles that may be unpickled.

Only MD5 digests are published. MD5 still resists the search for another file with a given digest.
"""

MAX_BATCH_BYTES = 64 << 20
"""The largest size of one file. The published files have 31 MB."""

_ROW_BYTES = 3 * 32 * 32

_Table = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read(members: Members, wanted: Split = "test") -> tuple[NDArray[np.uint8], NDArray[np.int64], Split] | None:
    """Return the images of CIFAR-10, or ``None`` if its files are not among the members.

    Args:
        members: The files of a folder or an archive.
        wanted: The preferred split. If its files are missing, the other split is returned.

    Returns:
        The images, uint8 (n, 32, 32, 3), the targets, int64 (n,), and the split they belong to. The arrays belong to
        the caller.

    Raises:
        ArtifactError: A file is damaged or has other content.
        UnsafeArtifactError: A pickle is not the published file of its name.
        ResourceError: A file cannot be read.
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
            f"the file has {len(content):,} bytes, not a multiple of the record size of {1 + _ROW_BYTES:,} bytes",
            code="cifar-record-size",
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _ROW_BYTES)
    targets = records[:, 0].astype(np.int64)
    if targets.max() >= len(CLASSES):
        raise ArtifactError(
            f"the labels range from {targets.min()} to {targets.max()}; those of CIFAR-10 are 0 to 9",
            code="cifar-label-range",
        )
    return records[:, 1:], targets


def _parse_pickle(name: str, content: bytes) -> _Table:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != PUBLISHED_MD5.get(name):
        raise UnsafeArtifactError(
            f"the file is not the published {name}, and unpickling it could run code",
            code="cifar-pickle-unknown",
            hint="get CIFAR-10 from www.cs.toronto.edu/~kriz/cifar.html, or use the binary version (test_batch.bin)",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about the way arrays were pickled in 2009
        table = pickle.loads(content, encoding="bytes")
    return table[b"data"], np.array(table[b"labels"], np.int64)


_BATCHES: tuple[tuple[str, Split, Callable[[str, bytes], _Table]], ...] = (
    (r"test_batch", "test", _parse_pickle),
    (r"test_batch\.bin", "test", _parse_binary),
    (r"data_batch_\d", "train", _parse_pickle),
    (r"data_batch_\d\.bin", "train", _parse_binary),
)
"""Name, split and parser of the published files. The first row of the wanted split with existing files is used."""
