"""What source code asks of TensorRT, read from its syntax, and whether the bindings have it.

The library has no types that a checker could follow, and most of it can only be called on a GPU. So the source is read:
every attribute that it takes of the library, of a class of it, or of an object that one of its calls gave is looked up
in the surface of each release, and every call is held against the signatures there. Where an object's class cannot be
told from the syntax, its attributes are looked up by their names alone: one that neither TensorRT nor anything else in
sight has is an error.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.bindings.tensorrt.surface import PROPERTY, Parameters, Surface

LIBRARY = ("trt", "library", "_library", "tensorrt", "tensorrt_rtx")
"""Names and attributes that stand for the library in the source; so does what a call of ``.library()`` gives."""

PARAMETERS = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
}
"""What parameters and fields of these names are, where the source gives them no type of its own."""

_MODULE = "the library"
_CLASS = "class "


@dataclass(frozen=True)
class Use:
    """One attribute that the source takes. ``owner`` is ``_MODULE``, ``class X``, ``X`` for an instance, or ``None``
    where the syntax does not tell; ``call`` how it is called, as (positional, keywords), or ``None``; ``stored``
    whether it is assigned to."""

    line: int
    owner: str | None
    name: str
    call: tuple[int, tuple[str, ...]] | None = None
    stored: bool = False


def problems(source: str, surfaces: Mapping[str, Surface], only: Mapping[str, set[str]], known: set[str]) -> list[str]:
    """What the source asks for that is not there, one line each: ``line 3: RELEASE: CODE: sentence``.

    Args:
        surfaces: by a name of the release, all of which the source must serve.
        only: names that the source asks for under a condition, and the releases that have them.
        known: names that attributes have elsewhere: of the program's own classes and of other libraries.
    """
    found = []
    for use in uses(source, surfaces):
        for release, surface in surfaces.items():
            if release in only.get(use.name, surfaces):
                found += [f"line {use.line}: {release}: {words}" for words in _wrong(use, surface, surfaces, known)]
    return found


def _wrong(use: Use, surface: Surface, surfaces: Mapping[str, Surface], known: set[str]) -> Iterator[str]:
    if use.owner is None:
        yield from _wrong_by_name(use, surface, surfaces, known)
    elif use.owner == _MODULE:
        inside = use.name in surface.classes or use.name in surface.functions or use.name.startswith("__")
        signatures = surface.functions.get(use.name) or surface.classes.get(use.name, {}).get("__init__", [])
        yield from [] if inside else [f"name-missing: the library has no {use.name}"]
        yield from _misfit(use, signatures) if inside else []
    else:
        members = surface.classes.get(use.owner.removeprefix(_CLASS))
        if members is None:
            yield f"class-missing: there is no class {use.owner.removeprefix(_CLASS)}"
        elif use.name not in members and not use.name.startswith("__"):
            yield f"member-missing: {use.owner.removeprefix(_CLASS)} has no {use.name}"
        else:
            yield from _misfit(use, members.get(use.name, []), unbound=use.owner.startswith(_CLASS))
            if use.stored and not any(text.startswith(f"{PROPERTY} =") for text in members.get(use.name, [])):
                yield f"member-read-only: {use.owner}.{use.name} cannot be set"


def _wrong_by_name(use: Use, surface: Surface, surfaces: Mapping[str, Surface], known: set[str]) -> Iterator[str]:
    if use.name in known or use.name.startswith("__"):
        return
    if not any(use.name in each.owners for each in surfaces.values()):
        yield f"attribute-unknown: nothing known has an attribute {use.name}"
    elif use.name not in surface.owners:
        yield f"attribute-missing: no class has {use.name}"
    else:
        signatures = [call for owner in surface.owners[use.name] for call in surface.classes[owner][use.name]]
        yield from _misfit(use, signatures)


def _misfit(use: Use, signatures: list[str], unbound: bool = False) -> Iterator[str]:
    """Whether a call fits none of the signatures. An unbound method is passed its ``self``."""
    calls = [text for text in signatures if "(" in text.split(" ")[0]]
    if use.call is None or not calls:
        return
    positional, keywords = use.call
    if unbound and positional:
        positional -= 1
    if not any(Parameters.of(text).takes(positional, keywords) for text in calls):
        yield f"call-misfit: {use.name} is called with {positional} and {list(keywords)}, and is {' or '.join(calls)}"


def uses(source: str, surfaces: Mapping[str, Surface]) -> list[Use]:
    """All attributes that the source takes."""
    tree = ast.parse(source)
    surface = _merged(surfaces.values())
    attributes: dict[str, str] = {}
    for _ in range(2):  # what a method assigns to self is known in those above it
        found = _Reader(surface, attributes).read(tree)
    return found


def _merged(surfaces: Iterable[Surface]) -> Surface:
    classes: dict[str, dict[str, list[str]]] = {}
    for surface in surfaces:
        for name, members in surface.classes.items():
            classes.setdefault(name, {}).update(members)
    return Surface("any", classes, {})


class _Reader(ast.NodeVisitor):
    """Follows what the library's calls give through names, within a function, and through ``self``, within a file."""

    def __init__(self, surface: Surface, attributes: dict[str, str]) -> None:
        self._surface = surface
        self._attributes = attributes
        self._names: list[dict[str, str | None]] = [{}]
        self._found: list[Use] = []

    def read(self, tree: ast.Module) -> list[Use]:
        self.visit(tree)
        return self._found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names.append(self._parameters(node.args))
        self.generic_visit(node)
        self._names.pop()

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._names.append(self._parameters(node.args))
        self.generic_visit(node)
        self._names.pop()

    def _parameters(self, arguments: ast.arguments) -> dict[str, str | None]:
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        return {one.arg: self._parameter(one) for one in every if one.arg not in LIBRARY}

    def _parameter(self, argument: ast.arg) -> str | None:
        untyped = argument.annotation is None or ast.unparse(argument.annotation) in ("Any", "object")
        return PARAMETERS.get(argument.arg) if untyped else self._annotated(argument.annotation)

    def _annotated(self, annotation: ast.expr | None) -> str | None:
        words = "" if annotation is None else ast.unparse(annotation).strip("'\"").removesuffix(" | None")
        root, _, name = words.partition(".")
        if words == "ModuleType":
            return _MODULE
        return name if root in LIBRARY and name in self._surface.classes else None

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for one, value in pairs:
                self._assign(one, self._kind(value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        kind = self._annotated(node.annotation) or (self._kind(node.value) if node.value else None)
        if ast.unparse(node.annotation) == "Any" and isinstance(node.target, ast.Name) and node.value is None:
            kind = PARAMETERS.get(node.target.id)  # a dataclass's field
        self._assign(node.target, kind)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.generic_visit(node)
        if node.optional_vars is not None:
            self._assign(node.optional_vars, self._kind(node.context_expr))

    def _assign(self, target: ast.expr, kind: str | None) -> None:
        if isinstance(target, ast.Name):
            self._names[-1][target.id] = _MODULE if target.id in LIBRARY else kind
        elif isinstance(target, ast.Attribute) and kind is not None:
            self._attributes[ast.unparse(target)] = kind

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        stored = isinstance(node.ctx, ast.Store)
        self._found.append(Use(node.lineno, self._kind(node.value), node.attr, stored=stored))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        for kind in map(self._kind, node.bases):  # what is public in a class of the library's overrides something there
            if kind is not None and kind.startswith(_CLASS):
                methods = [child for child in node.body if isinstance(child, ast.FunctionDef)]
                self._found += [
                    Use(child.lineno, kind, child.name, (len(child.args.args), ()))
                    for child in methods
                    if not child.name.startswith("_")
                ]

    def visit_Call(self, node: ast.Call) -> None:
        call = None
        if not any(isinstance(one, ast.Starred) for one in node.args) and all(one.arg for one in node.keywords):
            call = (len(node.args), tuple(str(one.arg) for one in node.keywords))
        if isinstance(node.func, ast.Attribute):
            self._found.append(Use(node.lineno, self._kind(node.func.value), node.func.attr, call))
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant):
                self._found.append(Use(node.lineno, self._kind(node.args[0]), str(name.value)))
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def _kind(self, node: ast.expr) -> str | None:
        """Of the value of an expression: the library, a class of it, an instance of a class, or ``None``."""
        if isinstance(node, ast.Name):
            scopes = (names for names in reversed(self._names) if node.id in names)
            return next(scopes, {}).get(node.id, _MODULE if node.id in LIBRARY else None)
        if isinstance(node, ast.Call):
            return self._given(node.func)
        if not isinstance(node, ast.Attribute):
            return None
        known = self._attributes.get(ast.unparse(node))
        owner = self._kind(node.value)
        if known is not None or owner is None:
            return known or (_MODULE if node.attr in LIBRARY else None)
        if owner == _MODULE:
            return _CLASS + node.attr if node.attr in self._surface.classes else None
        name = owner.removeprefix(_CLASS)
        if f"{name}.{node.attr}" in self._surface.classes:
            return f"{_CLASS}{name}.{node.attr}"
        (signature, *_) = self._surface.classes.get(name, {}).get(node.attr) or [""]
        if signature == "value":
            return name
        return self._class(signature.split(" ")[-1]) if signature.startswith(PROPERTY) else None

    def _given(self, function: ast.expr) -> str | None:
        """What a call of ``function`` gives."""
        if isinstance(function, ast.Attribute) and function.attr == "library":
            return _MODULE
        kind = self._kind(function)
        if kind is not None and kind.startswith(_CLASS):
            return kind.removeprefix(_CLASS)
        owner = self._kind(function.value) if isinstance(function, ast.Attribute) else None
        if owner is None or not isinstance(function, ast.Attribute):
            return None
        signatures = self._surface.classes.get(owner, {}).get(function.attr, [])
        return next((self._class(text.rpartition(" -> ")[2]) for text in signatures if " -> " in text), None)

    def _class(self, words: str) -> str | None:
        return words if words in self._surface.classes else None


def names_in(source: str) -> set[str]:
    """Every name that the source gives to something: functions, classes, fields, what it assigns to ``self``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
    return found


def names_imported(source: str) -> set[str]:
    """Every name that the modules and classes have which the source imports, TensorRT's excepted, and Python's own
    types."""
    kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type)]
    found = {name for kind in (*kinds, *_GIVEN) for name in dir(kind)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name for alias in node.names for name in _names_of(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {name for alias in node.names for name in _names_of(f"{node.module}.{alias.name}")}
    return found | set(dir(names_in))


_GIVEN = (os.stat_result, re.Match, re.Pattern, type(hashlib.sha256()))
"""Types of what the standard library's functions give."""


@cache
def _names_of(path: str) -> frozenset[str]:
    """The attributes of a module or a class, and of a module's classes."""
    if path.split(".")[0] in LIBRARY:
        return frozenset()
    parent, _, last = path.rpartition(".")
    try:
        value = importlib.import_module(path)
    except ImportError:
        value = getattr(importlib.import_module(parent), last)
    names = set(dir(value))
    if inspect.ismodule(value):
        names |= {name for kind in vars(value).values() if isinstance(kind, type) for name in dir(kind)}
    return frozenset(names)


def known_in(paths: Iterable[Path]) -> set[str]:
    """``names_in`` of files."""
    return {name for path in paths for name in names_in(path.read_text(encoding="utf-8"))}
