"""From a written model file to a published artifact: test vectors, parity, manifest. The same for every format."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

import runtimes
from exporter import parity
from exporter.network import Listener, Network
from exporter.precision import Precision
from runtimes import Artifact, Manifest, TensorSpec, files, schema
from runtimes.artifact import publish, vectors_name
from runtimes.errors import ResourceError
from runtimes.formats import FORMATS
from runtimes.manifest import FileRecord, Parity

INPUT, OUTPUT = "input", "logits"


@dataclass(frozen=True)
class Draft:
    """A model file under a temporary name in its target's folder, and what its format adds to the manifest."""

    file: Path
    target: Path
    format: str
    precision: Precision
    batch: int | None
    producers: Mapping[str, str]
    opset: int | None = None
    parent: str | None = None
    external: tuple[FileRecord, ...] = ()


@contextlib.contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A name for a draft in the target's folder; whatever lies there at the end is removed.

    Raises:
        ResourceError: in place of a system call's error inside.
    """
    path = files.temporary_for(target)
    try:
        yield path
    except OSError as error:
        raise ResourceError.from_os(error, target, "write") from error
    finally:
        path.unlink(missing_ok=True)


def finish(draft: Draft, network: Network, listener: Listener) -> Artifact:
    """Checks the draft against its network through the default runtime, and publishes it.

    Raises:
        CheckFailedError: parity failed; nothing is left.
        BackendUnavailableError: no runtime here opens the format.
        ResourceError: the disk.
    """
    size = draft.file.stat().st_size
    manifest = _manifest(draft, network, size, files.sha256_of(draft.file), None, None)
    listener.step("checking parity")
    with runtimes.open_artifact(Artifact(draft.file, FORMATS[draft.format], manifest)) as runtime:
        reference = f"PyTorch {draft.producers['torch']} fp32"
        record = parity.check(runtime, network.vectors, draft.precision.tolerance, reference, network.images)
    listener.step("writing the artifact")
    content = _packed(network)
    vectors = FileRecord(vectors_name(draft.target, sha256(content).hexdigest()), sha256(content).hexdigest())
    manifest = _manifest(draft, network, size, manifest.sha256, record, vectors)
    with temporary(draft.target) as place:
        place.write_bytes(content)
        return publish(draft.file, draft.target, manifest, place)


def _packed(network: Network) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=network.vectors.inputs, logits=network.vectors.logits)
    return buffer.getvalue()


def _manifest(
    draft: Draft,
    network: Network,
    size: int,
    digest: str,
    record: Parity | None,
    vectors: FileRecord | None,
) -> Manifest:
    variant = network.variant
    batch = "batch" if draft.batch is None else draft.batch
    return Manifest(
        name=variant.name,
        format=draft.format,
        sha256=digest,
        size_bytes=size,
        variant=schema.encode(variant),
        weights=network.weights,
        precision=draft.precision.name,
        inputs=(TensorSpec(INPUT, "float32", (batch, variant.in_channels, *variant.size)),),
        outputs=(TensorSpec(OUTPUT, "float32", (batch, variant.classes)),),
        labels=network.labels,
        preprocessing=network.preprocessing,
        dataset=network.dataset,
        opset=draft.opset,
        producers=draft.producers,
        parent=draft.parent,
        parity=record,
        vectors=vectors,
        external=draft.external,
    )
