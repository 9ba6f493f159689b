"""Engines built for real by TensorRT-RTX, which needs no GPU for it; its builder is spied on where nothing else tells.

Where TensorRT is meant, TensorRT-RTX stands in for it: its API has the same names, and takes what TensorRT alone uses
without effect.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest

from runtimes import Artifact, TensorSpec
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import builder
from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE, Settings
from runtimes.backends.tensorrt.builder import BuiltEngine, build
from runtimes.backends.tensorrt.flavors import FLAVORS, Log, logger
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CompatibilityError,
    ResourceError,
    UsageError,
)
from tests.refusals import refuses
from tests.runtimes.backends.tensorrt import graphs
from tests.runtimes.backends.tensorrt.cudadouble import Recorder
from tests.runtimes.backends.tensorrt.driverdouble import install

trt = pytest.importorskip("tensorrt_rtx")

RTX = FLAVORS["rtx"]
STAND_IN = replace(FLAVORS["tensorrt"], module="tensorrt_rtx", magic=b"vtrt", least=(1, 5))


@pytest.mark.parametrize(("index", "current"), [(None, 0), (1, 1)])
def test_the_thread_of_a_build_has_its_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, index: int | None, current: int
) -> None:
    recorder = install(monkeypatch, Recorder(devices=2))
    seen: list[int] = []
    monkeypatch.setattr(builder._Build, "run", lambda _: seen.append(recorder.cuda.ordinal()))
    build(tmp_path / "any.onnx", Settings(), RTX, device_index=index)
    assert seen == [current]


class Spy:
    """What the builder was given, and what it gives in place of its own plan."""

    def __init__(self) -> None:
        self.configs: list[Any] = []
        self.gives: Callable[[], object] | None = None


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    """The true builder, watched."""
    seen, native = Spy(), trt.Builder

    class Builder:
        def __init__(self, log: object) -> None:
            self._native = native(log)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._native, name)

        def build_serialized_network(self, network: Any, config: Any) -> object:
            seen.configs.append(config)
            return seen.gives() if seen.gives else self._native.build_serialized_network(network, config)

    monkeypatch.setattr(trt, "Builder", Builder)
    yield seen
    seen.configs.clear()


def _build_engine(onnx_file: Path, **fields: Any) -> BuiltEngine:
    return build(onnx_file, Settings(**fields), RTX)


def test_a_network_becomes_an_engine(onnx_artifact: Artifact) -> None:
    built = _build_engine(onnx_artifact.path)
    assert bytes(built.plan[:4]) == b"vtrt"
    assert built.plan.nbytes > 200_000  # its weights are in it
    assert built.profiles == (DEFAULT_PROFILE,)
    assert onnx_artifact.manifest is not None
    assert built.inputs == onnx_artifact.manifest.inputs
    assert built.outputs == onnx_artifact.manifest.outputs
    assert built.layers > 60
    assert built.duration_s > 0


def test_an_engine_takes_the_batches_that_were_asked_for(spy: Spy, tmp_path: Path) -> None:
    wanted = (Profile(1, 1, 1), Profile(2, 8, 32))
    built = _build_engine(graphs.addition(tmp_path / "add.onnx"), profiles=wanted)
    assert built.profiles == wanted
    assert [spec.shape for spec in built.inputs] == [graphs.IMAGES] * 2
    assert spy.configs[0].num_optimization_profiles == 2


def test_a_fixed_batch_is_its_only_profile(spy: Spy, tmp_path: Path) -> None:
    fixed = graphs.relu(tmp_path / "relu.onnx", (4, 3, 8, 8))
    assert _build_engine(fixed).profiles == (Profile(4, 4, 4),)
    assert _build_engine(fixed, profiles=(Profile(4, 4, 4),)).outputs == (TensorSpec("y", "float32", (4, 3, 8, 8)),)
    assert [config.num_optimization_profiles for config in spy.configs] == [0, 0]
    with refuses(UsageError, "profiles-for-fixed-batch", "4 images"):
        _build_engine(fixed, profiles=(Profile(1, 4, 4),))


def test_images_may_be_bytes(tmp_path: Path) -> None:
    built = _build_engine(graphs.cast(tmp_path / "cast.onnx"))
    assert built.inputs == (TensorSpec("x", "uint8", ("images", 8, 8, 3)),)
    assert built.outputs == (TensorSpec("y", "float32", ("images", 8, 8, 3)),)


def test_weights_in_a_file_beside_it_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = graphs.convolution(tmp_path / "conv.onnx", np.ones((64, 3, 3, 3), np.float32))
    target = tmp_path / "aside" / "conv.onnx"
    target.parent.mkdir()
    onnx.save(onnx.load(source), target, save_as_external_data=True, location="conv.onnx.data", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    assert _build_engine(target).plan.nbytes
    (target.parent / "conv.onnx.data").unlink()
    with refuses(ArtifactError, "graph-refused-by-parser", "import initializer"):
        _build_engine(target)


def test_settings_reach_the_builder(spy: Spy, tmp_path: Path) -> None:
    path = graphs.relu(tmp_path / "relu.onnx")
    _build_engine(path)
    _build_engine(path, tf32=True, opt_level=5, workspace_bytes=1 << 28, targets=("8.6", "12.1"))
    plain, rich = spy.configs
    assert not plain.get_flag(trt.BuilderFlag.TF32)
    assert plain.builder_optimization_level == 3
    assert plain.num_compute_capabilities == 0
    assert rich.get_flag(trt.BuilderFlag.TF32)
    assert rich.builder_optimization_level == 5
    assert rich.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 28
    assert [rich.get_compute_capability(index) for index in range(rich.num_compute_capabilities)] == [
        trt.ComputeCapability.SM86,
        trt.ComputeCapability.SM121,
    ]
    assert all(config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED for config in spy.configs)


def test_the_settings_of_the_search_reach_the_builder(spy: Spy, tmp_path: Path) -> None:
    spy.gives = lambda: b"vtrt and more"
    path = graphs.relu(tmp_path / "relu.onnx")
    build(path, Settings(aux_streams=3, tiling="full", sparse_weights=True, avg_timing=5, refit=True), STAND_IN)
    _build_engine(path)
    rich, plain = spy.configs
    assert [config.tiling_optimization_level for config in (rich, plain)] == [
        trt.TilingOptimizationLevel.FULL,
        trt.TilingOptimizationLevel.NONE,
    ]
    assert (rich.max_aux_streams, rich.avg_timing_iterations) == (3, 5)
    for name in ("SPARSE_WEIGHTS", "REFIT"):
        assert [config.get_flag(getattr(trt.BuilderFlag, name)) for config in (rich, plain)] == [True, False]


def test_the_settings_of_tensorrt_reach_the_builder(spy: Spy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX cannot tell the level back, so that a stand-in for its configuration takes it."""
    levels: list[object] = []
    taken = property(lambda _: levels[-1], lambda _, level: levels.append(level))
    monkeypatch.setattr(trt.IBuilderConfig, "hardware_compatibility_level", taken)
    spy.gives = lambda: b"vtrt and more"
    path = graphs.relu(tmp_path / "relu.onnx")
    build(path, Settings(version_compat=True, strip_weights=True, hardware_compat="ampere+"), STAND_IN)
    build(path, Settings(hardware_compat="same-cc"), STAND_IN)
    build(path, Settings(), STAND_IN)
    names = ("VERSION_COMPATIBLE", "STRIP_PLAN")
    flags = [[config.get_flag(getattr(trt.BuilderFlag, name)) for name in names] for config in spy.configs]
    assert flags == [[True, True], [False, False], [False, False]]
    known = trt.HardwareCompatibilityLevel
    assert levels == [known.AMPERE_PLUS, known.SAME_COMPUTE_CAPABILITY]


REFUSED, TYPE, SHAPE, BATCHES = (
    "graph-refused-by-parser",
    "engine-type-unsupported",
    "engine-shape-varies",
    "engine-batches-differ",
)
_REFUSALS: dict[str, tuple[Callable[[Path], Path], str, tuple[object, ...]]] = {
    "unsupported": (graphs.text, REFUSED, ("norm (StringNormalizer)", "not supported", "another backend")),
    "unknown": (graphs.unknown, REFUSED, ("frob0 (Frobnicate)", "operator is unknown")),
    "several": (lambda path: graphs.unknown(path, 5), REFUSED, ("frob0", "frob1", "frob2", "and 2 more")),
    "weights": (
        lambda path: graphs.convolution(path, np.ones((5, 4, 3, 3), np.float32)),
        REFUSED,
        ("conv (Conv)", "weight dimension"),
    ),
    "types": (
        lambda path: graphs.convolution(path, np.ones((5, 3, 3, 3), np.float16)),
        REFUSED,
        ("conv (Conv)", "same type", "Half"),
    ),
    "varying": (
        lambda path: graphs.relu(path, ("n", 3, "height", 8)),
        SHAPE,
        ("x has the shape", (-1, 3, -1, 8), "first dimension"),
    ),
    "asymmetric": (graphs.asymmetric, REFUSED, ("quantise (QuantizeLinear)", "ero point", "another backend")),
    "scalar": (lambda path: graphs.relu(path, ()), SHAPE, ("x has the shape", ())),
    "bfloat16": (lambda path: graphs.relu(path, ("n", 8), onnx.TensorProto.BFLOAT16), TYPE, ("of x", "bf16")),
    "batches": (
        lambda path: graphs.addition(path, (1, 3, 8, 8)),
        BATCHES,
        (
            TensorSpec("x", "float32", ("images", 3, 8, 8)),
            TensorSpec("z", "float32", (1, 3, 8, 8)),
        ),
    ),
}


@pytest.mark.parametrize("case", _REFUSALS)
def test_a_graph_that_it_does_not_take_is_explained(case: str, tmp_path: Path) -> None:
    make, code, values = _REFUSALS[case]
    path = make(tmp_path / "bad.onnx")
    with refuses(CompatibilityError, code, *values) as caught:
        _build_engine(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "spoil", [lambda content: content[:0] + b"junkjunk", lambda content: content[: len(content) // 2]]
)
def test_a_broken_file_is_refused(spoil: Callable[[bytes], bytes], onnx_artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(spoil(onnx_artifact.path.read_bytes()))
    with refuses(ArtifactError, "graph-refused-by-parser", "TensorRT-RTX", "parse the ONNX"):
        _build_engine(path)


def test_a_path_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    with refuses(UsageError, "path-not-unicode"):
        _build_engine(tmp_path / "b\udcff.onnx")


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"workspace_bytes": 1}, ("workspace limit", "1 bytes", "allow more than")),
        ({"targets": ("7.5",)}, ("Turing (SM75)", "FP32 GEMM", "compute capability 7.5")),
    ],
)
def test_a_build_that_fails_is_explained(
    fields: dict[str, Any], values: tuple[str, ...], onnx_artifact: Artifact
) -> None:
    with refuses(CompatibilityError, "engine-not-buildable", "TensorRT-RTX", *values):
        _build_engine(onnx_artifact.path, **fields)


def test_a_failed_build_of_a_stripped_engine_tells_of_the_gpu(spy: Spy, tmp_path: Path) -> None:
    spy.gives = lambda: None  # with its own words where there is no GPU, and a plan where there is one
    with refuses(CompatibilityError, "engine-not-buildable", "without weights", "a GPU"):
        _build_engine(graphs.relu(tmp_path / "relu.onnx"), strip_weights=True)


def _no_memory() -> object:
    raise MemoryError


def _logged_no_memory() -> object:
    log: Any = logger(RTX, Log())
    log.log(trt.ILogger.ERROR, "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (no further)")
    return None


@pytest.mark.parametrize(
    ("gives", "code"), [(_no_memory, "build-host-out-of-memory"), (_logged_no_memory, "build-out-of-memory")]
)
def test_memory_that_runs_out_is_told(gives: Callable[[], object], code: str, spy: Spy, tmp_path: Path) -> None:
    spy.gives = gives
    with refuses(ResourceError, code, "TensorRT-RTX"):
        _build_engine(graphs.relu(tmp_path / "relu.onnx"))


def test_a_plan_of_unknown_first_bytes_is_a_warning(spy: Spy, tmp_path: Path, said: list[tuple[str, str]]) -> None:
    spy.gives = lambda: b"ptrt0123"
    assert bytes(_build_engine(graphs.relu(tmp_path / "relu.onnx")).plan) == b"ptrt0123"
    ((code, sentence),) = said
    assert code == "engine-not-recognised"
    assert b"ptrt0".hex(" ") in sentence
    spy.gives = lambda: b""
    with refuses(CompatibilityError, "engine-not-buildable", "no reason"):
        _build_engine(graphs.relu(tmp_path / "relu.onnx"))


@pytest.mark.parametrize("factory", ["Builder", "OnnxParser"])
def test_without_a_driver_its_factories_give_nothing(
    factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def null(*_: object) -> object:
        raise TypeError("pybind11::init(): factory function returned nullptr")  # as TensorRT's do

    monkeypatch.setattr(trt, factory, null)
    with refuses(BackendUnavailableError, "driver-unusable", "TensorRT"):
        build(graphs.relu(tmp_path / "relu.onnx"), Settings(), STAND_IN)


def test_a_refused_compute_capability_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "compute_capability", lambda *_: trt.ComputeCapability(90))
    with refuses(CompatibilityError, "compute-capability-refused", "8.6", "not supported"):
        _build_engine(graphs.relu(tmp_path / "relu.onnx"), targets=("8.6",))


def test_a_refused_profile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trt.IBuilderConfig, "add_optimization_profile", lambda *_: -1)
    with refuses(CompatibilityError, "profile-refused", "1 to 64", "for 8"):
        _build_engine(graphs.relu(tmp_path / "relu.onnx"))


def test_what_the_flavor_lacks_is_refused_before_reading(tmp_path: Path) -> None:
    with refuses(UsageError, "setting-unsupported", "timing cache"):
        _build_engine(tmp_path / "missing.onnx", timing_cache=tmp_path / "cache")


def test_progress_is_told_step_by_step(onnx_artifact: Artifact) -> None:
    told: list[tuple[str, int, int]] = []
    threads = set()

    def progress(phase: str, done: int, total: int) -> bool:
        told.append((phase, done, total))
        threads.add(threading.current_thread())
        return True

    build(onnx_artifact.path, Settings(), RTX, progress)
    assert told[0][:2] == ("Building engine", 0)
    assert len(told) > 50
    assert all(0 <= done <= total for _, done, total in told)
    assert threading.current_thread() not in threads


def _threads_that_build() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "engine-build"]


def test_progress_can_cancel(onnx_artifact: Artifact) -> None:
    told: list[str] = []

    def progress(phase: str, done: int, total: int) -> bool:  # noqa: ARG001
        told.append(phase)
        return len(told) < 5

    with pytest.raises(KeyboardInterrupt):
        build(onnx_artifact.path, Settings(), RTX, progress)
    assert len(told) == 5
    assert _threads_that_build() == []


def test_what_progress_raises_ends_the_build(onnx_artifact: Artifact) -> None:
    def progress(*_: object) -> bool:
        raise ZeroDivisionError("in the terminal")

    with pytest.raises(ZeroDivisionError, match="in the terminal"):
        build(onnx_artifact.path, Settings(), RTX, progress)


def test_an_interrupt_ends_the_build(onnx_artifact: Artifact) -> None:
    told: list[str] = []
    here = threading.current_thread().ident
    assert here is not None

    def progress(phase: str, done: int, total: int) -> bool:  # noqa: ARG001
        told.append(phase)
        if len(told) == 3:
            signal.pthread_kill(here, signal.SIGINT)
            noticed.wait(30)
        elif len(told) > 3:
            time.sleep(0.05)  # on a busy machine the interrupted thread does not run at once
        return True

    noticed = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        noticed.set()
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            build(onnx_artifact.path, Settings(), RTX, progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(told) < 20  # of some hundreds
    assert _threads_that_build() == []


def test_an_interrupt_while_its_thread_starts_ends_the_build(
    onnx_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(onnx_artifact.path, Settings(), RTX, None)
    assert _threads_that_build() == []


def test_many_threads_may_build_at_once(tmp_path: Path) -> None:
    paths = [graphs.relu(tmp_path / f"{size}.onnx", ("n", size)) for size in (3, 5, 7)]
    paths.append(graphs.unknown(tmp_path / "bad.onnx"))
    results: dict[Path, object] = {}

    def work(path: Path) -> None:
        try:
            results[path] = _build_engine(path).inputs[0].shape[1]
        except CompatibilityError as error:
            results[path] = "Frobnicate" in str(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [results[path] for path in paths] == [3, 5, 7, True]
