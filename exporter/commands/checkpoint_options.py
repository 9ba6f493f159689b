"""The options that say which part of a checkpoint is read, and whether a name is that of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.commands.command import MODEL, stack_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.weights.entries import Selection

    Command = TypeVar("Command", bound=Callable[..., Any])


def selection_options(command: Command) -> Command:
    """The options that say which part of a checkpoint is read."""
    return stack_options(
        MODEL.option(
            "--key",
            metavar="NAME",
            show_default="state_dict, model, net or another usual name",
            help="Entry of the CHECKPOINT that holds the weights, with dots for entries inside others, as ema.",
        ),
        MODEL.option(
            "--strip-prefix",
            metavar="TEXT",
            show_default="the one that all layers of the network have",
            help="Beginning of the names of the network's tensors; tensors with other names are left out.",
        ),
    )(command)


SELECTED = ("key", "strip_prefix")
"""What ``selection_options`` call their values."""


def selection_of(options: dict[str, Any]) -> Selection:
    """What the values of ``selection_options`` come to."""
    from exporter.weights.entries import Selection

    return Selection(options["key"], options["strip_prefix"])


def is_path(network: str) -> bool:
    """Whether it names a file and no variant, known or not; ``./resnet20`` is a file."""
    from exporter.models.variants import VARIANTS
    from exporter.weights.checkpoint import SUFFIXES

    path = Path(network)
    return network.lower() not in VARIANTS and ("/" in network or path.suffix.lower() in SUFFIXES or path.exists())
