"""Export the artifacts that a run measures: a variant or a file, in each precision that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.format import one_line
from benchmarks.process.job import REFUSALS, status_of
from benchmarks.records.request import BenchmarkRequest, RunListener, select_backends
from benchmarks.records.subject import (
    FP32,
    PROGRAM_FORMAT,
    REMADE_FORMATS,
    TYPED_FORMAT,
    PrecisionVariant,
    Refusal,
    Subject,
)
from exporter.data.dataset import BUNDLED_NAME
from exporter.models.variants import variant
from exporter.precision.table import PRECISIONS
from runtimes import Artifact
from runtimes.errors import ArtifactError, Reason, RexportError, UsageError

if TYPE_CHECKING:
    from exporter import network
    from exporter.network import Network


@dataclass(frozen=True)
class ExportContext:
    """What a subject is called, where its artifacts are made, and for what."""

    title: str
    folder: Path
    request: BenchmarkRequest
    listener: RunListener

    def step(self, words: str) -> None:
        self.listener.step(self.title, words)

    def exporter(self) -> network.ExportListener:
        from exporter import network

        return network.ExportListener(self.step, lambda line: self.listener.notice(str(line)))


def make_from_variant(name: str, place: ExportContext) -> Subject:
    """The variant, exported in the precisions that were asked for, and its PyTorch twin."""
    from exporter import network

    request = place.request
    wanted = network.ExportRequest(
        variant(name),
        out=f"{place.folder}/",
        weights=request.weights or "random",
        seed=request.seed,
        data=request.data,
        raw=bool(request.raw),
    )
    prepared = network.prepare(wanted, place.exporter())
    known = prepared.dataset == BUNDLED_NAME and prepared.preprocessing is not None
    return Subject(
        name=place.title,
        own=None,
        network=name,
        weights=prepared.weights,
        typed=tuple(_export_onnx(prepared, precision, None, place) for precision in request.precisions or (FP32,)),
        reference=_reference_of_network(prepared, None, None, place),
        fixed_batch=None,
        data=request.data or (BUNDLED_NAME if known else None),
        programs=tuple(_program(prepared, precision, None, None, place) for precision in _program_precisions(request)),
    )


def _program_precisions(request: BenchmarkRequest) -> tuple[str, ...]:
    """In which PyTorch runs programs of its own, besides its twin."""
    if request.device == "cpu":
        return ()
    return tuple(name for name in request.precisions if name != FP32 and PRECISIONS[name].element is not None)


def make_from_file(artifact: Artifact, place: ExportContext) -> Subject:
    """The file, exported in the other precisions that were asked for, and its PyTorch twin."""
    manifest, precisions, others = artifact.manifest, place.request.precisions, _program_precisions(place.request)
    if manifest is None or not (set(precisions) - {manifest.precision} or others):
        return subject_of(artifact, artifact, place, _reference_of_file(artifact, place))
    own = PrecisionVariant(manifest.precision, artifact)
    if artifact.format.name == PROGRAM_FORMAT:
        others = tuple(name for name in others if name != own.precision)
    from exporter.targets.rebuild import network_of

    try:
        place.step("making its network again")
        network = network_of(artifact, place.exporter())
    except RexportError as error:
        refusal = _refusal(error)
        typed = [own if name == own.precision else PrecisionVariant(name, refusal) for name in precisions]
        programs = [PrecisionVariant(name, refusal, PROGRAM_FORMAT) for name in others]
        reference = _reference_of_file(artifact, place)
    else:
        if place.request.data is not None:
            network = replace(network, data=place.request.data)
        batch, parent = manifest.inputs[0].fixed_batch, manifest.sha256
        typed = [own if name == own.precision else _export_onnx(network, name, batch, place) for name in precisions]
        programs = [_program(network, name, batch, parent, place) for name in others]
        reference = _reference_of_network(network, batch, parent, place)
    subject = subject_of(artifact, artifact, place, reference)
    return replace(subject, typed=tuple(typed), programs=tuple(programs))


def make_alone(name: str, artifact: Artifact | None, place: ExportContext) -> Subject:
    """What a load is run on: the file as it is, or the variant exported in fp32. It has no twin, as a load is compared
    with nothing.

    Raises:
        RexportError: the variant cannot be exported.
    """
    reason = Reason("load-compared-with-nothing", "a load is compared with nothing")
    reference = PrecisionVariant(FP32, Refusal("skipped", reason))
    if artifact is not None:
        return subject_of(artifact, artifact, place, reference)
    from exporter import network
    from exporter.targets import onnx_file

    place.step("exporting")
    request = place.request
    wanted = network.ExportRequest(variant(name), f"{place.folder}/", request.weights or "random", request.seed)
    return subject_of(onnx_file.export(wanted, place.exporter()), None, place, reference)


def subject_of(artifact: Artifact, own: Artifact | None, place: ExportContext, reference: PrecisionVariant) -> Subject:
    """The network of one artifact, in its own precision; ``own`` if it was named by its file."""
    manifest = artifact.manifest
    known = manifest is not None and manifest.dataset == BUNDLED_NAME and manifest.preprocessing is not None
    return Subject(
        name=place.title,
        own=own,
        network=artifact.path.name if manifest is None else manifest.name,
        weights=None if manifest is None else manifest.weights,
        typed=(PrecisionVariant(None if manifest is None else manifest.precision, artifact),),
        reference=reference,
        fixed_batch=None if manifest is None else manifest.inputs[0].fixed_batch,
        data=place.request.data or (BUNDLED_NAME if known else None),
    )


def _attempt(
    precision: str, format: str, place: ExportContext, words: str, export: Callable[[], Artifact]
) -> PrecisionVariant:
    """What ``export`` makes, or the reason that it raises."""
    place.step(words)
    try:
        return PrecisionVariant(precision, export())
    except RexportError as error:
        return PrecisionVariant(precision, _refusal(error), format)


def _export_onnx(network: Network, precision: str, batch: int | None, place: ExportContext) -> PrecisionVariant:
    """The network as an ONNX file in that precision."""
    from exporter.targets import onnx_file

    def export() -> Artifact:
        target = onnx_file.ExportTarget(_target(precision, TYPED_FORMAT, place), batch)
        return onnx_file.export_network(network, target, place.request.precision_spec(precision), place.exporter())

    return _attempt(precision, TYPED_FORMAT, place, f"exporting in {precision}", export)


def _program(
    network: Network, precision: str, batch: int | None, parent: str | None, place: ExportContext
) -> PrecisionVariant:
    """The network as a program of PyTorch's in that precision."""
    from exporter.targets import torch_program

    def export() -> Artifact:
        target, precision_spec = _target(precision, PROGRAM_FORMAT, place), place.request.precision_spec(precision)
        return torch_program.write_program(network, target, batch, parent, place.exporter(), precision_spec)

    return _attempt(precision, PROGRAM_FORMAT, place, f"making its PyTorch program in {precision}", export)


def _target(precision: str, format: str, place: ExportContext) -> Path:
    stem = Path(place.title).name
    for known in REMADE_FORMATS:
        stem = stem.removesuffix(f".{known}")
    return place.folder / f"{stem}{'' if precision == FP32 else f'.{precision}'}.{format}"


def _refusal(error: RexportError) -> Refusal:
    """Why something cannot be made here, in the words of a table. A file or an option that does not go was not tried
    either."""
    return Refusal(status_of(error, (*REFUSALS, UsageError, ArtifactError)), Reason(error.code, one_line(error)))


def _reference_of_network(
    network: Network, batch: int | None, parent: str | None, place: ExportContext
) -> PrecisionVariant:
    from exporter.targets import torch_program

    place.step("making its PyTorch twin")
    target = place.folder / f"{network.variant.name}.pt2"
    try:
        return PrecisionVariant(FP32, torch_program.write_program(network, target, batch, parent, place.exporter()))
    except RexportError as error:
        return _no_reference(error)


def _reference_of_file(artifact: Artifact, place: ExportContext) -> PrecisionVariant:
    format = artifact.format.name
    if format not in REMADE_FORMATS:
        formats = ", ".join(sorted(REMADE_FORMATS))
        return _no_reference(Reason("reference-needs-format", f"only a file of format {formats} can have one"))
    missing = select_backends(place.request)[0].missing()
    if missing is not None:
        return _no_reference(missing)
    place.step("making its PyTorch twin")
    from exporter.targets.rebuild import reference

    try:
        return PrecisionVariant(FP32, reference(artifact, place.folder))
    except RexportError as error:
        return _no_reference(error)


def _no_reference(reason: object) -> PrecisionVariant:
    why = Reason("reference-missing", f"it has no PyTorch twin: {one_line(reason)}")
    return PrecisionVariant(FP32, Refusal("skipped", why))
