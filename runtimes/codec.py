"""Strict conversion between frozen dataclasses and JSON. Unknown, missing and wrongly typed fields are errors.

Supported types are dataclasses and named tuples (objects in JSON), ``str``, ``int``, ``float``, ``bool``, ``None``,
tuples, mappings with string keys, literals, and unions of these.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from runtimes.errors import ArtifactError, UsageError, quote
from runtimes.escaping import MAX_QUOTED

T = TypeVar("T")

MAX_INTEGER = (1 << 63) - 1
"""The largest absolute value of an integer. NumPy, C++ and spreadsheets read no larger ones."""

MAX_DEPTH = 16
"""The largest depth of a value without a declared type."""

OMIT_DEFAULT: Mapping[str, object] = types.MappingProxyType({"omit_default": True})
"""The metadata of a field that is not written while it has its default, so that versions without it read the file."""


def encode(value: object) -> Any:
    """Return the value as dicts, lists and scalars, which ``json.dumps`` accepts."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: encode(getattr(value, field.name)) for field in fields if not _is_omitted(field, value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: encode(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    return value


def _is_omitted(field: dataclasses.Field[object], value: object) -> bool:
    return "omit_default" in field.metadata and getattr(value, field.name) == field.default


def dumps(value: object, indent: int | None = None) -> str:
    """Return the value as JSON text.

    Args:
        value: The value, of the supported types.
        indent: The number of spaces for each level, or ``None`` for a single line.

    Raises:
        ValueError: A number is NaN or infinite, which JSON cannot represent.
    """
    return json.dumps(encode(value), indent=indent, allow_nan=False, ensure_ascii=False)


def loads(cls: type[T], text: str | bytes) -> T:
    """Return an instance of the dataclass ``cls`` from JSON text.

    Raises:
        ArtifactError: The text is not valid JSON, or a field does not match. The message names the field.
    """
    return decode(cls, parse(text))


def parse(text: str | bytes) -> Any:
    """Return JSON text as dicts, lists and scalars.

    Raises:
        ArtifactError: The text is not valid JSON, an object has the same name twice, a number is NaN or infinite, or an
            integer has thousands of digits.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=unique_names)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"not valid JSON: {quote(error)}", code="json-invalid") from error


def decode(cls: type[T], data: object) -> T:
    """Return an instance of the dataclass ``cls`` from parsed JSON.

    Raises:
        ArtifactError: A field does not match. The message names the field.
    """
    return typing.cast(T, _decode(cls, data, ""))


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def unique_names(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON from its names and values, as ``object_pairs_hook`` of Python's parser.

    Readers differ in which of two equal names counts, so such an object is refused.

    Args:
        pairs: The names and values.

    Raises:
        ValueError: A name occurs twice.
    """
    data: dict[str, object] = {}
    for name, value in pairs:
        if name in data:
            raise ValueError(f"the name {name[:MAX_QUOTED]!r} occurs twice")
        data[name] = value
    return data


def _wrong(where: str, expected: str, data: object) -> ArtifactError:
    return ArtifactError(
        f"field {quote(where) or 'at the top'!r}: expected {expected}, got {show(data)}",
        code="field-type-mismatch",
    )


def show(data: object) -> str:
    """Return the beginning of parsed JSON as text for a message. The time does not depend on its size or depth."""
    text = ""
    for piece in json.JSONEncoder().iterencode(data):
        text += piece
        if len(text) > MAX_QUOTED:
            break
    return quote(text)


def _decode(hint: Any, data: object, where: str) -> object:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), data, where)
    if hasattr(hint, "_fields"):
        return _decode_named_tuple(hint, data, where)
    if origin in (typing.Union, types.UnionType):
        return _decode_union(hint, data, where)
    if origin is typing.Literal:
        if not any(type(data) is type(member) and data == member for member in typing.get_args(hint)):
            raise _wrong(where, f"one of {typing.get_args(hint)}", data)
        return data
    if origin is tuple:
        return _decode_tuple(typing.get_args(hint), data, where)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise _wrong(where, "an object", data)
        value = typing.get_args(hint)[1]
        return {key: _decode(value, item, f"{where}.{key}") for key, item in data.items()}
    return _decode_scalar(hint, data, where)


def _decode_scalar(hint: Any, data: object, where: str) -> object:
    if hint is object:
        return _decode_untyped(data, where)
    if hint is type(None) and data is None:
        return None
    if isinstance(data, int) and not -MAX_INTEGER <= data <= MAX_INTEGER:
        raise _wrong(where, "an integer of 64 bits", data)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if not isinstance(data, hint) or (isinstance(data, bool) and hint is not bool):
        raise _wrong(where, hint.__name__, data)
    if isinstance(data, float) and not math.isfinite(data):  # Python reads 1e999 as infinity
        raise _wrong(where, "a finite number", data)
    return data


def _decode_untyped(data: object, where: str, depth: int = 0) -> object:
    """Return a value without a declared type, whose numbers and depth are within the limits of typed values."""
    if depth > MAX_DEPTH:
        raise _wrong(where, f"at most {MAX_DEPTH} levels of lists and objects", data)
    if isinstance(data, dict):
        return {key: _decode_untyped(value, f"{where}.{key}", depth + 1) for key, value in data.items()}
    if isinstance(data, list):
        return [_decode_untyped(value, where, depth + 1) for value in data]
    return data if data is None else _decode_scalar(type(data), data, where)


def _decode_union(hint: Any, data: object, where: str) -> object:
    members = typing.get_args(hint)
    for member in members:
        try:
            return _decode(member, data, where)
        except ArtifactError:
            if len(members) == 2 and type(None) in members and member is not type(None) and data is not None:
                raise
    raise _wrong(where, " or ".join(getattr(member, "__name__", str(member)) for member in members), data)


def _decode_tuple(members: tuple[Any, ...], data: object, where: str) -> tuple[object, ...]:
    if not isinstance(data, list):
        raise _wrong(where, "a list", data)
    if members[-1] is Ellipsis:
        if members[0] is float and set(map(type, data)) <= {float} and all(map(math.isfinite, data)):
            return tuple(data)  # fast path: raw samples are lists of tens of thousands
        return tuple(_decode(members[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(data) != len(members):
        raise _wrong(where, f"a list of {len(members)}", data)
    return tuple(
        _decode(member, item, f"{where}[{i}]") for i, (member, item) in enumerate(zip(members, data, strict=True))
    )


def _decode_named_tuple(cls: Any, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = typing.get_type_hints(cls)
    for key in (*data, *cls._fields):
        inner = f"{where}.{key}".lstrip(".")
        if key not in hints:
            raise ArtifactError(f"unknown field {quote(inner)!r}", code="field-unknown")
        if key not in data:
            raise ArtifactError(f"field {inner!r} is missing", code="field-missing")
    return cls(**{name: _decode(hints[name], data[name], f"{where}.{name}".lstrip(".")) for name in cls._fields})


def _decode_dataclass(cls: type, data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [key for key in data if key not in fields]
    if unknown:
        raise ArtifactError(f"unknown field {quote(f'{where}.{unknown[0]}'.lstrip('.'))!r}", code="field-unknown")
    values = {}
    for name, field in fields.items():
        inner = f"{where}.{name}".lstrip(".")
        if name in data:
            values[name] = _decode(hints[name], data[name], inner)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ArtifactError(f"field {inner!r} is missing", code="field-missing")
    try:
        return typing.cast(object, cls(**values))
    except UsageError as error:
        raise ArtifactError(f"field {where or 'at the top'!r}: {error.what}", code=error.code) from error
