"""The same inputs give the same bytes: in another folder, at another time, with other hashes of Python's strings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.paper.training.tensor_file import encode_tensors
from tests.faults.outputs import write
from tests.faults.writers import WRITERS

REPO = Path(__file__).resolve().parents[1]

QUICK = tuple(name for name, writer in WRITERS.items() if not writer.is_heavy and not writer.libraries)
OTHERS = tuple(name for name in WRITERS if name not in QUICK)


def write_twice(folder: Path, *names: str) -> list[dict[str, dict[str, str]]]:
    """The digests of what the writers write, here and in a process with other hashes and another time zone."""
    command = [sys.executable, "-m", "tests.faults.outputs", str(folder / "there"), *names]
    environment = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": str(REPO), "TZ": "UTC7"}
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [write(folder / "here", *names), json.loads(done.stdout.splitlines()[-1])]


def differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """The files that one side lacks, or that differ."""
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_twice(tmp_path, *QUICK)
    assert {name: differences(first[name], second[name]) for name in QUICK} == {
        name: list(WRITERS[name].varies) for name in QUICK
    }
    assert all(first.values())


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OTHERS)
def test_so_do_exports_and_trainings(tmp_path: Path, name: str) -> None:
    for library in WRITERS[name].libraries:
        pytest.importorskip(library)
    first, second = write_twice(tmp_path, name)
    assert first[name]
    assert set(differences(first[name], second[name])) <= set(WRITERS[name].varies)


def test_tensors_are_written_in_order() -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.zeros(2, dtype=torch.int64)}
    forth = encode_tensors(tensors, {"y": "\u00fc", "x": "1"})
    back = encode_tensors(dict(reversed(tensors.items())), {"x": "1", "y": "\u00fc"})
    assert forth == back
    header = json.loads(forth[8 : 8 + int.from_bytes(forth[:8], "little")])
    assert list(header) == ["__metadata__", "a", "b"]
    assert list(header["__metadata__"]) == ["x", "y"]


def test_tensors_are_read_as_written(tmp_path: Path) -> None:
    from safetensors import safe_open

    tensors = {"weight": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), "empty": torch.zeros(0)}
    for metadata in (None, {"of": "them"}):
        path = tmp_path / "tensors.safetensors"
        path.write_bytes(encode_tensors(tensors, metadata))
        with safe_open(path, framework="pt") as file:
            assert file.metadata() == metadata
            assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
