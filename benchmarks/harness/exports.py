"""Export the artifacts that a run measures: a variant or a file, in each precision that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.format import one_line
from benchmarks.process.job import REFUSALS, status_of
from benchmarks.records.request import (
    FP32,
    PROGRAM_FORMAT,
    REMADE_FORMATS,
    TYPED_FORMAT,
    BenchmarkRequest,
    PrecisionVariant,
    Refusal,
    RunListener,
    Subject,
    select_backends,
)
from exporter.data.opening import BUNDLED_NAME
from exporter.models import factory
from exporter.models.variants import VARIANTS
from exporter.precision.table import PRECISIONS
from exporter.preprocessing.description import scale_notice
from runtimes import Artifact
from runtimes.backends import registry
from runtimes.errors import ArtifactError, Reason, RexportError, UsageError, quote

if TYPE_CHECKING:
    from exporter.export_request import ExportListener, ExportRequest
    from exporter.models.custom import AnyNetwork
    from exporter.network import Network
    from exporter.weights.sources import LoadedWeights
    from runtimes.images.spec import Preprocessing


@dataclass(frozen=True)
class ExportContext:
    """What a subject is called, where its artifacts are made, and for what; the ``size`` of its input, if chosen."""

    title: str
    folder: Path
    request: BenchmarkRequest
    listener: RunListener
    size: tuple[int, int] | None = None

    def step(self, words: str) -> None:
        self.listener.step(self.title, words)

    def exporter(self) -> ExportListener:
        from exporter.export_request import ExportListener

        return ExportListener(self.step, self.listener.notice)


def export_request(name: str, place: ExportContext) -> ExportRequest:
    """The request for the export of a variant; or of a checkpoint or the user's module, which are read here.

    Raises:
        UsageError: weights are given, and only checkpoints are measured.
        RexportError: as ``exporter.weights.recognition.from_checkpoint`` and ``exporter.weights.modules.from_factory``.
    """
    from exporter.export_request import ExportRequest
    from exporter.weights.checkpoint import stem
    from exporter.weights.entries import Selection, parse_digest
    from exporter.weights.modules import FactoryRequest, from_factory
    from exporter.weights.recognition import VariantOptions, from_checkpoint

    request = place.request
    digest = None if request.expect_sha256 is None else parse_digest(request.expect_sha256)
    selection = Selection(request.key, request.strip_prefix, sha256=digest)
    options = VariantOptions(size=place.size)
    weights: str | LoadedWeights = request.weights or "random"
    file_name: str | None = None
    row: AnyNetwork
    if name in VARIANTS:
        row = options.apply(VARIANTS[name])
    elif factory.is_factory(name):
        place.step("building the module")
        code = FactoryRequest(name, request.weights, selection)
        built = from_factory(code, options, request.seed, place.listener.notice)
        row, weights, file_name = built.network, built.weights, factory.stem(name)
    else:
        if request.weights is not None and not any(subject.lower() in VARIANTS for subject in request.subjects):
            raise UsageError(
                f"--weights is given, and {quote(name)} has its own weights",
                code="weights-given-twice",
                hint="omit one",
            )
        place.step("reading the checkpoint")
        recognised = from_checkpoint(name, options, place.listener.notice, selection)
        row, weights, file_name = recognised.variant, recognised.weights, stem(name)
    return ExportRequest(
        row,
        out=f"{place.folder}/",
        weights=weights,
        seed=request.seed,
        data=request.data,
        raw=bool(request.raw),
        chosen=options.chosen,
        selection=selection,
        name=file_name,
    )


def make_from_network(name: str, place: ExportContext) -> Subject:
    """The variant or checkpoint, exported in the precisions that were asked for, and its PyTorch twin where that is
    measured."""
    from exporter import network

    request = place.request
    prepared = network.prepare(export_request(name, place), place.exporter())
    announce_scaling(place, prepared.preprocessing, prepared.guesses)
    known = prepared.dataset == BUNDLED_NAME and prepared.preprocessing is not None
    exports = _NetworkExports(prepared, None, None, place)
    return Subject(
        name=place.title,
        own=None,
        network=prepared.name,
        weights=prepared.weights,
        typed=tuple(exports.make(precision, TYPED_FORMAT) for precision in request.precisions or (FP32,)),
        reference=exports.reference() if _is_reference_measured(request) else UNMEASURED,
        fixed_batch=None,
        data=request.data or (BUNDLED_NAME if known else None),
        programs=tuple(exports.make(precision, PROGRAM_FORMAT) for precision in _program_precisions(request)),
        size=prepared.size,
    )


def announce_scaling(place: ExportContext, preprocessing: Preprocessing | None, guesses: Sequence[Reason] = ()) -> None:
    """Says what the preprocessing of a network becomes, where the size of its input was chosen, unless the ``guesses``
    of its export said it."""
    if place.size is None or preprocessing is None or any(guess.code == "preprocessing-scaled" for guess in guesses):
        return
    place.listener.notice(scale_notice(place.title, preprocessing))


def _program_precisions(request: BenchmarkRequest) -> tuple[str, ...]:
    """In which PyTorch runs programs of its own, besides its twin."""
    if request.device == "cpu":
        return ()
    return tuple(name for name in request.precisions if name != FP32 and PRECISIONS[name].element is not None)


def make_from_files(artifacts: Sequence[Artifact], place: ExportContext) -> Subject:
    """One network's files, exported in the other precisions that were asked for, and their PyTorch twin where that is
    measured. What is exported comes from the first of them in fp32, or else from the first."""
    artifact = next((one for one in artifacts if one.manifest and one.manifest.precision == FP32), artifacts[0])
    manifest, request = artifact.manifest, place.request
    own = [
        PrecisionVariant(
            None if one.manifest is None else one.manifest.precision,
            one,
            file=one.path.name if len(artifacts) > 1 else None,
        )
        for one in artifacts
    ]
    if request.precisions:
        own = [typed for typed in own if typed.precision in request.precisions]
    there = {typed.precision for typed in own}
    lacking = [name for name in request.precisions if name not in there]
    others = _program_precisions(request)
    if artifact.format.name == PROGRAM_FORMAT:
        others = tuple(name for name in others if name not in there)
    subject = replace(subject_of(artifact, artifact, place, UNMEASURED), typed=tuple(own))
    if manifest is None or not (lacking or others):
        if not _is_reference_measured(request):
            return subject
        return replace(subject, reference=_reference_of_file(artifact, place))
    from exporter.targets.rebuild import module_unknown, network_of

    reference = UNMEASURED
    try:
        place.step("making its network again")
        network = network_of(artifact, place.exporter())
    except RexportError as error:
        made, programs = (
            [
                PrecisionVariant(
                    name, _refusal(error if manifest.variant else module_unknown(artifact, name, format)), format
                )
                for name in names
            ]
            for names, format in ((lacking, TYPED_FORMAT), (others, PROGRAM_FORMAT))
        )
        if _is_reference_measured(request):
            reference = _reference_of_file(artifact, place)
    else:
        if request.data is not None:
            network = replace(network, data=request.data)
        exports = _NetworkExports(network, manifest.inputs[0].fixed_batch, manifest.sha256, place)
        made = [exports.make(name, TYPED_FORMAT) for name in lacking]
        programs = [exports.make(name, PROGRAM_FORMAT) for name in others]
        if _is_reference_measured(request):
            reference = exports.reference()
    asked = request.precisions or tuple(filter(None, there))
    typed = sorted([*own, *made], key=lambda one: asked.index(one.precision or ""))
    return replace(subject, typed=tuple(typed), programs=tuple(programs), reference=reference)


UNMEASURED = PrecisionVariant(
    FP32, Refusal("skipped", Reason("reference-not-measured", "PyTorch is not measured")), PROGRAM_FORMAT
)
"""In place of the PyTorch twin where no backend is measured that opens it."""


def _is_reference_measured(request: BenchmarkRequest) -> bool:
    return any(PROGRAM_FORMAT in backend.formats for backend in select_backends(request))


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
        size=None if manifest is None else manifest.size,
    )


@dataclass(frozen=True)
class _NetworkExports:
    """What is made of a network: ``batch`` as its artifacts take it, ``parent`` the digest of its file."""

    network: Network
    batch: int | None
    parent: str | None
    place: ExportContext

    def make(self, precision: str, format: str) -> PrecisionVariant:
        """An ONNX file in that precision, or a program of PyTorch's."""
        from exporter.targets import onnx_file, torch_program
        from exporter.targets.publish import ExportTarget

        network, place, stem = self.network, self.place, Path(self.place.title).name
        for known in REMADE_FORMATS:
            stem = stem.removesuffix(f".{known}")
        name = f"{stem}{'' if precision == FP32 else f'.{precision}'}.{format}"
        target = ExportTarget(place.folder / name, self.batch)
        words = "exporting" if format == TYPED_FORMAT else "making its PyTorch program"
        place.step(f"{words} in {precision}")
        try:
            spec, listener = place.request.precision_spec(precision), place.exporter()
            if format == TYPED_FORMAT:
                made = onnx_file.export_network(network, target, spec, listener)
            else:
                made = torch_program.write_program(network, target, self.parent, listener, spec)
            return PrecisionVariant(precision, made)
        except RexportError as error:
            return PrecisionVariant(precision, _refusal(error), format)

    def reference(self) -> PrecisionVariant:
        """The network in PyTorch, which computes in fp32."""
        from exporter.targets import torch_program
        from exporter.targets.publish import ExportTarget

        target = ExportTarget(self.place.folder / f"{factory.stem(self.network.name)}.pt2", self.batch)
        listener = self.place.exporter()
        return _make_reference(
            self.place,
            lambda: torch_program.write_program(self.network, target, self.parent, listener),
        )


def _refusal(error: RexportError) -> Refusal:
    """Why something cannot be made here, in the words of a table. A file or an option that does not go was not tried
    either."""
    return Refusal(status_of(error, (*REFUSALS, UsageError, ArtifactError)), Reason(error.code, one_line(error)))


def _reference_of_file(artifact: Artifact, place: ExportContext) -> PrecisionVariant:
    if artifact.format.name not in REMADE_FORMATS:
        formats = ", ".join(sorted(REMADE_FORMATS))
        return _no_reference(Reason("reference-needs-format", f"only a file of format {formats} can have one"))
    missing = registry.reference_backend().missing()
    if missing is not None:
        return _no_reference(missing)
    from exporter.targets.rebuild import reference

    return _make_reference(place, lambda: reference(artifact, place.folder))


def _make_reference(place: ExportContext, export: Callable[[], Artifact]) -> PrecisionVariant:
    place.step("making its PyTorch twin")
    try:
        return PrecisionVariant(FP32, export())
    except RexportError as error:
        return _no_reference(error)


def _no_reference(reason: object) -> PrecisionVariant:
    why = Reason("reference-missing", f"it has no PyTorch twin: {one_line(reason)}")
    return PrecisionVariant(FP32, Refusal("skipped", why))
