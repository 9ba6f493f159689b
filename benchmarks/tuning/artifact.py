"""The artifact that ``rbench tune`` writes: a copy of the best configuration's artifact, with its options."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from benchmarks.tuning.pareto import Objective, ParetoPoint
from exporter.export_request import target_file
from exporter.models.factory import is_factory
from exporter.models.factory import stem as factory_stem
from exporter.models.variants import VARIANTS
from exporter.weights.checkpoint import is_weights_file, stem
from runtimes import Artifact, files
from runtimes.artifacts.artifact import manifest_path, publish, vectors_name
from runtimes.artifacts.manifest import FileRecord, Tuning
from runtimes.devices import parse_device
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError, UsageError


def target_of(names: Sequence[str], out: str | None, force: bool) -> AbstractContextManager[Path]:
    """Provide the path of the file to write, in a folder that exists and is writable, as ``target_file`` does.

    Args:
        names: The names of the variants, the references to modules, or the paths of the artifacts and checkpoints that
            are tuned.
        out: The file to write, or a folder if it exists as one or ends in a slash; ``None`` for the current folder.
        force: Whether an existing file is replaced.

    Raises:
        UsageError: The file exists and must not be replaced, the path is a folder, or the files to tune are of several
            formats.
        ResourceError: The folder cannot be created or written.
    """
    stems = {name: _stem(name) for name in names}
    suffixes = {Path(name).suffix if own is None else ".onnx" for name, own in stems.items()}
    if len(suffixes) > 1:
        raise UsageError(
            f"the files to tune are of several formats: {', '.join(sorted(suffixes))}", code="tuning-formats-differ"
        )
    different = {own or Path(name).stem for name, own in stems.items()}
    name = f"{different.pop()}.tuned" if len(different) == 1 else "tuned"
    return target_file(out or "./", f"{name}{suffixes.pop()}", force)


def check_apart(target: Path, others: Sequence[Path]) -> None:
    """Check that the artifact is none of the other outputs.

    Args:
        target: The model file.
        others: The other outputs.

    Raises:
        UsageError: One of them is the model file or its manifest.
    """
    written = {path.resolve() for path in (target, manifest_path(target))}
    for path in others:
        if path.resolve() in written:
            raise UsageError(
                "the artifact is written there", code="output-is-artifact", path=path, hint="name another file"
            )


def _stem(name: str) -> str | None:
    """Return the name of the file without its suffix, or ``None`` for an artifact, which is not exported first."""
    if is_factory(name):
        return factory_stem(name)
    return stem(name) if name in VARIANTS or is_weights_file(name) else None


def tuning_of(candidate: ParetoPoint, objective: Objective) -> Tuning:
    """Return the options of the best configuration for the manifest.

    Args:
        candidate: The best configuration.
        objective: The objective of the search.
    """
    figures, result = candidate.figures, candidate.figures.result
    machine = result.environment
    return Tuning(
        runtime=result.identity.backend,
        device=parse_device(result.ran.device).kind,  # another machine may have fewer GPUs
        threads=result.ran.threads,
        batch=result.identity.batch,
        objective=objective,
        p50_s=0.0 if figures.p50 is None else figures.p50.value,
        images_per_s=figures.images_per_s or 0.0,
        streams=1 if result.load is None else result.load.clients,
        machine=f"{machine.cpu}, {machine.usable_processors} of {machine.processors} processors",
    )


def copy_with_tuning(artifact: Artifact, target: Path, tuning: Tuning) -> Artifact:
    """Copy the artifact and add the options that it is opened with.

    Args:
        artifact: The artifact to copy.
        target: The file to write, which is replaced if it exists.
        tuning: The options.

    Raises:
        ArtifactError: The artifact has no manifest.
        CompatibilityError: The weights of the artifact are in separate files.
        IntegrityError: A digest does not match the manifest.
        ResourceError: The files cannot be read or written. An existing target is unchanged.
    """
    manifest = artifact.manifest
    if manifest is None:
        raise ArtifactError(
            "the file has no manifest to store the best options", code="tuning-needs-manifest", path=artifact.path
        )
    if manifest.external:
        raise CompatibilityError(
            "the weights are in separate files, which a tuned artifact cannot have",
            code="weights-external",
            path=artifact.path,
        )
    with files.temporary_file(target) as model, files.temporary_file(target) as vectors:
        _copy(artifact.path, model, manifest.sha256)
        if manifest.vectors is None:
            return publish(model, target, replace(manifest, tuning=tuning), None)
        digest = manifest.vectors.sha256
        _copy(artifact.path.with_name(manifest.vectors.name), vectors, digest)
        record = FileRecord(vectors_name(target, digest), digest)
        return publish(model, target, replace(manifest, vectors=record, tuning=tuning), vectors)


def _copy(source: Path, target: Path, sha256: str) -> None:
    shutil.copyfile(source, target)
    if files.sha256_of(target) != sha256:
        raise IntegrityError(
            "the digest does not match the manifest: the file was changed in the meantime",
            code="file-changed-meanwhile",
            path=source,
        )
