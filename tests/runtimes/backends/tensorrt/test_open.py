"""``runtimes.open`` with TensorRT: engines, and ONNX files through an engine that is built of them on first use.

Deserialising and running are the double's; parsing and building are TensorRT-RTX's own, as is everything around.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import Artifact, TensorSpec, codec
from runtimes.artifacts.artifact import manifest_path
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import build_on_open
from runtimes.backends.tensorrt import open as opening
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.backends.tensorrt.session import EngineSession
from runtimes.errors import CheckFailedError, CompatibilityError, InputError, IntegrityError, ResourceError, UsageError
from runtimes.onnx import graph as onnxfile
from runtimes.protocol import Arrays, DeviceSession
from runtimes.runtime import example
from runtimes.tensors import cuda
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import double
from tests.runtimes.backends.tensorrt.cudadouble import Recorder, gpu_uuid
from tests.runtimes.backends.tensorrt.devicememory import DeviceArray
from tests.runtimes.backends.tensorrt.engines import GPU, manifest_of, publish_script_engine
from tests.runtimes.backends.tensorrt.networks import NETWORK, Network
from tests.samples import copied


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    found = double.installed(monkeypatch)
    yield found
    assert found.faults == []


def information(*rows: tuple[str, str, str, str]) -> str:
    """What the inspector says of layers: title, node, data type and kernel."""
    layers = [
        {
            "Name": title,
            "LayerType": "CaskConvolution",
            "Inputs": [{"Format/Datatype": kind}],
            "Outputs": [{"Format/Datatype": kind}],
            "TacticName": tactic,
            "Metadata": f"[ONNX Layer: {node}]",
        }
        for title, node, kind, tactic in rows
    ]
    return json.dumps({"Layers": layers})


TOLD = replace(
    NETWORK,
    layers=("one", "two"),
    information=information(("one", "conv1/Conv", "Half", "k1"), ("two", "fc/Gemm", "Float", "k2")),
)


def test_an_engine_answers_and_says_what_runs(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path, TOLD)
    images = np.random.default_rng(1).standard_normal((11, 3, 8, 8), np.float32)
    with runtimes.open(artifact.path, device="cuda") as runtime:
        about = runtime.description
        logits = runtime.infer({"input": images})["logits"]
        assert runtime.inputs == NETWORK.inputs
    assert (about.backend, about.version, about.device, about.provider) == ("tensorrt", double.VERSION, "cuda", GPU)
    assert about.precision == "float16 float32"
    assert about.skipped_backends == ()
    means = images.reshape(11, -1).mean(axis=1, dtype=np.float64)
    np.testing.assert_allclose(logits, means[:, None] * np.arange(1, 11), rtol=1e-5, atol=1e-6)
    assert recorder.count("execute_async_v3") > 0


def test_a_limit_of_memory_is_one_of_calls_at_a_time(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path)
    image_bytes = 4 * (3 * 8 * 8 + 10)
    call_bytes = sum(NETWORK.scratch_for(row.most) + row.most * image_bytes for row in NETWORK.profiles)
    fixed_bytes = artifact.path.stat().st_size
    for limit, calls in ((None, 4), (fixed_bytes + 9 * call_bytes, 4), (fixed_bytes + 2 * call_bytes, 2)):
        with runtimes.open(artifact.path, device="cuda", gpu_mem_limit=limit) as runtime:
            session = runtime._session
            assert isinstance(session, EngineSession)
            assert {pool._limit for pool in session._pools} == {calls}
    recorder.calls.clear()
    with refuses(ResourceError, "gpu-memory-limit-too-small", f"{fixed_bytes + call_bytes:,} bytes"):
        runtimes.open(artifact.path, device="cuda", gpu_mem_limit=fixed_bytes)
    assert recorder.count("cudaMalloc") == 0


@pytest.mark.parametrize("caller", [0, 2])
def test_an_engine_runs_on_its_gpu_alone(recorder: Recorder, tmp_path: Path, caller: int) -> None:
    """The caller's current GPU stays, and none gets a context but that of the engine and that of a caller's tensor."""
    recorder.devices = 3
    recorder.cuda._current.ordinal = caller
    artifact = publish_script_engine(tmp_path)
    images = np.random.default_rng(1).standard_normal((3, 3, 8, 8), np.float32)
    with runtimes.open(artifact.path, device="cuda:1") as runtime:
        for _ in range(3):
            runtime.infer({"input": images})
        runtime.infer({"input": DeviceArray(recorder.cuda.memory, images, ordinal=1)})
        with refuses(InputError, "tensor-on-other-device", "device 0", "cuda:1"):
            runtime.infer({"input": DeviceArray(recorder.cuda.memory, images)})
        runtime.bind({"input": images})()
        timed = runtime.bind_timed({"input": images})
        assert timed is not None
        assert timed().device_s > 0
        assert (runtime.description.device, runtime.description.gpu_uuid) == ("cuda:1", str(gpu_uuid(1)))
        assert recorder.cuda.ordinal() == caller
    asked = {"cudaGetDeviceCount", "cudaGetDevice", "cudaGetDeviceProperties", "cudaDeviceGetAttribute"}
    asked |= {"cudaDriverGetVersion", "cudaThreadExchangeStreamCaptureMode"}  # the last, also where a tensor lies
    used = {name: where for name, where in recorder.used.items() if name not in asked}
    assert {"cudaMalloc", "cudaGraphLaunch", "cudaEventRecord", "cudaFree"} <= used.keys()
    assert {name for name, where in used.items() if where != {1}} == set()
    assert recorder.contexts == ({1} if caller == 0 else {0, 1})  # GPU 0 has the caller's tensor, and so a context


def test_an_engine_that_says_nothing_of_its_layers(recorder: Recorder, tmp_path: Path) -> None:
    assert not recorder.calls
    with runtimes.open(publish_script_engine(tmp_path).path, device="cuda") as runtime:
        assert runtime.description.precision == "fp32"


def test_an_engine_that_was_checked_is_not_checked_again(recorder: Recorder, tmp_path: Path) -> None:
    with runtimes.open(publish_script_engine(tmp_path, wrong=2.0).path, device="cuda"):
        assert recorder.count("execute_async_v3") == 0


def test_an_engine_built_without_a_gpu_is_checked_at_opening(recorder: Recorder, tmp_path: Path) -> None:
    with runtimes.open(publish_script_engine(tmp_path, parity=None, tolerance=1e-4).path, device="cuda") as runtime:
        assert recorder.count("execute_async_v3") > 0
        assert isinstance(runtime._session, DeviceSession)
    wrong = publish_script_engine(tmp_path, parity=None, tolerance=1e-4, wrong=1.01)
    with refuses(CheckFailedError, "parity-failed", "tensorrt", "PyTorch fp32"):
        runtimes.open(wrong.path, device="cuda")
    frees = recorder.count("cudaFree")
    assert frees == recorder.count("cudaMalloc")


def test_an_engine_that_nothing_is_known_of_to_compare_with(recorder: Recorder, tmp_path: Path) -> None:
    with runtimes.open(publish_script_engine(tmp_path, parity=None, wrong=2.0).path, device="cuda"):
        assert recorder.count("execute_async_v3") == 0


def test_a_manifest_that_contradicts_the_engine(recorder: Recorder, tmp_path: Path) -> None:
    assert not recorder.calls
    artifact = publish_script_engine(tmp_path)
    other = replace(manifest_of(artifact), inputs=(TensorSpec("input", "float32", ("batch", 3, 9, 9)),))
    manifest_path(artifact.path).write_text(codec.dumps(other), encoding="utf-8")
    with refuses(IntegrityError, "manifest-specs-mismatch"):
        runtimes.open(artifact.path, device="cuda")


def test_tensorrt_rtx_goes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double's GPU is one that TensorRT-RTX has not, so that the gate answers."""
    recorder = double.installed(monkeypatch, "rtx")
    artifact = publish_script_engine(tmp_path, flavor="rtx", version=FLAVORS["rtx"].version(), gpu=None)
    with refuses(CompatibilityError, "engine-gpu-unsupported", "TensorRT-RTX"):
        runtimes.open(artifact.path, "tensorrt-rtx", "cuda")
    assert recorder.deserialised == []
    described = cuda.device()
    monkeypatch.setattr(cuda, "device", lambda _=0: replace(described, compute_capability="8.9"))
    with runtimes.open(artifact.path, "tensorrt-rtx", "cuda") as runtime:
        assert runtime.description.backend == "tensorrt-rtx"
        assert runtime.infer({"input": np.ones((2, 3, 8, 8), np.float32)})["logits"].shape == (2, 10)
    assert recorder.faults == []


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in runtimes.available_backends() if row.name == "tensorrt")
    assert row.formats == ("engine", "onnx")
    if "tensorrt" not in sys.modules:
        reason = row.missing()
        assert reason is not None
        assert (reason.code, "rexport[tensorrt]" in reason.sentence) == ("library-missing", True)
    recorder = double.installed(monkeypatch)
    assert row.missing() is None
    recorder.devices = 0
    reason = row.missing()
    assert reason is not None
    assert reason.code == "gpu-not-visible"


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str]]]:
    """The codes and messages of what the logger ``rexport`` is told."""
    words: list[tuple[str, str]] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append((vars(record)["code"], record.getMessage()))

    handler = Handler(logging.INFO)
    logger = logging.getLogger("rexport")
    logger.addHandler(handler)
    yield words
    logger.removeHandler(handler)


RESNET20 = Network(
    inputs=(TensorSpec("input", "float32", ("batch", 3, 32, 32)),),
    outputs=(TensorSpec("logits", "float32", ("batch", 10)),),
    profiles=(Profile(1, 8, 64),),
    layers=("a", "b"),
    information=information(("a", "conv1/Conv", "Float", "k1"), ("b", "fc/Gemm", "Float", "k2")),
)


@pytest.fixture
def building(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_artifact: Artifact
) -> Iterator[tuple[Recorder, Path]]:
    """A double whose engines answer as the ONNX file does, and the folder of the cache."""
    recorder = double.installed(monkeypatch, network=RESNET20)
    folder = tmp_path / "cache"
    monkeypatch.setenv("REXPORT_CACHE", str(folder))
    with runtimes.open_artifact(onnx_artifact, "onnxruntime", threads=1) as true:

        def answer(arrays: Arrays) -> Arrays:
            return true.infer(arrays)

        recorder.compute = answer
        yield recorder, folder
    assert recorder.faults == []


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.engine"))


def test_an_engine_is_built_on_first_use_and_kept(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, heard: list[tuple[str, str]]
) -> None:
    recorder, folder = building
    with runtimes.open(onnx_artifact.path, "tensorrt", "cuda") as runtime:
        assert runtime.description.backend == "tensorrt"
        assert runtime.artifact.manifest == onnx_artifact.manifest
        first = runtime.infer(example(runtime))["logits"]
    ((code, said),) = heard
    assert code == "engine-being-built"
    for value in ("resnet20.onnx", f"TensorRT {double.VERSION}", GPU, str(folder)):
        assert value in said
    (place,) = entries(folder)
    entry = manifest_of(Artifact.read(place))
    assert entry.parity is not None
    assert entry.engine is not None
    assert entry.parity.runtime == f"tensorrt {double.VERSION}"
    assert entry.parity.relative_difference <= entry.parity.tolerance
    assert (entry.parent, entry.engine.gpu, entry.engine.tf32) == (manifest_of(onnx_artifact).sha256, GPU, False)
    assert entry.engine.profiles == RESNET20.profiles
    built = place.stat().st_mtime_ns
    runs = recorder.count("execute_async_v3")
    with runtimes.open(onnx_artifact.path, "auto", "cuda") as runtime:
        assert runtime.description.backend == "tensorrt"
        assert recorder.count("execute_async_v3") == runs  # it was checked when it was built
        np.testing.assert_array_equal(runtime.infer(example(runtime))["logits"], first)
    assert len(heard) == 1
    assert place.stat().st_mtime_ns == built


def test_an_engine_for_one_batch_has_its_own_entry(building: tuple[Recorder, Path], onnx_artifact: Artifact) -> None:
    _, folder = building
    for batch in (None, 4, 4, 32):
        with runtimes.open(onnx_artifact.path, "tensorrt", "cuda", batch=batch) as runtime:
            assert runtime.infer(example(runtime))["logits"].shape == (1, 10)
        runtimes.profile(onnx_artifact.path, backend="tensorrt", device="cuda", batch=batch)
    found = [manifest_of(Artifact.read(place)).engine for place in entries(folder)]
    profiles = {profile for engine in found if engine is not None for profile in engine.profiles}
    assert profiles == {Profile(1, 8, 64), Profile(4, 4, 4), Profile(32, 32, 32)}
    assert len(found) == 3


def test_a_graph_of_a_fixed_batch_keeps_it(onnx_artifact: Artifact) -> None:
    manifest = manifest_of(onnx_artifact)
    fixed = replace(manifest, inputs=(TensorSpec("input", "float32", (2, 3, 32, 32)),))
    assert build_on_open._profiles(onnx_artifact, 4) == (Profile(4, 4, 4),)
    assert build_on_open._profiles(replace(onnx_artifact, manifest=fixed), 4) == ()


def test_a_batch_below_one_is_refused(onnx_artifact: Artifact) -> None:
    with refuses(UsageError, "batch-out-of-range", "not 0"):
        runtimes.open(onnx_artifact.path, batch=0)


def test_builds_on_first_use_share_their_timing_cache(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, heard: list[tuple[str, str]]
) -> None:
    recorder, folder = building

    def build_anew(batch: int) -> Path:
        with runtimes.open(onnx_artifact.path, "tensorrt", "cuda", batch=batch):
            (cache,) = folder.glob("*.timing")
        return cache

    cache = build_anew(1)
    assert build_anew(2) == cache
    content = cache.read_bytes()
    cache.write_bytes(b"junk")
    assert build_anew(3) == cache
    assert cache.read_bytes() == content
    assert [code for code, _ in heard if code != "engine-being-built"] == ["timing-cache-replaced"]
    recorder.driver = 13010
    with runtimes.open(onnx_artifact.path, "tensorrt", "cuda", batch=1):
        assert len(list(folder.glob("*.timing"))) == 2


def test_tf32_is_allowed_where_the_artifact_allows_it(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    _, folder = building
    artifact = copied(onnx_artifact, tmp_path)
    manifest_path(artifact.path).write_text(
        codec.dumps(replace(manifest_of(artifact), precision="tf32")), encoding="utf-8"
    )
    for place in (artifact.path, onnx_artifact.path):
        with runtimes.open(place, "tensorrt", "cuda"):
            pass
    found = [manifest_of(Artifact.read(place)).engine for place in entries(folder)]
    assert sorted(engine.tf32 for engine in found if engine is not None) == [False, True]


def test_tensorrt_rtx_builds_for_the_gpu_that_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_artifact: Artifact
) -> None:
    recorder = double.installed(monkeypatch, "rtx", network=RESNET20)
    monkeypatch.setenv("REXPORT_CACHE", str(tmp_path))
    with refuses(CompatibilityError, "engine-gpu-unsupported", "8.6", "NVIDIA Double with 9.0", "another backend"):
        runtimes.open(onnx_artifact.path, "tensorrt-rtx", "cuda")
    assert list(tmp_path.iterdir()) == []  # nothing was built for a GPU that it cannot run on
    recorder.compute_capability = (8, 6)
    with runtimes.open_artifact(onnx_artifact, "onnxruntime", threads=1) as true:
        recorder.compute = true.infer
        with runtimes.open(onnx_artifact.path, "tensorrt-rtx", "cuda") as runtime:
            runtime.infer(example(runtime))
    (place,) = entries(tmp_path)
    engine = manifest_of(Artifact.read(place)).engine
    assert engine is not None
    assert engine.targets == ("8.6",)
    assert recorder.faults == []


def test_an_engine_that_answers_wrongly_is_not_kept(building: tuple[Recorder, Path], onnx_artifact: Artifact) -> None:
    recorder, folder = building
    true = recorder.compute
    assert true is not None
    recorder.compute = lambda arrays: {"logits": true(arrays)["logits"] * np.float32(1.1)}
    with refuses(CheckFailedError, "parity-failed", "tensorrt"):
        runtimes.open(onnx_artifact.path, "tensorrt", "cuda")
    assert entries(folder) == []
    assert [path for path in folder.iterdir() if path.suffix in (".tmp", ".json", ".npz")] == []


def test_a_damaged_file_does_not_become_the_sound_ones_engine(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    _, folder = building
    artifact = copied(onnx_artifact, tmp_path)
    data = bytearray(artifact.path.read_bytes())
    data[len(data) // 2] ^= 1  # in the weights
    artifact.path.write_bytes(data)
    with refuses(IntegrityError, "file-digest-mismatch"):
        runtimes.open(artifact.path, "tensorrt", "cuda")
    assert entries(folder) == []


def test_a_foreign_file_is_built_without_a_check(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, tmp_path: Path
) -> None:
    recorder, folder = building
    path = tmp_path / "foreign.onnx"
    path.write_bytes(onnx_artifact.path.read_bytes())
    with runtimes.open(path, "tensorrt", "cuda") as runtime:
        assert recorder.count("execute_async_v3") == 0
        assert runtime.inputs[0].shape[1:] == (3, 32, 32)
    (place,) = entries(folder)
    entry = manifest_of(Artifact.read(place))
    assert entry.parity is None
    assert entry.engine is not None
    assert entry.engine.tolerance is None


def test_a_spoilt_entry_is_built_again(
    building: tuple[Recorder, Path], onnx_artifact: Artifact, heard: list[tuple[str, str]]
) -> None:
    _, folder = building
    for _ in range(2):
        with runtimes.open(onnx_artifact.path, "tensorrt", "cuda"):
            pass
        (place,) = entries(folder)
        place.write_bytes(place.read_bytes()[:-1])
    assert [code for code, _ in heard] == ["engine-being-built", "engine-cache-damaged", "engine-being-built"]


def test_the_profile_has_the_times_of_the_layers(recorder: Recorder, tmp_path: Path) -> None:
    artifact = publish_script_engine(tmp_path, replace(TOLD, profiles=(Profile(1, 2, 2), Profile(3, 4, 6))))
    for images in (1, 4, 40):
        layers = runtimes.profile(artifact.path, {"input": np.ones((images, 3, 8, 8), np.float32)}, device="cuda")
        assert [(layer.name, layer.precision) for layer in layers] == [
            ("conv1/Conv", "float16"),
            ("fc/Gemm", "float32"),
        ]
        assert all(layer.duration_s == pytest.approx(recorder.run_s / 2) for layer in layers)


def test_the_profile_of_an_onnx_file_has_its_nodes(building: tuple[Recorder, Path], onnx_artifact: Artifact) -> None:
    assert not building[0].faults
    names = {node.name for node in onnxfile.graph(onnx_artifact.path).nodes}
    layers = runtimes.profile(onnx_artifact.path, backend="tensorrt", device="cuda")
    assert len(layers) == 2
    assert all(set(layer.nodes) <= names for layer in layers)


def test_the_layers_of_an_engine(recorder: Recorder, tmp_path: Path) -> None:
    rows = opening.inspect_layers(publish_script_engine(tmp_path, TOLD))
    assert [(row.title, row.tactic, row.layer.name) for row in rows] == [
        ("one", "k1", "conv1/Conv"),
        ("two", "k2", "fc/Gemm"),
    ]
    assert recorder.count("create_execution_context") == 1
    with refuses(CompatibilityError, "engine-of-other-gpu", "for another"):
        opening.inspect_layers(publish_script_engine(tmp_path, TOLD, gpu="another"))
