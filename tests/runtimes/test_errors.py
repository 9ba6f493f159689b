"""The tree of errors: one line each, the exit codes, and foreign text made safe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from runtimes import errors
from runtimes.errors import ArtifactError, ResourceError, RexportError, nearest, quote, suggest
from runtimes.escaping import MAX_QUOTED

CODES = {
    "CheckFailedError": 1,
    "UsageError": 2,
    "ArtifactError": 3,
    "IntegrityError": 3,
    "UnsafeArtifactError": 3,
    "InputError": 3,
    "CompatibilityError": 4,
    "ModelMismatchError": 4,
    "BackendUnavailableError": 5,
    "ResourceError": 6,
    "DeviceLostError": 6,
}


def test_every_error_has_its_code_and_stands_in_the_drawing() -> None:
    found = {
        name: item
        for name, item in vars(errors).items()
        if isinstance(item, type) and issubclass(item, RexportError) and item is not RexportError
    }
    assert {name: item.exit_code for name, item in found.items()} == CODES
    lines = (errors.__doc__ or "").splitlines()
    for name, code in CODES.items():
        assert any(name in line and line.split(name)[1].split()[0] == str(code) for line in lines), name


@pytest.mark.parametrize("name", ["UsageError", "InputError"])
def test_wrong_arguments_are_value_errors_too(name: str) -> None:
    assert issubclass(getattr(errors, name), ValueError)


def test_a_message_is_place_what_and_hint() -> None:
    error = ArtifactError("it is broken", code="broken", path="a/b.onnx", hint="export it again")
    assert str(error) == f"a/b.onnx: {error.what} ({error.hint})"
    assert (error.what, error.path, error.hint) == ("it is broken", Path("a/b.onnx"), "export it again")
    assert error.code == "broken"
    assert str(ArtifactError("it is broken")) == "it is broken"


def test_a_path_cannot_break_the_line() -> None:
    assert "\n" not in str(ArtifactError("broken", path="a\nb\x1b[31m.onnx"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain", "plain"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\ud800", "\\ud800"), ("é漢", "é漢"), (7, "7")],
)
def test_foreign_text_is_escaped(text: object, shown: str) -> None:
    assert quote(text) == shown


def test_foreign_text_is_cut() -> None:
    assert len(quote("x" * 10_000)) == MAX_QUOTED
    assert quote("x" * 10_000).endswith("x… (10,000 characters)")
    assert quote("x" * MAX_QUOTED) == "x" * MAX_QUOTED


def test_system_errors_keep_their_number() -> None:
    error = ResourceError.from_os(OSError(errno.ENOSPC, "No space left on device"), "out.onnx", "write")
    assert (error.code, str(error.path), error.errno) == ("file-access-failed", "out.onnx", errno.ENOSPC)
    assert error.what.startswith("cannot write")
    assert error.what.endswith(os.strerror(errno.ENOSPC))
    assert ResourceError("no memory").errno is None


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "df -h 'a b' shows the space that is left"),
        (errno.EACCES, "ls -ld 'a b' shows who may use it"),
        (errno.ENOENT, None),
    ],
)
def test_system_errors_name_the_command_that_shows_more(number: int, hint: str | None) -> None:
    assert ResourceError.from_os(OSError(number, os.strerror(number)), "a b/out.onnx", "write").hint == hint


KNOWN = ("resnet18", "resnet50", "resnet56", "plain18", "onnxruntime")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet5O", "resnet50"),
        ("RESNETl8", "resnet18"),
        ("resnet57", "resnet50"),
        ("onxruntime", "onnxruntime"),
        ("vgg16", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_what_was_meant(typed: str, meant: str | None) -> None:
    assert nearest(typed, KNOWN) == meant
    assert suggest(typed, KNOWN) == (f"did you mean {meant}?" if meant else f"one of {', '.join(KNOWN)}")


def test_nothing_is_near_where_nothing_is_known() -> None:
    assert nearest("resnet50", ()) is None
