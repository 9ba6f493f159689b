"""``Runtime``: an opened model, with everything that all backends share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType

import numpy as np

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.protocol import Description, DeviceSession, RunTimes, Session
from runtimes.tensors.dlpack import SupportsDLPack
from runtimes.tensors.spec import Array, Arrays, Feeds, TensorSpec
from runtimes.tensors.validation import (
    check_feeds,
    check_tensors,
    empty_outputs,
    make_fast_check,
    on_device,
    reconcile_specs,
)


class _Uses:
    """A counter of running calls. Closing waits for running calls, and later calls raise an error.

    Each call of the model enters and leaves this context manager once, from any thread. The code is kept plain for
    speed: a generator-based context manager would cost several times as much.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._running = 0
        self._closed = False
        self._process = os.getpid()

    def __enter__(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"the runtime was opened in process {self._process} and cannot be used in the forked process "
                f"{os.getpid()}",
                code="runtime-in-fork",
                hint="call runtimes.open in the child process",
            )
        with self._lock:
            if self._closed:
                raise UsageError(
                    "the runtime is closed", code="runtime-closed", hint="open the artifact again with runtimes.open"
                )
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._closed:
                self._ended.notify_all()

    def close(self) -> bool:
        """Refuse new calls, wait for the running ones, and return whether the model has to be freed.

        In a forked process the result is false: the model belongs to the parent process, and calls that were running
        during the fork never end in the child.
        """
        if os.getpid() != self._process:
            return False
        with self._lock:
            first, self._closed = not self._closed, True
            self._ended.wait_for(lambda: self._running == 0)
            return first


class Runtime:
    """An opened artifact, ready for inference.

    ``runtimes.open`` returns a runtime. All methods may be called from many threads at once. A ``with`` statement
    closes the runtime at its end.

    Args:
        artifact: The opened artifact.
        session: The session of the backend. The runtime owns it and closes it.
        skipped_backends: The preferred backends that do not run, each with its reason.

    Attributes:
        artifact: The opened artifact, with its manifest if it has one.
    """

    def __init__(self, artifact: Artifact, session: Session, skipped_backends: tuple[str, ...] = ()) -> None:
        self.artifact = artifact
        self._session = session
        self._device_session = session if isinstance(session, DeviceSession) else None
        self._uses = _Uses()
        manifest = artifact.manifest
        self._inputs = session.inputs if manifest is None else reconcile_specs(manifest.inputs, session.inputs)
        self._outputs = session.outputs if manifest is None else reconcile_specs(manifest.outputs, session.outputs)
        self._needs_no_check = make_fast_check(self._inputs)
        self._description = replace(session.description, skipped_backends=skipped_backends)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs, in the model's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs, in the model's order."""
        return self._outputs

    @property
    def description(self) -> Description:
        """The backend, version, device, provider, precision and threads in use, and the skipped backends."""
        return self._description

    def infer(self, feeds: Feeds | Mapping[str, SupportsDLPack]) -> Arrays:
        """Run the model once and return its outputs by name.

        The call blocks until the outputs are in host memory.

        Args:
            feeds: Input arrays by name. If the model runs on a CUDA device, the inputs may also be tensors on that
                device, of any library that supports DLPack. The run waits for the work that this library queued, and
                reads the tensors in place where the backend can.

        Returns:
            Fresh NumPy arrays that belong to the caller, also for tensors on a CUDA device. A batch of 0 images gives
            outputs of 0 rows.

        Raises:
            InputError: The feeds do not fit ``inputs``, or lie on another device than the model.
            UsageError: The runtime is closed, or was opened before a fork.
            ResourceError: The device ran out of memory.

        Example:
            Classify two images with zeros as pixels:

                outputs = runtime.infer({"input": numpy.zeros((2, 3, 224, 224), "float32")})
                classes = outputs["logits"].argmax(axis=1)
        """
        with self._uses:
            if self._needs_no_check(feeds):
                return self._session.run(feeds)
            if on_device(feeds):
                return self._infer_tensors(feeds)
            arrays = check_feeds(self._inputs, feeds)
            empty = empty_outputs(self._inputs, self._outputs, arrays)
            return self._session.run(arrays) if empty is None else empty

    def _infer_tensors(self, feeds: Mapping[str, object]) -> Arrays:
        session = self._device_session
        if session is None:
            raise InputError(
                f"the inputs are on a CUDA device, but backend {self._description.backend} runs on "
                f"{self._description.device}",
                code="feeds-on-wrong-device",
                hint="pass NumPy arrays, or open the artifact with device='cuda'",
            )
        tensors = check_tensors(self._inputs, feeds)
        empty = empty_outputs(self._inputs, self._outputs, tensors)
        return session.run_tensors(tensors) if empty is None else empty

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """Copy ``feeds`` to the device once and return a function that runs the model on them.

        Each call of the function runs the model once and returns when the device has finished. The outputs stay on the
        device. Only one thread at a time may call the function. This method serves measurements without copies.

        Args:
            feeds: Input arrays by name.

        Raises:
            InputError: As for ``infer``.
            UsageError: As for ``infer``.
            ResourceError: As for ``infer``.

        Example:
            Measure inference without copies:

                run = runtime.bind(feeds)
                start = time.perf_counter()
                run()
                duration_s = time.perf_counter() - start
        """
        with self._uses:
            arrays = self._copies(feeds)
            call = _do_nothing if arrays is None else self._session.bind(arrays)

        def run_once() -> None:
            with self._uses:
                call()

        return run_once

    def bind_timed(self, feeds: Feeds) -> Callable[[], RunTimes] | None:
        """Copy ``feeds`` to the device once and return a function that runs the model and returns its times.

        Each call runs the model twice and times the second run by the clock of the device: the first run keeps the
        device busy until the host has queued the second one. Copies are not included. Otherwise the function behaves
        like that of ``bind``.

        Args:
            feeds: Input arrays by name.

        Returns:
            The function, or ``None`` if the device has no clock of its own.

        Raises:
            InputError: As for ``infer``.
            UsageError: As for ``infer``.
            ResourceError: As for ``infer``.
        """
        with self._uses:
            arrays = self._copies(feeds)
            if self._device_session is None:
                return None
            call = _no_time if arrays is None else self._device_session.bind_timed(arrays)

        def run_once() -> RunTimes:
            with self._uses:
                return call()

        return run_once

    def _copies(self, feeds: Feeds) -> Arrays | None:
        """Return checked copies of the feeds, or ``None`` for a batch of 0 images."""
        arrays = check_feeds(self._inputs, feeds)
        if empty_outputs(self._inputs, self._outputs, arrays) is not None:
            return None
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """Wait for running calls, then free the model. A second call does nothing."""
        if self._uses.close():
            self._session.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        description = self._description
        return (
            f"<Runtime {self.artifact.path.name} on {description.backend} {description.version}, "
            f"{description.provider}>"
        )


def _do_nothing() -> None:
    """Stand in for a bound run of a batch of 0 images."""


def _no_time() -> RunTimes:
    return RunTimes(0.0, 0.0)


def example(runtime: Runtime) -> Arrays:
    """Return feeds to try the runtime with, as fresh arrays.

    The feeds are the first test vector of the artifact, repeated to a fixed batch. Without test vectors they are
    seeded noise, with size 1 for each dimension that may vary.

    Raises:
        IntegrityError: The test vectors are damaged.
        ResourceError: The test vectors cannot be read.
    """
    manifest = runtime.artifact.manifest
    if manifest is None or manifest.vectors is None:
        return {spec.name: _noise(spec, seed) for seed, spec in enumerate(runtime.inputs)}
    spec = runtime.inputs[0]
    batch = spec.fixed_batch or 1
    first = runtime.artifact.vectors().inputs[:1]
    return {spec.name: np.repeat(first, batch, axis=0)}


def _noise(spec: TensorSpec, seed: int) -> Array:
    generator, dtype = np.random.default_rng(seed), np.dtype(spec.dtype)
    shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 255 if dtype == np.uint8 else 1, shape, endpoint=True).astype(dtype)
