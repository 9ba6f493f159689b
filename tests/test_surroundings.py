"""Every command of both programs works in hostile surroundings, or ends with one line that has a code."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from benchmarks.cli import rbench
from benchmarks.records.store import FILE_NAME, ResultsFile
from exporter.cli import cli
from exporter.deploy.web_runtime import CODE, WASM
from runtimes import Artifact
from tests.benchmarks.results import FASTER, REFERENCE
from tests.help_faults import command_paths
from tests.samples import copied
from tests.surroundings import BUNDLES, CALLS, HEAVY, SURROUNDINGS, Call, Outcome, Surrounding, faults, run

USUAL = Surrounding()


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may read, as those of pytest are not."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def files(public: Path, onnx_artifact: Artifact) -> dict[str, Path]:
    """What the calls name, by the words in their braces."""
    folder = public
    for name in ("images", "runtime", "results"):
        (folder / name).mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "images" / "black.png")
    (folder / "runtime" / CODE).write_text("export {};")
    (folder / "runtime" / WASM).write_bytes(b"\0asm")
    results = ResultsFile(folder / "results" / FILE_NAME)
    for row in (REFERENCE, FASTER):
        results.append(row.result, {})
    return {"artifact": copied(onnx_artifact, folder).path} | {
        name: folder / name for name in ("images", "runtime", "results")
    }


def outcome_faults(
    surrounding: Surrounding, command: str, call: Call, files: dict[str, Path], folder: Path
) -> list[str]:
    """Run a call in a folder of its own, and return what is wrong with what it did."""
    if (reason := surrounding.missing()) is not None:
        pytest.skip(reason)
    program, *words = command.split()
    folder.mkdir()
    outcome = run(surrounding, folder, program, *words, *call.arguments.format(**files).split())
    return faults(surrounding, call, outcome, folder)


def test_every_command_has_a_call() -> None:
    commands = [
        " ".join(path)
        for root in (cli, rbench)
        for path, command in command_paths(root.name or "", root)
        if not isinstance(command, click.Group)
    ]
    assert sorted(CALLS) == sorted(commands)
    assert set(HEAVY) <= set(CALLS)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_one_command_works_in_each_surrounding(name: str, files: dict[str, Path], public: Path) -> None:
    call = CALLS["rexport info"]
    assert outcome_faults(SURROUNDINGS[name], "rexport info", call, files, public / "run") == []


@pytest.mark.slow
@pytest.mark.parametrize("command", CALLS)
def test_each_command_works_in_several_at_once(command: str, files: dict[str, Path], public: Path) -> None:
    bundles = list(BUNDLES.values())
    if not CALLS[command].prints:  # it ends early: one is enough
        bundles = [bundles[len(command) % len(bundles)]]
    for number, surrounding in enumerate(bundles):
        assert outcome_faults(surrounding, command, CALLS[command], files, public / str(number)) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", HEAVY)
def test_long_work_needs_no_home_and_no_streams(command: str, files: dict[str, Path], public: Path) -> None:
    surrounding = BUNDLES["a daemon of nobody"]
    assert outcome_faults(surrounding, command, HEAVY[command], files, public / "run") == []


def test_a_fault_is_found(tmp_path: Path) -> None:
    call, full = CALLS["rexport info"], SURROUNDINGS["stdout full"]
    assert faults(full, call, Outcome(6, b"", "error[output-not-written]: full"), tmp_path) == []
    assert len(faults(full, call, Outcome(0, b"", ""), tmp_path)) == 2
    assert len(faults(USUAL, call, Outcome(70, b"", "error[internal]: Traceback"), tmp_path)) == 5
    assert len(faults(SURROUNDINGS["ascii"], call, Outcome(0, "±".encode(), ""), tmp_path)) == 1
    (tmp_path / ".net.onnx.1-0.tmp").touch()
    assert len(faults(USUAL, call, Outcome(0, b"x", ""), tmp_path)) == 1
