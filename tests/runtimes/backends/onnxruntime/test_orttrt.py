"""TensorRT under ONNX Runtime: what it needs, where its engines lie, what it refuses. There is no TensorRT here: the
library is a stand-in that says what it is, and TensorRT's libraries are empty files."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.machinery
import importlib.util
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from runtimes import Artifact, files
from runtimes.artifacts.manifest import TF32
from runtimes.backends.onnxruntime import tensorrt_backend
from runtimes.backends.onnxruntime.gpu_session import OnnxRuntimeDeviceSession
from runtimes.errors import BackendUnavailableError, CompatibilityError, Reason, UnsafeArtifactError
from runtimes.protocol import Options
from runtimes.tensors import cuda
from tests.refusals import refuses
from tests.runtimes import typed
from tests.runtimes.backends.onnxruntime import double, graphs

GPU = Options("cuda", 1)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> double.Recorder:
    """A GPU, ONNX Runtime, TensorRT 10, and a cache of the test's own."""
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt_backend, "_load_tensorrt", lambda: "101601")
    monkeypatch.setattr(cuda, "device", lambda _=0: cuda.Device(0, "A GPU", "9.0", "13.0", 1 << 30))
    return double.installed(monkeypatch)


@pytest.fixture
def allowed(onnx_artifact: Artifact) -> Artifact:
    """An artifact of float32 that a GPU may compute in TensorFloat-32."""
    assert onnx_artifact.manifest is not None
    return replace(onnx_artifact, manifest=replace(onnx_artifact.manifest, precision=TF32))


def open_session(artifact: Artifact) -> OnnxRuntimeDeviceSession:
    session = tensorrt_backend.BACKEND.open(artifact, GPU)
    assert isinstance(session, OnnxRuntimeDeviceSession)
    return session


def test_it_runs_with_a_profile_and_a_cache(recorder: double.Recorder, allowed: Artifact, tmp_path: Path) -> None:
    session = open_session(allowed)
    ((provider, told, entries),) = recorder.opened
    assert provider == double.TENSORRT
    assert told["trt_profile_min_shapes"] == "input:1x3x32x32"
    assert told["trt_profile_max_shapes"] == "input:64x3x32x32"
    folder = Path(told["trt_engine_cache_path"])
    assert folder.parent == tmp_path / "cache"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert told["trt_cuda_graph_enable"] == "False"
    assert entries["session.disable_cpu_ep_fallback"] == "1"
    about = session.description
    assert (about.backend, about.provider, about.precision) == ("onnxruntime-tensorrt", double.TENSORRT, "tfloat32")
    vectors = allowed.vectors()
    images = np.repeat(vectors.inputs[:1], 65, axis=0)
    logits = session.run({"input": images})["logits"]
    np.testing.assert_allclose(logits[:1], vectors.logits[:1], rtol=0, atol=5e-5 * np.abs(vectors.logits).max())
    assert logits.shape == (65, 10)
    assert [note.code for note in about.notes] == ["device-time-includes-host"]
    assert session.bind_timed({"input": images}) is None
    assert recorder.runs == ["plain", "plain"]  # 64 and 1: more than the profile's most is run in parts
    session.close()


@pytest.mark.parametrize(
    ("batch", "shapes", "parts"), [(None, (1, 8, 64), 2), (1, (1, 1, 1), 65), (13, (1, 13, 13), 5)]
)
def test_an_engine_is_tuned_for_the_expected_batch(
    recorder: double.Recorder, allowed: Artifact, batch: int | None, shapes: tuple[int, ...], parts: int
) -> None:
    session = tensorrt_backend.BACKEND.open(allowed, replace(GPU, batch=batch))
    told = recorder.opened[-1][1]
    names = (told[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max"))
    assert tuple(names) == tuple(f"input:{size}x3x32x32" for size in shapes)
    images = np.zeros((65, 3, 32, 32), np.float32)
    assert session.run({"input": images})["logits"].shape == (65, 10)
    assert len(recorder.runs) == parts
    session.close()


def test_a_batch_has_its_own_engines_and_all_share_the_times(
    recorder: double.Recorder, allowed: Artifact, tmp_path: Path
) -> None:
    for batch in (1, 8, None):
        tensorrt_backend.BACKEND.open(allowed, replace(GPU, batch=batch)).close()
    told = [options for _, options, _ in recorder.opened]
    assert len({options["trt_engine_cache_path"] for options in told}) == 3
    (timing,) = {options["trt_timing_cache_path"] for options in told}
    assert Path(timing).parent == tmp_path / "cache"
    assert stat.S_IMODE(Path(timing).stat().st_mode) == 0o700


@pytest.mark.parametrize("built", [False, True])
def test_only_a_build_waits_for_the_times(
    recorder: double.Recorder, allowed: Artifact, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    open_session(allowed).close()
    engines = Path(recorder.opened[0][1]["trt_engine_cache_path"])
    if built:
        (engines / "TensorrtExecutionProvider_1.engine").touch()
    held: list[Path] = []

    @contextlib.contextmanager
    def lock(folder: Path, patience_s: float) -> Iterator[None]:
        assert patience_s >= 3600
        held.append(folder)
        yield

    monkeypatch.setattr(files, "folder_lock", lock)
    open_session(allowed).close()
    timing = Path(recorder.opened[0][1]["trt_timing_cache_path"])
    assert held == ([engines] if built else [engines, timing])


def test_float32_that_must_stay_so_is_refused(recorder: double.Recorder, onnx_artifact: Artifact) -> None:
    with refuses(CompatibilityError, "provider-needs-tf32", "--precision tf32") as caught:
        open_session(onnx_artifact)
    assert caught.value.exit_code == 4
    assert recorder.opened == []


def test_a_foreign_graph_gets_no_profile(recorder: double.Recorder, onnx_artifact: Artifact, tmp_path: Path) -> None:
    typed.cast(onnx_artifact.path, tmp_path / "half.onnx", TensorProto.FLOAT16)
    session = open_session(Artifact.read(tmp_path / "half.onnx"))
    assert "trt_profile_min_shapes" not in recorder.opened[0][1]
    assert session.description.precision == "float16"
    assert session.run({"input": np.zeros((65, 3, 32, 32), np.float32)})["logits"].shape == (65, 10)
    assert recorder.runs == ["plain"]
    session.close()


@pytest.mark.parametrize(("version", "said"), [("1.26.0", False), ("1.27.1", True)])
def test_weakly_typed_networks_are_said(
    recorder: double.Recorder, onnx_artifact: Artifact, tmp_path: Path, version: str, said: bool
) -> None:
    recorder.version = version
    typed.cast(onnx_artifact.path, tmp_path / "half.onnx", TensorProto.FLOAT16)
    session = open_session(Artifact.read(tmp_path / "half.onnx"))
    assert ("provider-weakly-typed" in [note.code for note in session.description.notes]) == said
    session.close()


def folder_of(recorder: double.Recorder, artifact: Artifact) -> str:
    open_session(artifact).close()
    return recorder.opened[-1][1]["trt_engine_cache_path"]


def test_engines_of_other_weights_lie_in_another_folder(
    recorder: double.Recorder, onnx_artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library names them by the graph's shape alone."""
    half, same, other = (tmp_path / f"{name}.onnx" for name in ("half", "same", "other"))
    typed.cast(onnx_artifact.path, half, TensorProto.FLOAT16)
    same.write_bytes(half.read_bytes())
    model = onnx.load(half)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16)
    tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(model, other)
    first = folder_of(recorder, Artifact.read(half))
    assert folder_of(recorder, Artifact.read(same)) == first
    assert folder_of(recorder, Artifact.read(other)) != first
    monkeypatch.setattr(tensorrt_backend, "_load_tensorrt", lambda: "101300")
    assert folder_of(recorder, Artifact.read(half)) != first
    monkeypatch.setattr(tensorrt_backend, "_load_tensorrt", lambda: "101601")
    monkeypatch.setattr(cuda, "device", lambda _=0: cuda.Device(0, "Another GPU", "9.0", "13.0", 1 << 30))
    assert folder_of(recorder, Artifact.read(half)) != first


def test_weights_in_another_file_count(onnx_artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    model = onnx.load(onnx_artifact.path)
    onnx.save(model, path, save_as_external_data=True, location="split.data", size_threshold=0)
    first = tensorrt_backend._digest(Artifact.read(path))
    data = tmp_path / "split.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    assert tensorrt_backend._digest(Artifact.read(path)) != first


def test_a_cache_that_others_write_into_is_refused(
    recorder: double.Recorder, allowed: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir(mode=0o777)
    (tmp_path / "cache").chmod(0o777)
    with refuses(UnsafeArtifactError, "engine-folder-writable"):
        open_session(allowed)
    assert recorder.opened == []


def test_without_a_gpu_nothing_of_tensorrt_is_touched(
    recorder: double.Recorder, allowed: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a driver, the library would end the process."""

    def never() -> str:
        raise AssertionError("loaded")

    monkeypatch.setattr(tensorrt_backend, "_load_tensorrt", never)
    monkeypatch.setattr(cuda, "missing", lambda: Reason("driver-missing", "no driver"))
    with refuses(BackendUnavailableError, "provider-without-gpu", ": no driver"):
        open_session(allowed)
    assert recorder.opened == []


Place = Callable[[str, Path], None]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Place:
    """Makes packages be where they are told, and no other: nothing is preset of what the system may have."""
    places: dict[str, Path] = {}
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    monkeypatch.setattr(tensorrt_backend, "_LOADER_CACHE", tmp_path / "ld.so.cache")

    def found(name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name not in places:
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(places[name])]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", found)
    return places.__setitem__


def gpu_build(place: Place, folder: Path) -> None:
    (folder / "capi").mkdir(parents=True)
    (folder / "capi" / "libonnxruntime_providers_tensorrt.so").touch()
    place("onnxruntime", folder)


def assert_missing(code: str, *values: str) -> None:
    """The backend is missing for that reason, whose sentence names the values."""
    reason = tensorrt_backend.BACKEND.missing()
    assert reason is not None
    assert reason.code == code
    for value in values:
        assert value in reason.sentence


def test_what_is_missing_is_named(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tensorrt_backend.BACKEND.missing
    assert_missing("library-missing", "onnxruntime", "rexport[gpu]")
    place("onnxruntime", tmp_path / "cpu build")
    assert_missing("onnxruntime-without-tensorrt", "pip uninstall onnxruntime", "rexport[gpu]")
    gpu_build(place, tmp_path / "gpu build")
    assert_missing("tensorrt-10-missing", *tensorrt_backend._LIBRARIES, "tensorrt-cu13>=10.13,<11")
    package, libraries = tmp_path / "tensorrt_libs", tmp_path / "libraries"
    for folder, name in ((package, "libnvinfer.so.10"), (libraries, "libnvinfer_plugin.so.10")):
        folder.mkdir()
        (folder / name).touch()
    place("tensorrt_libs", package)
    monkeypatch.setenv("LD_LIBRARY_PATH", f":{libraries}")
    assert_missing("tensorrt-10-missing", ": libnvonnxparser.so.10 not found")
    assert "libnvinfer" not in str(missing())
    cached = tmp_path / "ld.so.cache"
    cached.write_bytes(b"glibc-ld.so.cache1.1\0libnvonnxparser.so.100\0libnvonnxparser.so.11\0")
    assert missing() is not None
    cached.write_bytes(cached.read_bytes() + b"libnvonnxparser.so.10\0/usr/lib/libnvonnxparser.so.10\0")
    assert missing() is None


def test_tensorrt_11_is_not_what_it_needs(place: Place, tmp_path: Path) -> None:
    gpu_build(place, tmp_path / "gpu build")
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    for name in ("libnvinfer.so.11", "libnvonnxparser.so.11", "libnvinfer_plugin.so.11"):
        (package / name).touch()
    place("tensorrt_libs", package)
    assert_missing("tensorrt-10-missing", "libnvinfer.so.10")


def test_a_broken_library_is_a_missing_one(place: Place, tmp_path: Path) -> None:
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    for name in tensorrt_backend._LIBRARIES:
        (package / name).write_bytes(b"no library")
    place("tensorrt_libs", package)
    with refuses(BackendUnavailableError, "tensorrt-not-loadable", "libnvinfer.so.10"):
        tensorrt_backend._load_tensorrt()


def test_libraries_are_loaded_from_where_they_were_found(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    (package / "libnvinfer.so.10").touch()
    place("tensorrt_libs", package)
    loaded: list[str] = []

    class Library:
        def __init__(self, path: str) -> None:
            loaded.append(path)

        def getInferLibVersion(self) -> int:  # noqa: N802
            return 101601

    monkeypatch.setattr(ctypes, "CDLL", Library)
    assert tensorrt_backend._load_tensorrt() == "101601"
    assert loaded == [str(package / "libnvinfer.so.10"), "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"]


@pytest.mark.usefixtures("recorder")
def test_a_graph_without_weights_is_computed_as_it_is(tmp_path: Path) -> None:
    session = open_session(Artifact.read(graphs.written(tmp_path / "twice.onnx")))
    assert "in the graph" in session.description.precision
    session.close()
