"""Open artifacts: read the file, choose a backend, open its session, and check the digest meanwhile."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from runtimes import files
from runtimes.arguments import is_count, require_not_empty, require_not_too_large, require_truth_value
from runtimes.artifacts.artifact import Artifact
from runtimes.backends.registry import available_backends, find_backend
from runtimes.devices import parse_device
from runtimes.errors import InputError, IntegrityError, RexportError, UsageError, quote
from runtimes.protocol import Layer, Options
from runtimes.runtime import Runtime, example
from runtimes.selection import BackendCandidate, first_session, select_candidates
from runtimes.tensors.spec import Feeds
from runtimes.tensors.validation import check_feeds


def open(
    path: str | os.PathLike[str],
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cuda_graphs: bool = True,
    *,
    streams: int | None = None,
    model_cache: str | os.PathLike[str] | None = None,
    batch: int | None = None,
    gpu_mem_limit: int | None = None,
    check_finite: bool = True,
) -> Runtime:
    """Open the artifact at ``path`` for inference.

    The backend is chosen as follows:

    - A named backend runs the artifact on the named device, or ``open`` raises an error.
    - Without a backend, a tuned artifact (``Manifest.tuning``) is opened with its tuned backend, device, threads and
      streams, unless ``device`` names another device.
    - Otherwise the most preferred backend that is installed and can run the artifact on the device is used. With
      ``device="auto"``, the backends on the CPU follow after those on the first GPU. Any other device that is named
      runs the model, or ``open`` raises an error.

    ``Runtime.description.skipped_backends`` lists the preferred backends that do not run, with reasons. Each fallback
    is also a warning on the logger ``rexport``, except for CPU backends that are not installed.

    Args:
        path: The model file. Its manifest, if it has one, is read from the same folder.
        backend: The name of a backend. ``auto`` chooses the most preferred one even for a tuned artifact.
        device: ``cpu``, ``cuda`` for the first GPU, ``cuda:N`` for the GPU of this number, or ``auto``. The default is
            ``cpu``, or ``cuda`` for an artifact that runs only there. All backends count the GPUs as CUDA does, which
            honours ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``.
        threads: The number of processors that one call may use. The default is all that this process may use.
        cuda_graphs: Whether a GPU may replay a recorded run instead of launching its kernels one by one.
        streams: The number of calls that are expected at the same time, from 1 to ``threads``. OpenVINO divides the
            threads among them, which raises the throughput and the latency; other backends ignore it. The default is 1.
        model_cache: An existing folder in which the models that OpenVINO compiled are kept, so that the same file opens
            faster the next time; other backends ignore it. A damaged file, and one of another version, processor or
            setting, is compiled again. Above 4 GiB, the files that were not used for longest are removed. By default
            nothing is kept. Whoever may write to this folder decides what is run.
        batch: The only batch size that is expected. TensorRT builds the engine of an ONNX file for it, instead of for
            batches of 1 to 64. Other batch sizes still work, but are slower. Other backends ignore it.
        gpu_mem_limit: The memory in bytes that the model may use on the GPU. ONNX Runtime limits its arena, which holds
            weights and tensors, but not the memory of CUDA's libraries. TensorRT runs fewer calls at a time. PyTorch
            has one limit for each GPU in the whole process, which the last model sets. The default is no limit;
            backends on the CPU ignore it.
        check_finite: Whether NaN and infinity in the inputs are errors. Without the check, the answer depends on the
            library: OpenVINO gives finite outputs for an image of NaN. Tensors on a CUDA device are not checked.

    Returns:
        A runtime, which the caller closes. A ``with`` statement closes it.

    Raises:
        ResourceError: The file cannot be read, memory is lacking, or the folder of the cache is missing or read-only.
        ArtifactError: The file is not a model, is damaged, or needs a manifest that is missing.
        CompatibilityError: This machine or the installed libraries cannot run the artifact.
        BackendUnavailableError: A library or the device is missing.
        UsageError: The backend or device is unknown, ``threads``, ``streams``, ``batch`` or ``gpu_mem_limit`` is no
            integer or out of range, ``cuda_graphs`` or ``check_finite`` is no truth value, or
            a path is empty.

    Example:
        Run one batch of zeros:

            with runtimes.open("resnet50.onnx") as runtime:
                logits = runtime.infer({"input": numpy.zeros((1, 3, 224, 224), "float32")})["logits"]
    """
    require_not_empty(path=path, model_cache=model_cache)
    require_truth_value(cuda_graphs=cuda_graphs, check_finite=check_finite)
    if model_cache is not None:
        files.require_folder(Path(model_cache))
        files.check_writable(Path(model_cache))

    def open_once(artifact: Artifact) -> Runtime:
        candidates = select_candidates(artifact, backend, device, threads, cuda_graphs)
        completed = (_complete(each, streams, model_cache, batch) for each in candidates)
        limited = tuple(_limit_memory(each, gpu_mem_limit) for each in completed)
        return _open_first(artifact, limited, check_finite)

    return _retry_until_unchanged(path, open_once, Runtime.close)


def _complete(
    candidate: BackendCandidate,
    streams: int | None,
    model_cache: str | os.PathLike[str] | None,
    batch: int | None,
) -> BackendCandidate:
    """Return the candidate with the rest of its options.

    Raises:
        UsageError: ``streams`` or ``batch`` is no integer, not positive, or above the threads.
    """
    folder = None if model_cache is None else Path(model_cache)
    options = replace(candidate.options, model_cache=folder, batch=_check_batch(batch))
    if streams is None:
        return candidate._replace(options=options)
    if not is_count(streams) or streams > options.threads:
        raise UsageError(
            f"streams must be an integer between 1 and {options.threads}, the number of threads, "
            f"not {quote(repr(streams))}",
            code="streams-out-of-range",
        )
    return candidate._replace(options=replace(options, streams=streams))


def _limit_memory(candidate: BackendCandidate, gpu_mem_limit: int | None) -> BackendCandidate:
    """Return the candidate with the limit of the GPU's memory.

    Raises:
        UsageError: The limit is no positive integer.
    """
    if gpu_mem_limit is not None and not is_count(gpu_mem_limit):
        raise UsageError(
            f"gpu_mem_limit must be an integer of at least 1 byte, not {quote(repr(gpu_mem_limit))}",
            code="gpu-memory-limit-too-low",
        )
    return candidate._replace(options=replace(candidate.options, gpu_mem_limit=gpu_mem_limit))


def _check_batch(batch: int | None) -> int | None:
    """Return the batch size.

    Raises:
        UsageError: The batch size is no positive integer, or too large.
    """
    if batch is not None and not is_count(batch):
        raise UsageError(f"batch must be an integer of at least 1, not {quote(repr(batch))}", code="batch-out-of-range")
    require_not_too_large(batch=batch)
    return batch


def profile(
    path: str | os.PathLike[str] | Artifact,
    feeds: Feeds | None = None,
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    *,
    batch: int | None = None,
) -> tuple[Layer, ...]:
    """Return the steps in which a backend executes the artifact, in order, with their precisions and times.

    The artifact is opened twice: as by ``open``, and then under the library's profiler.
    ``runtimes.protocol.summarise_precisions`` summarises the precisions as text.

    Args:
        path: The model file, or an artifact that was read before.
        feeds: Input arrays as for ``Runtime.infer``. The default is the first test vector of the artifact, or noise if
            the artifact has no test vectors.
        backend: As for ``open``.
        device: As for ``open``.
        threads: As for ``open``.
        batch: As for ``open``.

    Raises:
        UsageError: The backend has no profiler; or as for ``open``.
        InputError: The feeds do not fit the inputs, or hold no images.
        RexportError: As for ``open``.

    Example:
        Print the time of each convolution and matrix product:

            for layer in runtimes.profile("resnet20.onnx"):
                if layer.weighted and layer.duration_s is not None:
                    print(layer.name, layer.precision, f"{layer.duration_s * 1e3:.3f} ms")
    """
    require_not_empty(path=path)

    def profile_artifact(artifact: Artifact) -> tuple[Layer, ...]:
        # A recorded run would be one step in the profile.
        candidates = select_candidates(artifact, backend, device, threads, cuda_graphs=False)
        return _profile_first(artifact, tuple(_complete(each, None, None, batch) for each in candidates), feeds)

    return profile_artifact(path) if isinstance(path, Artifact) else _retry_until_unchanged(path, profile_artifact)


def _profile_first(
    artifact: Artifact, candidates: tuple[BackendCandidate, ...], feeds: Feeds | None
) -> tuple[Layer, ...]:
    """Profile an artifact with the first candidate that runs it."""
    with _open_first(artifact, candidates) as runtime:
        description = runtime.description
        arrays = check_feeds(runtime.inputs, example(runtime) if feeds is None else feeds)
    if not all(array.size for array in arrays.values()):
        raise InputError(
            "the feeds hold no images, so nothing can be profiled", code="feeds-empty", hint="pass at least one image"
        )
    row = find_backend(description.backend)
    if row.profile is None:
        able = [other.name for other in available_backends() if other.profile and artifact.format.name in other.formats]
        raise UsageError(
            f"backend {row.name} has no profiler",
            code="backend-cannot-profile",
            hint=f"choose one of {', '.join(able)}" if able else None,
        )
    used = parse_device(description.device)
    opened = Options(
        used.kind,
        description.threads,
        cuda_graphs=False,
        batch=candidates[0].options.batch,
        device_index=used.index,
    )
    return row.profile(artifact, opened, arrays)


_Result = TypeVar("_Result")


def _retry_until_unchanged(
    path: str | os.PathLike[str], act: Callable[[Artifact], _Result], discard: Callable[[_Result], None] | None = None
) -> _Result:
    """Return ``act(artifact)`` for the artifact at ``path``, and repeat it while another process replaces the file."""
    for _ in range(_ATTEMPTS):
        before = files.identity(path)
        try:
            result = act(Artifact.read(path))
        except IntegrityError:
            if files.identity(path) == before:
                raise
            continue
        if files.identity(path) == before:
            return result
        if discard is not None:
            discard(result)
    raise IntegrityError(
        f"another process replaced the file during each of {_ATTEMPTS} attempts to open it",
        code="file-replaced-repeatedly",
        path=path,
        hint="open it again when the export has finished",
    )


_ATTEMPTS = 100
"""The number of attempts to open a file that another process replaces at the same time."""


def open_artifact(
    artifact: Artifact,
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cuda_graphs: bool = True,
) -> Runtime:
    """Open an artifact that was read before.

    Args:
        artifact: The artifact, as from ``Artifact.read``.
        backend: As for ``open``.
        device: As for ``open``.
        threads: As for ``open``.
        cuda_graphs: As for ``open``.

    Returns:
        A runtime, which the caller closes.

    Raises:
        RexportError: As for ``open``.
    """
    return _open_first(artifact, select_candidates(artifact, backend, device, threads, cuda_graphs))


def _open_first(artifact: Artifact, candidates: tuple[BackendCandidate, ...], check_finite: bool = True) -> Runtime:
    """Open an artifact with the first candidate that runs it, and check its digest."""
    digest = _DigestCheck(artifact)
    if artifact.format.runs_code:
        digest.result()
    try:
        session, skipped_backends = first_session(artifact, candidates)
    except RexportError:
        digest.result()  # if the file is damaged, that error explains the failure better
        raise
    try:
        digest.result()
        return Runtime(artifact, session, skipped_backends, candidates[0].options.streams, check_finite)
    except BaseException:
        session.close()
        raise


class _DigestCheck(threading.Thread):
    """A thread that checks the digest of the model file while the backend reads the same file.

    For formats that can run code, ``open_artifact`` waits for the result before a backend reads the file.
    """

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(daemon=True)
        self._artifact = artifact
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Check the digest and keep an error for ``result``."""
        try:
            self._artifact.check_digest()
        except Exception as error:
            self._error = error

    def result(self) -> None:
        """Wait for the check and raise its error, if there is one."""
        self.join()
        if self._error is not None:
            raise self._error
