"""The option ``--backend``, which both programs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exporter.commands.command import RUNTIME, Option
from exporter.commands.values import BACKEND

if TYPE_CHECKING:
    Command = TypeVar("Command", bound=Callable[..., Any])

FORMER_NAME = "--runtime"
"""The option's name up to version 0.1. It still works, and help does not list it."""


class _RenamedOption(Option):
    """An option whose help shows its first name alone."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names = self.opts
        self.opts = names[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def backend_option(
    parameter: str, help: str, multiple: bool = False, default: str | None = None
) -> Callable[[Command], Command]:
    """The option, whose value the command takes as ``parameter``: a name, or several of them. ``default`` says in words
    what is taken where none is given."""
    return RUNTIME.option(
        "--backend",
        FORMER_NAME,
        parameter,
        cls=_RenamedOption,
        type=BACKEND,
        metavar="NAME",
        multiple=multiple,
        show_default=default or True,
        help=help,
    )
