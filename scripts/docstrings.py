"""Rules for docstrings that ruff does not have: ``python -m scripts.docstrings``.

The docstrings of modules, classes and functions are checked, and the strings after attributes and constants. Ruff's
rules ``D`` check the rest: whether docstrings exist, and their form.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.house.sources import Function, Source, read_house
from scripts.sentences import find_error_classes

CHECKED = (
    *("exporter", "runtimes"),
    *("benchmarks/accuracy", "benchmarks/compare", "benchmarks/doctor", "benchmarks/machine", "benchmarks/process"),
    *("benchmarks/records", "benchmarks/roofline", "benchmarks/stats", "benchmarks/tuning", "benchmarks/worker"),
)
"""The packages and rooms whose docstrings follow the rules."""

EXCEPTIONS = ("exporter/cli.py", "exporter/commands", "exporter/inspect/predict.py")
"""The files and folders of these packages whose docstrings do not follow the rules yet."""

FIRST_WORDS = ("As", "It", "Of", "That", "These", "Those", "What", "Where", "Whom")
"""Words that must not start a docstring: what follows does not stand alone without the name of the documented thing."""

SECTION = re.compile(r"^(?:Args|Attributes|Example|Raises|Returns|Yields):$", re.MULTILINE)
"""The headings of the sections that end the description."""


@dataclass(frozen=True)
class Docstring:
    """A docstring and the thing that it documents.

    Attributes:
        place: The file and the line.
        name: The qualified name of the documented thing.
        text: The docstring without its indentation, or ``None`` if there is none.
        node: The documented module, class, function or assignment.
    """

    place: str
    name: str
    text: str | None
    node: ast.AST

    @property
    def is_public(self) -> bool:
        """Whether no part of the name begins with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))

    @property
    def description(self) -> str:
        """The text before the first section."""
        return SECTION.split(self.text or "")[0]


def find_docstrings(source: Source) -> Iterator[Docstring]:
    """Yield the docstrings of a file, and the things without docstring that should have one. Overloads need none."""
    yield Docstring(f"{source.path}:1", "", ast.get_docstring(source.tree), source.tree)
    yield from _below(source, source.tree.body, "")


def _below(source: Source, body: Sequence[ast.stmt], prefix: str) -> Iterator[Docstring]:
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.ClassDef, Function)):
            if _is_overload(node):
                continue
            name = f"{prefix}{node.name}"
            yield Docstring(source.place(node), name, ast.get_docstring(node), node)
            if isinstance(node, ast.ClassDef):
                yield from _below(source, node.body, f"{name}.")
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(after, ast.Expr):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                yield Docstring(source.place(after), f"{prefix}{ast.unparse(target)}", after.value.value, node)


def _is_overload(node: ast.ClassDef | Function) -> bool:
    """Return whether a function states one signature for type checkers; the implementation has the docstring."""
    return any(ast.unparse(decorator).split(".")[-1] == "overload" for decorator in node.decorator_list)


def find_faults(
    sources: Sequence[Source], checked: Sequence[str] = CHECKED, exceptions: Sequence[str] = EXCEPTIONS
) -> list[str]:
    """Return a line ``path:line: name: fault`` for each fault.

    Args:
        sources: All source files, from which the names of the error classes are read.
        checked: The files and folders whose docstrings are checked.
        exceptions: The files and folders in them whose docstrings are not checked.
    """

    def lies_in(source: Source, paths: Sequence[str]) -> bool:
        return any(source.path.is_relative_to(path) for path in paths)

    errors = find_error_classes(sources)
    return [
        f"{docstring.place}: {docstring.name or 'module'}: {fault}"
        for source in sources
        if lies_in(source, checked) and not lies_in(source, exceptions)
        for docstring in find_docstrings(source)
        for fault in _faults_of(docstring, errors)
    ]


def _faults_of(docstring: Docstring, errors: frozenset[str]) -> Iterator[str]:
    if docstring.text is None:
        constant = isinstance(docstring.node, (ast.Assign, ast.AnnAssign))
        if docstring.is_public and not constant:
            yield "no docstring"
        return
    first_line = docstring.text.partition("\n")[0]
    if not re.search(r"\.(?:\s|$)", docstring.text.partition("\n\n")[0]):
        yield "the first sentence does not end with a period"
    if first_line.partition(" ")[0] in FIRST_WORDS:
        yield f"starts with {first_line.partition(' ')[0]!r}"
    if docstring.is_public and isinstance(docstring.node, Function):
        yield from _faults_of_function(docstring, docstring.node, errors)


def _faults_of_function(docstring: Docstring, function: Function, errors: frozenset[str]) -> Iterator[str]:
    text = docstring.text or ""
    raised = sorted(set(_raised(function)) & errors)
    if raised and "Raises:" not in text:
        yield f"raises {', '.join(raised)} and has no section 'Raises:'"
    given = function.args
    parameters = [parameter.arg for parameter in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    named = [name for name in parameters if name not in ("self", "cls")]
    missing = [name for name in named if not re.search(rf"\b{name}\b", docstring.description)]
    if len(named) > 1 and missing and "Args:" not in text:
        yield f"has no section 'Args:' and does not name {', '.join(missing)}"


def _raised(function: Function) -> Iterator[str]:
    """Yield the names of the classes that a function raises itself, not those of functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.ClassDef, Function, ast.Lambda)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from (part for part in ast.unparse(node.exc.func).split(".") if part[:1].isupper())
        waiting += ast.iter_child_nodes(node)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the faults. The exit code is 1 if there are any. ``arguments`` stand for those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m scripts.docstrings", description="Check the docstrings.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="root of the repository")
    parser.add_argument(
        "paths",
        nargs="*",
        help=f"files and folders to check (default: {', '.join(CHECKED)}, without {', '.join(EXCEPTIONS)})",
    )
    options = parser.parse_args(arguments)
    sources = read_house(options.root).packages
    faults = find_faults(sources, options.paths, ()) if options.paths else find_faults(sources)
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
