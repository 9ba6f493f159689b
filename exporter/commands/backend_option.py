"""The option ``--backend``, which both commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    Command = TypeVar("Command", bound=Callable[..., Any])

FORMER_NAME = "--runtime"
"""The option's name up to version 0.1. It still works, and help does not list it."""

ALIASES = {"onnxruntime": ("ort",), "openvino": ("ov",), "tensorrt": ("trt",)}
"""Short names."""


def resolve_name(name: str) -> str:
    """The backend's name for one of its aliases, in any case; an unknown name as it is, for the command to refuse."""
    from runtimes import available_backends

    for backend in available_backends():
        if name.lower() in (backend.name, *ALIASES.get(backend.name, ())):
            return backend.name
    return name


class _RenamedOption(click.Option):
    """An option whose help shows its first name alone."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names = self.opts
        self.opts = names[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def backend_option(parameter: str, help: str, multiple: bool = False) -> Callable[[Command], Command]:
    """The option, whose value the command takes as ``parameter``: a name, or several of them."""
    return click.option(
        "--backend",
        FORMER_NAME,
        parameter,
        cls=_RenamedOption,
        type=resolve_name,
        metavar="NAME",
        multiple=multiple,
        help=help,
    )
