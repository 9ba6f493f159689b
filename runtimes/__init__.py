"""Embed a model in an app: ``runtimes.open(path)`` for arrays, ``runtimes.Classifier.open(path)`` for images.

Importing this needs NumPy alone; opening an artifact needs NumPy and one backend's library.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from runtimes import files
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Manifest
from runtimes.backends.registry import available_backends, first_session, select_candidates
from runtimes.classifier import Classifier, Label, Prediction
from runtimes.errors import InputError, IntegrityError, RexportError, UsageError
from runtimes.images.preprocessing import Preprocessing
from runtimes.protocol import Backend, Description, Feeds, Layer, Options, TensorSpec
from runtimes.runtime import Runtime, example
from runtimes.tensors.validation import check_feeds

__all__ = [
    "Artifact",
    "Backend",
    "Classifier",
    "Description",
    "Label",
    "Layer",
    "Manifest",
    "Prediction",
    "Preprocessing",
    "RexportError",
    "Runtime",
    "TensorSpec",
    "available_backends",
    "open",
    "open_artifact",
    "profile",
]


def open(
    path: str | os.PathLike[str],
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cuda_graphs: bool = True,
) -> Runtime:
    """The artifact at ``path``, ready to infer.

    What is left out is what the artifact was tuned for (``Manifest.tuning``), if it was and no other backend or device
    is named. A backend that is named is the one that runs, on the device that is named, or an error is raised. Else the
    most preferred that is there and can run it does: on ``cuda`` first those that have it, then those on the processor.
    Each step down is a warning on the logger ``rexport``, with its reason, and ``Runtime.description.passed_over``
    keeps it.

    Args:
        path: a model file; its manifest, if it has one, lies beside it.
        backend: by name; or ``auto`` for the most preferred, whatever the artifact was tuned for.
        device: ``cpu`` or ``cuda``; else ``cpu``, or ``cuda`` for what does not run on a processor.
        threads: processors that one call may use; else all that this process may use, and never more.
        cuda_graphs: whether a GPU may replay a recorded run in place of launching its kernels one by one.

    Raises:
        ResourceError: the file cannot be read.
        ArtifactError: the file is no model, was damaged, or its format needs a manifest.
        CompatibilityError: this machine or these libraries cannot run it.
        BackendUnavailableError: a library or the device is missing; the hint is the command that brings it.
        UsageError: an unknown backend or device, ``threads`` below 1 or above what this process may use.
    """
    return _retry_until_unchanged(
        path, lambda artifact: open_artifact(artifact, backend, device, threads, cuda_graphs), Runtime.close
    )


def profile(
    path: str | os.PathLike[str] | Artifact,
    feeds: Feeds | None = None,
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
) -> tuple[Layer, ...]:
    """The steps in which a backend really runs the artifact, in their order, with their arithmetic and times.

    It opens the artifact twice: as ``open`` does, then under the library's profiler.
    ``runtimes.protocol.summarise_precisions`` puts the arithmetic into words.

    Args:
        path: as for ``open``; or an artifact that was read already.
        feeds: what it runs on, as for ``Runtime.infer``; else the first of the artifact's test vectors, or noise.
        backend, device, threads: as for ``open``.

    Raises:
        UsageError: the backend cannot tell what it runs; or as ``open``.
        InputError: the feeds do not fit the artifact's inputs, or hold no images.
        RexportError: as ``open``.
    """
    if isinstance(path, Artifact):
        return _profile_artifact(path, feeds, backend, device, threads)
    return _retry_until_unchanged(path, lambda artifact: _profile_artifact(artifact, feeds, backend, device, threads))


def _profile_artifact(
    artifact: Artifact, feeds: Feeds | None, backend: str | None, device: str | None, threads: int | None
) -> tuple[Layer, ...]:
    # A recorded run is one step.
    with open_artifact(artifact, backend, device, threads, cuda_graphs=False) as runtime:
        about = runtime.description
        arrays = check_feeds(runtime.inputs, example(runtime) if feeds is None else feeds)
    if not all(array.size for array in arrays.values()):
        raise InputError("empty arrays were passed: there is nothing to run", code="feeds-empty")
    row = next(row for row in available_backends() if row.name == about.backend)
    if row.profile is None:
        able = [other.name for other in available_backends() if other.profile and artifact.format.name in other.formats]
        raise UsageError(
            f"backend {row.name} cannot tell what it runs",
            code="backend-cannot-profile",
            hint=f"one of {', '.join(able)}",
        )
    return row.profile(artifact, Options(about.device, about.threads, cuda_graphs=False), arrays)


_Result = TypeVar("_Result")


def _retry_until_unchanged(
    path: str | os.PathLike[str], act: Callable[[Artifact], _Result], discard: Callable[[_Result], None] | None = None
) -> _Result:
    """What ``act`` gives for the artifact at ``path``, which was the same before and after; else it is done again."""
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
        "it is being replaced again and again",
        code="file-replaced-repeatedly",
        path=path,
        hint="wait for the export to end",
    )


_ATTEMPTS = 100
"""At a file that another export replaces between the looks at its manifest, its model and its digest."""


def open_artifact(
    artifact: Artifact,
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    cuda_graphs: bool = True,
) -> Runtime:
    """As ``open``, for an artifact that was read already."""
    candidates = select_candidates(artifact, backend, device, threads, cuda_graphs)
    digest = _DigestCheck(artifact)
    if artifact.format.runs_code:
        digest.result()
    try:
        session, passed_over = first_session(artifact, candidates)
    except RexportError:
        digest.result()  # a damaged file is the better explanation of a refusal
        raise
    try:
        digest.result()
        return Runtime(artifact, session, passed_over)
    except BaseException:
        session.close()
        raise


class _DigestCheck(threading.Thread):
    """The digest is checked while the backend reads the same file; before, where reading it can run code."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(daemon=True)
        self._artifact = artifact
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._artifact.check_digest()
        except Exception as error:
            self._error = error

    def result(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error
