"""The description that an ONNX file of rexport has in its metadata, for a file without its manifest.

Nothing in it is verified: whoever changes the file can change the description too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from runtimes import codec
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Manifest
from runtimes.codec import OMIT_DEFAULT
from runtimes.errors import ArtifactError, Reason, quote
from runtimes.images.spec import Preprocessing
from runtimes.onnx import graph
from runtimes.tensors.activation import Activation

KEY = "rexport"
"""The key of the description in the metadata of an ONNX file."""

_OF_THE_FILE = ("sha256", "size_bytes", "external", "parity", "gate", "accuracy", "vectors", "tuning")


@dataclass(frozen=True)
class Embedded:
    """The description in the metadata of an ONNX file.

    Attributes:
        name: The name of the variant or of the model.
        labels: The name of each class, or ``None`` if unknown.
        preprocessing: The preparation of images for the network, or ``None`` if unknown.
        manifest: The digest of the manifest, as for ``manifest_digest``.
        activation: The step from the first output to probabilities, as for ``Manifest``.
    """

    name: str
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    manifest: str
    activation: Activation | None = field(default=None, metadata=OMIT_DEFAULT)

    @classmethod
    def of(cls, manifest: Manifest) -> Embedded:
        """Return the description of an artifact with this manifest."""
        digest = manifest_digest(manifest)
        return cls(manifest.name, manifest.labels, manifest.preprocessing, digest, manifest.activation)

    @property
    def channels(self) -> int | None:
        """The number of input channels, or ``None`` if unknown."""
        return None if self.preprocessing is None else self.preprocessing.channels

    def as_json(self) -> str:
        """Return the description as it stands in the metadata."""
        return codec.dumps(self)


def manifest_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest as 64 hexadecimal digits.

    The fields about the finished file are left out: digests, sizes, the results of checks, and tuned options. So the
    digest can stand in the file itself.
    """
    facts = {name: value for name, value in codec.encode(manifest).items() if name not in _OF_THE_FILE}
    return hashlib.sha256(codec.dumps(facts).encode("utf-8", "backslashreplace")).hexdigest()


def read_embedded(artifact: Artifact) -> Embedded | None:
    """Return the description in the metadata of an ONNX file, or ``None`` if there is none.

    Raises:
        ArtifactError: The description is broken, or the file is.
        ResourceError: The file cannot be read.
    """
    text = graph.metadata(artifact.path).get(KEY) if artifact.format.name == "onnx" else None
    if text is None:
        return None
    try:
        return codec.loads(Embedded, text.encode())
    except ArtifactError as error:
        raise ArtifactError(
            f"the description in the file's metadata is invalid: {error.what}", code=error.code, path=artifact.path
        ) from error


def unverified(artifact: Artifact) -> Reason:
    """Return the notice that a file is opened by what it says about itself."""
    return Reason(
        "manifest-missing",
        f"{quote(artifact.path.name)}: no manifest; labels and preprocessing are what the file says about itself, "
        "unverified",
    )
