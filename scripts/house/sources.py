"""The sources are the Python files of a code base; each of them is read and parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

PACKAGES = ("exporter", "runtimes", "benchmarks")
FACE = "rexport"
TESTS = "tests"
SCRIPTS = "scripts"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class MissingFolderError(Exception):
    """This error says that the root lacks a folder whose structure is to be measured."""


@dataclass(frozen=True)
class Source:
    """A source is one Python file, with its path below the root, its text and its syntax tree."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """This says whether the file is the ``__init__.py`` of its folder."""
        return self.path.name == "__init__.py"

    @property
    def is_bare(self) -> bool:
        """This says whether the file defines nothing: it holds a docstring and ``__future__`` imports at most."""
        return all(
            (isinstance(node, ast.ImportFrom) and node.module == "__future__")
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            for node in self.tree.body
        )

    @property
    def module(self) -> str:
        """The dotted name under which Python imports the file."""
        return ".".join(self.path.parent.parts if self.is_package else self.path.with_suffix("").parts)

    @property
    def line_count(self) -> int:
        """The number of lines of the file, blank ones included."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """The functions and methods of the file come in the order of their lines, nested ones included."""
        found = (node for node in ast.walk(self.tree) if isinstance(node, Function))
        return iter(sorted(found, key=lambda node: node.lineno))

    def place(self, node: ast.stmt | ast.expr) -> str:
        """The place of a node reads ``path:line``."""
        return f"{self.path}:{node.lineno}"


@dataclass(frozen=True)
class House:
    """A house is the whole code base: the three packages, their Python face, the tests and the developers' programs."""

    packages: tuple[Source, ...]
    tests: tuple[Source, ...]
    scripts: tuple[Source, ...]

    @cached_property
    def benchmarks(self) -> tuple[Source, ...]:
        """The sources below ``benchmarks/``."""
        return tuple(source for source in self.packages if source.path.parts[0] == "benchmarks")

    @property
    def everything(self) -> tuple[Source, ...]:
        """The sources of all folders."""
        return self.packages + self.tests + self.scripts


def read_house(root: Path) -> House:
    """The house at a root needs the three packages and the tests; ``MissingFolderError`` names what is not there."""
    missing = [name for name in (*PACKAGES, TESTS) if not (root / name).is_dir()]
    if missing:
        raise MissingFolderError(f"{root} has no folder {', '.join(missing)}; --root names the root of the repository")
    packages = tuple(source for name in (*PACKAGES, FACE) for source in _read_folder(root, name))
    return House(packages, _read_folder(root, TESTS), _read_folder(root, SCRIPTS))


def _read_folder(root: Path, name: str) -> tuple[Source, ...]:
    return tuple(_read_source(root, path) for path in sorted((root / name).rglob("*.py")))


def _read_source(root: Path, path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(PurePosixPath(path.relative_to(root).as_posix()), text, ast.parse(text, filename=str(path)))
