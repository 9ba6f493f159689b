"""Reads the names of a package from its sources and stubs, without importing it: PyTorch for a GPU needs CUDA's.

A name may stand in a ``.py`` and in a ``.pyi``. ``from x import *`` and imports of single names are followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

Names: TypeAlias = dict[str, list[str]]


@dataclass
class Package:
    """The sources of a package below ``root``."""

    root: Path
    _open: set[tuple[str, str | None]] = field(default_factory=set)

    def module(self, name: str, only: str | None = None) -> Names:
        """The names of a module with their signatures; those of a class's members are ``Class.member``.

        With ``only``, the names of one function, class or constant.
        """
        if (name, only) in self._open:  # a circle of imports
            return {}
        self._open.add((name, only))
        found: Names = {}
        try:
            for path in self._files(name):
                for statement in _statements(_parsed(path).body):
                    self._read(statement, _Place(name, path.name.startswith("__init__."), only), found)
        finally:
            self._open.discard((name, only))
        return found

    def _files(self, name: str) -> list[Path]:
        base = self.root.joinpath(*name.split("."))
        stems = (base / "__init__", base)
        return [
            path for stem in stems for end in (".py", ".pyi") if (path := stem.with_name(stem.name + end)).is_file()
        ]

    def _read(self, statement: ast.stmt, place: _Place, found: Names) -> None:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            if place.wants(statement.name):
                found.setdefault(statement.name, []).append(signature(statement))
        elif isinstance(statement, ast.ClassDef):
            if place.wants(statement.name):
                found |= self._class(statement, place.module)
        elif isinstance(statement, ast.Import):
            names = [(alias.asname or alias.name.split(".")[0]) for alias in statement.names]
            found |= {name: [] for name in names if place.wants(name)}
        elif isinstance(statement, ast.ImportFrom):
            self._import(statement, place, found)
        else:
            for target in filter(place.wants, _assigned(statement)):
                found.setdefault(target, [])
                found |= self._made(target, statement, place.module)

    def _import(self, statement: ast.ImportFrom, place: _Place, found: Names) -> None:
        source = place.source(statement)
        if statement.names[0].name == "*":
            shown = self._shown(source)
            for name, calls in self.module(source, place.only).items():
                if name.split(".")[0] in shown if shown is not None else not name.startswith("_"):
                    found[name] = calls
            return
        for alias in statement.names:
            own = alias.asname or alias.name
            if place.wants(own):
                found.setdefault(own, [])
                inside = self.module(source, alias.name)
                found |= {own + name[len(alias.name) :]: calls for name, calls in inside.items()}

    def _made(self, name: str, statement: ast.stmt, module: str) -> Names:
        """The members of an object that a module makes of one of its classes, as ``matmul = cuBLASModule()``."""
        value = getattr(statement, "value", None)
        if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name)):
            return {}
        return {f"{name}.{member}": calls for member, calls in self._inherited(value.func.id, module).items()}

    def _shown(self, module: str) -> set[str] | None:
        """The ``__all__`` of a module, if it is written as a list."""
        for path in self._files(module):
            for statement in _parsed(path).body:
                if "__all__" in _assigned(statement) and isinstance(statement, ast.Assign | ast.AnnAssign):
                    try:
                        return set(ast.literal_eval(statement.value or ast.Tuple([])))
                    except ValueError:
                        return None
        return None

    def _class(self, node: ast.ClassDef, module: str) -> Names:
        found: Names = {node.name: []}
        for base in node.bases:
            found |= {
                f"{node.name}.{name}": calls for name, calls in self._inherited(ast.unparse(base), module).items()
            }
        own: Names = {}
        for statement in _statements(node.body):
            if isinstance(statement, ast.FunctionDef):
                own.setdefault(statement.name, []).extend([] if _is_property(statement) else [signature(statement)])
                own |= {name: [] for name in _fields(statement) if name not in own}
            else:
                for name in _assigned(statement):
                    own.setdefault(name, [])
                    own |= self._made(name, statement, module)
        found |= {f"{node.name}.{name}": calls for name, calls in own.items()}
        found[node.name] = own.get("__init__", []) or found.get(f"{node.name}.__init__", [])
        return found

    def _inherited(self, base: str, module: str) -> Names:
        """The members of a base class, which is written as a dotted name or imported into the module."""
        root, _, last = base.rpartition(".")
        source = root or self._source_of(last, module)
        if not source or not self._files(source):
            return {}
        start = f"{last}."
        inside = self.module(source, last)
        return {name[len(start) :]: calls for name, calls in inside.items() if name.startswith(start)}

    def _source_of(self, name: str, module: str) -> str:
        for path in self._files(module):
            place = _Place(module, path.name.startswith("__init__."), name)
            for statement in _statements(_parsed(path).body):
                if isinstance(statement, ast.ImportFrom) and any(
                    (alias.asname or alias.name) == name for alias in statement.names
                ):
                    return place.source(statement)
                if isinstance(statement, ast.ClassDef) and statement.name == name:
                    return module
        return ""


@dataclass(frozen=True)
class _Place:
    """The file that is read: of which module, and which of its names is wanted."""

    module: str
    is_package: bool
    only: str | None

    def wants(self, name: str) -> bool:
        return self.only is None or name == self.only

    def source(self, statement: ast.ImportFrom) -> str:
        """The full name of the module that the statement imports from."""
        if not statement.level:
            return statement.module or ""
        parts = self.module.split(".")
        parents = parts[: len(parts) - statement.level + self.is_package]
        return ".".join([*parents, statement.module] if statement.module else parents)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements of a module or class, also those under a condition."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _statements(statement.body)
            yield from _statements(getattr(statement, "orelse", []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _assigned(statement: ast.stmt) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target.id for target in flat if isinstance(target, ast.Name)]


def _is_property(function: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(mark) or ".setter" in ast.unparse(mark) for mark in function.decorator_list)


def _fields(function: ast.FunctionDef) -> Iterator[str]:
    """What a constructor assigns to ``self``, and the names that ``__getattr__`` compares with."""
    for node in ast.walk(function):
        if function.name == "__init__" and isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif function.name == "__getattr__" and isinstance(node, ast.Compare):
            yield from (str(one.value) for one in node.comparators if isinstance(one, ast.Constant))


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The parameters of a function without their types, ``...`` for each default, and the type that it returns."""
    given = function.args
    plain = [*given.posonlyargs, *given.args]
    optional = len(plain) - len(given.defaults)
    parts = [f"{one.arg}=..." if number >= optional else one.arg for number, one in enumerate(plain)]
    if given.vararg:
        parts.append(f"*{given.vararg.arg}")
    elif given.kwonlyargs:
        parts.append("*")
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    parts += [one.arg if default is None else f"{one.arg}=..." for one, default in pairs]
    parts += [f"**{given.kwarg.arg}"] if given.kwarg else []
    returned = "" if function.returns is None else f" -> {ast.unparse(function.returns).strip(chr(39))}"
    return f"({', '.join(parts)}){returned}"
