"""The model in a user's hands: a backend's session, with everything around it that is the same for all backends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType

import numpy as np

from runtimes.artifacts.artifact import Artifact
from runtimes.errors import InputError, UsageError
from runtimes.protocol import Array, Arrays, Description, DeviceSession, Feeds, Session, TensorSpec
from runtimes.tensors.dlpack import SupportsDLPack
from runtimes.tensors.validation import (
    check_feeds,
    check_tensors,
    empty_outputs,
    on_device,
    plainly_right,
    reconcile_specs,
)


class _Uses:
    """Counts the calls under way, so that closing waits for them and later calls are refused.

    A context manager, a call each time, for any number of threads. Each call of a model passes through here, so it is
    plain: a generator and a wake-up that nobody waits for would cost several times as much.
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
                f"this runtime was opened in process {self._process} and does not work in its fork",
                code="runtime-in-fork",
                hint="call runtimes.open in the child process",
            )
        with self._lock:
            if self._closed:
                raise UsageError(
                    "this runtime is closed", code="runtime-closed", hint="open it again with runtimes.open"
                )
            self._running += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._running -= 1
            if self._closed:
                self._ended.notify_all()

    def close(self) -> bool:
        """Refuses new calls and waits for the running ones; whether there is something to free.

        In a fork there is not: the model belongs to the parent, whose running calls will never end here.
        """
        if os.getpid() != self._process:
            return False
        with self._lock:
            first, self._closed = not self._closed, True
            self._ended.wait_for(lambda: self._running == 0)
            return first


class Runtime:
    """An opened artifact. Made by ``runtimes.open``; safe to use from many threads; a context manager.

    Attributes:
        artifact: what was opened, with its manifest if it has one.
    """

    def __init__(self, artifact: Artifact, session: Session, passed_over: tuple[str, ...] = ()) -> None:
        self.artifact = artifact
        self._session = session
        self._device_session = session if isinstance(session, DeviceSession) else None
        self._uses = _Uses()
        manifest = artifact.manifest
        self._inputs = session.inputs if manifest is None else reconcile_specs(manifest.inputs, session.inputs)
        self._outputs = session.outputs if manifest is None else reconcile_specs(manifest.outputs, session.outputs)
        self._plainly_right = plainly_right(self._inputs)
        self._description = replace(session.description, passed_over=passed_over)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the model's order."""
        return self._outputs

    @property
    def description(self) -> Description:
        """What really runs: library, device, provider, precision, threads."""
        return self._description

    def infer(self, feeds: Feeds | Mapping[str, SupportsDLPack]) -> Arrays:
        """Outputs by name for ``feeds``, input arrays by name. Host to host; blocks until the outputs are there.

        The outputs are fresh arrays and the caller's. A batch of 0 gives outputs of 0 rows. Where the model runs on a
        CUDA device, the inputs may be tensors that lie there already, of any library that speaks DLPack: they are read
        where they lie, after what their library has queued for them, and the outputs are NumPy arrays all the same.

        Raises:
            InputError: the feeds do not fit ``inputs``, or lie on a device on which the model is not.
            UsageError: the runtime is closed, or was opened before a fork.
            ResourceError: the device ran out of memory.
        """
        with self._uses:
            if self._plainly_right(feeds):
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
                f"the inputs lie on a CUDA device, and {self._description.backend} runs on {self._description.device}",
                code="feeds-on-wrong-device",
                hint="pass tensor.cpu().numpy(), or open it with device='cuda'",
            )
        tensors = check_tensors(self._inputs, feeds)
        empty = empty_outputs(self._inputs, self._outputs, tensors)
        return session.run_tensors(tensors) if empty is None else empty

    def bind(self, feeds: Feeds) -> Callable[[], None]:
        """A call that runs once on ``feeds``, which are copied to the device now, and ends when the device has.

        For measuring and for loops that keep their data on the device; the outputs stay there. One thread at a time
        may use what is returned.

        Raises:
            InputError, UsageError, ResourceError: as ``infer``.
        """
        with self._uses:
            arrays = self._copies(feeds)
            call = _nothing if arrays is None else self._session.bind(arrays)

        def run_once() -> None:
            with self._uses:
                call()

        return run_once

    def bind_timed(self, feeds: Feeds) -> Callable[[], float] | None:
        """As ``bind``, and each call gives the seconds that the device itself took, between two events in its queue:
        without copies, and without what the host does meanwhile. ``None`` where the device keeps no time of its own.

        Raises:
            InputError, UsageError, ResourceError: as ``infer``.
        """
        with self._uses:
            arrays = self._copies(feeds)
            if self._device_session is None:
                return None
            call = _no_time if arrays is None else self._device_session.bind_timed(arrays)

        def run_once() -> float:
            with self._uses:
                return call()

        return run_once

    def _copies(self, feeds: Feeds) -> Arrays | None:
        """The feeds, checked, in memory that nobody else changes; ``None`` for a batch of no images."""
        arrays = check_feeds(self._inputs, feeds)
        if empty_outputs(self._inputs, self._outputs, arrays) is not None:
            return None
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """Waits for calls under way, then frees the model. Calling it again does nothing."""
        if self._uses.close():
            self._session.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        about = self._description
        return f"<Runtime {self.artifact.path.name} on {about.backend} {about.version}, {about.provider}>"


def _nothing() -> None:
    """What a bound call does for a batch of no images."""


def _no_time() -> float:
    return 0.0


def example(runtime: Runtime) -> Arrays:
    """Feeds to try the runtime with: the first of its artifact's test vectors, repeated to a fixed batch; else seeded
    noise, of size 1 where a dimension may vary.

    Raises:
        IntegrityError, ResourceError: the test vectors are broken, or cannot be read.
    """
    manifest = runtime.artifact.manifest
    if manifest is None or manifest.vectors is None:
        return {spec.name: _noise(spec, seed) for seed, spec in enumerate(runtime.inputs)}
    spec = runtime.inputs[0]
    batch = spec.shape[0] if isinstance(spec.shape[0], int) else 1
    first = runtime.artifact.vectors().inputs[:1]
    return {spec.name: np.repeat(first, batch, axis=0)}


def _noise(spec: TensorSpec, seed: int) -> Array:
    dice, dtype = np.random.default_rng(seed), np.dtype(spec.dtype)
    shape = tuple(size if isinstance(size, int) else 1 for size in spec.shape)
    if dtype.kind == "f":
        return dice.standard_normal(shape).astype(dtype)
    return dice.integers(0, 255 if dtype == np.uint8 else 1, shape, endpoint=True).astype(dtype)
