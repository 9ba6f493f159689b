"""What source code asks of a library, read from its syntax, and whether the recorded surfaces have it.

Followed are imports, annotations, what a call gives, and what a function assigns to a name or to ``self``. Names of
CUDA and NVML are known by how they begin, whatever they are taken from, also as text: ``runtime.cudaMalloc``, and
``call(runtime, "cudaMalloc", size)``, whose arguments after the text are those of the function.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from tests.bindings.surface import Surface
from tests.bindings.tensorrt.surface import Parameters

ROOTS = {"cuda": "cuda.bindings.runtime", "onnxruntime": "onnxruntime", "pynvml": "pynvml", "torch": "torch"}
"""The module of each library that the code imports."""

_BEGINNINGS = {"cuda": re.compile(r"cuda[A-Z]\w+"), "pynvml": re.compile(r"(?:nvml[A-Z]|NVML)\w+")}
"""How the names of a library begin, where nothing else of the program's does."""

GIVEN = {
    "onnxruntime.InferenceSession.io_binding": "onnxruntime.IOBinding",
    "onnxruntime.InferenceSession.get_session_options": "onnxruntime.SessionOptions",
    "onnxruntime.OrtValue.ortvalue_from_numpy": "onnxruntime.OrtValue",
    "onnxruntime.OrtValue.ortvalue_from_shape_and_type": "onnxruntime.OrtValue",
}
"""What functions give whose signatures do not say it."""

_ENTRIES = ("add_run_config_entry", "add_session_config_entry")
"""The methods of ONNX Runtime whose first argument is the name of an option."""

_DYNAMIC = ("torch.nn.Module()", "torch.ops")
"""Values that have any attribute: layers, and the operators of all libraries."""

Call: TypeAlias = tuple[int, tuple[str, ...]]


@dataclass(frozen=True)
class Use:
    """One name that the source takes.

    ``name`` is a qualified name of the library, ``call`` how it is called, as (positional, keywords), if it is. An
    ``option`` is a text that the library compares with.
    """

    line: int
    library: str
    name: str
    call: Call | None = None
    option: bool = False


_OF_ALL = ("__doc__", "__file__", "__name__", "__path__", "__spec__")
"""What all modules have."""

Surfaces: TypeAlias = Mapping[str, Mapping[str, Surface]]
"""The surfaces by library and release."""


def problems(source: str, surfaces: Surfaces, only: Mapping[str, set[str]] | None = None) -> list[str]:
    """What the source asks for that a release does not have, one line each: ``line 3: cuda 12.8.0: CODE: sentence``.

    Args:
        source: The source code.
        surfaces: The surfaces, all of which the source must serve.
        only: Names that the source asks for under a condition, and the releases that have them.
    """
    found = []
    for use in dict.fromkeys(uses(source, surfaces)):
        for version, surface in surfaces[use.library].items():
            if version in (only or {}).get(use.name, {version}):
                found += [f"line {use.line}: {use.library} {version}: {words}" for words in _wrong(use, surface)]
    return found


def _wrong(use: Use, surface: Surface) -> Iterator[str]:
    if use.option:
        yield from [] if use.name in surface.options else [f"option-missing: there is no option {use.name}"]
        return
    if use.name not in surface.names:
        if use.name in surface.owners or use.name.rpartition(".")[2] in _OF_ALL:
            return
        if "." in use.name or use.name not in surface.members:
            yield f"name-missing: there is no {use.name}"
        return
    calls = [text for text in surface.names[use.name] if text.startswith("(")]
    if use.call is not None and calls and not any(Parameters.of(text).takes(*use.call) for text in calls):
        positional, keywords = use.call
        yield f"call-misfit: {use.name} is called with {positional} and {list(keywords)}, and is {' or '.join(calls)}"


def uses(source: str, surfaces: Surfaces) -> list[Use]:
    """All names of the libraries that the source takes."""
    tree = ast.parse(source)
    attributes: dict[str, str] = {}
    for _ in range(2):  # what a method assigns to self is known in those above it
        reader = _Reader(surfaces, _imports(tree), attributes)
        reader.visit(tree)
    return reader.found


def _imports(tree: ast.Module) -> dict[str, str]:
    """The full name of everything that is imported, by its name in the file."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {
        own: full
        for own, full in found.items()
        if full.split(".")[0] in {root.split(".")[0] for root in ROOTS.values()}
    }


class _Reader(ast.NodeVisitor):
    """Values are full names: ``torch.cuda`` for a module, ``torch.Tensor`` for a class, ``torch.Tensor()`` for one's
    instance."""

    def __init__(self, surfaces: Surfaces, imports: dict[str, str], attributes: dict[str, str]) -> None:
        self._surfaces = surfaces
        self._attributes = attributes
        self._scopes: list[dict[str, str | None]] = [dict(imports)]
        self.found: list[Use] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self._scopes.append({one.arg: self._annotated(one.annotation) for one in given})
        self.generic_visit(node)
        self._scopes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._assign(target, self._value(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._assign(node.target, self._annotated(node.annotation))

    def visit_withitem(self, node: ast.withitem) -> None:
        self.generic_visit(node)
        if node.optional_vars is not None:
            self._assign(node.optional_vars, self._value(node.context_expr))

    def _assign(self, target: ast.expr, value: str | None) -> None:
        if isinstance(target, ast.Name):
            self._scopes[-1][target.id] = value
        elif isinstance(target, ast.Attribute) and value is not None:
            self._attributes[ast.unparse(target)] = value

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        self._take(node, None)

    def visit_Call(self, node: ast.Call) -> None:
        plain = not any(isinstance(one, ast.Starred) for one in node.args) and all(one.arg for one in node.keywords)
        call = (len(node.args), tuple(str(one.arg) for one in node.keywords)) if plain else None
        if isinstance(node.func, ast.Attribute):
            self._take(node.func, call)
            self.visit(node.func.value)
            if node.func.attr in _ENTRIES and isinstance(node.args[0], ast.Constant):
                self.found.append(Use(node.lineno, "onnxruntime", str(node.args[0].value), option=True))
        elif (value := self._value(node.func)) is not None and isinstance(node.func, ast.Name):
            self._add(node.lineno, value, call)
        else:
            self.visit(node.func)
        self._texts(node)
        for argument in (*node.args, *node.keywords):
            self.visit(argument)

    def _texts(self, node: ast.Call) -> None:
        """A name as text, with the arguments that follow it; ``getattr`` calls nothing."""
        calls = ast.unparse(node.func).rpartition(".")[2] not in ("getattr", "hasattr")
        for number, one in enumerate(node.args):
            if isinstance(one, ast.Constant) and (value := _by_beginning(str(one.value))) is not None:
                rest = node.args[number + 1 :]
                plain = calls and not any(isinstance(other, ast.Starred) for other in rest)
                self._add(one.lineno, value, (len(rest), ()) if plain else None)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and (value := _by_beginning(node.value)) is not None:
            self._add(node.lineno, value, None)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        for part in node.values:
            if not isinstance(part, ast.Constant):  # a part of a text is no name
                self.visit(part)

    def _take(self, node: ast.Attribute, call: Call | None) -> None:
        value = self._named(node)
        if value is not None:
            self._add(node.lineno, value, call)

    def _add(self, line: int, value: str, call: Call | None) -> None:
        library, root = _library(value)
        name = value.replace("()", "")
        if (library is not None and root.startswith(f"{name}.")) or name == root:
            return  # a part of the module's own name
        if library is not None:
            self.found.append(Use(line, library, _short(library, name), call))

    def _named(self, node: ast.Attribute) -> str | None:
        """The full name of an attribute."""
        owner = self._value(node.value)
        if owner is None or owner in _DYNAMIC or not self._owns_names(owner):
            return _by_beginning(node.attr)
        return f"{owner}.{node.attr}"

    def _owns_names(self, value: str) -> bool:
        """Whether the members of a value are recorded: those of modules and of some classes."""
        library, root = _library(value)
        if library is None:
            return False
        name = value.replace("()", "")
        if name == root or root.startswith(f"{name}."):
            return True
        return self._is_owner(library, _short(library, name))

    def _is_owner(self, library: str, name: str) -> bool:
        return any(name in surface.owners for surface in self._surfaces[library].values())

    def _annotated(self, annotation: ast.expr | None) -> str | None:
        words = "" if annotation is None else ast.unparse(annotation).strip("'\"").removesuffix(" | None")
        if not re.fullmatch(r"[\w.]+", words):
            return None
        kind = self._value(ast.parse(words, mode="eval").body)
        return None if kind is None else f"{kind}()"

    def _value(self, node: ast.expr) -> str | None:
        """The full name of the value of an expression, or ``None`` for what is of no library."""
        if isinstance(node, ast.Name):
            scopes = (names for names in reversed(self._scopes) if node.id in names)
            return next(scopes, {}).get(node.id)
        if isinstance(node, ast.Attribute):
            return self._attributes.get(ast.unparse(node)) or self._named(node)
        if not isinstance(node, ast.Call):
            return None
        texts = (_by_beginning(str(one.value)) for one in node.args if isinstance(one, ast.Constant))
        return self._given(next((text for text in texts if text is not None), None) or self._value(node.func))

    def _given(self, function: str | None) -> str | None:
        """What a call of a function or class gives."""
        library, _ = _library(function or "")
        if function is None or library is None:
            return None
        name = function.replace("()", "")
        if name in GIVEN:
            return f"{GIVEN[name]}()"
        short = _short(library, name)
        if self._is_owner(library, short):
            return f"{name}()"
        calls = [text for surface in self._surfaces[library].values() for text in surface.names.get(short, [])]
        types = [text.rpartition(" -> ")[2] for text in calls if " -> " in text]
        kind = next((kind for kind in types if self._is_owner(library, kind)), None)
        return None if kind is None else f"{ROOTS[library]}.{kind}()"


def _by_beginning(word: str) -> str | None:
    """The full name of a word that begins as the names of a library do."""
    for library, pattern in _BEGINNINGS.items():
        if pattern.fullmatch(word):
            return f"{ROOTS[library]}.{word}"
    return None


def _library(value: str) -> tuple[str | None, str]:
    first = value.split(".")[0]
    for library, root in ROOTS.items():
        if root.split(".")[0] == first:
            return library, root
    return None, ""


def _short(library: str, name: str) -> str:
    """A full name as it stands in the surface: that of PyTorch has its module's name, the others have not."""
    return name if library == "torch" else name.removeprefix(f"{ROOTS[library]}.")
