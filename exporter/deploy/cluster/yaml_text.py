"""YAML with comments at its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtimes.errors import BackendUnavailableError
from runtimes.escaping import json_text, printable
from runtimes.libraries import importing, missing_library

WIDTH = 10_000
"""Columns of a line: no text is folded, so that a command can be copied."""


def yaml_text(head: Sequence[str], document: Mapping[str, object]) -> str:
    """Return a document as YAML. Keys keep their order, and a text of several lines is a literal block.

    Args:
        head: The lines of the comment at the beginning, without their number signs.
        document: Dictionaries, lists, texts and numbers.

    Raises:
        BackendUnavailableError: PyYAML is not installed.
    """
    missing = missing_library("yaml", "manifests")
    if missing is not None:
        raise BackendUnavailableError(missing.sentence, code=missing.code)
    with importing("yaml", "manifests"):
        import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:  # noqa: ARG002
            return super().increase_indent(flow, False)

        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
            return True

    def represent(dumper: Any, text: str) -> Any:
        lines = text.split("\n")
        style = '"' if any(printable(line) != line for line in lines) else "|" if len(lines) > 1 else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    body = yaml.dump(dict(document), Dumper=Dumper, sort_keys=False, width=WIDTH, allow_unicode=True)
    return comment(head) + json_text(str(body))  # what is escaped stands in double quotation marks


def comment(lines: Sequence[str]) -> str:
    """Return the lines as comments, for YAML and for a Dockerfile."""
    return "".join(f"# {printable(line)}".rstrip() + "\n" for line in lines)
