"""What an artifact says of itself, and its parity check once more."""

from __future__ import annotations

from pathlib import Path

import runtimes
from exporter.inspect import engine_view
from exporter.precision import gate
from exporter.precision.table import PRECISIONS
from runtimes import Artifact, codec, parity
from runtimes.artifacts.manifest import Manifest, Parity
from runtimes.errors import ArtifactError, RexportError
from runtimes.images.preprocessing import Preprocessing
from runtimes.onnx import graph as onnxfile


def verify_parity(path: Path, backend: str | None, device: str | None, threads: int | None) -> Parity:
    """The record of comparing the artifact with its own test vectors, on the runtime that is asked for.

    Raises:
        CheckFailedError: its logits are not the network's any more.
        ArtifactError: a foreign file, which has no test vectors.
        BackendUnavailableError: an engine, and no GPU here.
        RexportError: as ``runtimes.open``.
    """
    artifact = Artifact.read(path)
    vectors = artifact.vectors()
    manifest = artifact.manifest
    engine = None if manifest is None else manifest.engine
    if manifest is None or manifest.precision not in PRECISIONS or (manifest.parity is None and engine is None):
        raise ArtifactError(
            "its manifest records no parity check", code="parity-unrecorded", path=path, hint="export it again"
        )
    tolerance = PRECISIONS[manifest.precision].tolerance
    reference, images = "PyTorch fp32", f"the test vectors of {path.name}"
    if manifest.parity is not None:
        reference, images = manifest.parity.reference, manifest.parity.images
    with runtimes.open_artifact(artifact, backend, device, threads) as runtime:
        return parity.check(runtime, vectors, tolerance, reference, images)


def parity_as_json(record: Parity) -> str:
    """The record as a JSON object."""
    return codec.dumps(record, indent=2)


def parity_as_text(path: Path, record: Parity) -> str:
    """The record in one line."""
    return f"{path}: parity holds: {_parity(record)}"


def _parity(record: Parity) -> str:
    return (
        f"{record.runtime} gives logits within {record.relative_difference:.1e} of {record.reference} "
        f"({record.tolerance:.0e} allowed), top-1 the same on {record.agreement:.0%} of {record.images}; "
        f"batches {', '.join(map(str, record.batches))}"
    )


def as_json(path: Path) -> str:
    """The artifact's manifest as it is, with an engine's layers where they can be told; or what a foreign file says of
    itself.

    Raises:
        RexportError: as ``Artifact.read``; the digest does not match.
    """
    artifact = Artifact.read(path)
    artifact.check_digest()
    if artifact.manifest is None:
        return codec.dumps(_foreign(artifact), indent=2)
    if artifact.manifest.engine is None:
        return codec.dumps(artifact.manifest, indent=2)
    return codec.dumps(codec.encode(artifact.manifest) | _layers(artifact), indent=2)


def _layers(artifact: Artifact) -> dict[str, object]:
    """An engine's layers, or why they cannot be told here."""
    try:
        return {"layers": codec.encode(engine_view.view(artifact)), "no_layers": None, "no_layers_code": None}
    except RexportError as error:
        return {"layers": None, "no_layers": str(error), "no_layers_code": error.code}


def _foreign(artifact: Artifact) -> dict[str, object]:
    about: dict[str, object] = {"format": artifact.format.name, "manifest": None}
    if artifact.format.name == "onnx":
        about |= codec.encode(onnxfile.read(artifact.path))
    with runtimes.open_artifact(artifact) as runtime:
        about |= {"inputs": codec.encode(runtime.inputs), "outputs": codec.encode(runtime.outputs)}
    return about


def as_text(path: Path) -> str:
    """The same for people, a line each fact.

    Raises:
        RexportError: as ``as_json``.
    """
    artifact = Artifact.read(path)
    artifact.check_digest()
    if artifact.manifest is None:
        lines = {key: str(value) for key, value in _foreign(artifact).items()}
        lines["manifest"] = "none: a foreign file, of which nothing else is known"
    else:
        lines = _format_manifest(artifact.manifest)
    layers = [] if artifact.manifest is None or artifact.manifest.engine is None else _layer_lines(artifact)
    width = max(map(len, lines))
    return "\n".join([*(f"{key:<{width}}  {value}" for key, value in lines.items()), *layers])


def _layer_lines(artifact: Artifact) -> list[str]:
    try:
        first, *others = engine_view.layer_lines(engine_view.view(artifact))
    except RexportError as error:
        return [f"layers: an engine tells them on a GPU that it was built for alone: {error.what}"]
    return [f"layers: {first}", *(f"  {line}" for line in others)]


def _format_manifest(manifest: Manifest) -> dict[str, str]:
    weights, view, row = manifest.weights, manifest.preprocessing, manifest.variant
    raw = manifest.inputs[0].dtype == "uint8"
    origin = weights.source or (f"seed {weights.seed}" if weights.seed is not None else "")
    lines = {
        "variant": f"{manifest.name}, shortcut {row.get('shortcut')}, stride {row.get('stride')}",
        "weights": f"{weights.origin} {origin}".strip() + ("" if weights.trained else ", untrained"),
        "format": manifest.format + (f", opset {manifest.opset}" if manifest.opset else ""),
        "precision": manifest.precision,
        "inputs": "; ".join(map(str, manifest.inputs)),
        "outputs": "; ".join(map(str, manifest.outputs)),
        "labels": "none" if manifest.labels is None else _shorten_labels(manifest.labels),
        "preprocessing": "none" if view is None else _steps(view, raw),
        "data set": manifest.dataset or "none",
        **({} if manifest.engine is None else engine_view.engine_facts(manifest, manifest.engine)),
        "parity": _describe_check(manifest),
        **_costs(manifest),
        "made by": ", ".join(f"{name} {version}" for name, version in manifest.producers.items()),
        "size": f"{manifest.size_bytes:,} bytes",
        "sha256": manifest.sha256,
    }
    if manifest.parent is not None and manifest.engine is None:
        lines["made from"] = manifest.parent
    return lines


def _describe_check(manifest: Manifest) -> str:
    if manifest.parity is not None:
        return _parity(manifest.parity)
    if manifest.engine is None:
        return "not recorded"
    return "not checked where it was built: it is checked each time that it is opened"


def _costs(manifest: Manifest) -> dict[str, str]:
    """Lines that only some artifacts have: of a narrower precision, and of tuned options."""
    lines = {}
    if manifest.calibration is not None:
        record = manifest.calibration
        lines["calibration"] = f"{record.quantiser} for {record.target}, on {record.data}"
    if manifest.gate is not None:
        lines["gate"] = f"passed on {manifest.gate.runtime}: {gate.describe_gate(manifest.gate)}"
    if manifest.tuning is not None:
        best = manifest.tuning
        lines["tuned"] = (
            f"{best.runtime} on {best.device}, {best.threads} thread{'s' if best.threads > 1 else ''}: "
            f"{best.p50_s * 1e3:.3g} ms for a batch of {best.batch}, {best.images_per_s:,.0f} images/s ({best.machine})"
        )
    return lines


def _shorten_labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:10])
    return shown if len(labels) <= 10 else f"{shown}, … ({len(labels)})"


def _steps(view: Preprocessing, raw: bool) -> str:
    """The preprocessing in the order in which it happens; the last step is in the graph where the input is raw."""
    steps = [] if view.resize is None else [f"shorter side to {view.resize}"]
    steps.append(f"centre crop {view.crop[0]}x{view.crop[1]}")
    if view.pad:
        steps.append(f"{view.pad} black pixels on every side")
    where = " in the graph" if raw else ""
    steps.append(f"mean {', '.join(map(str, view.mean))}, std {', '.join(map(str, view.std))}{where}")
    return "; ".join(steps)
