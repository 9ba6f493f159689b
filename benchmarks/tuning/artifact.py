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
    place = Path(name)
    own = f"{name}.tuned.onnx" if name in VARIANTS else f"{place.stem}.tuned{place.suffix}"
    return target_file(out or "./", own, force)


def tuning_of(candidate: ParetoPoint, objective: Objective) -> Tuning:
    """What the manifest will say of the best."""
    row = candidate.row
    about = row.environment
    return Tuning(
        runtime=row.runtime,
        device=row.device,
        threads=row.threads,
        batch=row.batch,
        objective=objective,
        p50_s=row.p50_s or 0.0,
        images_per_s=row.images_per_s or 0.0,
        machine=f"{about.cpu}, {about.usable_processors} of {about.processors} processors",
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
        raise ArtifactError("it has no manifest that could keep the best options", path=artifact.path)
    if manifest.external:
        raise CompatibilityError("its weights lie in files of their own, which cannot be carried", path=artifact.path)
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
        raise IntegrityError("its bytes are not those that its manifest records: it was changed meanwhile", path=source)
