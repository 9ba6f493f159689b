"""Publication of a written model file as an artifact, with test vectors, parity check and manifest, for all formats."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

import runtimes
from exporter.export_request import ExportListener
from exporter.network import INPUT, Network
from exporter.precision.gate import AccuracyGate, gate_of
from exporter.precision.spec import FP32, PrecisionSpec
from exporter.targets import expected_accuracy, scaled_decoding
from runtimes import Artifact, Manifest, Runtime, TensorSpec, available_backends, codec, files, parity
from runtimes.artifacts.artifact import publish, vectors_name
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Calibration, FileRecord, Gate
from runtimes.errors import CompatibilityError, Reason
from runtimes.selection import PROCESSOR


@dataclass(frozen=True)
class ExportTarget:
    """The destination of an export.

    Attributes:
        target: The path of the file, which is replaced if it exists.
        batch: The fixed batch size, or ``None`` for any.
        opset: The opset of an ONNX file, or ``None`` for the default of the precision.
        replace: Whether an existing artifact is replaced.
    """

    target: Path
    batch: int | None = None
    opset: int | None = None
    replace: bool = True


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
        replace: Whether an artifact at the target is replaced.
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
    replace: bool = True


def finish(
    draft: Draft, network: Network, listener: ExportListener, accuracy_gate: AccuracyGate | None = None
) -> Artifact:
    """Check a draft with the default backend and publish it.

    An int8 file for CPUs has to pass its accuracy gate on each installed backend that opens it on a CPU, because each
    has integer arithmetic of its own.

    Args:
        draft: The model file.
        network: The network that the file was made from.
        listener: Receives the progress and the figures of the accuracy gate.
        accuracy_gate: The gate of an export with several candidates. ``None`` means the gate of the draft's precision.

    Returns:
        The published artifact.

    Raises:
        CheckFailedError: The parity check or the accuracy gate of the precision failed, or the accuracy is not the
            expected one. No file is left.
        BackendUnavailableError: No installed backend opens the format.
        CompatibilityError: No installed backend can run the file.
        UsageError: A file has appeared at the target meanwhile, and it must not be replaced.
        ResourceError: The disk fails.
    """
    manifest = replace(
        manifest_of(draft, network), sha256=files.sha256_of(draft.file), size_bytes=draft.file.stat().st_size
    )
    content = _pack_vectors(network)
    listener.step("checking parity")
    row = draft.precision_spec.row
    accuracy_gate = accuracy_gate or gate_of(network, draft.precision_spec, listener)
    artifact = Artifact(draft.file, FORMATS[draft.format], manifest)
    with runtimes.open_artifact(artifact) as runtime:
        reference = f"PyTorch {draft.producers['torch']} fp32"
        record = parity.check(runtime, network.vectors, row.tolerance, reference, network.images)
        gates = () if accuracy_gate is None else _run_gate(artifact, runtime, accuracy_gate, draft, listener)
        expected = network.expected
        accuracy = None if expected is None else expected_accuracy.check(runtime, network, expected, listener)
        decoding = scaled_decoding.check(runtime, network, listener)
    listener.step("writing the artifact")
    vectors = FileRecord(vectors_name(draft.target, sha256(content).hexdigest()), sha256(content).hexdigest())
    manifest = replace(
        manifest,
        parity=record,
        gate=gates[0] if gates else None,
        other_gates=gates[1:],
        accuracy=accuracy,
        decoding=decoding,
        vectors=vectors,
    )
    with files.temporary_file(draft.target) as vectors_file:
        vectors_file.write_bytes(content)
        return publish(draft.file, draft.target, manifest, vectors_file, draft.replace)


def _run_gate(
    artifact: Artifact, runtime: Runtime, accuracy_gate: AccuracyGate, draft: Draft, listener: ExportListener
) -> tuple[Gate, ...]:
    """Return the records of the gate: of the opened runtime, and for int8 of the other backends on the CPU."""
    spec, records = draft.precision_spec, [accuracy_gate.measure(runtime)]
    if spec.row.calibrated and spec.deployment == PROCESSOR and accuracy_gate.examples.real:
        for backend in available_backends():
            opens = draft.format in backend.formats and PROCESSOR in backend.devices
            if not opens or backend.name == runtime.description.backend or backend.missing() is not None:
                continue
            try:
                with runtimes.open_artifact(artifact, backend.name, PROCESSOR) as other:
                    records.append(accuracy_gate.measure(other))
            except CompatibilityError as error:
                listener.notice(Reason("gate-backend-skipped", f"{backend.name} does not run this file: {error.what}"))
    accuracy_gate.check(records)
    return tuple(records)


def _pack_vectors(network: Network) -> bytes:
    buffer = io.BytesIO()
    arrays = {"inputs": network.vectors.inputs, **network.vectors.outputs}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # NumPy's type has options among the names
    return buffer.getvalue()


def manifest_of(draft: Draft, network: Network) -> Manifest:
    """Return the manifest of a draft, without the digest and the size of its file and the results of the checks.

    Args:
        draft: The model file, which need not be written yet.
        network: The network that the file is made from.
    """
    return Manifest(
        name=network.name,
        format=draft.format,
        sha256="",
        size_bytes=0,
        variant={} if network.variant is None else codec.encode(network.variant),
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
        activation=network.activation,
        guesses=network.guesses,
    )


def _input(network: Network, batch: int | str) -> TensorSpec:
    if network.raw:
        return TensorSpec(INPUT, "uint8", (batch, *network.size, network.in_channels))
    return TensorSpec(INPUT, "float32", (batch, network.in_channels, *network.size))
