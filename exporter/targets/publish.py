"""From a written model file to a published artifact: test vectors, parity, manifest. The same for every format."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

import runtimes
from exporter.network import INPUT, OUTPUT, ExportListener, Network
from exporter.precision import calibration_images, gate
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.precision.table import Bounds
from runtimes import Artifact, Manifest, Runtime, TensorSpec, codec, files, parity
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Calibration, FileRecord, Gate


@dataclass(frozen=True)
class Draft:
    """A model file under a temporary name in its target's folder, and what its format adds to the manifest."""

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
    """Checks the draft against its network through the default runtime, and publishes it.

    Raises:
        CheckFailedError: parity or the precision's gate failed; nothing is left.
        BackendUnavailableError: no runtime here opens the format.
        CompatibilityError: none here can run it.
        ResourceError: the disk.
    """
    manifest = _manifest(draft, network)
    listener.step("checking parity")
    row = draft.precision_spec.row
    with runtimes.open_artifact(Artifact(draft.file, FORMATS[draft.format], manifest)) as runtime:
        reference = f"PyTorch {draft.producers['torch']} fp32"
        record = parity.check(runtime, network.vectors, row.tolerance, reference, network.images)
        passed = (
            None if row.bounds is None else check_gate(runtime, draft.precision_spec, row.bounds, network, listener)
        )
    listener.step("writing the artifact")
    content = _pack_vectors(network)
    vectors = FileRecord(vectors_name(draft.target, sha256(content).hexdigest()), sha256(content).hexdigest())
    manifest = replace(manifest, parity=record, gate=passed, vectors=vectors)
    with files.temporary_file(draft.target) as place:
        place.write_bytes(content)
        return publish(draft.file, draft.target, manifest, place)


def check_gate(
    runtime: Runtime, precision_spec: PrecisionSpec, bounds: Bounds, network: Network, listener: ExportListener
) -> Gate:
    """The record of the precision's passed gate, on the network's own images.

    Raises:
        CheckFailedError: it failed.
        RexportError: the images cannot be read.
    """
    calibration = precision_spec.calibration if precision_spec.row.calibrated else None
    images = calibration_images.for_gate(
        network, calibration, precision_spec.calibration_images, precision_spec.gate_images
    )
    return gate.check(runtime, network, precision_spec.precision, bounds, images, listener)


def _pack_vectors(network: Network) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=network.vectors.inputs, logits=network.vectors.logits)
    return buffer.getvalue()


def _manifest(draft: Draft, network: Network) -> Manifest:
    """What is known before any check."""
    variant = network.variant
    return Manifest(
        name=variant.name,
        format=draft.format,
        sha256=files.sha256_of(draft.file),
        size_bytes=draft.file.stat().st_size,
        variant=codec.encode(variant),
        weights=network.weights,
        precision=draft.precision_spec.precision,
        inputs=(_input(network, "batch" if draft.batch is None else draft.batch),),
        outputs=(TensorSpec(OUTPUT, "float32", ("batch" if draft.batch is None else draft.batch, variant.classes)),),
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
