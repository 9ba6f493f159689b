"""The facts that all kinds of files state: the artifact, its name and image, and the size of a container."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from runtimes import Artifact
from runtimes.errors import UsageError, quote

NAME_LIMIT = 40
"""The maximum length of a name. KubeRay appends suffixes to it, and the result must fit into 63 characters."""

MODELS = PurePosixPath("/models")
"""The folder of the artifact in an image."""

DATA = PurePosixPath("/data")
"""The folder that a volume is mounted at."""

_NAME = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9_.:/@-]*")
_MEMORY = re.compile(r"(?P<number>[1-9][0-9]{0,8})(?P<unit>Mi|Gi)")
_MEBIBYTES = {"Mi": 1, "Gi": 1024}

SPARE_MEBIBYTES = 1024
"""Memory of Python, the inference library and the requests, assumed for a container."""

COPIES = 4
"""How many times the size of the model file is assumed for the opened model and its activations."""


@dataclass(frozen=True)
class Resources:
    """The processors, memory and GPUs that a container asks for and gets at most.

    Attributes:
        cpus: The number of processors.
        memory: The memory as Kubernetes writes it, for example ``2Gi``.
        gpus: The number of NVIDIA GPUs.
    """

    cpus: int
    memory: str
    gpus: int = 0

    @property
    def memory_mebibytes(self) -> int:
        """The memory in MiB.

        Raises:
            UsageError: The memory is not a whole number of Mi or Gi.
        """
        match = _MEMORY.fullmatch(self.memory)
        if match is None:
            raise UsageError(
                f"the memory {quote(self.memory)!r} is not a whole number of Mi or Gi",
                code="memory-unreadable",
                hint="--memory 2Gi",
            )
        return int(match["number"]) * _MEBIBYTES[match["unit"]]


@dataclass(frozen=True)
class Deployment:
    """An artifact and the containers that run it.

    Attributes:
        artifact: The artifact.
        name: The name of the resource, a lower-case DNS label.
        image: The image of the container.
        resources: What a container asks for.
        secret: The name of a Kubernetes secret whose entries become environment variables, for example the keys of an
            object store; or ``None``.
        claim: The name of a PersistentVolumeClaim that is mounted at ``/data``, or ``None``.

    Raises:
        UsageError: A name or the memory is not what Kubernetes takes.
    """

    artifact: Artifact
    name: str
    image: str
    resources: Resources
    secret: str | None = None
    claim: str | None = None

    def __post_init__(self) -> None:
        for name in (self.name, self.secret, self.claim):
            if name is not None:
                _check_name(name)
        require_image(self.image)
        _ = self.resources.memory_mebibytes

    @property
    def model_path(self) -> str:
        """The path of the model file in the image."""
        return str(MODELS / self.artifact.path.name)

    @property
    def digest(self) -> str:
        """The SHA-256 digest of the model file as the manifest states it, or ``unknown`` without a manifest."""
        return "unknown" if self.artifact.manifest is None else self.artifact.manifest.sha256


def default_name(artifact: Artifact) -> str:
    """Return the name of the artifact's variant, or of its file, as a DNS label of limited length."""
    source = artifact.path.stem if artifact.manifest is None else artifact.manifest.name
    plain = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")
    return (plain if plain[:1].isalpha() else f"model-{plain}")[:NAME_LIMIT].strip("-")


def default_memory(artifact: Artifact) -> str:
    """Return the memory that is assumed for a container, from the size of the model file, as a power of two of Gi."""
    wanted = SPARE_MEBIBYTES + COPIES * artifact.path.stat().st_size // (1 << 20)
    gibibytes = 1
    while gibibytes * 1024 < wanted:
        gibibytes *= 2
    return f"{gibibytes}Gi"


def require_image(reference: str) -> None:
    """Check that a text is the reference of an image: it is written into files as it is.

    Args:
        reference: The text, for example ``registry.example.org/resnet20:1``.

    Raises:
        UsageError: It has other characters, as spaces or line breaks.
    """
    if _IMAGE.fullmatch(reference) is None:
        raise UsageError(
            f"the image {quote(reference)!r} is not a reference",
            code="image-unreadable",
            hint="for example registry.example.org/resnet20:1",
        )


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or len(name) > NAME_LIMIT:
        raise UsageError(
            f"the name {quote(name)!r} is not a DNS label of at most {NAME_LIMIT} characters",
            code="name-not-dns",
            hint="lower-case letters, digits and hyphens, a letter first",
        )
