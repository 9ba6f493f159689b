"""The check of docstrings finds what breaks a rule, in a code base of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.docstrings import main

ERRORS = '''"""The errors."""


class RexportError(Exception):
    """The root of the tree."""


class UsageError(RexportError):
    """An argument is wrong."""
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A code base of three packages; the lowest defines errors."""
    for name in ("runtimes", "exporter", "benchmarks", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "runtimes" / "errors.py").write_text(ERRORS)
    return tmp_path


def check(root: Path, capsys: pytest.CaptureFixture[str], text: str, *packages: str) -> list[str]:
    """Return the faults of a module with this text, without its path and line."""
    (root / "runtimes" / "module.py").write_text(text)
    code = main(["--root", str(root), *packages])
    faults = capsys.readouterr().out.splitlines()
    assert code == (1 if faults else 0)
    assert all(fault.startswith("runtimes/module.py:") for fault in faults)
    return [fault.split(": ", 1)[1] for fault in faults]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("x = 1\n", ["module: no docstring"]),
        ('"""Of a row."""\n', ["module: starts with 'Of'"]),
        ('"""A module"""\n', ["module: the first sentence does not end with a period"]),
        ('"""A module."""\nclass A: ...\n', ["A: no docstring"]),
        ('"""A module."""\nclass A:\n    """A class."""\n    def f(self): ...\n', ["A.f: no docstring"]),
        ('"""A module."""\ndef f():\n    """What comes back."""\n', ["f: starts with 'What'"]),
        ('"""A module."""\nX = 1\n"""Of a row."""\n', ["X: starts with 'Of'"]),
        ('"""A module."""\nX: int = 1\n"""A number"""\n', ["X: the first sentence does not end with a period"]),
        (
            '"""A module."""\ndef f():\n    """Do it."""\n    if 1:\n        raise UsageError("x")\n',
            ["f: raises UsageError and has no section 'Raises:'"],
        ),
        (
            '"""A module."""\ndef f():\n    """Do it."""\n    raise errors.UsageError.of("x")\n',
            ["f: raises UsageError and has no section 'Raises:'"],
        ),
        (
            '"""A module."""\ndef f(a, b):\n    """Add ``a`` to another number."""\n',
            ["f: has no section 'Args:' and does not name b"],
        ),
        (
            '"""A module."""\nclass A:\n    """A class."""\n    def f(self, a, *, b):\n        """Add."""\n',
            ["A.f: has no section 'Args:' and does not name a, b"],
        ),
    ],
)
def test_a_fault_is_found(root: Path, capsys: pytest.CaptureFixture[str], text: str, faults: list[str]) -> None:
    assert check(root, capsys, text) == faults


@pytest.mark.parametrize(
    "text",
    [
        '"""A module."""\nX = 1\n',
        '"""A module."""\ndef _f(a, b):\n    raise UsageError("x")\n',
        '"""A module."""\nclass _A:\n    def f(self): ...\n',
        '"""A module."""\nclass A:\n    """A class."""\n    def __init__(self, a, b): ...\n',
        '"""A module."""\ndef f(a, b):\n    """Add ``a`` and ``b``."""\n',
        '"""A module."""\ndef f(a, b):\n    """Add.\n\n    Args:\n        a: One.\n        b: Another.\n    """\n',
        '"""A module."""\ndef f():\n    """Do.\n\n    Raises:\n        UsageError: Y.\n    """\n    raise UsageError()',
        '"""A module."""\ndef f():\n    """Do it."""\n    raise ValueError("x")\n',
        '"""A module."""\ndef f():\n    """Do it."""\n    def g():\n        raise UsageError("x")\n',
        '"""A module."""\n@overload\ndef f(a): ...\n@overload\ndef f(b): ...\ndef f(a):\n    """Do it."""\n',
        '"""A module."""\nX = 1\n"""An attribute whose text goes on\nin a second line."""\n',
    ],
)
def test_good_docstrings_have_no_faults(root: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert check(root, capsys, text) == []


@pytest.mark.parametrize("path", ["benchmarks/module.py", "exporter/cli.py"])
def test_other_files_are_checked_on_request(root: Path, capsys: pytest.CaptureFixture[str], path: str) -> None:
    (root / path).write_text("x = 1\n")
    assert main(["--root", str(root)]) == 0
    assert main(["--root", str(root), path]) == 1
    assert main(["--root", str(root), path.partition("/")[0]]) == 1
    assert capsys.readouterr().out == 2 * f"{path}:1: module: no docstring\n"


def test_a_room_is_checked_without_its_neighbours(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for room in ("records", "report"):
        (root / "benchmarks" / room).mkdir()
        (root / "benchmarks" / room / "module.py").write_text("x = 1\n")
    assert main(["--root", str(root)]) == 1
    assert capsys.readouterr().out == "benchmarks/records/module.py:1: module: no docstring\n"
