"""Commands whose help has its options in sections and ends with two examples. Both programs are made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtimes.arguments import LARGEST_COUNT, LARGEST_SEED
from runtimes.errors import nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from click.types import OptionHelpExtra

    Function = TypeVar("Function", bound=Callable[..., Any])

SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""click's settings of every command."""

COLUMN = 28
"""Width of the column of options, at most; a longer one has a line of its own."""


SHORT = 24
"""A default of up to this many characters is not torn apart at the end of a line."""

WHOLE = 1000
"""Characters of a command's first sentence in the list of its group, at most: so many that none is cut."""

_ENDS = tuple(f"<={largest}" for largest in (LARGEST_COUNT, LARGEST_SEED))
"""The ends of the ranges that do not matter to a reader of the help."""

_NO_BREAK = "\N{NO-BREAK SPACE}"


class Option(click.Option):
    """An option that stands in a section of the help and shows its default, which may be words: ``show_default="all"``.
    A range that only excludes zero, or ends at the largest count or seed of all, is not shown."""

    def __init__(
        self, declarations: Sequence[str], *, section: str, show_default: bool | str = True, **attributes: Any
    ) -> None:
        super().__init__(declarations, show_default=show_default, **attributes)
        self.section = section

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        extra = super().get_help_extra(ctx)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        if extra.get("range", "").startswith("x>") or extra.get("range", "").endswith(_ENDS):
            del extra["range"]
        return extra

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, help = record
        text, bracket, end = help.rpartition("  [")
        end = end.replace(" ", _NO_BREAK) if len(end) <= SHORT else end
        return names, f"{text}{bracket}{end}"


@dataclass(frozen=True)
class OptionSection:
    """A heading in the help, under which options stand."""

    title: str

    def option(self, *declarations: str, **attributes: Any) -> Callable[[Function], Function]:
        """As ``click.option``, under this heading."""
        cls = attributes.pop("cls", Option)
        return click.option(*declarations, cls=cls, section=self.title, **attributes)


MODEL = OptionSection("Model")
PRECISION = OptionSection("Precision")
DATA = OptionSection("Data")
PREPROCESSING = OptionSection("Preprocessing")
ENGINE = OptionSection("Engine")
RUNTIME = OptionSection("Runtime")
MEASURING = OptionSection("Measuring")
OUTPUT = OptionSection("Output")
OTHER = OptionSection("Other")

ORDER = [
    section.title for section in (ENGINE, MODEL, PRECISION, DATA, PREPROCESSING, RUNTIME, MEASURING, OUTPUT, OTHER)
]
"""In which the sections stand in every help; those of one program alone come before the last two."""


def _rank(title: str) -> int:
    return ORDER.index(title if title in ORDER else MEASURING.title)


def stack_options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """The options as one decorator; help lists them in this order."""

    def decorate(command: Function) -> Function:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class SectionedCommand(click.Command):
    """A command with examples, whole command lines that work; ``heading`` is where its group lists it."""

    def __init__(
        self, *arguments: Any, examples: Sequence[str] = (), heading: str = "Commands", **attributes: Any
    ) -> None:
        attributes["context_settings"] = SETTINGS | (attributes.get("context_settings") or {})
        super().__init__(*arguments, **attributes)
        self.examples = tuple(examples)
        self.heading = heading

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does. An empty value, as of an unset variable of a shell, is refused: no option has one, and as a
        path it would be the current folder."""
        if not ctx.resilient_parsing:
            values, _, _ = self.make_parser(ctx).parse_args(list(args))
            for param in self.get_params(ctx):
                value = values.get(param.name or "")
                if "" in (value if isinstance(value, (list, tuple)) else [value]):
                    raise click.BadParameter("the value is empty", ctx, param)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_lists(formatter, self.lists(ctx))

    def lists(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """What stands under each heading of the help: names and their texts."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                sections.setdefault(getattr(param, "section", OTHER.title), []).append(record)
        return {title: sections[title] for title in sorted(sections, key=_rank)}

    def get_help(self, ctx: click.Context) -> str:
        return super().get_help(ctx).replace(_NO_BREAK, " ")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in self.examples))


class Group(SectionedCommand, click.Group):
    """A group of commands, which are found in any case and listed under their headings in the order of definition."""

    command_class = SectionedCommand

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, cmd_name.lower())

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)

    def lists(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        headings: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                row = (name, command.get_short_help_str(WHOLE))
                headings.setdefault(getattr(command, "heading", "Commands"), []).append(row)
        return headings | super().lists(ctx)


def _write_lists(formatter: click.HelpFormatter, lists: dict[str, list[tuple[str, str]]]) -> None:
    """Writes definition lists under their headings, all with the same column."""
    width = max((len(name) for rows in lists.values() for name, _ in rows if len(name) <= COLUMN), default=0)
    for title, rows in lists.items():
        with formatter.section(title):
            formatter.write_dl([(f"{name:{width}}", text) for name, text in rows], col_max=width)


class NameChoice(click.Choice[str]):
    """One of a few words, in upper or lower case; beside another, the nearest one is suggested."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(words, case_sensitive=False)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return "|".join(self.choices)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            meant = nearest(str(value), self.choices)
            raise click.BadParameter(
                error.message.rstrip(".") + (f" (did you mean {meant}?)" if meant else ""), ctx, param
            ) from error

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in self.choices if word.lower().startswith(incomplete.lower())]
