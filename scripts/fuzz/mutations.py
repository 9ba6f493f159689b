"""Mutations of good files: of bytes, and of the fields of JSON, protocol buffers, zip and tar archives."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

Mutation: TypeAlias = Callable[[random.Random, bytes], bytes]
"""Returns a changed copy of a file. The same state of the generator gives the same copy."""

HOSTILE_JSON = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "1e-320", "0", "-1", "1.5", "true", "null", '"1"', '""'),
    *("[]", "{}", "[[]]", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "9" * 5000),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"../../etc/passwd"',
        '"' + "x" * 10_000 + '"',
        '"\\u001b[31m"',
        "[" * 2000 + "]" * 2000,
    ),
)
"""Values that replace a value of JSON, as text."""

HOSTILE_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, (1 << 63) - 1, (1 << 64) - 1)
"""Values that replace a binary number."""

MAX_COPIES = 3_000
"""The largest number of repetitions of a piece."""

MAX_BYTES = 1 << 20
"""The largest size of a mutated file."""


def mutate(generator: random.Random, samples: Sequence[bytes], mutations: Sequence[Mutation]) -> bytes:
    """Return a mutated copy of one of several good files. It has at most ``MAX_BYTES``, or the size of the sample.

    Args:
        generator: Decides on the sample and on one to four mutations.
        samples: Good files.
        mutations: The mutations to choose from.
    """
    content = generator.choice(samples)
    limit = max(MAX_BYTES, len(content))
    if generator.random() < 0.05:
        content = splice(generator, content, generator.choice(samples))
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        content = generator.choice(mutations)(generator, content)[:limit]
    return content


def flip_bits(generator: random.Random, content: bytes) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 8)) if changed else 0):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def truncate(generator: random.Random, content: bytes) -> bytes:
    """Cut the end off, near the beginning, near the end, or anywhere."""
    size = len(content)
    nearby = min(size, 64)
    return content[: generator.choice((generator.randrange(nearby + 1), size - generator.randrange(nearby + 1),
                                       generator.randrange(size + 1)))]  # fmt: skip


def remove(generator: random.Random, content: bytes) -> bytes:
    """Remove a piece."""
    start, end = _span(generator, content)
    return content[:start] + content[end:]


def repeat(generator: random.Random, content: bytes) -> bytes:
    """Repeat a piece, up to thousands of times."""
    start, end = _span(generator, content, 2048)
    copies = generator.choice((1, 2, 17, MAX_COPIES))
    return content[:start] + content[start:end] * min(copies, MAX_BYTES // max(1, end - start)) + content[end:]


def splice(generator: random.Random, content: bytes, other: bytes) -> bytes:
    """Return the beginning of one file with the end of another."""
    return content[: generator.randrange(len(content) + 1)] + other[generator.randrange(len(other) + 1) :]


def insert(generator: random.Random, content: bytes) -> bytes:
    """Insert random bytes, zeros, line ends, byte-order marks or text that is not UTF-8."""
    pieces = (
        b"\0",
        b"\0" * 512,
        b"\r\n",
        b"\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\x1b[2J",
    )
    piece = generator.choice((*pieces, generator.randbytes(generator.choice((1, 4, 64)))))
    at = generator.choice((0, len(content), generator.randrange(len(content) + 1)))
    return content[:at] + piece + content[at:]


def overwrite_number(generator: random.Random, content: bytes) -> bytes:
    """Replace 1, 2, 4 or 8 bytes by a number at the edge of a type."""
    width = generator.choice((1, 2, 4, 8))
    if len(content) < width:
        return content
    at = generator.randrange(len(content) - width + 1)
    number = generator.choice(HOSTILE_NUMBERS) & ((1 << 8 * width) - 1)
    return content[:at] + number.to_bytes(width, generator.choice(("little", "big"))) + content[at + width :]


def append(generator: random.Random, content: bytes) -> bytes:
    """Append the file itself, another pickle, or an empty zip archive."""
    return content + generator.choice(
        (content, b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", b"PK\x05\x06" + bytes(18))
    )


BYTES: tuple[Mutation, ...] = (flip_bits, truncate, remove, repeat, insert, overwrite_number, append)
"""The mutations of any file."""


def _span(generator: random.Random, content: bytes, most: int = 1 << 16) -> tuple[int, int]:
    start = generator.randrange(len(content) + 1)
    return start, min(len(content), start + generator.choice((1, 8, 100, generator.randrange(most))))


def replace_value(generator: random.Random, content: bytes) -> bytes:
    """Replace, remove, repeat or add a field of JSON or of a line of JSON."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    at = generator.randrange(len(lines))
    try:
        data = json.loads(lines[at])
    except (ValueError, RecursionError):
        return flip_bits(generator, content)
    places = list(_places(data))
    if not places:
        return content
    holder, key = generator.choice(places)
    marker = f"@{generator.randrange(1 << 60)}@"
    value = holder[key]
    action = generator.choice(("replace",) * 6 + ("remove", "twice", "add"))
    if action == "remove":
        del holder[key]
        return b"\n".join((*lines[:at], json.dumps(data).encode(), *lines[at + 1 :]))
    text = generator.choice(HOSTILE_JSON)
    if action == "add" and isinstance(holder, dict):
        holder[f"field {generator.randrange(99)}"] = marker
    else:
        holder[key] = marker
    line = json.dumps(data)
    if action == "twice" and isinstance(holder, dict):
        text = f"{json.dumps(value)}, {json.dumps(str(key))}: {text}"
    return b"\n".join((*lines[:at], line.replace(json.dumps(marker), text).encode(), *lines[at + 1 :]))


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each (container, key) of parsed JSON. Of a long list, only the first values count."""
    keys = list(data) if isinstance(data, dict) else range(min(len(data), 4)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])


JSON: tuple[Mutation, ...] = (replace_value, replace_value, replace_value, *BYTES)
"""The mutations of JSON."""


def replace_field(generator: random.Random, content: bytes) -> bytes:
    """Change a field of a protocol buffer at any depth: its number, its type, its value or its length."""
    fields = list(_fields(content, 0, len(content), 0))
    if not fields:
        return flip_bits(generator, content)
    key, start, end = generator.choice(fields)
    number, wire = key >> 3, key & 7
    action = generator.choice(("value", "value", "number", "wire", "twice", "remove", "nested"))
    body = content[start:end]
    if action == "value":
        body = generator.choice((b"", _varint(generator.choice(HOSTILE_NUMBERS)), b"\xff" * 11, body[:-1], body * 2))
    if action == "number":
        number = generator.choice((0, 1, 5, 7, 8, 13, 25, (1 << 29) - 1))
    if action == "wire":
        wire = generator.choice((0, 1, 2, 3, 4, 5, 6, 7))
    if action == "nested":
        for _ in range(generator.choice((2, 40, 200))):
            body = _varint(number << 3 | 2) + _varint(len(body)) + body
    encoded = _varint(number << 3 | wire) + (_varint(len(body)) if wire == 2 else b"") + body
    head = len(_varint(key)) + (len(_varint(end - start)) if key & 7 == 2 else 0)
    encoded = {"twice": encoded * 2, "remove": b""}.get(action, encoded)
    return content[: start - head] + encoded + content[end:]


def _fields(content: bytes, at: int, end: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """Yield (key, start, end) of the fields that can be read, also of those inside others."""
    while at < end and depth < 5:
        key, at = _read_varint(content, at, end)
        wire = key & 7
        if wire == 0:
            start, (_, at) = at, _read_varint(content, at, end)
        elif wire in (1, 5):
            start, at = at, at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, start = _read_varint(content, at, end)
            at = start + size
        else:
            return
        if at > end or not key >> 3:
            return
        yield key, start, at
        if wire == 2 and at - start < 4096:
            yield from _fields(content, start, at, depth + 1)


def _read_varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


PROTOBUF: tuple[Mutation, ...] = (replace_field, replace_field, replace_field, *BYTES)
"""The mutations of protocol buffers."""


def rewrite_zip(generator: random.Random, content: bytes) -> bytes:
    """Change one entry of a zip archive and write all checksums anew; or compress, repeat or rename an entry."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # a file that was mutated before
        return overwrite_number(generator, content)
    at = generator.randrange(len(entries)) if entries else 0
    compression = zipfile.ZIP_STORED
    if entries:
        name, body = entries[at]
        action = generator.choice(("body", "body", "body", "bomb", "twice", "rename", "remove"))
        if action == "body":
            entries[at] = name, generator.choice(BYTES)(generator, body)
        if action == "bomb":
            entries[at], compression = (name, body + bytes(generator.choice((1 << 16, 1 << 24)))), zipfile.ZIP_DEFLATED
        if action == "twice":
            entries.append((name, body))
        if action == "rename":
            entries[at] = generator.choice(("../x", "/etc/x", "a" * 300, "archive/code/x.py", name.upper(), "é")), body
        if action == "remove":
            del entries[at]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, body in entries:
            archive.writestr(zipfile.ZipInfo(name), body, compression)
    return buffer.getvalue()


ZIP: tuple[Mutation, ...] = (rewrite_zip, rewrite_zip, rewrite_zip, *BYTES)
"""The mutations of zip archives."""


def replace_header(generator: random.Random, content: bytes) -> bytes:
    """Change the JSON header of a safetensors file, and write its length anew."""
    if len(content) < 8:
        return content
    (size,) = struct.unpack_from("<Q", content)
    header = replace_value(generator, content[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


SAFETENSORS: tuple[Mutation, ...] = (replace_header, replace_header, *BYTES)
"""The mutations of safetensors files."""


def rewrite_tar(generator: random.Random, content: bytes) -> bytes:
    """Add members to a tar archive: links, devices, sparse files, names that lead outside, chains of headers."""
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.REGTYPE,
    )
    member = tarfile.TarInfo(generator.choice(("../x.jpg", "/x.jpg", "a/b.jpg", "é.jpg", "n" * 300)))
    member.type, member.size = generator.choice(kinds), generator.choice((0, 0, 1 << 40))
    member.linkname = generator.choice(("", "/etc/passwd", "l" * 300))
    action = generator.choice(("member", "pax", "long", "global", "numbers"))
    if action == "pax":
        member.pax_headers = generator.choice(
            ({"size": "1e9"}, {"GNU.sparse.map": "1,x"}, {"path": "\0"}, {"size": "-1"})
        )
    try:
        header = member.tobuf(tarfile.PAX_FORMAT if action == "pax" else tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    except (ValueError, UnicodeError):
        return content
    if action in ("long", "global"):
        link = tarfile.TarInfo("././@LongLink")
        link.type, link.size = (tarfile.GNUTYPE_LONGNAME if action == "long" else tarfile.XGLTYPE), 512
        header = (link.tobuf() + b"20 path=x\n".ljust(512, b"\0")) * generator.choice(
            (1, 100, MAX_COPIES // 3)
        ) + header
    if action == "numbers":
        field = generator.choice((100, 124, 136, 148))
        header = (
            header[:field]
            + generator.choice((b"\xff" * 8, b"\x80" + b"\xff" * 7, b"99999999", b"-1      "))
            + header[field + 8 :]
        )
        header = header[:148] + b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512])) + header[156:]
    at = 512 * generator.randrange(len(content) // 512 + 1)
    return content[:at] + header + content[at:]


TAR: tuple[Mutation, ...] = (rewrite_tar, rewrite_tar, *BYTES)
"""The mutations of tar archives."""
