"""The options that say which part of a checkpoint is read, and whether a name is that of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.commands.command import MODEL, stack_options
from runtimes.errors import UsageError

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
        MODEL.option(
            "--expect-sha256",
            metavar="HEX",
            show_default="any",
            help="SHA-256 that the CHECKPOINT must have; another one is an error, exit code 3. It is recorded in the "
            "manifest.",
        ),
    )(command)


SELECTED = ("key", "strip_prefix")
"""The names of the values of ``selection_options`` that choose a part of a checkpoint."""


def selection_of(options: dict[str, Any]) -> Selection:
    """What the values of ``selection_options`` come to."""
    from exporter.weights.entries import Selection, parse_digest

    digest = options["expect_sha256"]
    return Selection(options["key"], options["strip_prefix"], sha256=None if digest is None else parse_digest(digest))


def require_checkpoint(digest: str | None, source: str) -> None:
    """Raises ``UsageError`` if a digest is expected, but there is no file with weights.

    Args:
        digest: The value of ``--expect-sha256``.
        source: The source of the weights, for the message.
    """
    if digest is not None:
        raise UsageError(
            f"--expect-sha256 is for a file with weights, not for {source}",
            code="expected-digest-without-file",
            hint="name the file, or omit --expect-sha256",
        )


def is_path(network: str) -> bool:
    """Whether it names a file and no variant, known or not; ``./resnet20`` is a file."""
    from exporter.models.variants import VARIANTS
    from exporter.weights.checkpoint import SUFFIXES

    path = Path(network)
    return network.lower() not in VARIANTS and ("/" in network or path.suffix.lower() in SUFFIXES or path.exists())
