"""Checks of the header of a ``.safetensors`` file before the safetensors library reads the file.

The library itself accepts duplicate names, and takes seconds for some hundred thousand empty tensors.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

from runtimes import codec
from runtimes.errors import ArtifactError, quote

MAX_FORMAT_HEADER_BYTES = 100_000_000
"""The largest header that the format allows."""

MAX_HEADER_BYTES = 8 << 20
"""The largest header that is read: about 400 bytes for each of ``MAX_TENSORS``."""

MAX_TENSORS = 20_000
"""The largest number of tensors. The deepest variant, resnet1202, has 7,208."""

MAX_RANK = 8
"""The largest number of dimensions of a tensor."""

_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""The size of one number by dtype."""


def recognise(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` looks like safetensors: eight bytes of length, then JSON."""
    return head[8:9] == b"{" and head[9:10] in (b'"', b"}", b" ")


def check(content: bytes) -> None:
    """Check the header of a whole file against the format.

    Args:
        content: The content of the file, at least 8 bytes.

    Raises:
        ArtifactError: The length, JSON, names, dtypes, shapes or offsets are wrong. The message says which.
    """
    (length,) = struct.unpack_from("<Q", content)
    if length > len(content) - 8:
        raise ArtifactError(
            f"the file is truncated: its safetensors header has {length:,} bytes, but the file has {len(content):,}",
            code="safetensors-truncated",
        )
    if length > MAX_HEADER_BYTES:
        allowed = MAX_FORMAT_HEADER_BYTES if length > MAX_FORMAT_HEADER_BYTES else MAX_HEADER_BYTES
        raise ArtifactError(
            f"the safetensors header has {length:,} bytes; at most {allowed:,} are allowed",
            code="safetensors-header-large",
        )
    header = content[8 : 8 + length]
    if header.count(b'"data_offsets"') > MAX_TENSORS:
        raise ArtifactError(
            f"the file has more than {MAX_TENSORS:,} tensors; no variant has so many", code="too-many-tensors"
        )
    entries = _parse_header(header)
    entries.pop("__metadata__", None)
    _check_cover({name: _extent(name, entry) for name, entry in entries.items()}, len(content) - 8 - length)


def _parse_header(header: bytes) -> dict[str, object]:
    try:
        data = json.loads(header.decode("utf-8"), object_pairs_hook=codec.unique_names)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"the file is damaged: its safetensors header is invalid ({quote(error)})",
            code="safetensors-header-invalid",
        ) from error
    if not isinstance(data, dict):
        raise ArtifactError(
            "the file is damaged: its safetensors header is not a JSON object", code="safetensors-header-shape"
        )
    return data


def _extent(name: str, entry: object) -> tuple[int, int]:
    """Return the offsets of the first byte and of the end of a tensor, counted from the end of the header."""
    if not isinstance(entry, Mapping) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ArtifactError(
            f"the file is damaged: tensor {quote(name)!r} must have exactly the fields dtype, shape and data_offsets",
            code="tensor-entry-fields",
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ArtifactError(
            f"tensor {quote(name)!r} has the unknown dtype {quote(dtype)}",
            code="tensor-dtype-unknown",
            hint="save the weights in float32, float16 or bfloat16",
        )
    if not _is_counts(shape) or not _is_counts(offsets) or len(offsets) != 2:
        raise ArtifactError(
            f"the file is damaged: the shape or the offsets of tensor {quote(name)!r} are invalid",
            code="tensor-numbers-invalid",
        )
    if len(shape) > MAX_RANK:
        raise ArtifactError(
            f"tensor {quote(name)!r} has {len(shape)} dimensions; at most {MAX_RANK} are supported",
            code="tensor-rank-excessive",
        )
    begin, end = offsets
    if end - begin != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise ArtifactError(
            f"the file is damaged: tensor {quote(name)!r} of {dtype} with shape {shape} does not fill bytes {begin} "
            f"to {end}",
            code="tensor-extent-wrong",
        )
    return begin, end


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_cover(extents: Mapping[str, tuple[int, int]], data_bytes: int) -> None:
    position = 0
    for name, (begin, end) in sorted(extents.items(), key=lambda item: item[1]):
        if begin != position:
            raise ArtifactError(
                f"the file is damaged: tensor {quote(name)!r} begins at byte {begin} instead of byte {position}",
                code="tensor-offset-wrong",
            )
        position = end
    if position != data_bytes:
        kind = "truncated" if position > data_bytes else "damaged"
        raise ArtifactError(
            f"the file is {kind}: its tensors have {position:,} bytes, but {data_bytes:,} bytes follow the header",
            code="tensor-bytes-mismatch",
        )
