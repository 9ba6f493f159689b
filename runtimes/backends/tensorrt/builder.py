"""An engine of an ONNX file: parsed, configured, built. Works without a GPU where the library does.

The network is strongly typed: it computes in the types that the graph has, so that precision lives in the graph.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import timing_cache
from runtimes.backends.tensorrt.build_settings import Settings
from runtimes.backends.tensorrt.flavors import Flavor, Log, compute_capability, logger, needing_driver
from runtimes.backends.tensorrt.parser import parse
from runtimes.errors import ArtifactError, CompatibilityError, ResourceError, RexportError, UsageError
from runtimes.protocol import TensorSpec

DEFAULT_PROFILE = Profile(1, 8, 64)
"""Of a graph that takes any number of images, where none is asked for."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was built.

    Attributes:
        plan: its bytes, which belong to the library and live as long as this.
        profiles: the batches that it takes, at least one.
        inputs, outputs: of the network; the first dimension is the batch.
        layers: of the network before the library fused them.
        duration_s: of parsing and building.
    """

    plan: memoryview
    profiles: tuple[Profile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: int
    duration_s: float


class BuildListener(Protocol):
    """What is told while an engine is built. It is called from another thread than the one that builds."""

    def __call__(self, phase: str, done: int, total: int, /) -> bool:
        """``done`` of the ``total`` steps of a phase, as the library calls it, are done; phases hold other phases.
        ``False`` cancels the build."""


def build(onnx: Path, settings: Settings, flavor: Flavor, progress: BuildListener | None = None) -> BuiltEngine:
    """Parses and builds; blocks for seconds with TensorRT-RTX, with TensorRT up to many minutes.

    The file must have been looked at as ``Artifact.read`` does. Files of weights beside it are read with it.

    Raises:
        UsageError: the settings are not for this library or this graph.
        ArtifactError: the graph contradicts itself.
        CompatibilityError: the library does not take this graph or cannot build it as asked; the message names nodes
            and quotes the library.
        BackendUnavailableError: the library is missing, or wants a GPU and its driver and has none.
        ResourceError: memory or disk.
        KeyboardInterrupt: a signal, or ``progress`` gave ``False``; the build has ended then.
    """
    settings.check(flavor)
    cancel = threading.Event()
    return _run_in_thread(lambda: _Build(onnx, settings, flavor, progress, cancel).run(), cancel)


def _run_in_thread(work: Callable[[], BuiltEngine], cancel: threading.Event) -> BuiltEngine:
    """What ``work`` gives in a thread of its own: the library calls back from within, where Python would not see the
    signal of a Ctrl-C. An exception here cancels the work and waits for its end."""
    future: Future[BuiltEngine] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="engine-build", daemon=True).start()
    try:
        return future.result()
    except BaseException:
        cancel.set()
        future.exception()
        raise


class _Build:
    """One build."""

    def __init__(
        self, onnx: Path, settings: Settings, flavor: Flavor, progress: BuildListener | None, cancel: threading.Event
    ) -> None:
        self._onnx, self._settings, self._flavor = onnx, settings, flavor
        self._library: Any = flavor.library()
        self._heard = Log()
        self._watch = _Watch(progress, cancel)

    def run(self) -> BuiltEngine:
        started = time.perf_counter()
        log = logger(self._flavor, self._heard)
        with needing_driver(self._flavor, self._heard):
            builder = self._library.Builder(log)
        parsed = parse(builder, self._onnx, self._flavor, self._heard)
        profiles = _profiles(self._settings.profiles, parsed.inputs)
        config = self._configure(builder)
        if isinstance(parsed.inputs[0].shape[0], str):
            for profile in profiles:
                _add_profile(builder, config, parsed.inputs, profile)
        monitor = self._watch.monitor(self._library)  # the library does not keep it alive
        config.progress_monitor = monitor
        plan = self._plan(builder, parsed.network, config)
        return BuiltEngine(
            plan, profiles, parsed.inputs, parsed.outputs, parsed.network.num_layers, time.perf_counter() - started
        )

    def _configure(self, builder: Any) -> Any:
        library, settings, config = self._library, self._settings, builder.create_builder_config()
        flags = library.BuilderFlag
        (config.set_flag if settings.tf32 else config.clear_flag)(flags.TF32)  # the libraries have it on
        user_allocation = getattr(flags, "REQUIRE_USER_ALLOCATION", None)
        if user_allocation is not None:  # TensorRT-RTX may allocate during a run otherwise, which cannot be recorded
            config.set_flag(user_allocation)
        if settings.version_compat:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if settings.strip_weights:
            config.set_flag(flags.STRIP_PLAN)
        if settings.hardware_compat != "none":
            level = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}[settings.hardware_compat]
            config.hardware_compatibility_level = getattr(library.HardwareCompatibilityLevel, level)
        if settings.workspace_bytes is not None:
            config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        config.builder_optimization_level = settings.opt_level
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # so that the engine can tell its layers
        self._target(config)
        if settings.timing_cache is not None:
            timing_cache.attach(config, settings.timing_cache, self._heard)
        return config

    def _target(self, config: Any) -> None:
        if not self._settings.targets:
            return
        config.num_compute_capabilities = len(self._settings.targets)
        for index, target in enumerate(self._settings.targets):
            if not config.set_compute_capability(compute_capability(self._flavor, target), index):
                raise CompatibilityError(
                    f"{self._flavor.title} refused the compute capability {target}: {self._heard.describe_errors()}",
                    code="compute-capability-refused",
                    path=self._onnx,
                )

    def _plan(self, builder: Any, network: Any, config: Any) -> memoryview:
        self._watch.check()
        try:
            memory = builder.build_serialized_network(network, config)
        except MemoryError as error:
            raise ResourceError(
                f"{self._flavor.title} ran out of memory", code="build-host-out-of-memory", path=self._onnx
            ) from error
        self._watch.check()
        plan = None if memory is None else memoryview(memory).cast("B")
        if plan is None or not plan.nbytes:
            raise self._failure()
        if bytes(plan[:4]) != self._flavor.magic:
            raise ArtifactError(
                f"{self._flavor.title} {self._flavor.version()} built no engine that rexport knows: it begins with "
                f"{bytes(plan[:8]).hex(' ')}",
                code="engine-not-recognised",
                path=self._onnx,
                hint="pip install --upgrade rexport",
            )
        if self._settings.timing_cache is not None:
            timing_cache.save(config, self._settings.timing_cache)
        return plan

    def _failure(self) -> RexportError:
        words = self._heard.describe_errors()
        if self._heard.out_of_memory:
            return ResourceError(
                f"{self._flavor.title} ran out of memory: {words}", code="build-out-of-memory", path=self._onnx
            )
        return CompatibilityError(
            f"{self._flavor.title} cannot build an engine of it: {words}",
            code="engine-not-buildable",
            path=self._onnx,
            hint=self._remedy(words),
        )

    def _remedy(self, words: str) -> str | None:
        if "workspace" in words and self._settings.workspace_bytes is not None:
            return f"{self._settings.workspace_bytes:,} bytes of workspace were allowed: allow more"
        if self._settings.strip_weights and self._flavor.name == "rtx":
            return "TensorRT-RTX leaves weights out on a machine with a GPU only"
        if "Turing" in words:
            return "leave the compute capability 7.5 out, or export it in fp16"
        return None


class _Watch:
    """Hands a build's progress on, and ends the build when it is cancelled."""

    def __init__(self, progress: BuildListener | None, cancel: threading.Event) -> None:
        self._progress = progress
        self._cancel = cancel
        self._totals: dict[str, int] = {}
        self._error: BaseException | None = None

    def begin(self, phase: str, total: int) -> None:
        self._totals[phase] = total
        self._report_progress(phase, 0)

    def step(self, phase: str, done: int) -> bool:
        self._report_progress(phase, done)
        return not self._cancel.is_set()

    def _report_progress(self, phase: str, done: int) -> None:
        """Never raises: an exception cannot go through the library, and is raised by ``check`` when that has ended."""
        try:
            if self._cancel.is_set() or self._progress is None:
                return
            if not self._progress(phase, done, self._totals.get(phase, done)):
                self._cancel.set()
        except BaseException as error:
            self._error = error
            self._cancel.set()

    def check(self) -> None:
        """Raises what the progress raised; KeyboardInterrupt where the build was cancelled."""
        if self._error is not None:
            raise self._error
        if self._cancel.is_set():
            raise KeyboardInterrupt

    def monitor(self, library: Any) -> object:
        """The library's view of it."""
        watch = self

        class Monitor(library.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                library.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
                watch.begin(phase_name, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return watch.step(phase_name, step + 1)

            def phase_finish(self, phase_name: str) -> None:
                pass

        return Monitor()


def _profiles(asked: tuple[Profile, ...], inputs: tuple[TensorSpec, ...]) -> tuple[Profile, ...]:
    """Those of the engine.

    Raises:
        UsageError: the graph's batch is fixed, and others were asked for.
    """
    batch = inputs[0].shape[0]
    if isinstance(batch, str):
        return asked or (DEFAULT_PROFILE,)
    fixed = (Profile(batch, batch, batch),)
    if asked not in ((), fixed):
        raise UsageError(
            f"the graph takes {batch} images and no others, so that profiles do not go with it",
            code="profiles-for-fixed-batch",
            hint="leave them out, or export it for any batch",
        )
    return fixed


def _add_profile(builder: Any, config: Any, inputs: tuple[TensorSpec, ...], profile: Profile) -> None:
    row = builder.create_optimization_profile()
    for spec in inputs:
        row.set_shape(spec.name, *((size, *spec.shape[1:]) for size in (profile.least, profile.best, profile.most)))
    if config.add_optimization_profile(row) < 0:
        raise CompatibilityError(
            f"the library refused the profile of {profile.least} to {profile.most} images, tuned for {profile.best}",
            code="profile-refused",
        )
