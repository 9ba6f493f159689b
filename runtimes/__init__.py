"""Embed a model in an app: ``runtimes.open(path)`` for arrays, ``runtimes.Classifier.open(path)`` for images.

Importing this needs NumPy alone; opening an artifact needs NumPy and one backend's library.
"""

from __future__ import annotations

import os
import threading

from runtimes import files
from runtimes.artifact import Artifact
from runtimes.backends import backend_named, backends, default_backend
from runtimes.classifier import Classifier, Label, Prediction
from runtimes.errors import IntegrityError, RexportError, UsageError
from runtimes.images import Preprocessing
from runtimes.manifest import Manifest
from runtimes.processors import usable_processors
from runtimes.protocol import Backend, Description, Options, TensorSpec
from runtimes.runtime import Runtime

__all__ = [
    "Artifact",
    "Backend",
    "Classifier",
    "Description",
    "Label",
    "Manifest",
    "Prediction",
    "Preprocessing",
    "RexportError",
    "Runtime",
    "TensorSpec",
    "backends",
    "open",
    "open_artifact",
]


def open(
    path: str | os.PathLike[str], backend: str | None = None, device: str = "cpu", threads: int | None = None
) -> Runtime:
    """The artifact at ``path``, ready to infer.

    Args:
        path: a model file; its manifest, if it has one, lies beside it.
        backend: by name, or the first that is installed for the file's format.
        device: ``cpu`` or ``cuda``. What is asked for is what runs, or an error is raised.
        threads: processors that one call may use; by default all that this process may use.

    Raises:
        ResourceError: the file cannot be read.
        ArtifactError: the file is no model, was damaged, or its format needs a manifest.
        CompatibilityError: this machine or these libraries cannot run it.
        BackendUnavailableError: a library or the device is missing; the hint is the command that brings it.
        UsageError: an unknown backend or device, ``threads`` below 1 or above what this process may use.
    """
    for _ in range(_ATTEMPTS):
        before = files.identity(path)
        try:
            runtime = open_artifact(Artifact.read(path), backend, device, threads)
        except IntegrityError:
            if files.identity(path) == before:
                raise
            continue
        if files.identity(path) == before:
            return runtime
        runtime.close()
    raise IntegrityError("it is being replaced again and again", path=path, hint="wait for the export to end")


_ATTEMPTS = 100
"""At a file that another export replaces between the looks at its manifest, its model and its digest."""


def open_artifact(
    artifact: Artifact, backend: str | None = None, device: str = "cpu", threads: int | None = None
) -> Runtime:
    """As ``open``, for an artifact that was read already."""
    chosen = default_backend(artifact) if backend is None else backend_named(backend, artifact)
    if device not in chosen.devices:
        raise UsageError(f"backend {chosen.name} has no device {device!r}", hint=f"one of {', '.join(chosen.devices)}")
    usable = usable_processors()
    if threads is not None and not 1 <= threads <= usable:
        raise UsageError(f"threads must lie between 1 and the {usable} that this process may use, not be {threads}")
    options = Options(device, usable if threads is None else threads)
    if artifact.format.runs_code:
        artifact.check_digest()
        return Runtime(artifact, chosen.open(artifact, options))
    digest = _DigestCheck(artifact)
    try:
        session = chosen.open(artifact, options)
    except RexportError:
        digest.result()  # a damaged file is the better explanation of a refusal
        raise
    try:
        digest.result()
        return Runtime(artifact, session)
    except BaseException:
        session.close()
        raise


class _DigestCheck(threading.Thread):
    """The digest of a format that cannot run code is checked while the backend reads the same file."""

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
