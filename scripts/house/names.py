"""The names of classes, functions and tests, held to rules that a program can judge.

A function is said to be named by a participle if the first word of its name is one: ``told``, ``_timed`` and
``measured_again`` are. Dunder methods are left out, and so are properties: they name a state, as ``closed`` does.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Sequence

from scripts.house.sources import Function, Source

LONGEST_TEST_NAME = 60
SHORTEST_COPY = 4

# Words that are a verb or a noun as well (read, run, put, set, cut, cast, bound) are left out.
IRREGULAR = """
    begun bent bought broken brought built burnt caught chosen dealt done drawn driven eaten fallen fed felt
    forgotten fought found frozen given gone grown heard held hidden kept known laid lain led left lent lit lost made
    meant met overridden paid proven rebuilt rewritten ridden risen said seen sent shaken shown sold sought spent spoken
    spun stolen stood stuck sworn taken taught thought thrown told torn understood undone won worn woven written
"""
NO_PARTICIPLES = "bleed breed embed exceed feed hundred indeed need proceed red seed shed speed"


def is_participle(word: str) -> bool:
    """This says whether a word looks like a past participle: it ends in -ed or is one of the irregular ones."""
    return word in IRREGULAR.split() or (word.endswith("ed") and len(word) > 3 and word not in NO_PARTICIPLES.split())


def participles(sources: Sequence[Source]) -> list[str]:
    """The functions and methods that are named by a participle, as ``path:line: name``."""
    return [
        f"{source.place(node)}: {node.name}"
        for source in sources
        for node in source.functions()
        if is_participle(node.name.strip("_").split("_")[0]) and not _is_dunder(node) and not _is_property(node)
    ]


def class_names(sources: Sequence[Source]) -> list[str]:
    """The class names, as they are written, that are defined in more than one place, with these places."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(source.place(node))
    return [f"{name}: {', '.join(found)}" for name, found in sorted(places.items()) if len(found) > 1]


def long_test_names(sources: Sequence[Source]) -> list[str]:
    """The test functions whose names are longer than sixty characters, as ``path:line: name``."""
    return [
        f"{source.place(node)}: {node.name} ({len(node.name)})"
        for source in sources
        for node in source.functions()
        if node.name.startswith("test") and len(node.name) > LONGEST_TEST_NAME
    ]


def copies(sources: Sequence[Source]) -> list[str]:
    """The bodies of four lines or more that several functions share, comments and docstrings aside."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for node in source.functions():
            if body_length(node) >= SHORTEST_COPY:
                body = "\n".join(ast.unparse(statement) for statement in body_of(node))
                places[body].append(f"{source.place(node)} {node.name}")
    return [" = ".join(found) for found in places.values() if len(found) > 1]


def body_of(node: Function) -> list[ast.stmt]:
    """The body of a function is its statements without the docstring."""
    return node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body


def body_length(node: Function) -> int:
    """The length of a function's body is the number of its lines, comments and blank lines within it included."""
    body = body_of(node)
    return (node.end_lineno or node.lineno) - body[0].lineno + 1 if body else 0


def _is_dunder(node: Function) -> bool:
    return node.name.startswith("__") and node.name.endswith("__")


def _is_property(node: Function) -> bool:
    """This says whether a decorator makes an attribute of the function: ``property`` and its kin, and setters."""
    last_words = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(last_words & {"property", "cached_property", "setter", "deleter"})
