"""Explanation of an artifact: the steps that were executed, and the error of each layer against fp32.

Either half can be impossible. Its reason then replaces it, and the other half is still returned.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import runtimes
from exporter.data.dataset import Dataset
from exporter.data.opening import open_dataset
from exporter.explain import engine_source
from exporter.explain.engine_deviation import EngineDeviation, measure_deviation
from exporter.explain.profile_summary import Execution, bits, execution
from exporter.export_request import ExportListener
from exporter.precision import layer_errors
from exporter.precision.calibration_images import Examples, read_examples
from exporter.precision.layer_errors import GraphInputs, StageError
from runtimes import Artifact, Runtime, codec
from runtimes.devices import parse_device
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    IntegrityError,
    ModelMismatchError,
    Reason,
    RexportError,
    UsageError,
    quote,
)
from runtimes.onnx import graph as onnxfile
from runtimes.parity import logits_of
from runtimes.protocol import Array

if TYPE_CHECKING:
    import onnx

DEFAULT_IMAGES = 32
"""The default number of images for the comparison with fp32."""

LIMIT_BYTES = 1 << 30
"""The largest size of weights. They can double in float32, and protocol buffers end at 2 GiB."""


@dataclass(frozen=True)
class ExplanationRequest:
    """The request for an explanation.

    Attributes:
        path: The artifact.
        backend: As for ``runtimes.open``.
        device: As for ``runtimes.open``.
        threads: As for ``runtimes.open``.
        against: An fp32 ONNX file of the same network. ``None`` exports one from the origin of the artifact.
        data: The images for the comparison, as for ``exporter.data.opening.open_dataset``. ``None`` means the test
            vectors.
        images: The largest number of images from ``data``.
        find_deviation: Whether engines are built that show where the values of an engine depart from its ONNX graph.
    """

    path: Path
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    against: Path | None = None
    data: str | None = None
    images: int = DEFAULT_IMAGES
    find_deviation: bool = False


@dataclass(frozen=True)
class Errors:
    """The errors of an artifact against fp32.

    Attributes:
        reference: A description of the source of the fp32 values.
        images: A description of the images.
        runtime: The backend that ran both graphs as they are written, with its version.
        stages: The stages, with the largest ``new`` first.
        written: The error of the outputs of the graph as it is written: the root mean square of the differences divided
            by that of the fp32 outputs. ``None`` if an output is not finite.
        ran: The error of the outputs on the explained backend. ``None`` if an output is not finite or the artifact did
            not run.
    """

    reference: str
    images: str
    runtime: str
    stages: tuple[StageError, ...]
    written: float | None
    ran: float | None


@dataclass(frozen=True)
class Explanation:
    """The explanation of an artifact. Each half is present, or has a reason.

    Attributes:
        artifact: The path of the artifact.
        precision: The precision of the manifest, or the narrowest type of the graph's layers.
        execution: The executed steps.
        no_execution: The reason why ``execution`` is missing.
        errors: The errors against fp32.
        no_errors: The reason why ``errors`` is missing.
        deviation: Where the values of the engine depart from its ONNX graph, if the request asks for it.
        no_deviation: The reason why ``deviation`` is missing although the request asks for it.
    """

    artifact: str
    precision: str
    execution: Execution | None
    no_execution: Reason | None
    errors: Errors | None
    no_errors: Reason | None
    deviation: EngineDeviation | None = None
    no_deviation: Reason | None = None


def explain(question: ExplanationRequest, listener: ExportListener) -> Explanation:
    """Run an artifact under its library's profiler, and compare its layers with fp32.

    The call blocks for seconds to minutes.

    Args:
        question: The request.
        listener: Receives the progress.

    Raises:
        CompatibilityError: Both halves are impossible. The message has both reasons.
        IntegrityError: The artifact is damaged.
        RexportError: The request is wrong (an unknown or missing backend, or data or ``against`` that do not fit), or
            memory or disk space is lacking.
    """
    artifact = Artifact.read(question.path)
    artifact.check_digest()
    precision = _precision(artifact)
    dataset = None if question.data is None else open_dataset(question.data, question.images)
    for notice in () if dataset is None else dataset.notices:
        listener.notice(notice)
    listener.step("profiling")
    executed, no_execution = _execution(artifact, precision, question)
    errors, no_errors = _errors(artifact, precision, question, dataset, listener)
    deviation, no_deviation = _deviation(artifact, executed, question, dataset, listener)
    if no_execution is not None and no_errors is not None:
        raise CompatibilityError(
            f"nothing can be explained: no execution profile: {no_execution}; no comparison with fp32: {no_errors}",
            code="nothing-to-explain",
            path=question.path,
        )
    return Explanation(
        str(question.path), precision, executed, no_execution, errors, no_errors, deviation, no_deviation
    )


def as_json(explanation: Explanation) -> str:
    """Return an explanation as a JSON object. Each reason becomes its sentence, with its code as another field."""
    fields = codec.encode(explanation)
    reasons = (
        ("no_execution", explanation.no_execution),
        ("no_errors", explanation.no_errors),
        ("no_deviation", explanation.no_deviation),
    )
    for name, reason in reasons:
        fields |= {name: reason and reason.sentence, f"{name}_code": reason and reason.code}
    return codec.dumps(fields, indent=2)


def _precision(artifact: Artifact) -> str:
    if artifact.manifest is not None:
        return artifact.manifest.precision
    typed = onnxfile.graph(artifact.path).arithmetic if artifact.format.name == "onnx" else ()
    return min(typed, key=bits, default="float32")


def _execution(
    artifact: Artifact, precision: str, question: ExplanationRequest
) -> tuple[Execution | None, Reason | None]:
    """Return the execution, or the reason why there is none."""
    try:
        with _open_runtime(artifact, question) as runtime:
            description = runtime.description
    except _IMPOSSIBLE as error:
        return None, _reason(error)
    except BackendUnavailableError as error:
        if artifact.format.name != "engine" or question.backend is not None:
            raise
        return None, _reason(error)  # an engine without its GPU still has the layers of its ONNX file
    try:
        layers = runtimes.profile(artifact, None, description.backend, description.device, description.threads)
    except (UsageError, *_IMPOSSIBLE) as error:
        return None, _reason(error)
    return execution(layers, precision, description), None


_IMPOSSIBLE = (ArtifactError, CompatibilityError)
"""The errors of a correct request: the artifact cannot run, or the reference is not available."""


def _reason(error: RexportError, also: str = "") -> Reason:
    if isinstance(error, IntegrityError):
        raise error
    return Reason(error.code, error.what + (f" ({error.hint})" if error.hint else "") + also)


def _open_runtime(artifact: Artifact, question: ExplanationRequest) -> Runtime:
    return runtimes.open_artifact(artifact, question.backend, question.device, question.threads)


def _errors(
    artifact: Artifact,
    precision: str,
    question: ExplanationRequest,
    dataset: Dataset | None,
    listener: ExportListener,
) -> tuple[Errors | None, Reason | None]:
    """Return the errors against fp32, or the reason why there are none. A wrong option of the user raises an error.

    The layers of an engine are those of the ONNX file that it was built from.
    """
    try:
        source = engine_source.onnx_of(artifact)
    except _IMPOSSIBLE as error:
        return None, _reason(error)
    if question.against is not None:
        reference = _read_reference(source, question.against)
        return _compare_layers(artifact, source, reference, question, dataset, listener), None
    if bits(precision) >= 32:
        return None, Reason(
            "already-fp32", "the artifact is fp32 itself (--against FILE compares it with another fp32 file)"
        )
    if artifact.manifest is None:
        return None, Reason(
            "reference-unknown",
            "the file has no manifest that says which network it is (--against FILE names its fp32 file)",
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            reference = _export_reference(source, Path(folder), listener)
            return _compare_layers(artifact, source, reference, question, dataset, listener), None
    except (CheckFailedError, *_IMPOSSIBLE) as error:
        return None, _reason(error, "; --against FILE names its fp32 file")


def _deviation(
    artifact: Artifact,
    executed: Execution | None,
    question: ExplanationRequest,
    dataset: Dataset | None,
    listener: ExportListener,
) -> tuple[EngineDeviation | None, Reason | None]:
    """Return where the engine departs from its ONNX graph if the request asks for it, or the reason why not."""
    if not question.find_deviation:
        return None, None
    if executed is None:
        return None, Reason("engine-not-run", "the engine did not run here, so its values are unknown")
    try:
        flavor = engine_source.flavor_of(artifact, executed.description)
        source = engine_source.onnx_of(artifact)
        typed = _graph(source)
        examples = _examples(source, source, dataset)
        batches = [pair.typed for pair in _images(examples, _is_raw(typed), _is_raw(typed), _batch(typed))]
        listener.step("building engines that show the values of blocks")
        batch, device = max(map(len, batches)), parse_device(question.device or executed.description.device)
        with engine_source.engine_opener(source, flavor, batch, device.index) as open_engine:
            return measure_deviation(typed, batches, engine_source.limit_of(_precision(source)), open_engine), None
    except _IMPOSSIBLE as error:
        return None, _reason(error)


def _read_reference(artifact: Artifact, path: Path) -> Artifact:
    reference = Artifact.read(path)
    if reference.format.name != "onnx":
        raise UsageError(
            f"--against takes an ONNX file, but this file has the format {reference.format.name}",
            code="against-not-onnx",
            path=path,
        )
    reference.check_digest()
    precision = _precision(reference)
    if bits(precision) < 32:
        raise UsageError(
            f"--against takes an fp32 file, but this file is {precision}", code="against-not-fp32", path=path
        )
    ours, theirs = artifact.manifest, reference.manifest
    if ours is not None and theirs is not None and ours.weights.sha256 != theirs.weights.sha256:
        raise ModelMismatchError(
            f"the weights differ from those of {quote(artifact.path.name)}",
            code="against-other-weights",
            path=path,
            hint="use --against with the fp32 artifact of the same weights",
        )
    return reference


def _export_reference(artifact: Artifact, folder: Path, listener: ExportListener) -> Artifact:
    """Export the network of an artifact as an fp32 artifact in ``folder``; of a module, find the one beside it."""
    from exporter.precision.spec import FP32
    from exporter.targets import onnx_file, rebuild
    from exporter.targets.publish import ExportTarget

    if artifact.manifest is not None and not artifact.manifest.variant:
        return rebuild.fp32_file_beside(artifact, "onnx")
    network = rebuild.network_of(artifact, listener)
    batch = artifact.manifest.inputs[0].fixed_batch if artifact.manifest else None
    target = ExportTarget(folder / "fp32.onnx", batch=batch)
    return onnx_file.export_network(network, target, FP32, listener)


def _compare_layers(
    artifact: Artifact,
    source: Artifact,
    reference: Artifact,
    question: ExplanationRequest,
    dataset: Dataset | None,
    listener: ExportListener,
) -> Errors:
    listener.step("comparing the layers with fp32")
    examples = _examples(source, reference, dataset)
    typed, exact = _graph(source), _graph(reference)
    batch = _batch(typed, exact)
    images = _images(examples, _is_raw(typed), _is_raw(exact), batch)
    comparison = layer_errors.compare(typed, exact, images, question.threads)
    named = reference.manifest is None or not reference.manifest.variant or question.against is not None
    return Errors(
        reference=reference.path.name if named else "the network in fp32",
        images=examples.description,
        runtime=comparison.runtime,
        stages=comparison.stages,
        written=comparison.error,
        ran=_measure_output_error(artifact, examples, _is_raw(typed), batch, comparison.logits, question),
    )


def _measure_output_error(
    artifact: Artifact, examples: Examples, raw: bool, batch: int, expected: Array, question: ExplanationRequest
) -> float | None:
    """Return the error of the artifact's outputs on the explained backend; of an engine, those of the engine."""
    try:
        with _open_runtime(artifact, question) as runtime:
            logits = logits_of(runtime, examples.feeds(0, len(examples), raw), batch)
    except (BackendUnavailableError, *_IMPOSSIBLE):
        return None  # the reason is reported for the missing execution
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.square(logits - expected, dtype=np.float64).sum()
    return layer_errors.relative(float(difference), float(np.square(expected, dtype=np.float64).sum()))


def _graph(artifact: Artifact) -> onnx.ModelProto:
    import onnx

    try:
        graph = onnx.load(os.fspath(artifact.path))
    except Exception as error:  # errors of protocol buffers, or of external data
        raise ArtifactError(
            f"the onnx library cannot read the file: {quote(error)}", code="onnx-unreadable", path=artifact.path
        ) from error
    size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    if size > LIMIT_BYTES:
        raise CompatibilityError(
            f"the weights have {size:,} bytes; only graphs of at most {LIMIT_BYTES:,} bytes can be compared",
            code="graph-too-large",
            path=artifact.path,
        )
    return graph


def _batch(*graphs: onnx.ModelProto) -> int:
    """Return the number of images in one call of both graphs: the fixed batch size of an input, or 1."""
    sizes = [graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value for graph in graphs]
    fixed = sorted(set(filter(None, sizes)))
    if len(fixed) > 1:
        raise CompatibilityError(
            f"the artifact and its fp32 reference have different fixed batch sizes, {fixed[0]} and {fixed[1]}",
            code="fixed-batches-differ",
            hint="export one of them with --batch dynamic",
        )
    return fixed[0] if fixed else 1


def _is_raw(graph: onnx.ModelProto) -> bool:
    import onnx

    return bool(graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8)


def _examples(artifact: Artifact, reference: Artifact, dataset: Dataset | None) -> Examples:
    """Return the images for the comparison: those of the dataset, or the test vectors of one of the artifacts."""
    candidates = [item for item in (artifact, reference) if item.manifest is not None]
    views = [item.manifest.preprocessing for item in candidates if item.manifest and item.manifest.preprocessing]
    view = views[0] if views else None
    if dataset is not None:
        if view is None:
            raise UsageError(
                "--data needs an artifact whose manifest contains the preprocessing", code="data-needs-preprocessing"
            )
        return read_examples(dataset, view)
    for item in candidates:
        if item.manifest is not None and item.manifest.vectors is not None:
            values = item.vectors().inputs
            description = item.manifest.parity.images if item.manifest.parity else f"{len(values)} test vectors"
            return Examples(description, True, values, view)
    raise CompatibilityError(
        "neither the artifact nor its fp32 reference has test vectors for a comparison",
        code="vectors-missing",
        path=artifact.path,
    )


def _images(examples: Examples, raw: bool, exact_raw: bool, batch: int) -> Iterator[GraphInputs]:
    """Yield the images in batches as each graph takes them. The last batch is filled by repetition."""
    pixels = examples.values.dtype == np.uint8
    if (raw or exact_raw) and not pixels:
        raise CompatibilityError(
            "one of the graphs takes raw pixels, but the test vectors are normalised",
            code="vectors-not-raw",
            hint="--data names images",
        )
    if pixels and examples.preprocessing is None and not (raw and exact_raw):
        raise CompatibilityError(
            "one of the graphs takes normalised images, but no manifest contains the normalisation",
            code="normalisation-unknown",
        )
    for start in range(0, len(examples), batch):
        count = min(batch, len(examples) - start)
        rows = np.arange(batch) % count
        typed, exact = (examples.feeds(start, start + count, kind)[rows] for kind in (raw, exact_raw))
        yield GraphInputs(typed, exact, count)
