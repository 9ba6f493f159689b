"""A model repository for Triton: models and versions are added to it, and nothing in it is changed or removed."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.deploy import triton_config
from exporter.deploy.triton_config import IMAGE
from exporter.deploy.triton_settings import MODEL_FILES, TritonSettings
from exporter.deploy.vector_images import png_images
from runtimes import Artifact, files
from runtimes.artifacts.artifact import Vectors, publish
from runtimes.artifacts.manifest import Manifest
from runtimes.errors import ArtifactError, ModelMismatchError, Reason, ResourceError, UsageError, quote
from runtimes.escaping import printable, shell_word
from runtimes.folders import folder_to_fill

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""The names that a model may have: they are folders, and part of addresses."""

CONTAINER = "nvcr.io/nvidia/tritonserver:25.06-py3"
"""The container in the printed command."""


_MODEL_SOURCE = Path(__file__).with_name("triton_model.py")
"""The ``model.py`` of the Python backend."""


@dataclass(frozen=True)
class TritonRequest:
    """The order to add artifacts to a repository.

    Attributes:
        repository: The folder of the repository, which is created if it is missing.
        settings: How Triton runs the models.
        name: The name of the model, or ``None`` for the name of the model file without its extension.
        version: The number of the version, or ``None`` for the next one.
    """

    repository: Path
    settings: TritonSettings = field(default_factory=TritonSettings)
    name: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class WrittenVersion:
    """A version of a model in a repository.

    Attributes:
        path: The folder of the version.
        model: The name of the model.
        version: The number of the version.
        sha256: The digest of the model file.
        format: The format of the model file.
        backend: The backend of Triton that runs it.
        existed: Whether the version was there before, with the same model file.
    """

    path: Path
    model: str
    version: int
    sha256: str
    format: str
    backend: str
    existed: bool


def model_name(artifact: Path, name: str | None) -> str:
    """Return the name of a model.

    Args:
        artifact: The model file, whose name without its extension is the default.
        name: The chosen name, or ``None``.

    Raises:
        UsageError: The name cannot be that of a model.
    """
    chosen = artifact.stem if name is None else name
    if not NAME.fullmatch(chosen):
        raise UsageError(
            f"{quote(chosen)!r} cannot be the name of a model: it may have letters, digits, '_', '.' and '-', and does "
            "not begin with '.' or '-'",
            code="triton-name-invalid",
            hint="--name chooses another",
        )
    return chosen


def add_version(path: Path, request: TritonRequest, notify: Callable[[Reason], None]) -> WrittenVersion:
    """Add an artifact to a repository as a version of a model.

    A repository is complete at any moment: a new model or version is written under a temporary name and renamed. Old
    versions stay as they are. An artifact that is already the newest version is not written again.

    Args:
        path: The artifact.
        request: What is to be written, and where.
        notify: Called with each notice.

    Returns:
        The version.

    Raises:
        ArtifactError: The artifact has no manifest or no test vectors, or the folder of the model is not one that
            rexport wrote.
        CompatibilityError: Triton cannot run the artifact; or its inputs, outputs or labels differ from those of the
            model's other versions.
        IntegrityError: The model file differs from its manifest.
        UsageError: The name, the version or a setting is out of range, or another model file has this version.
        BackendUnavailableError: The library with Triton's messages is not installed.
        ResourceError: A file cannot be read or written.
    """
    artifact = Artifact.read(path)
    manifest = artifact.manifest
    if manifest is None:
        raise ArtifactError(
            "a model without a manifest cannot be put into a repository: its labels, preprocessing and test vectors "
            "are unknown",
            code="triton-needs-manifest",
            path=path,
            hint="rexport onnx writes a file with its manifest",
        )
    vectors, name = artifact.vectors(), model_name(path, request.name)
    triton_config.build_config(name, manifest, request.settings, {})  # refuses before a folder is made
    try:
        with folder_to_fill(request.repository), files.folder_lock(request.repository):
            folder = request.repository / name
            if folder.exists():
                return _Extension(artifact, manifest, vectors, folder, request).write(notify)
            return _write_model(artifact, manifest, vectors, folder, request)
    except OSError as error:
        raise ResourceError.from_os(error, request.repository, "write") from error


def _write_model(
    artifact: Artifact, manifest: Manifest, vectors: Vectors, folder: Path, request: TritonRequest
) -> WrittenVersion:
    version = request.version or 1
    config = triton_config.build_config(folder.name, manifest, request.settings, {version: manifest.sha256})
    with _write_folder(folder, _workplace(folder)) as temporary:
        (temporary / "config.pbtxt").write_text(triton_config.as_text(config))
        labels = triton_config.labels_of(manifest)
        if labels is not None:
            (temporary / "labels.txt").write_text(labels_text(labels))
        (temporary / "warmup").mkdir()
        for name, content in _warmup_requests(vectors, manifest, config):
            (temporary / "warmup" / triton_config.warmup_file(name)).write_bytes(content)
        (temporary / str(version)).mkdir()
        _copy(artifact, manifest, temporary / str(version), config.backend)
    return _describe(folder, version, manifest, config, existed=False)


@dataclass(frozen=True)
class _Extension:
    """A version that a model in the repository gets."""

    artifact: Artifact
    manifest: Manifest
    vectors: Vectors
    folder: Path
    request: TritonRequest

    def write(self, notify: Callable[[Reason], None]) -> WrittenVersion:
        """Write the configuration, which names the new version, then the version itself."""
        config = triton_config.read_config(self.folder)
        known = versions_of(self.folder)
        version = self.request.version or self._same_as_newest(known, config) or max(known, default=0) + 1
        if version in known:
            self._require_same(version)
        digests = {number: digest for number, digest in triton_config.digests_of(config).items() if number in known}
        updated = triton_config.build_config(
            self.folder.name, self.manifest, self.request.settings, digests | {version: self.manifest.sha256}
        )
        self._require_same_interface(config, updated)
        if updated != config:
            self._write_config(config, updated, notify)
        if version < max(known, default=0):
            newest, name = max(known), self.folder.name
            notify(
                Reason("triton-version-older", f"Triton serves version {newest} of {name}, the newest, not {version}")
            )
        path = self.folder / str(version)
        if version in known:
            notify(Reason("triton-version-exists", f"{path} holds this artifact already; no version is added"))
        else:
            with _write_folder(path, path) as temporary:
                _copy(self.artifact, self.manifest, temporary, updated.backend)
        return _describe(self.folder, version, self.manifest, updated, existed=version in known)

    def _write_config(self, config: Any, updated: Any, notify: Callable[[Reason], None]) -> None:
        path = self.folder / "config.pbtxt"
        if _without_digests(updated) != _without_digests(config):
            notify(Reason("triton-settings-changed", f"{path} gets the settings of this command"))
        with files.write_atomically(path) as temporary:
            temporary.write_text(triton_config.as_text(updated))

    def _same_as_newest(self, known: tuple[int, ...], config: Any) -> int | None:
        newest = max(known, default=0)
        return newest if triton_config.digests_of(config).get(newest) == self.manifest.sha256 else None

    def _require_same(self, version: int) -> None:
        path = self.folder / str(version) / MODEL_FILES[self.manifest.format]
        if not path.is_file() or files.sha256_of(path) != self.manifest.sha256:
            raise UsageError(
                f"version {version} of {self.folder.name} is another artifact, and versions are not replaced",
                code="triton-version-taken",
                hint="omit --version to add the next one",
            )

    def _require_same_interface(self, config: Any, updated: Any) -> None:
        old, new = triton_config.interface_of(config), triton_config.interface_of(updated)
        changed = [key for key in old if old[key] != new[key]]
        path, labels = self.folder / "labels.txt", triton_config.labels_of(self.manifest)
        text = None if labels is None else labels_text(labels)
        if (path.read_text() if path.is_file() else None) != text:
            changed.append("labels")
        if changed:
            key = changed[0]
            values = f": {quote(old[key])} before, {quote(new[key])} now" if key in old else ""
            raise ModelMismatchError(
                f"the model {self.folder.name} has other {key} than this artifact{values}",
                code="triton-interface-changed",
                hint="--name gives it a model of its own",
            )


def _without_digests(config: Any) -> Any:
    settings = copy.deepcopy(config)
    for version in triton_config.digests_of(config):
        del settings.parameters[f"{triton_config.DIGEST_KEY}{version}"]
    return settings


def versions_of(folder: Path) -> tuple[int, ...]:
    """Return the numbers of the versions in the folder of a model, in ascending order."""
    names = (each.name for each in folder.iterdir() if each.is_dir())
    return tuple(sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d*", name)))


def labels_text(labels: tuple[str, ...]) -> str:
    """Return the text of ``labels.txt``: a line for each class."""
    return "".join(f"{printable(label)}\n" for label in labels)


def _workplace(folder: Path) -> Path:
    """Return the path beside which the folder of a new model is prepared: beside the repository, where it can be.

    What a killed process leaves in the repository itself, Triton takes for a broken model and does not get ready.
    """
    repository = folder.parent.resolve()
    above = repository.parent
    if above.stat().st_dev == repository.stat().st_dev and os.access(above, os.W_OK):
        return above / f"{repository.name}.{folder.name}"
    return folder


@contextmanager
def _write_folder(target: Path, workplace: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside ``workplace``; in the end, flush it to the disk and rename it."""
    files.remove_stale(workplace)
    temporary = files.temporary_for(workplace)
    try:
        with files.name_target(temporary, target):
            temporary.mkdir()
            yield temporary
            for place, _, names in os.walk(temporary):
                for path in (*(Path(place, name) for name in names), Path(place)):
                    files.sync(path)
            temporary.rename(target)  # fails on a folder that is not empty
            files.sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(artifact: Artifact, manifest: Manifest, folder: Path, backend: str) -> None:
    """Copy the artifact into the folder of a version, with its manifest and test vectors, and check the digests."""
    target = folder / MODEL_FILES[manifest.format]
    with files.temporary_file(target) as model, files.temporary_file(target) as copy:
        shutil.copyfile(artifact.path, model)
        for record in manifest.external:
            shutil.copyfile(artifact.sibling(record.name), folder / record.name)
        vectors = None
        if manifest.vectors is not None:
            vectors = copy
            shutil.copyfile(artifact.sibling(manifest.vectors.name, manifest.vectors.sha256), vectors)
        copied = publish(model, target, manifest, vectors)
    copied.check_digest()
    copied.vectors()
    if backend == "python":
        shutil.copyfile(_MODEL_SOURCE, folder / "model.py")


def _warmup_requests(vectors: Vectors, manifest: Manifest, config: Any) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each input and its first value, of the first test vector, as Triton reads it from a file."""
    batch = manifest.inputs[0].fixed_batch or 1
    for entry in config.input:
        if entry.name == IMAGE:
            image = png_images(Vectors(vectors.inputs[:1], {}), manifest)[0]
            yield IMAGE, (len(image).to_bytes(4, "little") + image) * batch
        else:
            yield entry.name, np.repeat(vectors.inputs[:1], batch, axis=0).astype(manifest.inputs[0].dtype).tobytes()


def _describe(folder: Path, version: int, manifest: Manifest, config: Any, existed: bool) -> WrittenVersion:
    return WrittenVersion(
        folder / str(version),
        folder.name,
        version,
        manifest.sha256,
        manifest.format,
        str(config.backend),
        existed=existed,
    )


def server_command(repository: Path) -> str:
    """Return the command that serves a repository on this machine, on loopback."""
    addresses = " ".join(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics"))
    where = shell_word(repository.resolve())
    return f"tritonserver --model-repository={where} {addresses} --disable-auto-complete-config"


def container_command(request: TritonRequest, versions: Sequence[WrittenVersion]) -> str:
    """Return the command that serves a repository in Triton's container, published on loopback.

    Args:
        request: The order.
        versions: The versions that were written.
    """
    gpu = request.settings.device == "cuda" or any(version.backend == "tensorrt" for version in versions)
    ports = " ".join(f"-p 127.0.0.1:{port}:{port}" for port in (8000, 8001, 8002))
    where = shell_word(f"{request.repository.resolve()}:/models:ro")
    server = "tritonserver --model-repository=/models --disable-auto-complete-config"
    extras = sorted({_extra(version, request.settings, gpu) for version in versions if version.backend == "python"})
    if extras:
        server = f"sh -c \"pip install 'rexport[{','.join(extras)},images]' && exec {server}\""
    return f"docker run --rm {'--gpus=all ' if gpu else ''}--shm-size=1g {ports} -v {where} {CONTAINER} {server}"


def _extra(version: WrittenVersion, settings: TritonSettings, gpu: bool) -> str:
    """Return the extra of rexport with the library that ``model.py`` opens the artifact with."""
    opened_with = settings.opened_with or {"pt2": "pytorch", "engine": "tensorrt"}.get(version.format, "onnxruntime")
    return {"pytorch": "export", "onnxruntime": "gpu" if gpu else "cpu"}.get(opened_with, opened_with)


def check_command(repository: Path) -> str:
    """Return the command that checks what a server on this machine serves of a repository."""
    return f"rexport verify {shell_word(repository)} --url grpc://127.0.0.1:8001"
