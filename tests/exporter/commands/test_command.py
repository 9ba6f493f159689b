"""Sections, defaults and examples in a help, groups whose names count in any case, and choices with suggestions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner, Result

from benchmarks.cli import rbench
from exporter.cli import cli
from exporter.commands.command import COLUMN, MODEL, OUTPUT, RUNTIME, Group, NameChoice, OptionSection, stack_options
from exporter.commands.values import Names
from exporter.export_request import ExportRequest
from exporter.models.outputs import OUTPUTS
from runtimes.errors import CheckFailedError
from scripts.docs.pages import walk


@click.group("program", cls=Group, examples=("program work a", "program --version"))
@click.version_option("1", prog_name="program", help="Show the version and exit.")
def program() -> None:
    """Do one thing or the other."""


@program.command(heading="Do", examples=("program work a", "program work b --level HIGH"))
@click.argument("place", help="Where to work.")
@stack_options(
    OUTPUT.option("--json", is_flag=True, help="Print JSON."),
    MODEL.option("--level", type=NameChoice(("low", "High")), default="low", help="Level of the work."),
    MODEL.option("--size", type=click.IntRange(1), metavar="N", show_default="the usual", help="Size of the work."),
    OptionSection("Weather").option("--rain", type=click.IntRange(0, 9), default=3, metavar="N", help="Rain."),
    RUNTIME.option("--a-name-that-is-far-too-long", metavar="WORD", show_default="none", help="Name of something."),
)
def work(place: str, level: str, **_: object) -> None:
    """Work somewhere.

    It takes a while.
    """
    click.echo(f"{place} {level}")


@program.command("look", heading="See", examples=("program look", "program look"))
def look() -> None:
    """Look around."""


def invoke(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(program, arguments)


def test_options_stand_in_ordered_sections_in_one_column() -> None:
    assert invoke("work", "-h").output.splitlines() == [
        "Usage: program work [OPTIONS] PLACE",
        "",
        "  Work somewhere.",
        "",
        "  It takes a while.",
        "",
        "Positional arguments:",
        "  PLACE  Where to work.",
        "",
        "Model:",
        "  --level low|High  Level of the work.  [default: low]",
        "  --size N          Size of the work.  [default: the usual]",
        "",
        "Runtime:",
        "  --a-name-that-is-far-too-long WORD",
        "                    Name of something.  [default: none]",
        "",
        "Weather:",
        "  --rain N          Rain.  [default: 3; 0<=x<=9]",
        "",
        "Output:",
        "  --json            Print JSON.",
        "",
        "Other:",
        "  -h, --help        Show this message and exit.",
        "",
        "Examples:",
        "  program work a",
        "  program work b --level HIGH",
    ]
    assert len("--a-name-that-is-far-too-long WORD") > COLUMN


def test_a_group_lists_its_commands_under_headings() -> None:
    assert invoke("--help").output.splitlines()[4:] == [
        "Do:",
        "  work        Work somewhere.",
        "",
        "See:",
        "  look        Look around.",
        "",
        "Other:",
        "  --version   Show the version and exit.",
        "  -h, --help  Show this message and exit.",
        "",
        "Examples:",
        "  program work a",
        "  program --version",
    ]


def test_a_long_sentence_is_wrapped_and_not_cut() -> None:
    group = Group("program", commands=[click.Command("work", help=f"Work {'very ' * 20}hard.")], help="Do.")
    assert " hard" in CliRunner(env={"COLUMNS": "80"}).invoke(group, ["--help"]).output


def test_a_short_default_is_not_torn_apart() -> None:
    @click.command(cls=type(work))
    @MODEL.option("--top", default=1, metavar="N", help="x" * 55 + ".")
    def command(top: int) -> None:
        """Work."""
        click.echo(top)

    shown = CliRunner(env={"COLUMNS": "80"}).invoke(command, ["--help"]).output
    assert "\n              [default: 1]\n" in shown
    assert "\N{NO-BREAK SPACE}" not in shown


@pytest.mark.parametrize("name", ["work", "WORK", "Work"])
def test_commands_are_found_in_any_case(name: str) -> None:
    assert invoke(name, "here").output == "here low\n"


@pytest.mark.parametrize(("typed", "level"), [("low", "low"), ("LOW", "low"), ("high", "High")])
def test_a_choice_is_found_in_any_case(typed: str, level: str) -> None:
    assert invoke("work", "here", "--level", typed).output == f"here {level}\n"


@pytest.mark.parametrize(("typed", "meant"), [("hihg", "(did you mean High?)"), ("x", "'low', 'high'")])
def test_a_wrong_choice_ends_in_the_nearest_one(typed: str, meant: str) -> None:
    done = invoke("work", "here", "--level", typed)
    assert done.exit_code == 2
    assert done.output.strip().rstrip(".").endswith(meant)


def test_names_are_lists_of_known_words() -> None:
    names = Names(OUTPUTS)
    assert names.convert("logits, CAM", None, None) == ("logits", "cam")
    with pytest.raises(click.BadParameter, match="stages"):
        names.convert("logits,stage", None, None)


def test_outputs_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportRequest] = []

    def stop(request: ExportRequest, *_: object, **__: object) -> NoReturn:
        asked.append(request)
        raise CheckFailedError("enough", code="parity-failed")

    monkeypatch.setattr("exporter.targets.onnx_file.prepare", stop)
    for options in ([], ["--output", "features", "--output", "logits,cam"], ["--output", "stages"]):
        arguments = ["onnx", "resnet20", "-o", f"{tmp_path}/", *options]
        with pytest.raises(CheckFailedError):
            cli.main(arguments, standalone_mode=False)
    assert [request.outputs for request in asked] == [("logits",), ("features", "logits", "cam"), ("stages",)]
    assert [request.selection.headless for request in asked] == [False, False, True]


def values_of(command: click.Command) -> Iterator[list[str]]:
    """What stands behind the name of the command where one of its options or arguments is empty."""
    for param in command.params:
        if isinstance(param, click.Option) and not param.is_flag:
            yield from ([param.opts[0], ""], [f"{param.opts[-1]}="] if param.opts[-1].startswith("--") else [])
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    yield from (["x"] * before + [""] for before, _ in enumerate(arguments))


@pytest.mark.parametrize("group", [cli, rbench], ids=["rexport", "rbench"])
def test_no_option_and_no_argument_takes_an_empty_value(group: click.Group) -> None:
    """It comes from a variable of the shell that is not set, and is no path."""
    tried = 0
    for context, command in walk(group, click.Context(group, info_name="program")):
        for values in filter(None, values_of(command)):
            done = CliRunner().invoke(group, [*context.command_path.split()[1:], *values])
            assert (done.exit_code, "the value is empty" in done.output) == (2, True), (context.command_path, values)
            tried += 1
    assert tried > 100
