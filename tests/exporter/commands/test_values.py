"""What options take: the files that commands write, and numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.cli import rbench
from exporter.cli import cli as rexport
from exporter.commands.values import OutputFile, OutputPath
from runtimes.errors import RexportError
from tests.help_faults import command_paths

ALL = {
    f"{' '.join(path)} {parameter.name}": (command, parameter)
    for name, program in (("rexport", rexport), ("rbench", rbench))
    for path, command in command_paths(name, program)
    for parameter in command.params
}
"""The parameters of all commands."""

FILES = {
    name: (command, parameter) for name, (command, parameter) in ALL.items() if isinstance(parameter.type, OutputFile)
}
"""The options for files to write, of all commands."""


def test_options_of_both_programs_write_files() -> None:
    assert FILES.keys() >= {
        "rexport inspect export_profile",
        "rbench merge out",
        "rbench report page",
        "rbench run json_file",
    }


@pytest.mark.parametrize("name", FILES)
def test_a_folder_is_no_file_to_write(tmp_path: Path, name: str) -> None:
    command, parameter = FILES[name]
    for value, words in ((f"{tmp_path}/new/", "names a folder"), (str(tmp_path), "is a directory")):
        result = CliRunner().invoke(command, [parameter.opts[0], value, "x", "y"])
        assert (result.exit_code, words in result.output) == (2, True), result.output
    assert list(tmp_path.iterdir()) == []


PATHS = {
    name: (command, parameter) for name, (command, parameter) in ALL.items() if isinstance(parameter.type, OutputPath)
}
"""The options for files and folders to write, of all commands."""


def test_every_output_option_names_a_path_to_write() -> None:
    assert {name for name, (_, parameter) in ALL.items() if "-o" in parameter.opts} <= PATHS.keys()


@pytest.mark.parametrize("name", PATHS)
def test_standard_output_is_written_to_or_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command, parameter = PATHS[name]
    result = CliRunner().invoke(command, [parameter.opts[0], "-", "x", "y"])
    refused = "'-' is standard output" in result.output
    assert refused == (not getattr(parameter.type, "allow_dash", False)), result.output
    assert list(tmp_path.iterdir()) == []


def numbers_in(value: object) -> Iterator[float]:
    """The floating-point numbers of a parameter's value."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from numbers_in(item)


def accepts(parameter: click.Parameter, text: str) -> list[float]:
    """The floating-point numbers that the parameter takes the text for; none if it refuses it."""
    try:
        return list(numbers_in(parameter.type.convert(text, parameter, None)))
    except (click.UsageError, RexportError):
        return []


FLOATS = {name for name, (_, parameter) in ALL.items() if any(accepts(parameter, text) for text in ("1", "1,1,1"))}
"""The names of the parameters for floating-point numbers, alone or in a list."""


def test_numbers_of_both_programs_are_found() -> None:
    assert {"rexport label stall", "rexport serve drain", "rexport onnx mean", "rbench run duration_s"} <= FLOATS


@pytest.mark.parametrize("name", sorted(FLOATS))
def test_a_number_is_finite(name: str) -> None:
    _, parameter = ALL[name]
    for text in ("nan", "inf", "-inf", "1e999", "nan,nan,nan", "1,1,inf"):
        assert accepts(parameter, text) == [], text


@pytest.mark.parametrize("name", ["batch", "shard", "top", "workers", "gpus_per_worker"])
def test_counts_of_label_have_an_upper_bound(name: str) -> None:
    _, parameter = ALL[f"rexport label {name}"]
    for text in ("99999999999999999999", "0.5x", "-1"):
        with pytest.raises(click.BadParameter):
            parameter.type.convert(text, parameter, None)
