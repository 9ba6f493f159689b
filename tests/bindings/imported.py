"""Reads the names of a module that can be imported: bindings that are compiled state their signatures in docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from tests.bindings.sources import Names


def read(module: ModuleType) -> Names:
    """The public names of a module, and the public members of its classes."""
    found: Names = {"__version__": []} if hasattr(module, "__version__") else {}
    for name in (name for name in dir(module) if not name.startswith("_")):
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            continue
        found[name] = list(_signatures(name, value))
        if isinstance(value, type):
            found |= {f"{name}.{member}": calls for member, calls in _members(value)}
    return found


def _members(kind: type) -> Iterator[tuple[str, list[str]]]:
    for name in dir(kind):
        if name.startswith("_") or name in dir(int):  # of which enumerations are
            continue
        value = inspect.getattr_static(kind, name)
        plain = getattr(kind, name) if callable(getattr(kind, name, None)) else value
        yield name, list(_signatures(name, plain))


def _signatures(name: str, value: Any) -> Iterator[str]:
    """How a function is called and what it gives, or nothing for what is no function."""
    if not callable(value) or (isinstance(value, type) and issubclass(value, int)):
        return
    stated = re.findall(rf"^(?:\d+\. )?{name}(\(.*\)(?: -> .*)?)$", inspect.getdoc(value) or "", re.MULTILINE)
    if " -> " in "".join(stated):  # as pybind11 writes it
        yield from (_plain(call) for call in stated if "*args, **kwargs" not in call or len(stated) == 1)
        return
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        yield "(*args, **kwargs)"
        return
    parts = [_parameter(one) for one in parameters]
    yield f"({', '.join(parts)}){_given(value)}"


def _parameter(one: inspect.Parameter) -> str:
    stars = "*" * ((one.kind == one.VAR_POSITIONAL) + 2 * (one.kind == one.VAR_KEYWORD))
    return f"{stars}{one.name}" + ("" if one.default is one.empty else "=...")


def _given(function: Any) -> str:
    """The struct that a function of CUDA gives after its error code, as its docstring says."""
    lines = (inspect.getdoc(function) or "").partition("Returns")[2].partition("See Also")[0]
    structs = re.findall(r"^\s*\w+ : (?::py:obj:`~?\.?)?(cuda[A-Z]\w+)`?$", lines, re.MULTILINE)
    return f" -> {structs[0]}" if structs else ""


def _plain(call: str) -> str:
    """A signature without types, and with ``...`` for each default."""
    inside, _, given = call.rpartition(" -> ")
    try:
        parsed = ast.parse(f"def f{re.sub(r'<[^<>]*>', '0', inside)}: ...").body[0]
    except SyntaxError:
        return "(*args, **kwargs)"
    assert isinstance(parsed, ast.FunctionDef)
    plain = parsed.args.args
    optional = len(plain) - len(parsed.args.defaults)
    parts = [f"{one.arg}=..." if number >= optional else one.arg for number, one in enumerate(plain)]
    return f"({', '.join(parts)}) -> {given.rpartition('.')[2].rstrip(']')}"
