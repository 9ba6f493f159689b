"""TensorRT-RTX as a plugin of ONNX Runtime. There is no GPU here: a plugin that computes on the CPU stands for it.

The library is the real one, and only its registration of plugins is replaced."""

from __future__ import annotations

import importlib.util
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtimes import Artifact
from runtimes.artifacts.manifest import TF32
from runtimes.backends.onnxruntime import rtx_backend
from runtimes.backends.onnxruntime.providers import RtxProvider
from runtimes.errors import BackendUnavailableError, CompatibilityError
from runtimes.protocol import DeviceSession, Options
from tests.refusals import refuses
from tests.runtimes.backends.onnxruntime import graphs

GPU = Options("cuda", 1)
NAME = RtxProvider.name


@dataclass
class Device:
    """Of the library's ``OrtEpDevice``, what is asked for."""

    ep_name: str


class Plugin:
    """The plugin's package and what the library knows of it."""

    def __init__(self) -> None:
        self.devices = [Device("CPUExecutionProvider")]
        self.finds = [Device(NAME), Device(NAME)]
        self.registered: list[tuple[str, str]] = []
        self.added: list[tuple[Sequence[Device], dict[str, str]]] = []
        self.fails: Exception | None = None

    def register(self, name: str, path: str) -> None:
        if self.fails is not None:
            raise self.fails
        self.registered.append((name, path))
        self.devices += self.finds


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Plugin:
    found = Plugin()

    class Settings(onnxruntime.SessionOptions):  # type: ignore[misc]  # without annotations
        def add_provider_for_devices(self, devices: Sequence[Device], options: dict[str, str]) -> None:
            found.added.append((devices, options))

        def add_session_config_entry(self, key: str, value: str) -> None:
            """The nodes do run on the CPU here."""

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, settings: Settings, providers: Any, enable_fallback: bool) -> None:
            assert (providers, enable_fallback) == (None, False)
            super().__init__(path, settings, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return [NAME, "CPUExecutionProvider"]

    module = ModuleType(RtxProvider.plugin)
    module.get_library_path = lambda: "/plugin.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, RtxProvider.plugin, module)
    monkeypatch.setattr(onnxruntime, "SessionOptions", Settings)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: found.devices)
    monkeypatch.setattr(onnxruntime, "register_execution_provider_library", found.register)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    return found


@pytest.fixture
def allowed(onnx_artifact: Artifact) -> Artifact:
    assert onnx_artifact.manifest is not None
    return replace(onnx_artifact, manifest=replace(onnx_artifact.manifest, precision=TF32))


def test_it_registers_once_and_uses_one_gpu(plugin: Plugin, allowed: Artifact, tmp_path: Path) -> None:
    sessions = [rtx_backend.BACKEND.open(allowed, GPU) for _ in range(2)]
    assert plugin.registered == [(NAME, "/plugin.so")]
    devices, options = plugin.added[0]
    assert devices == [plugin.finds[0]]
    folder = Path(options["nv_runtime_cache_path"])
    assert folder.parent == tmp_path / "cache"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert options["nv_profile_opt_shapes"] == "input:8x3x32x32"
    about = sessions[0].description
    assert (about.backend, about.device, about.provider, about.precision) == (
        "onnxruntime-rtx",
        "cuda",
        NAME,
        "tfloat32",
    )
    assert [note.code for note in about.notes] == ["bound-runs-copy"]
    assert not isinstance(sessions[0], DeviceSession)  # it has no clock of the device
    for session in sessions:
        session.close()


@pytest.mark.parametrize(("batch", "most"), [(None, 64), (13, 13), (1, 1)])
def test_larger_batches_are_run_in_parts(plugin: Plugin, allowed: Artifact, batch: int | None, most: int) -> None:
    session = rtx_backend.BACKEND.open(allowed, replace(GPU, batch=batch))
    assert plugin.added[0][1]["nv_profile_max_shapes"] == f"input:{most}x3x32x32"
    vectors = allowed.vectors()
    images = np.concatenate([vectors.inputs] * 20)[:65]
    logits = session.run({"input": images})["logits"]
    expected = np.concatenate([vectors.logits] * 20)[:65]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=5e-5 * np.abs(expected).max())
    session.bind({"input": images})()
    session.close()


def test_true_float32_and_files_without_shapes_are_refused(
    plugin: Plugin, onnx_artifact: Artifact, tmp_path: Path
) -> None:
    with refuses(CompatibilityError, "provider-needs-tf32", "--precision tf32"):
        rtx_backend.BACKEND.open(onnx_artifact, GPU)
    with refuses(CompatibilityError, "plugin-first-gpu-only", "cuda:1", "CUDA_VISIBLE_DEVICES"):
        rtx_backend.BACKEND.open(onnx_artifact, replace(GPU, device_index=1))
    with refuses(CompatibilityError, "plugin-needs-manifest"):
        rtx_backend.BACKEND.open(Artifact.read(graphs.written(tmp_path / "twice.onnx")), GPU)
    assert plugin.registered == []


def test_a_plugin_that_cannot_be_loaded(plugin: Plugin, allowed: Artifact) -> None:
    plugin.fails = RuntimeError("libcuda.so.1: cannot open shared object file")
    with refuses(BackendUnavailableError, "plugin-not-loadable", "libcuda.so.1", RtxProvider.package):
        rtx_backend.BACKEND.open(allowed, GPU)
    plugin.fails, plugin.finds = None, []
    with refuses(BackendUnavailableError, "plugin-without-gpu", NAME):
        rtx_backend.BACKEND.open(allowed, GPU)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    present = ["onnxruntime"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object() if name in present else None)
    reason = rtx_backend.BACKEND.missing()
    assert reason is not None
    assert (reason.code, RtxProvider.package in reason.sentence) == ("plugin-missing", True)
    present.append(RtxProvider.plugin)
    assert rtx_backend.BACKEND.missing() is None
    present.clear()
    reason = rtx_backend.BACKEND.missing()
    assert reason is not None
    assert reason.code == "library-missing"


OPTIONS = ("nv_profile_max_shapes", "nv_profile_min_shapes", "nv_profile_opt_shapes", "nv_runtime_cache_path")
"""Among those in ``tensorrt_rtx_provider_options.h`` of onnxruntime-ep-nv-tensorrt-rtx 0.5.0."""


def test_its_options_are_those_of_the_plugin() -> None:
    assert sorted(field.name for field in fields(RtxProvider)) == list(OPTIONS)
