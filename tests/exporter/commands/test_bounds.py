"""No number on a command line is too large for what it goes to: every option has its largest value."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from benchmarks.cli import rbench
from exporter.cli import cli
from exporter.commands.values import BatchSize, CountRange, Resize, Size, Sizes
from runtimes import Artifact
from runtimes.arguments import LARGEST_COUNT
from tests.exporter.command_line import rexport
from tests.help_faults import command_paths
from tests.refusals import error_codes

HUGE = "9" * 20
LONG = "9" * 5000
"""More digits than Python turns into an integer."""

CHECKED = {
    "rbench tune --threads": "held to the usable processors, with the code tuning-threads-out-of-range",
    "rbench tune --streams": "held to the usable processors, with the code tuning-threads-out-of-range",
}
"""Options without a largest value, by the reason why none is needed."""

OPTIONS = {
    f"{' '.join(path)} {max(option.opts, key=len)}": (path, option)
    for name, root in (("rexport", cli), ("rbench", rbench))
    for path, command in command_paths(name, root)
    for option in command.params
    if isinstance(option, click.Option)
}
INTEGERS = {name: option for name, (_, option) in OPTIONS.items() if isinstance(option.type, click.types.IntParamType)}
SIZES = [name for name, (_, option) in OPTIONS.items() if isinstance(option.type, Size | Sizes | Resize | BatchSize)]


def test_every_integer_option_has_a_largest_value() -> None:
    unbounded = {
        name
        for name, option in INTEGERS.items()
        if not isinstance(option.type, click.IntRange) or option.type.min is None or option.type.max is None
    }
    assert unbounded == CHECKED.keys()


def test_options_of_both_programs_were_walked() -> None:
    assert INTEGERS.keys() >= {"rexport triton --max-batch", "rexport onnx --seed", "rbench paper train --epochs"}
    assert {"rexport onnx --batch", "rexport onnx --size", "rbench load --size"} <= set(SIZES)


@pytest.mark.parametrize("name", [*(name for name in INTEGERS if name not in CHECKED), *SIZES])
def test_a_number_that_is_too_large_is_refused(name: str) -> None:
    path, option = OPTIONS[name]
    for number in (HUGE, LONG):
        result = CliRunner().invoke(cli if path[0] == "rexport" else rbench, [*path[1:], option.opts[0], number, "x"])
        assert (result.exit_code, error_codes(result.output) or "Invalid value" in result.output) == (2, True)


@pytest.mark.parametrize(("text", "counts"), [(f"1..{LARGEST_COUNT}", (1, LARGEST_COUNT)), ("007", (7, 7))])
def test_a_range_of_counts_ends_at_the_largest(text: str, counts: tuple[int, int]) -> None:
    assert CountRange().convert(text, None, None) == counts
    for wrong in (f"1..{LARGEST_COUNT + 1}", HUGE, f"1..{LONG}", "1..²", "٣", "1..", "..2", "0"):
        with pytest.raises(click.BadParameter):
            CountRange().convert(wrong, None, None)


def test_a_body_of_more_than_63_bits_is_refused_at_once(onnx_artifact: Artifact) -> None:
    for size in ("99999999999999999999999", LONG):
        result = rexport("serve", onnx_artifact.path, "--max-bytes", size)
        assert (result.code, error_codes(result.stderr)) == (2, ["size-invalid"]), result.stderr


def test_the_help_names_no_largest_value_of_all() -> None:
    result = CliRunner().invoke(cli, ["triton", "--help"])
    assert (str(LARGEST_COUNT) in result.output, "0<=x<=10000" in result.output) == (False, True), result.output
