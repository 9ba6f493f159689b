"""Building of an engine from an ONNX file. TensorRT needs a GPU for it; TensorRT-RTX does not.

The network is strongly typed: it computes in the types of the graph, which alone determines the precision.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtimes import notices
from runtimes.artifacts.manifest import Profile
from runtimes.backends.tensorrt import timing_cache
from runtimes.backends.tensorrt.build_settings import DEFAULT_PROFILE, Settings
from runtimes.backends.tensorrt.flavors import Flavor, Log, compute_capability, logger, needing_driver
from runtimes.backends.tensorrt.parser import parse
from runtimes.errors import CompatibilityError, Reason, ResourceError, RexportError, UsageError
from runtimes.tensors import cuda
from runtimes.tensors.spec import TensorSpec


@dataclass(frozen=True)
class BuiltEngine:
    """A newly built engine.

    Attributes:
        plan: The bytes of the engine. The library owns the memory, which is kept as long as this view.
        profiles: The optimisation profiles, at least one.
        inputs: The specifications of the inputs; the first dimension is the batch.
        outputs: The specifications of the outputs; the first dimension is the batch.
        layers: The number of layers before the library fused them.
        duration_s: The time of parsing and building in seconds.
    """

    plan: memoryview
    profiles: tuple[Profile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: int
    duration_s: float


class BuildListener(Protocol):
    """A function that receives the progress of a build. It is called from the thread of the build."""

    def __call__(self, phase: str, done: int, total: int, /) -> bool:
        """Receive that ``done`` of ``total`` steps of a phase are done, and return whether to continue the build.

        The names of phases are the library's. Phases can contain other phases.
        """


def build(
    onnx: Path,
    settings: Settings,
    flavor: Flavor,
    progress: BuildListener | None = None,
    device_index: int | None = None,
) -> BuiltEngine:
    """Build an engine from an ONNX file.

    The call blocks for seconds with TensorRT-RTX, and up to many minutes with TensorRT.

    Args:
        onnx: The ONNX file, which ``Artifact.read`` must have checked. External data is read with it.
        settings: The settings of the build.
        flavor: The library.
        progress: Receives the progress and can cancel the build.
        device_index: The number of the GPU to build on, or ``None`` for the library's own choice: none with
            TensorRT-RTX, the first one with TensorRT.

    Raises:
        UsageError: The settings do not fit this library or this graph.
        ArtifactError: The graph is invalid.
        CompatibilityError: The library does not support the graph or the settings. The message names nodes and quotes
            the library.
        BackendUnavailableError: The library is missing, or needs a GPU with its driver.
        ResourceError: Memory or disk space is lacking.
        KeyboardInterrupt: A signal arrived, or ``progress`` returned false. The build has ended by then.
    """
    settings.check(flavor)
    cancel = threading.Event()

    def run_on_device() -> BuiltEngine:
        # The device is a property of the thread, and the build has its own.
        with contextlib.nullcontext() if device_index is None else cuda.current(device_index):
            return _Build(onnx, settings, flavor, progress, cancel).run()

    return _run_in_thread(run_on_device, cancel)


def _run_in_thread(work: Callable[[], BuiltEngine], cancel: threading.Event) -> BuiltEngine:
    """Run ``work`` in a new thread and return its result.

    Python cannot handle the signal of Ctrl-C inside a call of the library. An exception in this thread cancels the work
    and waits for its end.
    """
    future: Future[BuiltEngine] = Future()

    def run(outcome: Future[BuiltEngine]) -> None:
        try:
            if cancel.is_set():  # before the thread began
                raise KeyboardInterrupt
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            del outcome  # see below

    thread = threading.Thread(target=run, args=(future,), name="engine-build", daemon=True)
    try:
        thread.start()  # waits until the thread runs, and can be interrupted
        return future.result()
    except BaseException:
        cancel.set()
        raise
    finally:
        if thread.is_alive():
            thread.join()
        del future  # an error's traceback refers to it, and would keep the library's objects until a garbage collection


class _Build:
    """One build of an engine."""

    def __init__(
        self, onnx: Path, settings: Settings, flavor: Flavor, progress: BuildListener | None, cancel: threading.Event
    ) -> None:
        self._onnx, self._settings, self._flavor = onnx, settings, flavor
        self._library: Any = flavor.library()
        self._log = Log()
        self._progress = _Progress(progress, cancel)

    def run(self) -> BuiltEngine:
        """Parse the file and build the engine."""
        started = time.perf_counter()
        library_logger = logger(self._flavor, self._log)
        with needing_driver(self._flavor, self._log):
            builder = self._library.Builder(library_logger)
        parsed = parse(builder, self._onnx, self._flavor, self._log)
        profiles = _profiles(self._settings.profiles, parsed.inputs)
        config = self._configure(builder)
        if parsed.inputs[0].fixed_batch is None:
            for profile in profiles:
                _add_profile(builder, config, parsed.inputs, profile)
        monitor = self._progress.monitor(self._library)  # the library does not keep it alive
        config.progress_monitor = monitor
        plan = self._plan(builder, parsed.network, config)
        return BuiltEngine(
            plan, profiles, parsed.inputs, parsed.outputs, parsed.network.num_layers, time.perf_counter() - started
        )

    def _configure(self, builder: Any) -> Any:
        library, settings, config = self._library, self._settings, builder.create_builder_config()
        flags = library.BuilderFlag
        (config.set_flag if settings.tf32 else config.clear_flag)(flags.TF32)  # the library's default is on
        user_allocation = getattr(flags, "REQUIRE_USER_ALLOCATION", None)
        if user_allocation is not None:  # otherwise TensorRT-RTX may allocate in a run, which cannot be recorded
            config.set_flag(user_allocation)
        if settings.version_compat:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if settings.strip_weights:
            config.set_flag(flags.STRIP_PLAN)
        if settings.refit:
            config.set_flag(flags.REFIT)
        if settings.hardware_compat != "none":
            level = {"ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}[settings.hardware_compat]
            config.hardware_compatibility_level = getattr(library.HardwareCompatibilityLevel, level)
        if settings.workspace_bytes is not None:
            config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
        config.builder_optimization_level = settings.opt_level
        self._set_search(config)
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # for the engine's inspector
        self._set_targets(config)
        if settings.timing_cache is not None:
            timing_cache.attach(config, settings.timing_cache, self._log)
        return config

    def _set_search(self, config: Any) -> None:
        """Set what the builder tries besides its optimisation level."""
        settings = self._settings
        if settings.sparse_weights:
            config.set_flag(self._library.BuilderFlag.SPARSE_WEIGHTS)
        if settings.aux_streams is not None:
            config.max_aux_streams = settings.aux_streams
        if settings.tiling != "none":
            levels = self._library.TilingOptimizationLevel
            config.tiling_optimization_level = getattr(levels, settings.tiling.upper())
        if settings.avg_timing is not None:
            config.avg_timing_iterations = settings.avg_timing

    def _set_targets(self, config: Any) -> None:
        if not self._settings.targets:
            return
        config.num_compute_capabilities = len(self._settings.targets)
        for index, target in enumerate(self._settings.targets):
            if not config.set_compute_capability(compute_capability(self._flavor, target), index):
                raise CompatibilityError(
                    f"{self._flavor.title} does not accept the compute capability {target}: "
                    f"{self._log.describe_errors()}",
                    code="compute-capability-refused",
                    path=self._onnx,
                )

    def _plan(self, builder: Any, network: Any, config: Any) -> memoryview:
        self._progress.check()
        try:
            memory = builder.build_serialized_network(network, config)
        except MemoryError as error:
            raise ResourceError(
                f"{self._flavor.title} ran out of host memory", code="build-host-out-of-memory", path=self._onnx
            ) from error
        self._progress.check()
        plan = None if memory is None else memoryview(memory).cast("B")
        if plan is None or not plan.nbytes:
            raise self._failure()
        if bytes(plan[:4]) != self._flavor.magic:  # undocumented, so that the library has the last word
            notices.warn(
                Reason(
                    "engine-not-recognised",
                    f"{self._flavor.title} {self._flavor.version()} built an engine with unknown first bytes, "
                    f"{bytes(plan[:8]).hex(' ')}; opening it will show whether the library accepts it",
                )
            )
        if self._settings.timing_cache is not None:
            self._save_timing_cache(config, self._settings.timing_cache)
        return plan

    def _save_timing_cache(self, config: Any, path: Path) -> None:
        """Save the times of kernels. An engine that was built is not lost because they cannot be written."""
        try:
            timing_cache.save(config, path)
        except ResourceError as error:
            notices.warn(Reason("timing-cache-not-saved", f"the timing cache was not saved: {error}"))

    def _failure(self) -> RexportError:
        reason = self._log.describe_errors()
        if self._log.out_of_memory:
            return ResourceError(
                f"{self._flavor.title} ran out of memory: {reason}", code="build-out-of-memory", path=self._onnx
            )
        return CompatibilityError(
            f"{self._flavor.title} cannot build an engine from the file: {reason}",
            code="engine-not-buildable",
            path=self._onnx,
            hint=self._hint(reason),
        )

    def _hint(self, reason: str) -> str | None:
        if "workspace" in reason and self._settings.workspace_bytes is not None:
            return f"allow more than {self._settings.workspace_bytes:,} bytes of workspace"
        if (self._settings.strip_weights or self._settings.refit) and self._flavor.name == "rtx":
            kind = "without weights" if self._settings.strip_weights else "with weights that can be replaced"
            return f"build on a machine with a GPU: TensorRT-RTX needs one to build an engine {kind}"
        if "Turing" in reason:
            return "omit the compute capability 7.5, or export the model in fp16"
        return None


class _Progress:
    """The link between the library's progress monitor and a ``BuildListener``, which can cancel the build."""

    def __init__(self, progress: BuildListener | None, cancel: threading.Event) -> None:
        self._progress = progress
        self._cancel = cancel
        self._totals: dict[str, int] = {}
        self._error: BaseException | None = None

    def begin(self, phase: str, total: int) -> None:
        """Report that a phase of ``total`` steps has started."""
        self._totals[phase] = total
        self._report_progress(phase, 0)

    def step(self, phase: str, done: int) -> bool:
        """Report that ``done`` steps of a phase are done, and return whether to continue."""
        self._report_progress(phase, done)
        return not self._cancel.is_set()

    def _report_progress(self, phase: str, done: int) -> None:
        """Call the listener and keep its error for ``check``: an exception cannot pass through the library."""
        try:
            if self._cancel.is_set() or self._progress is None:
                return
            if not self._progress(phase, done, self._totals.get(phase, done)):
                self._cancel.set()
        except BaseException as error:
            self._error = error
            self._cancel.set()

    def check(self) -> None:
        """Raise the error of the listener, or KeyboardInterrupt if the build was cancelled."""
        if self._error is not None:
            raise self._error
        if self._cancel.is_set():
            raise KeyboardInterrupt

    def monitor(self, library: Any) -> object:
        """Return a progress monitor of the library that reports here."""
        progress = self

        class Monitor(library.IProgressMonitor):  # type: ignore[misc]
            def __init__(self) -> None:
                library.IProgressMonitor.__init__(self)

            def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
                progress.begin(phase_name, num_steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress.step(phase_name, step + 1)

            def phase_finish(self, phase_name: str) -> None:
                pass

        return Monitor()


def _profiles(requested: tuple[Profile, ...], inputs: tuple[TensorSpec, ...]) -> tuple[Profile, ...]:
    """Return the profiles of the engine.

    Raises:
        UsageError: The graph has a fixed batch, and other batch sizes are requested.
    """
    batch = inputs[0].fixed_batch
    if batch is None:
        return requested or (DEFAULT_PROFILE,)
    fixed = (Profile(batch, batch, batch),)
    if requested not in ((), fixed):
        raise UsageError(
            f"the graph has a fixed batch of {batch} images, so it cannot have other profiles",
            code="profiles-for-fixed-batch",
            hint="omit the profiles, or export the model with the option --batch dynamic of rexport",
        )
    return fixed


def _add_profile(builder: Any, config: Any, inputs: tuple[TensorSpec, ...], profile: Profile) -> None:
    native = builder.create_optimization_profile()
    for spec in inputs:
        native.set_shape(spec.name, *((size, *spec.shape[1:]) for size in (profile.least, profile.best, profile.most)))
    if config.add_optimization_profile(native) < 0:
        raise CompatibilityError(f"the library does not accept the profile: {profile}", code="profile-refused")
