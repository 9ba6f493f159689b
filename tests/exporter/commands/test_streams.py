"""What reaches standard output in each encoding, and where a descriptor was closed."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.commands import streams
from tests.exporter.command_line import environment

REPOSITORY = Path(__file__).resolve().parents[3]
ENCODINGS = ("ascii", "latin-1", "utf-8")
SCREEN = "±×·…─ Łódź \N{PILE OF POO} b\udce9d"


@contextlib.contextmanager
def standard_output(encoding: str) -> Iterator[io.BytesIO]:
    """What is written to standard output in the block, which has the encoding there."""
    content = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding=encoding, newline=""))
        streams.open_streams()
        yield content


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"+-x-...- \\u0141\\u00f3d\\u017a \\ud83d\\udca9 b\\udce9d\n"),
        ("latin-1", b"\xb1\xd7\xb7...- \\u0141\xf3d\\u017a \\ud83d\\udca9 b\\udce9d\n"),
        ("utf-8", SCREEN[:-2].encode() + b"\\udce9d\n"),
    ],
)
def test_text_has_what_the_encoding_has(encoding: str, expected: bytes) -> None:
    with standard_output(encoding) as content:
        streams.print_result(SCREEN)
        assert content.getvalue() == expected


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_is_json_in_each_encoding(encoding: str) -> None:
    with standard_output(encoding) as content:
        streams.print_json(json.dumps([SCREEN, "\x7f"], ensure_ascii=False))
        assert json.loads(content.getvalue()) == [SCREEN, "\x7f"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_path_is_the_name_of_its_file(encoding: str, tmp_path: Path) -> None:
    with standard_output(encoding) as content:
        for name in (b"caf\xc3\xa9", b"b\xe9d"):
            (tmp_path / os.fsdecode(name)).touch()
            streams.print_path(tmp_path / os.fsdecode(name))
        names = content.getvalue().splitlines()
    assert [os.path.exists(name) for name in names] == [True, True]  # noqa: PTH110 - bytes


CLOSED = """
import os, sys
from exporter.commands import streams
assert (sys.stdin, sys.stdout, sys.stderr) == (None, None, None)
streams.open_streams()
places = [os.readlink(f"/proc/self/fd/{number}") for number in (0, 1, 2)]
inherited = [os.get_inheritable(number) for number in (0, 1, 2)]
os.write(int(sys.argv[1]), repr((places, inherited, sys.stdin.read())).encode())
"""


def test_closed_streams_lead_to_null_for_children_too() -> None:
    read, write = os.pipe()
    program = f'exec "$0" -c "$1" {write} <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", program, sys.executable, CLOSED], env=environment(), pass_fds=[write])
    os.close(write)
    with open(read, encoding="utf-8") as said:
        assert (done.returncode, ast.literal_eval(said.read())) == (0, (["/dev/null"] * 3, [True] * 3, ""))


def test_commands_print_by_this_module_alone() -> None:
    """So that the next command works in the surroundings of ``tests.surroundings``, too."""
    modules = [*REPOSITORY.glob("*/commands/*.py"), *REPOSITORY.glob("*/cli.py")]
    calls = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in modules
        if path.name != "streams.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("click.echo", "print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert len(modules) > 20
    assert calls == []
