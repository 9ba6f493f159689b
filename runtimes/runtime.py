"""``Runtime``: an opened model, with everything that all backends share."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

import numpy as np

from runtimes import lifetimes
from runtimes.artifacts.artifact import Artifact
from runtimes.async_calls import AsyncCalls
from runtimes.copying import refuse_to_copy
from runtimes.devices import CUDA, parse_device
from runtimes.errors import InputError, ResourceError, UsageError
from runtimes.protocol import Description, DeviceSession, RunTimes, Session
from runtimes.running_calls import RunningCalls
from runtimes.tensors.device_output import DeviceOutput, copy_outputs_to_host, empty_device_outputs
from runtimes.tensors.dlpack import DeviceTensor, SupportsDLPack
from runtimes.tensors.presence import identify
from runtimes.tensors.spec import Array, Arrays, Feeds, TensorSpec
from runtimes.tensors.stream_handle import StreamLike, stream_handle
from runtimes.tensors.validation import (
    batch_shape,
    check_feeds,
    check_rows,
    check_tensors,
    empty_outputs,
    make_fast_check,
    on_device,
    outputs_with_rows,
    reconcile_specs,
)

if TYPE_CHECKING:
    from concurrent.futures import Future

Outputs = TypeVar("Outputs", bound=Mapping[str, Any])


class Runtime:
    """An opened artifact, ready for inference.

    ``runtimes.open`` returns a runtime. All methods may be called from many threads at once. A ``with`` statement
    closes the runtime at its end.

    Args:
        artifact: The opened artifact.
        session: The session of the backend. The runtime owns it and closes it.
        skipped_backends: The preferred backends that do not run, each with its reason.
        streams: The number of calls that are expected at the same time on the CPU, for ``infer_async``.
        check_finite: Whether NaN and infinity in host arrays are errors.

    Attributes:
        artifact: The opened artifact, with its manifest if it has one.
    """

    def __init__(
        self,
        artifact: Artifact,
        session: Session,
        skipped_backends: tuple[str, ...] = (),
        streams: int = 1,
        check_finite: bool = True,
    ) -> None:
        self.artifact = artifact
        self._session = session
        self._device_session = session if isinstance(session, DeviceSession) else None
        self._calls = RunningCalls()
        self._async_calls = AsyncCalls(self._calls, streams if self._device_session is None else _DEVICE_CALLS)
        manifest = artifact.manifest
        self._inputs = (
            session.inputs if manifest is None else reconcile_specs(manifest.inputs, session.inputs, artifact.path)
        )
        self._outputs = (
            session.outputs if manifest is None else reconcile_specs(manifest.outputs, session.outputs, artifact.path)
        )
        # Only a manifest promises rows: libraries name the dimensions of other files as they like.
        self._batched = () if manifest is None else outputs_with_rows(self._inputs, self._outputs)
        self._check_finite = check_finite
        self._needs_no_check = make_fast_check(self._inputs, check_finite)
        self._skipped_backends = skipped_backends
        device = session.description.device  # of a model behind a server, nobody knows it
        self._gpu = identify(parse_device(device)) if device.startswith(CUDA) else None
        self._bound: weakref.WeakSet[Callable[[], object]] = weakref.WeakSet()
        lifetimes.track(self)

    def native_objects(self) -> Iterator[object]:
        """Yield what a forked process must not free: the session, and the bound functions."""
        yield self._session
        yield from self._bound

    def finish_calls(self) -> None:
        """Wait for running calls at the end of the process, after which daemon threads can make none."""
        self._calls.finish()

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
        gpu, about = self._gpu, replace(self._session.description, skipped_backends=self._skipped_backends)
        return about if gpu is None else replace(about, gpu=gpu.name, gpu_uuid=gpu.uuid)

    @overload
    def infer(self, feeds: Feeds | Mapping[str, SupportsDLPack]) -> Arrays: ...

    @overload
    def infer(self, feeds: Feeds | Mapping[str, SupportsDLPack], *, device_outputs: Literal[False]) -> Arrays: ...

    @overload
    def infer(
        self,
        feeds: Feeds | Mapping[str, SupportsDLPack],
        *,
        device_outputs: bool,
        stream: StreamLike | None = None,
    ) -> dict[str, Any]: ...

    def infer(
        self,
        feeds: Feeds | Mapping[str, SupportsDLPack],
        *,
        device_outputs: bool = False,
        stream: StreamLike | None = None,
    ) -> Arrays | dict[str, Any]:
        """Run the model once and return its outputs by name.

        The call blocks until the outputs are ready, unless a stream is passed.

        Args:
            feeds: Input arrays by name. If the model runs on a CUDA device, the inputs may also be tensors on that
                device, of any library that supports DLPack. The run waits for the work that this library queued, and
                reads the tensors in place where the backend can. NaN and infinity in such tensors are not found.
            device_outputs: Whether the outputs stay on the device of the model. On a CUDA device they are
                ``DeviceOutput`` objects, and on the CPU NumPy arrays. Both support DLPack, so that
                ``torch.from_dlpack`` takes them without a copy, and ``numpy.asarray`` gives host arrays for both.
            stream: A CUDA stream of the caller: its handle, or a stream object of PyTorch, CuPy or cuda.core. The run
                starts after the work that is queued on the stream, and later work on the stream waits for the run. The
                call does not wait for the run. Until the run has finished, the caller must not change the inputs,
                except by work on this stream. It needs ``device_outputs``.

        Returns:
            Fresh NumPy arrays that belong to the caller, also for tensors on a CUDA device; or with
            ``device_outputs`` the outputs on the device. A batch of 0 images gives outputs of 0 rows.

        Raises:
            InputError: The feeds do not fit ``inputs``, or lie on another device than the model; or a host array holds
                NaN or infinity, and the runtime was not opened with ``check_finite=False``.
            UsageError: The runtime is closed, or was opened before a fork. A stream is passed for a model on the CPU or
                without ``device_outputs``, or is no stream.
            ResourceError: The device ran out of memory.
            CheckFailedError: An output has not one row for each image, although its specification says so.

        Example:
            Classify two images with zeros as pixels:

                outputs = runtime.infer({"input": numpy.zeros((2, 3, 224, 224), "float32")})
                classes = outputs["logits"].argmax(axis=1)
        """
        if device_outputs or stream is not None:
            return self._infer_on_device(feeds, device_outputs, stream)
        with self._calls:
            if self._needs_no_check(feeds):
                return self._require_rows(self._session.run(feeds), feeds)
            if self._device_session is not None and on_device(feeds):
                return self._run_tensors(self._device_session, feeds)
            return self._prepare(feeds)()

    def _require_rows(self, outputs: Outputs, feeds: Mapping[str, Any]) -> Outputs:
        """Return the outputs, checked to have a row for each image where the manifest promises one."""
        if self._batched:
            check_rows(outputs, self._batched, feeds[self._inputs[0].name].shape[0])
        return outputs

    def _infer_on_device(
        self, feeds: Mapping[str, object], device_outputs: bool, stream: StreamLike | None
    ) -> dict[str, Any]:
        if not device_outputs:
            raise UsageError(
                "a stream needs device_outputs=True: NumPy arrays are ready only when the run has finished",
                code="stream-needs-device-outputs",
                hint="pass device_outputs=True, or call infer_async",
            )
        handle = self._stream_handle(stream)
        with self._calls:
            session = self._device_session
            if session is None:
                return self._prepare(feeds)()
            outputs = self._queue(session, feeds, handle)
            if handle is None:
                for output in outputs.values():
                    output.synchronize()
            return outputs

    def _stream_handle(self, stream: StreamLike | None) -> int | None:
        if stream is None:
            return None
        if self._device_session is None:
            raise UsageError(
                f"a stream was passed, but backend {self.description.backend} runs on {self.description.device}",
                code="stream-without-gpu",
                hint="leave out stream, or open the artifact with device='cuda'",
            )
        return stream_handle(stream)

    def _check_arrays(self, feeds: Mapping[str, object]) -> Arrays:
        return check_feeds(self._inputs, feeds, self._check_finite)

    def _prepare(self, feeds: Mapping[str, object]) -> Callable[[], Arrays]:
        """Check feeds on the host and return a function that runs the model on them."""
        if on_device(feeds):
            description = self.description
            raise InputError(
                f"the inputs are on a CUDA device, but backend {description.backend} runs on {description.device}",
                code="feeds-on-wrong-device",
                hint="pass NumPy arrays, or open the artifact with device='cuda'",
            )
        arrays = self._check_arrays(feeds)
        empty = empty_outputs(self._inputs, self._outputs, arrays)
        return (lambda: self._require_rows(self._session.run(arrays), arrays)) if empty is None else (lambda: empty)

    def _queue(
        self, session: DeviceSession, feeds: Mapping[str, object], stream: int | None
    ) -> dict[str, DeviceOutput]:
        """Queue a run on the device, after checking the feeds."""
        checked: Arrays | dict[str, DeviceTensor]
        checked = check_tensors(self._inputs, feeds, stream) if on_device(feeds) else self._check_arrays(feeds)
        empty = empty_outputs(self._inputs, self._outputs, checked)
        if empty is not None:
            return empty_device_outputs(empty, _device_index(session.description.device))
        return self._require_rows(session.queue(checked, stream), checked)

    def _run_tensors(self, session: DeviceSession, feeds: Mapping[str, object]) -> Arrays:
        tensors = check_tensors(self._inputs, feeds)
        empty = empty_outputs(self._inputs, self._outputs, tensors)
        if empty is not None:
            return empty
        return self._require_rows(session.run_tensors(tensors), tensors)

    @overload
    def infer_async(self, feeds: Feeds | Mapping[str, SupportsDLPack]) -> Future[Arrays]: ...

    @overload
    def infer_async(
        self,
        feeds: Feeds | Mapping[str, SupportsDLPack],
        *,
        device_outputs: bool = False,
        stream: StreamLike | None = None,
    ) -> Future[dict[str, Any]]: ...

    def infer_async(
        self,
        feeds: Feeds | Mapping[str, SupportsDLPack],
        *,
        device_outputs: bool = False,
        stream: StreamLike | None = None,
    ) -> Future[dict[str, Any]]:
        """Start a run of the model and return a future of its outputs.

        On the CPU, a thread makes the call. It makes one call after the other, or as many at once as the runtime was
        opened for with ``streams``. On a CUDA device, a run on device tensors or with ``device_outputs`` is queued
        before the method returns, and up to four other calls run at once. Calls may finish in another order than they
        were started. Any number of calls may wait, and each keeps its inputs in memory.

        ``Future.cancel`` drops a call that waits for a thread; a call that runs or is queued on the device ends
        normally. ``close`` waits for all calls.

        Args:
            feeds: As for ``infer``. Arrays are not copied: the caller must not change them before the future is done.
            device_outputs: As for ``infer``.
            stream: As for ``infer``. The future is done when the run has finished.

        Returns:
            A future of what ``infer`` returns. Its ``result`` raises the errors of the run.

        Raises:
            InputError: As for ``infer``, for feeds that do not fit.
            UsageError: As for ``infer``.

        Example:
            Prepare the next batch while the model runs:

                future = runtime.infer_async(feeds)
                next_feeds = prepare(next_images)
                logits = future.result()["logits"]
        """
        handle = self._stream_handle(stream)
        with self._calls:
            session = self._device_session
            if session is not None and (device_outputs or stream is not None or on_device(feeds)):
                outputs = self._queue(session, feeds, handle)
                return self._async_calls.submit(lambda: _finish(outputs, device_outputs, feeds))
            return self._async_calls.submit(self._prepare(feeds))

    def empty_inputs(self, batch: int = 1) -> Arrays:
        """Return arrays to write inputs to, without initial values.

        For a model on a CUDA device the arrays are in page-locked memory, from which the device copies without another
        copy on the host. Such memory is scarce: allocate the arrays once and use them for many calls.

        Args:
            batch: The number of images.

        Returns:
            Arrays by name, which belong to the caller and stay valid after the runtime is closed.

        Raises:
            InputError: The model takes another batch, or another dimension than the batch may vary.
            ResourceError: The memory is lacking.
            UsageError: The batch is too large, or the runtime is closed, or was opened before a fork.
        """
        with self._calls:
            shapes = {spec.name: batch_shape(spec, batch) for spec in self._inputs}
            session = self._device_session
            if session is None:
                return {spec.name: _empty_array(shapes[spec.name], spec.dtype) for spec in self._inputs}
            return {spec.name: session.empty_array(shapes[spec.name], spec.dtype) for spec in self._inputs}

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
        with self._calls:
            arrays = self._copies(feeds)
            call = _do_nothing if arrays is None else self._session.bind(arrays)

        def run_once() -> None:
            with self._calls:
                call()

        self._bound.add(run_once)
        return run_once

    def bind_timed(self, feeds: Feeds) -> Callable[[], RunTimes] | None:
        """Copy ``feeds`` to the device once and return a function that runs the model and returns its times.

        Each call runs the model twice and times the second run by the clock of the device: the first run keeps the
        device busy until the host has queued the second one. Copies are not included. Otherwise the function behaves
        like that of ``bind``.

        Args:
            feeds: Input arrays by name.

        Returns:
            The function, or ``None`` if the device has no clock of its own, or the library cannot be timed by it.

        Raises:
            InputError: As for ``infer``.
            UsageError: As for ``infer``.
            ResourceError: As for ``infer``.
        """
        with self._calls:
            arrays = self._copies(feeds)
            if self._device_session is None:
                return None
            call = _no_time if arrays is None else self._device_session.bind_timed(arrays)
        if call is None:
            return None

        def run_once() -> RunTimes:
            with self._calls:
                return call()

        self._bound.add(run_once)
        return run_once

    def _copies(self, feeds: Feeds) -> Arrays | None:
        """Return checked copies of the feeds, or ``None`` for a batch of 0 images."""
        arrays = self._check_arrays(feeds)
        if empty_outputs(self._inputs, self._outputs, arrays) is not None:
            return None
        return {name: array.copy() for name, array in arrays.items()}

    def close(self) -> None:
        """Wait for running calls, then free the model. A second call does nothing."""
        if self._calls.close():
            self._async_calls.close()
            self._session.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        """Raise ``UsageError``: an opened model cannot be copied or pickled."""
        refuse_to_copy("Runtime", "runtimes.open", self.artifact)

    def __repr__(self) -> str:
        description = self.description
        return (
            f"<Runtime {self.artifact.path.name} on {description.backend} {description.version}, "
            f"{description.provider}>"
        )


_DEVICE_CALLS = 4
"""The largest number of calls of ``infer_async`` that run at the same time on a device."""


def _device_index(device: str) -> int:
    """Return the number of the GPU in the name of a device, for example 1 for ``cuda:1``."""
    return int(device.partition(":")[2] or 0)


def _finish(outputs: dict[str, DeviceOutput], device_outputs: bool, feeds: object) -> dict[str, Any]:  # noqa: ARG001
    """Wait for a queued run and return its outputs. The feeds are kept until then."""
    for output in outputs.values():
        output.synchronize()
    return outputs if device_outputs else copy_outputs_to_host(outputs)


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
        return {spec.name: noise(spec, seed) for seed, spec in enumerate(runtime.inputs)}
    spec = runtime.inputs[0]
    batch = spec.fixed_batch or 1
    first = runtime.artifact.vectors().inputs[:1]
    return {spec.name: np.repeat(first, batch, axis=0)}


def noise(spec: TensorSpec, seed: int = 0, batch: int = 1) -> Array:
    """Return seeded noise for an input, as a fresh array.

    Args:
        spec: The specification of the input.
        seed: The seed.
        batch: The size of each dimension that may vary.
    """
    generator, dtype = np.random.default_rng(seed), np.dtype(spec.dtype)
    shape = tuple(size if isinstance(size, int) else batch for size in spec.shape)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 255 if dtype == np.uint8 else 1, shape, endpoint=True).astype(dtype)


def _empty_array(shape: tuple[int, ...], dtype: str) -> Array:
    """Return an array without initial values.

    Raises:
        ResourceError: The memory is lacking.
    """
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:  # the second where the address space is too small
        raise ResourceError(f"no memory for an array {dtype} {shape}", code="array-memory-insufficient") from error
