"""Tensors as the bytes of a safetensors file: the same tensors and metadata give the same bytes.

The library writes the names in an order that differs from one process to the next, so that two files of the same
tensors have different digests. Here the header is written again with its names in order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

METADATA = "__metadata__"
"""The name in the header that is no tensor."""


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a file.

    Args:
        tensors: The tensors by name, on the host.
        metadata: Texts that the file holds beside them.
    """
    content = save(dict(tensors), None if metadata is None else dict(metadata))
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    ordered = dict(sorted(header.get(METADATA, {}).items()))
    entries = sorted((name, entry) for name, entry in header.items() if name != METADATA)
    whole = {METADATA: ordered, **dict(entries)} if METADATA in header else dict(entries)
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    return struct.pack("<Q", len(text)) + text + content[8 + length :]
