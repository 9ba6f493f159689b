"""What is wrong with the help of a program's commands, by rules that a machine can check."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
from click.testing import CliRunner

WIDTH = 80
EXAMPLES = 2
EXAMPLE = re.compile(r"\bas \S|\bfor example\b|\bDefault: ")
"""Words in a help text that stand for a default: an example, or the default in words of its own."""


def command_paths(program: str, root: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it, groups among them."""
    yield (program,), root
    if isinstance(root, click.Group):
        for name, command in root.commands.items():
            for path, inner in command_paths(name, command):
                yield (program, *path), inner


def help_faults(path: tuple[str, ...], command: click.Command, root: click.Command) -> list[str]:
    """The faults of one command's help, one sentence each."""
    faults = [
        fault
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for fault in _option_faults(param)
    ]
    if not (command.help or "").split("\n\n")[0].rstrip().endswith("."):
        faults.append("its description does not begin with a sentence that ends in a period")
    examples: tuple[str, ...] = getattr(command, "examples", ())
    if len(examples) != EXAMPLES:
        faults.append(f"it has {len(examples)} examples, not {EXAMPLES}")
    faults += [f"the example {example!r}: {why}" for example in examples if (why := _parse_fault(example, root))]
    shown = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(root, [*path[1:], "--help"]).output
    faults += [f"a line of {len(line)} columns: {line}" for line in shown.splitlines() if len(line) > WIDTH]
    if isinstance(command, click.Group):
        faults += [f"cut: {line.strip()}" for line in shown.splitlines() if re.match(r"  \w.*\w\.\.\.$", line)]
    return faults


def _option_faults(option: click.Option) -> Iterator[str]:
    name, help = max(option.opts, key=len), option.help or ""
    if not help.endswith("."):
        yield f"{name}: its help does not end in a period"
    if help.startswith("Of "):
        yield f"{name}: its help is a genitive without a noun"
    extra = option.get_help_extra(click.Context(click.Command("any"), show_default=None))
    if not (option.is_flag or option.required or "default" in extra or EXAMPLE.search(help)):
        yield f"{name}: no default and no example"


def _parse_fault(example: str, root: click.Command) -> str | None:
    """Why the line is no command line of the program; ``None`` if click takes it."""
    words = re.split(r" \|| >", example)[0].strip()
    program, *arguments = shlex.split(words)
    if program != root.name:
        return f"{program} is not {root.name}"
    context, command = click.Context(root, info_name=program, **root.context_settings), root
    try:
        while isinstance(command, click.Group):
            name, found, arguments = command.resolve_command(context, arguments)
            assert found is not None
            context, command = click.Context(found, info_name=name, parent=context), found
        command.make_context(context.info_name, arguments, parent=context.parent)
    except click.ClickException as error:
        return error.format_message()
    return None
