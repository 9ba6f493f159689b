from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import runtimes
from runtimes import codec
from runtimes.errors import Reason
from scripts import inventory
from scripts.inventory import Inventory
from tests.benchmarks.nvml import Card, installed
from tests.benchmarks.results import H200, MACHINE


def test_each_backend_is_present_or_missing() -> None:
    found = inventory.inventory("cuda")
    able = {row.name for row in runtimes.available_backends() if "cuda" in row.devices}
    assert able <= {*found.present, *found.missing}
    assert not set(found.present) & set(found.missing)
    assert not {"fake", "openvino"} & {*found.present, *found.missing}
    assert all(found.missing.values())
    assert "openvino" in {*inventory.inventory("cpu").present, *inventory.inventory("cpu").missing}


class Library(ModuleType):
    """Stands in for a library, as it was built for a GPU or not: the one that is installed is only one of them."""

    def __init__(self, name: str, gpu: bool, cuda: str | None) -> None:
        super().__init__(name)
        self.__version__ = "2.0"
        self.__spec__ = ModuleSpec(name, None)
        self.cuda = SimpleNamespace(is_available=lambda: gpu, device_count=lambda: int(gpu))
        self.version = SimpleNamespace(cuda=cuda)
        self.get_available_providers = lambda: [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]


GONE = Reason("library-missing", "not installed")
TORCH, ONNXRUNTIME = ("pytorch", "inductor"), ("onnxruntime", "onnxruntime-tensorrt")


@pytest.mark.parametrize(
    ("library", "names", "cuda", "code", "value"),
    [
        ("torch", TORCH, None, "pytorch-without-cuda", "https://pytorch.org"),
        ("torch", TORCH, "13.0", "pytorch-sees-no-gpu", "CUDA 13.0"),
        ("onnxruntime", ONNXRUNTIME, None, "provider-not-compiled", "CUDAExecutionProvider"),
    ],
)
def test_a_library_built_without_cuda_is_missing_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, library: str, names: tuple[str, ...], cuda: str | None, code: str, value: str
) -> None:
    rows = [replace(row, missing=lambda: None) for row in runtimes.available_backends() if row.name in names]
    assert len(rows) == 2
    for row in rows:
        monkeypatch.setitem(sys.modules, library, Library(library, gpu=False, cuda=cuda))
        reason = inventory.absent(row, "cuda")
        assert reason is not None
        assert reason.code == code
        assert value in reason.sentence
        if "cpu" in row.devices:
            assert inventory.absent(row, "cpu") is None
        monkeypatch.setitem(sys.modules, library, Library(library, gpu=True, cuda="13.0"))
        assert inventory.absent(row, "cuda") is None
        without = replace(row, missing=lambda: GONE)
        assert inventory.absent(without, "cuda") == inventory.absent(without, "cpu") == GONE


def test_a_library_that_cannot_be_imported_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in runtimes.available_backends() if row.name == "pytorch")
    monkeypatch.setitem(sys.modules, "torch", None)
    reason = inventory.absent(replace(row, missing=lambda: None), "cuda")
    assert reason is not None
    assert reason.code == "library-not-importable"
    assert "torch" in reason.sentence


def test_missing_modules_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("nncf", "pytest") else real(name))
    missing = inventory.inventory("cpu").missing
    assert "'rexport[int8]'" in missing["nncf"]
    assert "pytest pytest-timeout" in missing["pytest"]


def test_a_gpu_that_answers_is_present(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, Card())
    found = inventory.inventory("cuda")
    assert "clocks, power, energy" in found.present
    assert "driver 580.159.03" in inventory.format_inventory(found)[0]


def test_a_line_is_printed_for_each_part() -> None:
    machine, *lines = inventory.format_inventory(
        Inventory(replace(MACHINE, gpus=(H200,)), ("pytorch",), {"tensorrt": "not here"})
    )
    for value in ("Fast Processor 9", "2 of 4", "NVIDIA H200", "driver 580.159.03", "CUDA 13.0"):
        assert value in machine
    assert lines == ["here: pytorch", "missing: tensorrt: not here"]
    machine, *lines = inventory.format_inventory(Inventory(MACHINE, (), {}))
    assert "no NVIDIA GPU" in machine
    assert lines == ["here: nothing"]


def test_the_command_prints_and_writes_it(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "scripts.inventory", "--device", "cpu", "--json", str(tmp_path / "h.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = codec.loads(Inventory, (tmp_path / "h.json").read_bytes())
    assert "pytorch" in found.present
    assert json.loads((tmp_path / "h.json").read_text())["environment"]["cpu"] == found.environment.cpu
    assert done.stdout.splitlines()[1] == f"here: {', '.join(found.present)}"
