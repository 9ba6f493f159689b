"""Descriptions of artifacts from their manifests, and the repetition of the parity check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import runtimes
from exporter.format import count
from exporter.inspect import engine_view
from exporter.precision import gate
from exporter.precision.slowdown import describe_measurement, describe_slowdown
from exporter.precision.table import PRECISIONS
from exporter.preprocessing.description import describe_steps
from exporter.targets.expected_accuracy import describe_accuracy
from runtimes import Artifact, codec, parity
from runtimes.artifacts.embedded import Embedded, read_embedded
from runtimes.artifacts.manifest import Calibration, Manifest, Parity, Weights
from runtimes.artifacts.rebuild_command import recipe_options
from runtimes.errors import ArtifactError, RexportError, quote
from runtimes.escaping import MAX_LINE, printable
from runtimes.onnx import graph as onnxfile


def verify_parity(path: Path, backend: str | None, device: str | None, threads: int | None) -> Parity:
    """Compare an artifact with its test vectors again, and return the record.

    Args:
        path: The artifact.
        backend: As for ``runtimes.open``.
        device: As for ``runtimes.open``.
        threads: As for ``runtimes.open``.

    Raises:
        CheckFailedError: The logits differ by more than the tolerance.
        ArtifactError: The artifact has no manifest, no test vectors or no record of a parity check.
        BackendUnavailableError: The artifact is an engine, and there is no GPU.
        RexportError: As for ``runtimes.open``.
    """
    artifact = Artifact.read(path)
    vectors, reference = artifact.vectors(), parity_reference(artifact)
    with runtimes.open_artifact(artifact, backend, device, threads) as runtime:
        return parity.check(runtime, vectors, reference.tolerance, reference.description, reference.images)


@dataclass(frozen=True)
class ParityReference:
    """The reference of an artifact's parity check.

    Attributes:
        description: The reference, in words.
        images: The images of the test vectors, in words.
        tolerance: The largest relative difference allowed.
    """

    description: str
    images: str
    tolerance: float


def parity_reference(artifact: Artifact) -> ParityReference:
    """Return what an artifact is compared with when its parity check is repeated.

    Raises:
        ArtifactError: The artifact has no manifest, or no record of a parity check.
    """
    manifest = artifact.manifest
    engine = None if manifest is None else manifest.engine
    if manifest is None or manifest.precision not in PRECISIONS or (manifest.parity is None and engine is None):
        raise ArtifactError(
            "the manifest records no parity check",
            code="parity-unrecorded",
            path=artifact.path,
            hint="export the network again",
        )
    tolerance = PRECISIONS[manifest.precision].tolerance
    if manifest.parity is None:
        return ParityReference("PyTorch fp32", f"the test vectors of {artifact.path.name}", tolerance)
    return ParityReference(manifest.parity.reference, manifest.parity.images, tolerance)


def parity_as_json(record: Parity) -> str:
    """Return the record as a JSON object."""
    return codec.dumps(record, indent=2)


def parity_as_text(path: Path, record: Parity) -> str:
    """Return the record of the artifact at ``path`` as one line of text.

    Args:
        path: The artifact.
        record: The record.
    """
    return printable(f"{path}: parity passed: {describe_parity(record)}", MAX_LINE)


def describe_parity(record: Parity) -> str:
    """Return the figures of a parity check as text."""
    top1 = (
        f"; top-1 agreement {100 * record.agreement:.0f} %" if record.agreement is not None else f" in {record.output}"
    )
    measure = "the largest logit" if record.agreement is not None else "its size"
    others = "".join(f"; {other.name} {other.relative_difference:.1e}" for other in record.others)
    return (
        f"{record.runtime} differs from {record.reference} by {record.relative_difference:.1e} of {measure} "
        f"(limit {record.tolerance:.0e}){top1} on {record.images}; "
        f"batch sizes {', '.join(map(str, record.batches))}{others}"
    )


def as_json(path: Path) -> str:
    """Return the manifest as a JSON object, with the layers of an engine if possible.

    For a model without a manifest, return the facts in the model file.

    Args:
        path: The model file.

    Raises:
        RexportError: As for ``Artifact.read``, or the digest does not match.
    """
    artifact = Artifact.read(path)
    artifact.check_digest()
    if artifact.manifest is None:
        return codec.dumps(_describe_model(artifact) | {"embedded": read_embedded(artifact)}, indent=2)
    if artifact.manifest.engine is None:
        return codec.dumps(artifact.manifest, indent=2)
    return codec.dumps(codec.encode(artifact.manifest) | _layers(artifact), indent=2)


def _layers(artifact: Artifact) -> dict[str, object]:
    """Return the layers of an engine, or the reason why they are not available."""
    try:
        return {"layers": codec.encode(engine_view.view(artifact)), "no_layers": None, "no_layers_code": None}
    except RexportError as error:
        return {"layers": None, "no_layers": str(error), "no_layers_code": error.code}


def _describe_model(artifact: Artifact) -> dict[str, object]:
    facts: dict[str, object] = {"format": artifact.format.name, "manifest": None}
    if artifact.format.name == "onnx":
        facts |= codec.encode(onnxfile.read(artifact.path))
    with runtimes.open_artifact(artifact) as runtime:
        facts |= {"inputs": runtime.inputs, "outputs": runtime.outputs}
    return facts


def as_text(path: Path) -> str:
    """Return the description of ``as_json`` as text, with one fact on each line.

    Args:
        path: The model file.

    Raises:
        RexportError: As for ``as_json``.
    """
    artifact = Artifact.read(path)
    artifact.check_digest()
    if artifact.manifest is None:
        lines = {key: _in_words(value) for key, value in _describe_model(artifact).items()}
        lines["manifest"] = "none (model without a manifest)"
        lines |= _format_embedded(read_embedded(artifact), raw="uint8" in lines["inputs"])
    else:
        lines = _format_manifest(artifact.manifest)
    layers = [] if artifact.manifest is None or artifact.manifest.engine is None else _layer_lines(artifact)
    width = max(map(len, lines))
    lines_of_facts = (f"{key:<{width}}  {value}" for key, value in lines.items())
    return "\n".join(printable(line, MAX_LINE) for line in (*lines_of_facts, *layers))


def _in_words(value: object) -> str:
    return "; ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)


def _format_embedded(embedded: Embedded | None, raw: bool) -> dict[str, str]:
    """Return what the file says about itself, which nothing verifies."""
    if embedded is None:
        return {}
    labels, preprocessing = embedded.labels, embedded.preprocessing
    return {
        "name": f"{embedded.name} (in the file itself, unverified)",
        "labels": "none" if labels is None else _shorten_labels(labels),
        "preprocessing": "none" if preprocessing is None else describe_steps(preprocessing, raw),
    }


def _layer_lines(artifact: Artifact) -> list[str]:
    try:
        first, *others = engine_view.layer_lines(engine_view.view(artifact))
    except RexportError as error:
        return [f"layers: only available on a GPU that the engine supports: {error.what}"]
    return [f"layers: {first}", *(f"  {line}" for line in others)]


def _format_manifest(manifest: Manifest) -> dict[str, str]:
    weights, view, row = manifest.weights, manifest.preprocessing, manifest.variant
    raw = manifest.inputs[0].dtype == "uint8"
    origin = weights.source or (f"seed {weights.seed}" if weights.seed is not None else "")
    lines = {
        **(
            {"variant": f"{manifest.name}, shortcut {row.get('shortcut')}, stride {row.get('stride')}"}
            if row
            else {"module": f"{manifest.name}, no variant"}
        ),
        "weights": f"{weights.origin} {origin}".strip() + ("" if weights.trained else ", untrained"),
        **_describe_source(weights),
        "format": manifest.format + (f", opset {manifest.opset}" if manifest.opset else ""),
        "precision": manifest.precision,
        "inputs": "; ".join(map(str, manifest.inputs)),
        "outputs": "; ".join(map(str, manifest.outputs)),
        "labels": "none" if manifest.labels is None else _shorten_labels(manifest.labels),
        "preprocessing": "none" if view is None else describe_steps(view, raw),
        **({} if manifest.activation is None else {"activation": manifest.activation}),
        **({"assumed": f"preprocessing: {', '.join(view.assumed)}"} if view is not None and view.assumed else {}),
        "dataset": manifest.dataset or "none",
        **({} if manifest.engine is None else engine_view.engine_facts(manifest, manifest.engine)),
        "parity": _describe_check(manifest),
        **_optional_facts(manifest),
        "made by": ", ".join(f"{name} {version}" for name, version in manifest.producers.items()),
        "size": f"{manifest.size_bytes:,} bytes",
        "sha256": manifest.sha256,
    }
    if manifest.parent is not None and manifest.engine is None:
        lines["made from"] = manifest.parent
    calibration = () if manifest.calibration is None else manifest.calibration.guesses
    for number, guess in enumerate(dict.fromkeys((*manifest.guesses, *calibration)), 1):
        lines[f"guess {number}"] = f"{quote(guess.sentence)} [{guess.code}]"
    return lines


def _describe_source(weights: Weights) -> dict[str, str]:
    """Return the facts that only weights from a file have."""
    parts = (("key", weights.key), ("prefix", weights.prefix), ("layout", weights.layout))
    read = ", ".join(f"{name} {value}" for name, value in parts if value is not None)
    assumed = ", ".join(weights.assumed)
    checked = {} if weights.file_sha256 is None else {"weights file": f"SHA-256 {weights.file_sha256}, as expected"}
    return ({"read as": read} if read else {}) | ({"assumed": assumed} if assumed else {}) | checked


def _describe_check(manifest: Manifest) -> str:
    if manifest.parity is not None:
        return describe_parity(manifest.parity)
    if manifest.engine is None:
        return "not recorded"
    return "not checked when built; checked each time the engine is opened"


def _optional_facts(manifest: Manifest) -> dict[str, str]:
    """Return the facts that only some artifacts have: of checks, and of tuned options."""
    lines = {}
    if manifest.calibration is not None:
        record = manifest.calibration
        lines["calibration"] = f"{record.quantiser} for {record.target}, on {record.data}"
        lines |= _describe_recipe(record)
    if manifest.gate is not None:
        lines["gate"] = f"passed on {manifest.gate.runtime}: {gate.describe_gate(manifest.gate)}"
    for other in manifest.other_gates:
        lines[f"gate, {other.runtime.partition(' ')[0]}"] = f"passed on {other.runtime}: {gate.describe_gate(other)}"
    if manifest.accuracy is not None:
        lines["accuracy"] = describe_accuracy(manifest.accuracy)
    if manifest.tuning is not None:
        best = manifest.tuning
        streams = "" if best.streams == 1 else f", {best.streams} calls at the same time"
        lines["tuned"] = (
            f"{best.runtime} on {best.device}, {count(best.threads, 'thread')}{streams}: "
            f"{best.p50_s * 1e3:.3g} ms for a batch of {best.batch}, {best.images_per_s:,.0f} images/s ({best.machine})"
        )
    return lines


def _describe_recipe(record: Calibration) -> dict[str, str]:
    """Return the recipe unless it is the default one, the layers that were not quantised, and their cost."""
    options = recipe_options(record)
    lines = {"recipe": f"{record.recipe}; again with {options}"} if options else {}
    if record.float_layers:
        lines["float layers"] = ", ".join(record.float_layers)
    if record.kept_layers:
        lines["not quantised"] = f"{', '.join(record.kept_layers)}: no faster on GPUs"
    if record.slowdown is not None:
        lines["slowdown"] = f"{describe_slowdown(record.slowdown)}, {describe_measurement(record.slowdown)}"
    return lines


def _shorten_labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(map(quote, labels[:10]))
    return shown if len(labels) <= 10 else f"{shown}, … ({len(labels)})"
