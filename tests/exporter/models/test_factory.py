from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.models.factory import build_module, is_factory, stem
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, RexportError, UsageError
from tests.refusals import refuses

CODE = """
from torch import nn

class Net(nn.Module):
    class Inner(nn.Flatten):
        pass

net = nn.Flatten()
number = 3

def needs(argument):
    return argument

def fails():
    raise ValueError("no way")

def quits():
    raise SystemExit(3)
"""


def ignore(notice: Reason) -> None:
    del notice


@pytest.fixture(autouse=True)
def current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A current folder with code of a user, which is forgotten afterwards."""
    (tmp_path / "own_code.py").write_text(CODE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "nets.py").write_text(CODE)
    (tmp_path / "own_broken.py").write_text("import own_missing\n")
    (tmp_path / "own_syntax.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nets:build", True),
        ("own.nets:Net.small", True),
        ("resnet20", False),
        ("best.pth", False),
        ("./nets:build", False),
        ("nets:", False),
        (":build", False),
        ("cifar10:/data/set", False),
        ("C:\\nets", False),
    ],
)
def test_a_reference_is_told_from_other_names(name: str, expected: bool) -> None:
    assert is_factory(name) is expected


def test_a_file_of_that_name_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "nets:build").touch()
    assert not is_factory("nets:build")


@pytest.mark.parametrize(
    ("name", "kind", "file"),
    [
        ("own_code:net", "Flatten", "own_code.py"),
        ("own_code:Net", "Net", "own_code.py"),
        ("own_code:Net.Inner", "Inner", "own_code.py"),
        ("own_package.nets:Net", "Net", "own_package"),
    ],
)
def test_the_users_code_is_run_and_named(name: str, kind: str, file: str) -> None:
    notices: list[Reason] = []
    assert type(build_module(name, notices.append)).__name__ == kind
    assert [notice.code for notice in notices] == ["user-code-runs"]
    assert name in notices[0].sentence
    assert file in notices[0].sentence
    assert stem(name) == name.split(":")[1].split(".")[-1]


@pytest.mark.parametrize(
    ("name", "kind", "code", "words"),
    [
        ("own_absent:net", UsageError, "code-not-found", ["own_absent", "PYTHONPATH"]),
        ("own_code.py:net", UsageError, "code-not-found", ["write own_code"]),
        ("own_package.absent:net", UsageError, "code-not-found", ["own_package.absent"]),
        ("own_code:nett", UsageError, "factory-not-found", ["own_code", "nett", "Net?"]),
        ("own_broken:net", ArtifactError, "code-import-failed", ["own_broken", "own_missing"]),
        ("own_syntax:net", ArtifactError, "code-import-failed", ["SyntaxError"]),
        ("own_code:needs", ArtifactError, "factory-failed", ["TypeError", "argument"]),
        ("own_code:fails", ArtifactError, "factory-failed", ["ValueError", "no way"]),
        ("own_code:quits", ArtifactError, "factory-failed", ["SystemExit", "3"]),
        ("own_code:number", ModelMismatchError, "factory-not-module", ["int"]),
    ],
)
def test_errors_of_the_users_code_are_one_line(
    name: str, kind: type[RexportError], code: str, words: list[str]
) -> None:
    with refuses(kind, code, *words) as caught:
        build_module(name, ignore)
    assert "\n" not in str(caught.value)


def test_the_current_folder_is_searched_first_and_then_last(tmp_path: Path) -> None:
    before = sys.path[:]
    build_module("own_code:net", ignore)
    assert sys.path == [*before, str(tmp_path)]
    build_module("own_code:net", ignore)
    assert sys.path == [*before, str(tmp_path)]
