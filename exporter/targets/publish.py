"""Publication of a written model file as an artifact, with test vectors, parity check and manifest, for all formats."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

import runtimes
from exporter.network import INPUT, ExportListener, Network
from exporter.precision import calibration_images, gate
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import Bounds
from exporter.targets import expected_accuracy
from runtimes import Artifact, Manifest, Runtime, TensorSpec, codec, files, parity
from runtimes.artifacts.artifact import VECTORS_LIMIT_BYTES, publish, vectors_name
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Calibration, FileRecord, Gate
from runtimes.errors import UsageError


@dataclass(frozen=True)
class Draft:
    """A model file under a temporary name in the folder of its target, with the manifest fields of its format.

    Attributes:
        file: The temporary file.
        target: The final path.
        format: The format, a key of ``FORMATS``.
        batch: The fixed batch size, or ``None`` for any.
        producers: The libraries that wrote the file, with their versions. ``torch`` must be among them.
        precision_spec: The precision.
        calibration: The calibration, or ``None``.
        opset: The opset of an ONNX file.
        parent: The digest of the artifact that the file was made from, or ``None``.
        external: The files that hold the weights of an ONNX file beyond 2 GiB.
    """

    file: Path
    target: Path
    format: str
    batch: int | None
    producers: Mapping[str, str]
    precision_spec: PrecisionSpec = FP32
    calibration: Calibration | None = None
    opset: int | None = None
    parent: str | None = None
    external: tuple[FileRecord, ...] = ()


def finish(draft: Draft, network: Network, listener: ExportListener) -> Artifact:
    """Check a draft with the default backend and publish it.

    Args:
        draft: The model file.
        network: The network that the file was made from.
        listener: Receives the progress and the figures of the accuracy gate.

    Returns:
        The published artifact.

    Raises:
        CheckFailedError: The parity check or the accuracy gate of the precision failed, or the accuracy is not the
            expected one. No file is left.
        BackendUnavailableError: No installed backend opens the format.
        CompatibilityError: No installed backend can run the file.
        ResourceError: The disk fails.
    """
    manifest = replace(
        manifest_of(draft, network), sha256=files.sha256_of(draft.file), size_bytes=draft.file.stat().st_size
    )
    content = _pack_vectors(network)
    listener.step("checking parity")
    row = draft.precision_spec.row
    with runtimes.open_artifact(Artifact(draft.file, FORMATS[draft.format], manifest)) as runtime:
        reference = f"PyTorch {draft.producers['torch']} fp32"
        record = parity.check(runtime, network.vectors, row.tolerance, reference, network.images)
        gate_record = (
            None if row.bounds is None else check_gate(runtime, draft.precision_spec, row.bounds, network, listener)
        )
        expected = network.expected
        accuracy = None if expected is None else expected_accuracy.check(runtime, network, expected, listener)
    listener.step("writing the artifact")
    vectors = FileRecord(vectors_name(draft.target, sha256(content).hexdigest()), sha256(content).hexdigest())
    manifest = replace(manifest, parity=record, gate=gate_record, accuracy=accuracy, vectors=vectors)
    with files.temporary_file(draft.target) as vectors_file:
        vectors_file.write_bytes(content)
        return publish(draft.file, draft.target, manifest, vectors_file)


def check_gate(
    runtime: Runtime, precision_spec: PrecisionSpec, bounds: Bounds, network: Network, listener: ExportListener
) -> Gate:
    """Run the accuracy gate of a precision on the images of the network, and return its record.

    Args:
        runtime: The opened artifact.
        precision_spec: The precision.
        bounds: The limits of the precision.
        network: The network in fp32.
        listener: Receives the progress and the figures.

    Raises:
        CheckFailedError: A figure exceeds its limit.
        RexportError: The images cannot be read.
    """
    calibration = precision_spec.calibration if precision_spec.row.calibrated else None
    images = calibration_images.for_gate(
        network, calibration, precision_spec.calibration_images, precision_spec.gate_images
    )
    return gate.check(runtime, network, precision_spec.precision, bounds, images, listener)


def _pack_vectors(network: Network) -> bytes:
    buffer = io.BytesIO()
    arrays = {"inputs": network.vectors.inputs, **network.vectors.outputs}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # NumPy's type has options among the names
    size = sum(array.nbytes for array in arrays.values())
    if size > VECTORS_LIMIT_BYTES:
        raise UsageError(
            f"the test vectors have {size:,} bytes, and at most {VECTORS_LIMIT_BYTES:,} are supported",
            code="vectors-too-large",
            hint="choose a smaller --size, or fewer outputs: --output stages has the most numbers",
        )
    return buffer.getvalue()


def manifest_of(draft: Draft, network: Network) -> Manifest:
    """Return the manifest of a draft, without the digest and the size of its file and the results of the checks.

    Args:
        draft: The model file, which need not be written yet.
        network: The network that the file is made from.
    """
    variant = network.variant
    return Manifest(
        name=variant.name,
        format=draft.format,
        sha256="",
        size_bytes=0,
        variant=codec.encode(variant),
        weights=network.weights,
        precision=draft.precision_spec.precision,
        inputs=(_input(network, "batch" if draft.batch is None else draft.batch),),
        outputs=tuple(
            TensorSpec(name, "float32", ("batch" if draft.batch is None else draft.batch, *values.shape[1:]))
            for name, values in network.vectors.outputs.items()
        ),
        labels=network.labels,
        preprocessing=network.preprocessing,
        dataset=network.dataset,
        opset=draft.opset,
        producers=draft.producers,
        parent=draft.parent,
        parity=None,
        vectors=None,
        external=draft.external,
        calibration=draft.calibration,
    )


def _input(network: Network, batch: int | str) -> TensorSpec:
    variant = network.variant
    if network.raw:
        return TensorSpec(INPUT, "uint8", (batch, *variant.size, variant.in_channels))
    return TensorSpec(INPUT, "float32", (batch, variant.in_channels, *variant.size))
