"""Parts of the documentation that are made from the program: the help of every command, and the error codes.

MkDocs loads this file as a hook (``hooks`` in ``mkdocs.yml``) and calls ``on_page_markdown`` for each page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

SENTENCES = Path(__file__).parents[2] / "tests/sentences.toml"
"""The table of codes and sentences, which the tests hold to the source."""

WIDTH = 80
"""Columns of the help texts."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the page with each placeholder replaced by the part that it names.

    Args:
        markdown: The text of the page.
    """
    for placeholder, write in PARTS.items():
        if placeholder in markdown:
            markdown = markdown.replace(placeholder, write())
    return markdown


def command_reference() -> str:
    """Return a heading and the help text of every command of both programs, as Markdown."""
    from benchmarks.cli import rbench
    from exporter.cli import cli

    parts = []
    for program, name in ((cli, "rexport"), (rbench, "rbench")):
        settings: dict[str, Any] = {**program.context_settings, "max_content_width": WIDTH}
        for context, command in walk(program, click.Context(program, info_name=name, **settings)):
            level = "##" if context.parent is None else "###"
            parts.append(f"{level} `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield the command and all that stand below it, each with its context; hidden commands are left out."""
    yield context, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from walk(child, click.Context(child, info_name=name, parent=context, max_content_width=WIDTH))


def error_codes() -> str:
    """Return one table for each package: code and sentence of every error, warning and notice."""
    parts = []
    for package, sentences in tomllib.loads(SENTENCES.read_text(encoding="utf-8")).items():
        rows = "\n".join(f"| `{code}` | {_cell(sentence)} |" for code, sentence in sorted(sentences.items()))
        parts.append(f"### `{package}`\n\n| code | sentence |\n| --- | --- |\n{rows}\n")
    return "\n".join(parts)


def _cell(sentence: str | list[str]) -> str:
    """One sentence, or several that share a code, without anything that ends a cell of a table."""
    lines = [sentence] if isinstance(sentence, str) else sentence
    return "<br>".join(
        line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")
        for line in lines
    )


def guesses_table() -> str:
    """Return a section for each guess: what is looked at and taken, the printed lines, the record and the options."""
    from exporter.guesses import GUESSES

    sentences: dict[str, str | list[str]] = {}
    for package in tomllib.loads(SENTENCES.read_text(encoding="utf-8")).values():
        sentences |= package
    parts = []
    for guess in GUESSES:
        lines = "<br>".join(f"`{code}`: {_cell(sentences[code])}" for code in guess.notices)
        rows = (
            ("looks at", guess.evidence),
            ("takes", guess.taken),
            ("prints", lines),
            ("records", f"`{guess.record}`" if guess.is_field else guess.record),
            ("you overrule it", ", ".join(f"`{way}`" if " " not in way else way for way in guess.overrules)),
            ("refuses", ", ".join(f"`{code}`" for code in guess.refusals) or "never"),
        )
        body = "\n".join(f"| {name} | {text} |" for name, text in rows)
        parts.append(f"### {guess.subject}\n\n| | |\n| --- | --- |\n{body}\n")
    return "\n".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "<!-- commands -->": command_reference,
    "<!-- codes -->": error_codes,
    "<!-- guesses -->": guesses_table,
}
"""Each placeholder, and what takes its place."""
