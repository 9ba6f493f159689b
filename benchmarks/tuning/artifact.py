"""The artifact that ``rbench tune`` writes: a copy of the best, with the options that it is to be opened with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.tuning.pareto import Objective, ParetoPoint
from exporter.models.variants import VARIANTS
from exporter.network import target_file
from runtimes import Artifact, files
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.manifest import FileRecord, Tuning
from runtimes.errors import ArtifactError, CompatibilityError, IntegrityError


def target_of(name: str, out: str | None, force: bool) -> Path:
    """The file to write for the variant or the file of that name, in a folder that exists and takes files.

    ``out`` is a file, or a folder if it exists as one or ends in a slash; ``None`` is the folder that we are in.

    Raises:
        UsageError: it is there and is not to be replaced, or a folder is.
        ResourceError: the folder cannot be made or written.
    """
    own = f"{name}.tuned.onnx" if name in VARIANTS else f"{Path(name).stem}.tuned{Path(name).suffix}"
    return target_file(out or "./", own, force)


def tuning_of(candidate: ParetoPoint, objective: Objective) -> Tuning:
    """What the manifest will say of the best."""
    figures, result = candidate.figures, candidate.figures.result
    machine = result.environment
    return Tuning(
        runtime=result.identity.backend,
        device=result.ran.device,
        threads=result.ran.threads,
        batch=result.identity.batch,
        objective=objective,
        p50_s=0.0 if figures.p50 is None else figures.p50.value,
        images_per_s=figures.images_per_s or 0.0,
        machine=f"{machine.cpu}, {machine.usable_processors} of {machine.processors} processors",
    )


def copy_with_tuning(artifact: Artifact, target: Path, tuning: Tuning) -> Artifact:
    """A copy of the artifact at ``target``, over what is there, with the options that it is to be opened with.

    Raises:
        ArtifactError: it has no manifest.
        CompatibilityError: its weights lie in files of their own.
        IntegrityError: its bytes are not those that its manifest records.
        ResourceError: the disk; what was at the target is as it was.
    """
    manifest = artifact.manifest
    if manifest is None:
        raise ArtifactError(
            "it has no manifest that could keep the best options", code="tuning-needs-manifest", path=artifact.path
        )
    if manifest.external:
        raise CompatibilityError(
            "its weights lie in files of their own, which a tuned artifact cannot carry",
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


def _copy(source: Path, place: Path, sha256: str) -> None:
    shutil.copyfile(source, place)
    if files.sha256_of(place) != sha256:
        raise IntegrityError(
            "its bytes are not those that its manifest records: it was changed meanwhile",
            code="file-changed-meanwhile",
            path=source,
        )
