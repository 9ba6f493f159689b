"""The help of every command of both programs, and that a broken one is caught."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest

from benchmarks.cli import rbench
from exporter.cli import cli
from exporter.commands.command import OUTPUT, Group, SectionedCommand
from tests.help_faults import command_paths, help_faults

ROOTS = {"rexport": cli, "rbench": rbench}
PATHS = {path: command for name, root in ROOTS.items() for path, command in command_paths(name, root)}


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_of_every_command_follows_the_rules(path: tuple[str, ...]) -> None:
    assert help_faults(path, PATHS[path], ROOTS[path[0]]) == []


def broken(change: Callable[[click.Command], object]) -> list[str]:
    """The faults of a program whose one command was sound before the change."""

    @click.group("program", cls=Group, examples=("program work", "program work --top 3 | head > x"))
    def program() -> None:
        """Do something."""

    @program.command(examples=("program work", "program work --top 3"))
    @OUTPUT.option("--top", type=int, default=1, metavar="N", help="Number of labels.")
    def work(top: int) -> None:
        """Work a little."""

    change(work)
    return [
        fault for path, command in command_paths("program", program) for fault in help_faults(path, command, program)
    ]


def _set(**attributes: object) -> Callable[[click.Command], object]:
    return lambda command: vars(command).update(attributes)


def _set_option(**attributes: object) -> Callable[[click.Command], object]:
    return lambda command: vars(command.params[0]).update(attributes)


def test_a_sound_command_has_no_faults() -> None:
    assert broken(_set()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set_option(help="Number of labels"), "--top: its help does not end in a period"),
        (_set_option(help=None), "--top: its help does not end in a period"),
        (_set_option(help="Of labels."), "--top: its help is a genitive without a noun"),
        (_set_option(default=None), "--top: no default and no example"),
        (_set_option(metavar="N" * 90), "a line of 98 columns: "),
        (_set(help="Work"), "its description does not begin with a sentence that ends in a period"),
        (_set(examples=("program work",)), "it has 1 examples, not 2"),
        (_set(examples=("program work", "program play")), "the example 'program play': No such command 'play'."),
        (_set(examples=("program work", "program work --low")), "the example 'program work --low': No such option"),
        (_set(examples=("program work", "program work 3")), "the example 'program work 3': Got unexpected extra"),
        (_set(examples=("program work", "other work")), "the example 'other work': other is not program"),
    ],
)  # fmt: skip
def test_a_broken_help_is_caught(change: Callable[[click.Command], object], fault: str) -> None:
    faults = broken(change)
    assert [found for found in faults if found.startswith(fault)] != [], faults


def test_a_sentence_that_click_cuts_is_caught() -> None:
    @click.group("program")
    def program() -> None:
        """Do something."""

    program.add_command(click.Command("work", help=f"Work {'very ' * 20}hard."))
    faults = help_faults(("program",), program, program)
    assert [fault for fault in faults if fault.startswith("cut: work  Work very")] != [], faults


def test_both_programs_and_their_groups_are_looked_at() -> None:
    assert {("rexport", "onnx"), ("rexport", "completion"), ("rbench", "run"), ("rbench", "paper", "train")} <= set(
        PATHS
    )
    assert isinstance(PATHS["rexport", "onnx"], SectionedCommand)
