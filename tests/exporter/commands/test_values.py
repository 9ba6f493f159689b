"""What options take: the files that commands write."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.cli import rbench
from exporter.cli import cli as rexport
from exporter.commands.values import OutputFile
from tests.help_faults import command_paths

FILES = {
    f"{' '.join(path)} {parameter.name}": (command, parameter)
    for name, program in (("rexport", rexport), ("rbench", rbench))
    for path, command in command_paths(name, program)
    for parameter in command.params
    if isinstance(parameter.type, OutputFile)
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
