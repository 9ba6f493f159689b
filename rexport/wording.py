"""Errors whose advice names options of the command line, said in the words of the Python functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.models.variants import VARIANTS
from runtimes.errors import RexportError

_PARAMETERS = {
    "--force": "overwrite=True",
    "--out": "path",
    "-o": "path",
    "--size": "input_size",
    "--input raw": "raw_input=True",
    "--backend": "backends",
    "--float-layer": "float_layers",
    "--output": "outputs",
    "--antialias": "antialias=True",
    "--no-antialias": "antialias=False",
    "--full-decoding": "scaled_decoding=False",
    "--scaled-decoding": "scaled_decoding=True",
}
"""What the functions call an option, where it is not the option's own name with underscores."""

_TEXTS = "|".join(rf"(?<={option} )[^\s,)]+" for option in ("--key", "--strip-prefix", "--recipe", "--float-layer"))
_VALUES = (
    rf"{_TEXTS}|[A-Z]+\b|\d+x\d+|\d[\d.]*(?:,\d[\d.]*)+|\d[\w.]*|int8|fp8|fp16|bf16|tf32|tensorrt|imagenet|bundled|random|logits|features"
    r"|stages|cam"
)
_OPTION = re.compile(rf"--input raw|(?<![\w-])(--[a-z][a-z0-9-]*|-o)(?: ({_VALUES}))?")
_TUPLE = re.compile(r"\d+x\d+|[\d.]+(,[\d.]+)+")
_NAMED = re.compile(rf"\b({'|'.join((*VARIANTS, 'VARIANT'))}) --weights (?:'[^']*'|[^\s,)]+)")
"""A variant for a checkpoint, which the functions call by a parameter."""

_COMMAND = re.compile(r"\b(?:rexport|rbench|pip) ")
_CLAUSE = re.compile(r"(, |; )")


@contextmanager
def python_wording() -> Iterator[None]:
    """An error that leaves the block names parameters where it named options. Its type, code and path stay."""
    try:
        yield
    except RexportError as error:
        error.say(in_python(error.what), None if error.hint is None else in_python(error.hint))
        raise


def in_python(text: str) -> str:
    """The text with parameters in place of options. A clause that holds a command line stays as it is."""
    parts = (_NAMED.sub(r'variant="\1"', part) for part in _CLAUSE.split(text))
    return "".join(part if _COMMAND.search(part) else _OPTION.sub(_name, part) for part in parts)


def _name(match: re.Match[str]) -> str:
    option, value = match[1] or match[0], match[2]
    name = _PARAMETERS.get(option, option.strip("-").replace("-", "_"))
    if value is None or "=" in name:
        return name
    if _TUPLE.fullmatch(value):
        return f"{name}=({', '.join(re.split('[x,]', value))})"
    number = re.fullmatch(r"\d+(\.\d+)?", value)
    return f"{name}={value}" if value.isupper() or number else f'{name}="{value}"'
