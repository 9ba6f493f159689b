"""Which versions of which models a server has to serve, by a repository or an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.deploy import triton_config
from exporter.deploy.served import TIMEOUT_S, RemoteModel, ServerConnection
from exporter.deploy.triton_config import FILE_KEY
from exporter.deploy.triton_repository import model_name, versions_of
from runtimes import Artifact
from runtimes.errors import ArtifactError, ModelMismatchError, UsageError, quote, suggest


@dataclass(frozen=True)
class ServedVersion:
    """A version of a model that a server has to serve.

    Attributes:
        model: The name of the model.
        version: The version, or an empty text for the server's choice.
        path: The artifact of this version.
    """

    model: str
    version: str
    path: Path


@dataclass(frozen=True)
class VerificationRequest:
    """The order to verify a server.

    Attributes:
        path: A model repository, or an artifact.
        url: The address of the server.
        model: The only model of the repository to verify, or the name of the artifact on the server; ``None`` for all
            models, or the name of the file without its extension.
        timeout_s: The longest wait for one answer, in seconds.
    """

    path: Path
    url: str
    model: str | None = None
    timeout_s: float = TIMEOUT_S


def models_of(request: VerificationRequest) -> dict[str, dict[str, Path]]:
    """Return the artifacts that a server has to serve, by model and version.

    An artifact that is not in a repository has an empty version: the server chooses.

    Args:
        request: The order.

    Raises:
        ArtifactError: A folder is not a repository, or holds a model that rexport did not write.
        UsageError: The repository has no such model.
        ResourceError: The artifact cannot be read.
    """
    if not request.path.is_dir():
        return {request.model or model_name(request.path, None): {"": Artifact.read(request.path).path}}
    folders = {folder.parent.name: folder.parent for folder in sorted(request.path.glob("*/config.pbtxt"))}
    if not folders:
        raise ArtifactError(
            "the folder is not a model repository",
            code="repository-empty",
            path=request.path,
            hint="rexport triton ARTIFACT -o DIR writes one",
        )
    if request.model is not None and request.model not in folders:
        raise UsageError(
            f"the repository has no model {quote(request.model)}",
            code="repository-lacks-model",
            hint=suggest(request.model, folders),
        )
    return {
        name: _versions(folder) for name, folder in folders.items() if request.model is None or name == request.model
    }


def _versions(folder: Path) -> dict[str, Path]:
    file = triton_config.read_config(folder).parameters[FILE_KEY].string_value
    return {str(version): folder / str(version) / Path(file).name for version in versions_of(folder)}


def list_versions(
    name: str, versions: dict[str, Path], description: RemoteModel, server: ServerConnection
) -> list[ServedVersion]:
    """Return the versions to verify: those that the server offers.

    Args:
        name: The name of the model.
        versions: The artifacts by version, in ascending order.
        description: The server's description of the model.
        server: The connection, for messages.

    Raises:
        ModelMismatchError: The server does not offer the newest version, or offers another one.
    """
    if "" in versions or not description.versions:
        return [ServedVersion(name, "", list(versions.values())[-1])]
    newest = list(versions)[-1]
    wrong = [version for version in description.versions if version not in versions]
    if newest not in description.versions or wrong:
        raise ModelMismatchError(
            f"{server.url} offers version {', '.join(description.versions)} of {name}, but the repository has "
            f"{', '.join(versions)}",
            code="served-versions-differ",
            hint="restart the server with this repository",
        )
    return [ServedVersion(name, version, versions[version]) for version in description.versions]
