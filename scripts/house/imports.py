"""The imports between the files of a code base, and the rooms, arrows and circles that they form.

An import counts wherever it stands: at the top of a file, in a function, or under ``TYPE_CHECKING``. Only statements
count: neither a call of ``importlib`` does, nor the ``__init__.py`` that Python runs on its way to a submodule.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath

from scripts.house.graph import Graph, circles, graph_of, shortest_circle
from scripts.house.sources import Source


@dataclass(frozen=True)
class Import:
    """An import is one statement by which one file of the code base takes something from another."""

    importer: PurePosixPath
    target: PurePosixPath
    line: int


def imports_between(sources: Sequence[Source]) -> list[Import]:
    """The imports between some files leave out what comes from elsewhere, and what a file takes from itself."""
    paths = {source.module: source.path for source in sources}
    return [
        Import(source.path, paths[module], node.lineno)
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in _modules_of(node, source, paths.keys())
        if paths[module] != source.path
    ]


def rooms(package: Sequence[Source]) -> list[str]:
    """The rooms of a package are its flat files and its folders; its own ``__init__.py`` is none while it is bare."""
    return sorted({_room(source.path) for source in package if not (_is_front(source) and source.is_bare)})


def arrows(package: Sequence[Source]) -> dict[tuple[str, str], Import]:
    """The arrows of a package lead from room to room; each comes with the first import that draws it."""
    front = {source.path for source in package if _is_front(source) and source.is_bare}
    drawn: dict[tuple[str, str], Import] = {}
    for entry in imports_between(package):
        ends = _room(entry.importer), _room(entry.target)
        if ends[0] != ends[1] and entry.target not in front:
            drawn.setdefault(ends, entry)
    return dict(sorted(drawn.items()))


def file_circles(sources: Sequence[Source]) -> list[str]:
    """The circles between files, one line for each."""
    entries = imports_between(sources)
    graph = graph_of([], ((str(entry.importer), str(entry.target)) for entry in entries))
    return [_description(graph, circle) for circle in circles(graph)]


def folder_circles(sources: Sequence[Source]) -> list[str]:
    """The circles between the children of each folder, one line for each.

    A child is a subfolder or a flat file. A circle of flat files alone is left to ``file_circles``.
    """
    entries = imports_between(sources)
    folders = sorted({folder for source in sources for folder in source.path.parents})
    lines = []
    for folder in folders:
        inner = [entry for entry in entries if folder in entry.importer.parents and folder in entry.target.parents]
        graph = graph_of([], ((_child(folder, entry.importer), _child(folder, entry.target)) for entry in inner))
        lines += [_description(graph, circle) for circle in circles(graph) if any(name[-1] == "/" for name in circle)]
    return lines


def _description(graph: Graph, circle: list[str]) -> str:
    """The description of a circle names its members and the shortest way round from the first of them."""
    return f"{len(circle)} members: {', '.join(circle)}; shortest: {' -> '.join(shortest_circle(graph, circle[0]))}"


def _child(folder: PurePosixPath, path: PurePosixPath) -> str:
    """The child of a folder on the way to a file ends in a slash if it is a folder itself."""
    first, *rest = path.relative_to(folder).parts
    return f"{folder / first}{'/' if rest else ''}"


def _room(path: PurePosixPath) -> str:
    """The room of a file is the direct child of its package on the way to it, without a suffix."""
    return path.with_suffix("").parts[1]


def _is_front(source: Source) -> bool:
    """This says whether the file is the ``__init__.py`` of a whole package."""
    return source.is_package and len(source.path.parts) == 2


def _modules_of(node: ast.Import | ast.ImportFrom, source: Source, known: Set[str]) -> Iterator[str]:
    """The modules that a statement names: ``from package import name`` means a submodule where there is one."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        base = _base_of(node, source)
        submodules = [f"{base}.{alias.name}" for alias in node.names]
        names = [name if name in known else base for name in submodules]
    return (name for name in dict.fromkeys(names) if name in known)


def _base_of(node: ast.ImportFrom, source: Source) -> str:
    """The module after ``from`` is a full dotted name, also where the statement is a relative one."""
    if not node.level:
        return node.module or ""
    package = source.module.split(".") if source.is_package else source.module.split(".")[:-1]
    upwards = package[: len(package) - (node.level - 1)]
    return ".".join([*upwards, *([node.module] if node.module else [])])
