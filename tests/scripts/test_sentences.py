"""The scan of sentences finds what breaks the table's rules, in a code base of a few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.house.sources import read_house
from scripts.sentences import TABLE, Scan, main, scan

ERRORS = """
from typing import NamedTuple


class RexportError(Exception):
    @classmethod
    def of_system(cls, doing):
        return cls(f"cannot {doing}", code="system")


class UsageError(RexportError, ValueError): ...


class Reason(NamedTuple):
    code: str
    sentence: str


class Remark(Block):
    text: str
    kind: str = "note"
    code: str = ""
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A code base of three empty packages, of which the lowest defines errors."""
    for name in ("runtimes", "exporter", "benchmarks", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "runtimes" / "errors.py").write_text(ERRORS)
    return tmp_path


def scanned(root: Path, *lines: str) -> Scan:
    """What is found where the lines stand in a module of the exporter."""
    (root / "exporter" / "module.py").write_text("".join(f"{line}\n" for line in lines))
    return scan(read_house(root).packages)


@pytest.mark.parametrize(
    ("line", "templates"),
    [
        ("UsageError('two words', code='x')", ["two words"]),
        ("UsageError(f'{a!r}: {b:,}' ' {}', code='x')", ["{}: {} {{}}"]),
        ("errors.UsageError(what='named', code='x', hint=f'{h}')", ["named"]),
        ("UsageError('one' if a else f'{b}', code='x')", ["one", "{}"]),
        ("UsageError('a'+('b' if b else 'c'), code='x')", ["ab", "ac"]),
        ("Reason('x', f'about {a}')", ["about {}"]),
        ("Reason(code='x', sentence='about')", ["about"]),
        ("Remark(f'about {a}', 'warning', 'x')", ["about {}"]),
        ("refusal(f'about {a}', code='x')", ["about {}"]),
    ],
)
def test_a_code_is_kept_with_its_template(root: Path, line: str, templates: list[str]) -> None:
    found = scanned(root, line)
    assert found.faults == ()
    assert found.table() == {"runtimes": {"system": ["cannot {}"]}, "exporter": {"x": templates}}


@pytest.mark.parametrize(
    "line",
    [
        "UsageError(error.what, code=error.code)",
        "Reason(error.code, error.what)",
        "type(error)(error.what, code=error.code)",
        "Remark('a note')",
        "subprocess.run('command', check=True)",
        "compile(source, code='x')",
        "click.UsageError('text')",
    ],
)
def test_what_is_forwarded_needs_no_sentence(root: Path, line: str) -> None:
    found = scanned(root, line)
    assert (found.faults, list(found.table())) == ((), ["runtimes"])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("UsageError('text')", "UsageError has no code"),
        ("type(error)(error.what)", "type(error) has no code"),
        ("class Own(errors.UsageError): ...; Own('text')", "Own has no code"),
        ("UsageError('text', code=code)", "no literal: code"),
        ("Reason(name, 'text')", "no literal: name"),
        ("UsageError(text, code='x')", "'x' a sentence"),
        ("UsageError('{}'.format(a), code='x')", "'x' a sentence"),
        ("UsageError('text', code='Two Words')", "'Two Words' is not"),
        ("UsageError('text', code='a-b-c-d-e-f')", "'a-b-c-d-e-f' is not"),
    ],
)
def test_a_broken_rule_is_found(root: Path, line: str, fault: str) -> None:
    (found,) = scanned(root, *line.split("; ")).faults
    assert found.startswith("exporter/module.py:")
    assert fault in found


def test_a_code_used_for_two_sentences_is_found(root: Path) -> None:
    first, again, other = "Reason('x', 'one')", "UsageError('one', code='x')", "Reason('x', 'two')"
    assert scanned(root, first, again).faults == ()
    (fault,) = scanned(root, first, again, other).faults
    assert fault.startswith("exporter/module.py:3: ")
    assert fault.endswith("exporter/module.py:1")


def test_a_code_stands_under_the_lowest_package_that_uses_it(root: Path) -> None:
    (root / "benchmarks" / "above.py").write_text("Reason('x', 'one')\nReason('y', 'two')\n")
    assert scanned(root, "Reason('x', 'one')").table() == {
        "runtimes": {"system": ["cannot {}"]},
        "exporter": {"x": ["one"]},
        "benchmarks": {"y": ["two"]},
    }


def test_a_changed_sentence_is_found(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scanned(root, "Reason('x', 'a \"quoted\" ä\\t')", "Reason('y', 'one' if a else 'two')")
    assert main(["--write", "--root", str(root)]) == 0
    kept = (root / TABLE).read_text()
    assert main(["--root", str(root)]) == main(["--check", "--root", str(root)]) == 0
    assert capsys.readouterr() == (kept, "")
    scanned(root, "Reason('x', 'a quoted ä')", "Reason('z', 'three')")
    assert main(["--check", "--root", str(root)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["x", "y", "z"]
    assert (root / TABLE).read_text() == kept
