"""Checks of what is to be tuned, before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.records.request import (
    NOISE,
    BenchmarkRequest,
    PrecisionVariant,
    Refusal,
    Subject,
    select_backends,
)
from benchmarks.tuning.findings import TuningGoal
from exporter.models.variants import VARIANTS
from exporter.weights.checkpoint import is_weights_file
from runtimes import Artifact, Backend, files
from runtimes.artifacts.artifact import manifest_path
from runtimes.errors import Reason, UsageError, quote


def check_request(request: BenchmarkRequest, goal: TuningGoal) -> None:
    """Check a request before anything is exported.

    Args:
        request: The request.
        goal: The goal of the search.

    Raises:
        UsageError: The request cannot be tuned.
        RexportError: A model file cannot be read.
    """
    if not request.subjects:
        raise UsageError("there is no network to tune", code="tuning-needs-subject")
    if goal.model_cache is not None:
        files.require_folder(goal.model_cache)
        files.check_writable(goal.model_cache)
    if goal.objective == "latency" and len(set(request.batches)) > 1:
        raise UsageError(
            "the latencies of different batch sizes cannot be compared",
            code="batches-not-comparable",
            hint="pass one --batch, or --objective throughput",
        )
    backends = select_backends(request)
    reference = backends[0]
    for backend in backends:
        if backend.name in request.backends and opens_reference_only(backend, reference):
            raise UsageError(
                f"backend {backend.name} cannot be chosen, because it opens no format of a tuned file",
                code="backend-not-tunable",
                hint="measure the backend with rbench run",
            )
    for name in request.subjects:
        if name not in VARIANTS and Path(name).is_file() and not is_weights_file(name):
            _check_file(Artifact.read(name), reference)


def _check_file(artifact: Artifact, reference: Backend) -> None:
    """Raise ``UsageError`` for a model file that cannot be tuned."""
    if artifact.manifest is None:
        raise UsageError(
            "the file has no manifest to store the best options",
            code="tuning-needs-manifest",
            path=artifact.path,
            hint=f"copy {quote(manifest_path(artifact.path).name)} beside it",
        )
    if artifact.format.name in reference.formats:
        raise UsageError(
            f"a {artifact.format.name} file cannot be tuned",
            code="format-not-tunable",
            path=artifact.path,
            hint="pass the variant, the checkpoint or its ONNX file",
        )


def opens_reference_only(backend: Backend, reference: Backend) -> bool:
    """Return whether a backend opens only formats of the reference, which a tuned file cannot have."""
    return set(backend.formats) <= set(reference.formats)


def check_subjects(subjects: Sequence[Subject], request: BenchmarkRequest, goal: TuningGoal) -> None:
    """Check that all networks can be compared with each other.

    Args:
        subjects: The networks.
        request: The request.
        goal: The goal of the search.

    Raises:
        UsageError: They are evaluated on different images or on none, or the latency of different batch sizes would be
            compared.
    """
    if len(subjects) < 2:
        return
    data = {subject.data or NOISE for subject in subjects}
    if NOISE in data:
        names = ", ".join(subject.name for subject in subjects if subject.data is None)
        raise UsageError(
            f"several networks are compared by their accuracy on labelled images, and there are none for {names}",
            code="tuning-needs-labels",
            hint="--data DIR",
        )
    if len(data) > 1:
        raise UsageError(
            f"the networks are evaluated on different images: {', '.join(sorted(data))}",
            code="tuning-data-differ",
            hint="--data DIR names the images of all",
        )
    batches = {subject.fixed_batch or 1 for subject in subjects}
    if goal.objective == "latency" and len(batches) > 1 and not request.batches:
        raise UsageError(
            f"the latencies of different batch sizes cannot be compared: {', '.join(map(str, sorted(batches)))}",
            code="tuning-batches-differ",
            hint="--objective throughput",
        )


def make_portable(subject: Subject) -> Subject:
    """Return the subject without artifacts of several files. Copies of the weights would have the same names."""
    reason = Reason("weights-external", "the weights are in separate files, which a tuned artifact cannot have")

    def with_one_file(typed: PrecisionVariant) -> PrecisionVariant:
        manifest = typed.made.manifest if isinstance(typed.made, Artifact) else None
        return replace(typed, made=Refusal("skipped", reason)) if manifest and manifest.external else typed

    return replace(subject, typed=tuple(map(with_one_file, subject.typed)))
