"""The command ``completion``, which each program has: the line that turns on completion in a shell."""

from __future__ import annotations

import sys

import click

from exporter.commands import streams
from exporter.commands.command import NameChoice, SectionedCommand

LINES = {
    "bash": ('eval "$({variable}=bash_source {program})"', "~/.bashrc"),
    "zsh": ('eval "$({variable}=zsh_source {program})"', "~/.zshrc"),
    "fish": ("{variable}=fish_source {program} | source", "~/.config/fish/config.fish"),
}
"""For each shell the line, and the file that it belongs into. click answers to the variable."""


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def completion_command(program: str, heading: str = "Commands") -> SectionedCommand:
    """The command for the program of that name."""

    @click.command(
        "completion",
        cls=SectionedCommand,
        heading=heading,
        examples=(f"{program} completion bash >> ~/.bashrc", f"{program} completion zsh >> ~/.zshrc"),
    )
    @click.argument("shell", metavar="bash|zsh|fish", type=NameChoice(tuple(LINES)), help="Shell that is to complete.")
    def completion(shell: str) -> None:
        """Print the line that turns on completion in a shell.

        The line belongs into the shell's start-up file. A new shell then completes commands, options, files and the
        names of variants, backends and data sets when Tab is pressed.
        """
        line, file = LINES[shell]
        streams.print_result(line.format(variable=f"_{program.upper()}_COMPLETE", program=program))
        if _is_terminal():
            streams.print_message(f"add this line to {file}: {program} completion {shell} >> {file}")

    return completion
