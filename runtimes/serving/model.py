"""``ServedModel``: an opened artifact with the name that requests call it by."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from runtimes import notices, opening
from runtimes.classifier import Classifier
from runtimes.errors import ArtifactError, CompatibilityError, Reason, UsageError, quote
from runtimes.network_io import LOGITS, check_image_channels, find_outputs
from runtimes.runtime import Runtime
from runtimes.serving.batcher import NetworkBatch

VERSION = "1"
"""The version of each model. A server holds one version of a model."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_WITHOUT_IMAGES = ("preprocessing-required", "input-not-images", "pixels-channels-first", "output-not-classes")
"""The codes of errors of ``Classifier.open`` that leave a network to serve, which takes tensors alone."""


@dataclass(frozen=True)
class ServedModel:
    """An opened artifact with a name.

    ``ServedModel.open`` returns one. Its owner closes it, after the server that uses it has stopped.

    Attributes:
        name: The name of the model in requests.
        runtime: The opened network.
        classifier: The classifier around ``runtime``, or ``None`` if the network takes no images.
    """

    name: str
    runtime: Runtime
    classifier: Classifier | None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        backend: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        gpu_mem_limit: int | None = None,
    ) -> ServedModel:
        """Open an artifact for a server.

        A notice on the logger ``rexport`` says if the network takes no images, so that only tensors can be sent to it.

        Args:
            path: The model file.
            name: The name of the model in requests. The default is the name of the file without its last suffix.
            backend: As for ``runtimes.open``.
            device: As for ``runtimes.open``.
            threads: As for ``runtimes.open``.
            gpu_mem_limit: As for ``runtimes.open``.

        Raises:
            UsageError: The name cannot stand in an address.
            RexportError: As for ``runtimes.open``.
        """
        name = model_name(path) if name is None else check_name(name)
        try:
            classifier = Classifier.open(path, backend, device, threads, gpu_mem_limit=gpu_mem_limit)
        except (UsageError, ArtifactError) as error:
            if error.code not in _WITHOUT_IMAGES:
                raise
            _announce_tensors(name, error.what)
            runtime = opening.open(path, backend, device, threads, gpu_mem_limit=gpu_mem_limit)
            return cls(name, runtime, None)
        try:
            check_image_channels(classifier.preprocessing.channels, classifier.runtime.artifact.path)
        except CompatibilityError as error:
            _announce_tensors(name, error.what)
            return cls(name, classifier.runtime, None)
        return cls(name, classifier.runtime, classifier)

    @property
    def labels_images(self) -> bool:
        """Whether the model answers ``POST /v1/label``."""
        return self.classifier is not None and LOGITS in find_outputs(self.runtime)

    def batching(self, max_batch: int) -> NetworkBatch:
        """Return how the network takes batches of up to ``max_batch`` rows.

        A network takes batches if the first dimension of all inputs and outputs is the same. An engine takes no more
        rows than its profiles.
        """
        firsts = {spec.shape[0] if spec.shape else None for spec in (*self.runtime.inputs, *self.runtime.outputs)}
        (first,) = firsts if len(firsts) == 1 else (None,)
        if first is None:
            return NetworkBatch(self.runtime.infer, 0, None)
        if isinstance(first, int):
            return NetworkBatch(self.runtime.infer, first, first)
        manifest = self.runtime.artifact.manifest
        engine = None if manifest is None else manifest.engine
        most = max_batch if engine is None else min(max_batch, max(profile.most for profile in engine.profiles))
        return NetworkBatch(self.runtime.infer, most, None)

    def close(self) -> None:
        """Wait for running calls, then free the model. A second call does nothing."""
        self.runtime.close()


def _announce_tensors(name: str, why: str) -> None:
    notices.inform(Reason("model-opened-for-tensors", f"model {name} takes tensors and no images: {why}"))


def model_name(path: str | os.PathLike[str]) -> str:
    """Return the name of the model in a file: the name of the file without its last suffix.

    Raises:
        UsageError: The name cannot stand in an address.
    """
    return check_name(Path(path).stem)


def check_name(name: str) -> str:
    """Return the name of a model.

    Raises:
        UsageError: The name cannot stand in an address.
    """
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{quote(name)!r} cannot be the name of a model, which has letters, digits, '.', '_' and '-'",
            code="model-name-invalid",
            hint="give it another name: NAME=ARTIFACT",
        )
    return name


def check_distinct(names: list[str]) -> None:
    """Check that no two models have the same name.

    Raises:
        UsageError: Two have.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"two models have the name {twice[0]}",
            code="model-name-repeated",
            hint="give one of them another name: NAME=ARTIFACT",
        )
