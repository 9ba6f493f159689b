"""The command ``rexport manifests`` in this process, and the artifact that it writes files for."""

from __future__ import annotations

from pathlib import Path

from exporter.cli import main
from tests.exporter.command_line import Result, here


def manifests(*arguments: str | Path) -> Result:
    return here(main, "manifests", *arguments)


def text_of(*arguments: str | Path) -> str:
    """What a command prints that must succeed."""
    done = manifests(*arguments)
    assert done.code == 0, done.stderr
    return done.stdout
