"""The sentences that tests hold word for word, so that a change of wording breaks them.

A sentence is a string of four words or more in an ``assert`` statement, in a ``match=`` argument, or among the
arguments of ``pytest.mark.parametrize``. Each literal part of an f-string counts as a string of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from scripts.house.sources import Source

FEWEST_WORDS = 4


def sentences(tests: Sequence[Source]) -> list[str]:
    """The sentences of some test files, as ``path:line: text``."""
    return [
        f"{source.place(node)}: {text!r}"
        for source in tests
        for node, text in sorted(_strings(source.tree).items(), key=lambda item: (item[0].lineno, item[0].col_offset))
        if len(text.split()) >= FEWEST_WORDS
    ]


def _strings(tree: ast.Module) -> dict[ast.Constant, str]:
    """The strings that the tests compare with; each node counts once, even where one place lies within another."""
    return {
        node: node.value
        for outer in ast.walk(tree)
        for place in _places(outer)
        for node in ast.walk(place)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a node in which a string is a test's expectation."""
    if isinstance(node, ast.Assert):
        yield node
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "parametrize":
            yield node
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "match")
