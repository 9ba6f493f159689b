"""Why an artifact is not faster, and where it goes wrong: what ran, and every layer's error against fp32.

Either half may be impossible. It then has a reason in its place, and the other half is given all the same.
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
from exporter.data.dataset import open_dataset
from exporter.explain import layer_errors
from exporter.explain.layer_errors import GraphInputs, StageError
from exporter.explain.profile_summary import Execution, bits, execution
from exporter.network import ExportListener
from exporter.precision.calibration_images import Examples, read_examples
from runtimes import Artifact, Runtime, codec
from runtimes.errors import (
    ArtifactError,
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

LIMIT_BYTES = 1 << 30
"""Of weights, which may become twice as many in float32: protocol buffers end at 2 GiB."""


@dataclass(frozen=True)
class ExplanationRequest:
    """What to explain, and how.

    Attributes:
        path: the artifact.
        backend, device, threads: as ``runtimes.open`` takes them.
        against: an fp32 ONNX file of the same network; ``None`` makes one from where the artifact came from.
        data: images to compare on, as ``exporter.data.dataset.open_dataset`` takes them; ``None`` takes the test
        vectors.
        images: how many of ``data`` at most.
    """

    path: Path
    backend: str | None = None
    device: str | None = None
    threads: int | None = None
    against: Path | None = None
    data: str | None = None
    images: int = DEFAULT_IMAGES


@dataclass(frozen=True)
class Errors:
    """How far an artifact is from fp32.

    Attributes:
        reference: what gave fp32's values, in words.
        images: what they were given for, in words.
        runtime: that ran both graphs as they are written.
        stages: the largest ``new`` first.
        written: of the answers as the graph is written: root mean square of the differences over that of fp32's
            answers; ``None`` where one is not finite.
        ran: of the answers that the artifact gave on the runtime that is explained, likewise; ``None`` also where it
            did not run.
    """

    reference: str
    images: str
    runtime: str
    stages: tuple[StageError, ...]
    written: float | None
    ran: float | None


@dataclass(frozen=True)
class Explanation:
    """The answer: each half, or the reason why there is none.

    ``precision`` is the graph's: of its manifest, or as its own layers are typed.
    """

    artifact: str
    precision: str
    execution: Execution | None
    no_execution: Reason | None
    errors: Errors | None
    no_errors: Reason | None


def explain(question: ExplanationRequest, listener: ExportListener) -> Explanation:
    """Runs the artifact under its library's profiler, and its layers beside fp32's; blocks for seconds to minutes.

    Raises:
        CompatibilityError: neither half can be told; both reasons are named.
        IntegrityError: the artifact was damaged.
        RexportError: the question itself is wrong: an unknown or missing runtime, data or ``against`` that does not
            fit; memory or disk are lacking.
    """
    artifact = Artifact.read(question.path)
    artifact.check_digest()
    precision = _precision(artifact)
    listener.step("profiling")
    ran, no_execution = _execution(artifact, precision, question)
    errors, no_errors = _errors(artifact, precision, question, listener)
    if no_execution is not None and no_errors is not None:
        raise CompatibilityError(
            f"there is nothing to explain: what ran is not known: {no_execution}; and its errors are not: {no_errors}",
            code="nothing-to-explain",
            path=question.path,
        )
    return Explanation(str(question.path), precision, ran, no_execution, errors, no_errors)


def as_json(explanation: Explanation) -> str:
    """The explanation as a JSON object; a reason is its sentence, and its code stands beside it."""
    fields = codec.encode(explanation)
    for name, reason in (("no_execution", explanation.no_execution), ("no_errors", explanation.no_errors)):
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
    """What ran, or why that cannot be told."""
    try:
        with _open_runtime(artifact, question) as runtime:
            about = runtime.description
    except _IMPOSSIBLE as error:
        return None, _reason(error)
    try:
        layers = runtimes.profile(artifact, None, about.backend, about.device, about.threads)
    except (UsageError, *_IMPOSSIBLE) as error:
        return None, _reason(error)
    return execution(layers, precision, about), None


_IMPOSSIBLE = (ArtifactError, CompatibilityError)
"""What a sound question can meet: the file does not run, or what is compared with is not at hand."""


def _reason(error: RexportError, also: str = "") -> Reason:
    if isinstance(error, IntegrityError):
        raise error
    return Reason(error.code, error.what + (f" ({error.hint})" if error.hint else "") + also)


def _open_runtime(artifact: Artifact, question: ExplanationRequest) -> Runtime:
    return runtimes.open_artifact(artifact, question.backend, question.device, question.threads)


def _errors(
    artifact: Artifact, precision: str, question: ExplanationRequest, listener: ExportListener
) -> tuple[Errors | None, Reason | None]:
    """The errors, or why they cannot be told. What the user named must be right."""
    if artifact.format.name != "onnx":
        return None, Reason("layers-hidden", f"the layers of a .{artifact.format.name} file cannot be looked into")
    if question.against is not None:
        return _compare_layers(artifact, _read_reference(artifact, question.against), question, listener), None
    if bits(precision) >= 32:
        return None, Reason("already-fp32", "it is fp32 itself (--against compares it with another fp32 file)")
    if artifact.manifest is None:
        return None, Reason(
            "reference-unknown", "a foreign file does not say which network it is (--against names its fp32 file)"
        )
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _compare_layers(
                artifact, _export_reference(artifact, Path(folder), listener), question, listener
            ), None
    except (CheckFailedError, *_IMPOSSIBLE) as error:
        return None, _reason(error, "; --against names its fp32 file")


def _read_reference(artifact: Artifact, path: Path) -> Artifact:
    reference = Artifact.read(path)
    if reference.format.name != "onnx":
        raise UsageError(
            f"--against takes an ONNX file, not a .{reference.format.name}", code="against-not-onnx", path=path
        )
    reference.check_digest()
    precision = _precision(reference)
    if bits(precision) < 32:
        raise UsageError(f"--against takes an fp32 file, and this is {precision}", code="against-not-fp32", path=path)
    ours, theirs = artifact.manifest, reference.manifest
    if ours is not None and theirs is not None and ours.weights.sha256 != theirs.weights.sha256:
        raise ModelMismatchError(
            f"its weights are others than those of {quote(artifact.path.name)}",
            code="against-other-weights",
            path=path,
            hint="--against takes the fp32 artifact of the same weights",
        )
    return reference


def _export_reference(artifact: Artifact, folder: Path, listener: ExportListener) -> Artifact:
    """The same network as an fp32 artifact in ``folder``."""
    from exporter.precision.spec import FP32
    from exporter.targets import onnx_file, rebuild

    network = rebuild.network_of(artifact, listener)
    first = artifact.manifest.inputs[0].shape[0] if artifact.manifest else None
    place = onnx_file.ExportTarget(folder / "fp32.onnx", batch=first if isinstance(first, int) else None)
    return onnx_file.export_network(network, place, FP32, listener)


def _compare_layers(
    artifact: Artifact, reference: Artifact, question: ExplanationRequest, listener: ExportListener
) -> Errors:
    listener.step("comparing the layers with fp32's")
    examples = _examples(artifact, reference, question)
    typed, exact = _graph(artifact), _graph(reference)
    batch = _batch(typed, exact)
    images = _images(examples, _is_raw(typed), _is_raw(exact), batch)
    found = layer_errors.compare(typed, exact, images, question.threads)
    ours = reference.manifest is None or question.against is not None
    return Errors(
        reference=reference.path.name if ours else "its network in fp32",
        images=examples.description,
        runtime=found.runtime,
        stages=found.stages,
        written=found.error,
        ran=_measure_output_error(artifact, examples, _is_raw(typed), batch, found.logits, question),
    )


def _measure_output_error(
    artifact: Artifact, examples: Examples, raw: bool, batch: int, expected: Array, question: ExplanationRequest
) -> float | None:
    """The error of the artifact's own answers, through the runtime that is explained."""
    try:
        with _open_runtime(artifact, question) as runtime:
            logits = logits_of(runtime, examples.feeds(0, len(examples), raw), batch)
    except _IMPOSSIBLE:
        return None  # the reason is told where what ran should be
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.square(logits - expected, dtype=np.float64).sum()
    return layer_errors.relative(float(difference), float(np.square(expected, dtype=np.float64).sum()))


def _graph(artifact: Artifact) -> onnx.ModelProto:
    import onnx

    try:
        graph = onnx.load(os.fspath(artifact.path))
    except Exception as error:  # protocol buffers' own kind, and what external data can do
        raise ArtifactError(
            f"onnx cannot read it: {quote(error)}", code="onnx-unreadable", path=artifact.path
        ) from error
    size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    if size > LIMIT_BYTES:
        raise CompatibilityError(
            f"its weights have {size:,} bytes, and a graph is looked into up to {LIMIT_BYTES:,}",
            code="graph-too-large",
            path=artifact.path,
        )
    return graph


def _batch(*graphs: onnx.ModelProto) -> int:
    """The images that go into both graphs at once: what a fixed input takes, else one."""
    first = [graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value for graph in graphs]
    fixed = sorted(set(filter(None, first)))
    if len(fixed) > 1:
        raise CompatibilityError(
            f"the artifact and its fp32 reference take batches of {fixed[0]} and {fixed[1]} alone",
            code="fixed-batches-differ",
            hint="export one of them with --batch dynamic",
        )
    return fixed[0] if fixed else 1


def _is_raw(graph: onnx.ModelProto) -> bool:
    import onnx

    return bool(graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8)


def _examples(artifact: Artifact, reference: Artifact, question: ExplanationRequest) -> Examples:
    """What to compare on: the data asked for, else the artifact's test vectors, else the reference's."""
    known = [item for item in (artifact, reference) if item.manifest is not None]
    views = [item.manifest.preprocessing for item in known if item.manifest and item.manifest.preprocessing]
    view = views[0] if views else None
    if question.data is not None:
        if view is None:
            raise UsageError(
                "--data needs an artifact whose manifest says how images are prepared", code="data-needs-preprocessing"
            )
        return read_examples(open_dataset(question.data, question.images), view)
    for item in known:
        if item.manifest is not None and item.manifest.vectors is not None:
            values = item.vectors().inputs
            words = item.manifest.parity.images if item.manifest.parity else f"{len(values)} test vectors"
            return Examples(words, True, values, view)
    raise CompatibilityError("neither file has test vectors to compare on", code="vectors-missing", path=artifact.path)


def _images(examples: Examples, raw: bool, exact_raw: bool, batch: int) -> Iterator[GraphInputs]:
    """The images, ``batch`` at a time as each graph takes them; the last batch is filled by repeating."""
    pixels = examples.values.dtype == np.uint8
    if (raw or exact_raw) and not pixels:
        raise CompatibilityError(
            "one of the graphs takes raw pixels, and the test vectors are normalised",
            code="vectors-not-raw",
            hint="--data names images",
        )
    if pixels and examples.preprocessing is None and not (raw and exact_raw):
        raise CompatibilityError(
            "one of the graphs takes normalised images, and nothing says how to normalise them",
            code="normalisation-unknown",
        )
    for start in range(0, len(examples), batch):
        count = min(batch, len(examples) - start)
        rows = np.arange(batch) % count
        typed, exact = (examples.feeds(start, start + count, kind)[rows] for kind in (raw, exact_raw))
        yield GraphInputs(typed, exact, count)
