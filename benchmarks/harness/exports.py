"""Export the artifacts that a run measures: a variant or a file, in each precision that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.format import one_line
from benchmarks.records.request import BenchmarkRequest, RunListener, select_backends
from exporter.data.dataset import BUNDLED_NAME
from exporter.models.variants import variant
from exporter.precision.table import PRECISIONS
from runtimes import Artifact, Manifest
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    RexportError,
    UsageError,
)

if TYPE_CHECKING:
    from exporter import network
    from exporter.network import Network
from benchmarks.records.subject import (
    FP32,
    PROGRAM_FORMAT,
    REMADE_FORMATS,
    TYPED_FORMAT,
    PrecisionVariant,
    Refusal,
    Subject,
)


@dataclass(frozen=True)
class _ExportContext:
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


def _make_from_variant(name: str, place: _ExportContext) -> Subject:
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


def _make_from_file(artifact: Artifact, place: _ExportContext) -> Subject:
    manifest, precisions = artifact.manifest, place.request.precisions
    typed: tuple[PrecisionVariant, ...]
    programs: tuple[PrecisionVariant, ...] = ()
    if manifest is None or not (set(precisions) - {manifest.precision} or _program_precisions(place.request)):
        typed = (PrecisionVariant(None if manifest is None else manifest.precision, artifact),)
        reference = _reference_of_file(artifact, place)
    else:
        typed, programs, reference = _export_precisions(artifact, manifest, place)
    known = manifest is not None and manifest.dataset == BUNDLED_NAME and manifest.preprocessing is not None
    return Subject(
        name=place.title,
        own=artifact,
        network=artifact.path.name if manifest is None else manifest.name,
        weights=None if manifest is None else manifest.weights,
        typed=typed,
        reference=reference,
        fixed_batch=_find_fixed_batch(manifest),
        data=place.request.data or (BUNDLED_NAME if known else None),
        programs=programs,
    )


def _find_fixed_batch(manifest: Manifest | None) -> int | None:
    first = None if manifest is None else manifest.inputs[0].shape[0]
    return first if isinstance(first, int) else None


def _export_precisions(
    artifact: Artifact, manifest: Manifest, place: _ExportContext
) -> tuple[tuple[PrecisionVariant, ...], tuple[PrecisionVariant, ...], PrecisionVariant]:
    """The artifact in the precisions asked for, in its own as the file itself; PyTorch's programs; and its twin."""
    own = PrecisionVariant(manifest.precision, artifact)
    precisions, others = place.request.precisions, _program_precisions(place.request)
    if artifact.format.name == PROGRAM_FORMAT:
        others = tuple(name for name in others if name != own.precision)
    from exporter.targets.rebuild import network_of

    try:
        place.step("making its network again")
        network = network_of(artifact, place.exporter())
    except RexportError as error:
        refusal = _refusal(error)
        typed = (own if name == own.precision else PrecisionVariant(name, refusal) for name in precisions)
        programs = (PrecisionVariant(name, refusal, PROGRAM_FORMAT) for name in others)
        return tuple(typed), tuple(programs), _reference_of_file(artifact, place)
    if place.request.data is not None:
        network = replace(network, data=place.request.data)
    batch = _find_fixed_batch(manifest)
    typed = (own if name == own.precision else _export_onnx(network, name, batch, place) for name in precisions)
    programs = (_program(network, name, batch, manifest.sha256, place) for name in others)
    return tuple(typed), tuple(programs), _reference_of_network(network, batch, manifest.sha256, place)


def _export_onnx(network: Network, precision: str, batch: int | None, place: _ExportContext) -> PrecisionVariant:
    """The network as an ONNX file in that precision."""
    from exporter.targets import onnx_file

    target = _target(precision, TYPED_FORMAT, place)
    try:
        listener = place.exporter()
        place.step(f"exporting in {precision}")
        return PrecisionVariant(
            precision,
            onnx_file.export_network(
                network, onnx_file.ExportTarget(target, batch), place.request.precision_spec(precision), listener
            ),
        )
    except RexportError as error:
        return PrecisionVariant(precision, _refusal(error))


def _program(
    network: Network, precision: str, batch: int | None, parent: str | None, place: _ExportContext
) -> PrecisionVariant:
    """The network as a program of PyTorch's in that precision."""
    from exporter.targets import torch_program

    target = _target(precision, PROGRAM_FORMAT, place)
    try:
        place.step(f"making its PyTorch program in {precision}")
        precision_spec = place.request.precision_spec(precision)
        return PrecisionVariant(
            precision, torch_program.write_program(network, target, batch, parent, place.exporter(), precision_spec)
        )
    except RexportError as error:
        return PrecisionVariant(precision, _refusal(error), PROGRAM_FORMAT)


def _target(precision: str, format: str, place: _ExportContext) -> Path:
    stem = Path(place.title).name
    for known in REMADE_FORMATS:
        stem = stem.removesuffix(f".{known}")
    return place.folder / f"{stem}{'' if precision == FP32 else f'.{precision}'}.{format}"


def _refusal(error: RexportError) -> Refusal:
    """What cannot be made here was not tried, in the words of a table; what broke is an error."""
    if isinstance(error, CheckFailedError):
        return Refusal("failed", one_line(error))
    if isinstance(error, (CompatibilityError, UsageError, ArtifactError, BackendUnavailableError)):
        return Refusal("skipped", one_line(error))
    return Refusal("error", one_line(error))


def _reference_of_network(
    network: Network, batch: int | None, parent: str | None, place: _ExportContext
) -> PrecisionVariant:
    from exporter.targets import torch_program

    place.step("making its PyTorch twin")
    target = place.folder / f"{network.variant.name}.pt2"
    try:
        return PrecisionVariant(FP32, torch_program.write_program(network, target, batch, parent, place.exporter()))
    except RexportError as error:
        return _no_reference(error)


def _reference_of_file(artifact: Artifact, place: _ExportContext) -> PrecisionVariant:
    format = artifact.format.name
    if format not in REMADE_FORMATS:
        return _no_reference(f"only a file of format {', '.join(sorted(REMADE_FORMATS))} can have one")
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
    return PrecisionVariant(FP32, Refusal("skipped", one_line(f"it has no PyTorch twin: {reason}")))
