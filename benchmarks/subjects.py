"""What there is to measure: subjects, each one network in one or several precisions, and for each the pairs of backend
and artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.feeds import classes_of
from benchmarks.job import one_line
from benchmarks.request import BenchmarkRequest, RunListener, select_backends
from exporter import typing
from exporter.data import BUNDLED_NAME, map_classes, open_dataset
from exporter.precision import PRECISIONS
from exporter.variants import VARIANTS, variant
from runtimes import Artifact, Backend, Manifest
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    ModelMismatchError,
    RexportError,
    UsageError,
)
from runtimes.manifest import Weights

if TYPE_CHECKING:
    from exporter import network
    from exporter.network import Network

FP32 = typing.FP32.precision
"""What a variant is typed in if nothing else is asked for, and what the reference computes in."""

TYPED_FORMAT = "onnx"
"""Of the files that can be typed in any precision."""

PROGRAM_FORMAT = "pt2"
"""Of the files that PyTorch itself runs."""

REMADE_FORMATS = frozenset({TYPED_FORMAT, PROGRAM_FORMAT, "engine"})
"""Of the files whose network can be made again in PyTorch."""


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing to measure, and the status of the rows that say so."""

    status: Literal["failed", "skipped", "error"]
    reason: str


@dataclass(frozen=True)
class PrecisionVariant:
    """A network in one precision, ``None`` for a foreign file: the artifact, or why there is none. ``wanted`` is the
    format that it was to have."""

    precision: str | None
    made: Artifact | Refusal
    wanted: str = TYPED_FORMAT

    @property
    def format(self) -> str:
        """Of the artifact, or that it would have had."""
        return self.made.format.name if isinstance(self.made, Artifact) else self.wanted


@dataclass(frozen=True)
class Subject:
    """One network to measure.

    Attributes:
        name: as the user knows it: the variant's or the file's name.
        own: the file that was named, or ``None`` for a variant.
        network: the variant's name, or a foreign file's own name.
        weights: ``None`` for a foreign file.
        typed: in the precisions asked for, in that order.
        reference: the network in PyTorch, which computes in fp32.
        fixed_batch: that the artifacts take alone, or ``None``.
        data: the name of the images for it, or ``None`` for noise.
        programs: PyTorch's own in the precisions asked for, besides the twin: on a GPU alone, where they are what
            PyTorch's users run.
    """

    name: str
    own: Artifact | None
    network: str
    weights: Weights | None
    typed: tuple[PrecisionVariant, ...]
    reference: PrecisionVariant
    fixed_batch: int | None
    data: str | None
    programs: tuple[PrecisionVariant, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A backend, and what it opens: the network in one precision, or its twin; or why it cannot."""

    backend: Backend
    typed: PrecisionVariant
    opens: Artifact | Refusal


def subjects(request: BenchmarkRequest, folder: Path, listener: RunListener) -> tuple[Subject, ...]:
    """What was named: artifacts as they are, variants and other precisions exported into ``folder``.

    A network is prepared once and exported in each precision; one that cannot be made is a ``Refusal``.

    Raises:
        UsageError: an unknown variant; what is for variants where there is none; a runtime that opens none of the
            files; a precision for a foreign file.
        ModelMismatchError: the data do not fit.
        RexportError: an artifact, the weights or the data cannot be read.
    """
    names = tuple(dict.fromkeys(request.subjects))
    files = {name: _file(name) for name in names if name not in VARIANTS}
    if len(files) == len(names):
        _check_options(request)
    for artifact in files.values():
        _check_file(artifact, request)
    titles = _titles(names, files)
    made = []
    for name in names:
        place = _ExportContext(titles[name], Path(tempfile.mkdtemp(prefix="subject-", dir=folder)), request, listener)
        made.append(_make_from_file(files[name], place) if name in files else _make_from_variant(name, place))
    return tuple(made)


def _file(name: str) -> Artifact:
    if not Path(name).exists() and not Path(name).suffix and Path(name).name == name:
        variant(name)  # raises, and lists the variants
    return Artifact.read(name)


def _titles(names: Sequence[str], files: dict[str, Artifact]) -> dict[str, str]:
    """What each is called in tables: a file by its name, or by its path where two files have the same name."""
    plain = {name: files[name].path.name if name in files else name for name in names}
    taken = list(plain.values())
    return {name: title if taken.count(title) == 1 else name for name, title in plain.items()}


def _check_options(request: BenchmarkRequest) -> None:
    for option, value in (("--weights", request.weights), ("--input", request.raw)):
        if value is not None:
            raise UsageError(f"{option} is for variants; all that is to be measured are files", hint="leave it out")


def _check_file(artifact: Artifact, request: BenchmarkRequest) -> None:
    manifest = artifact.manifest
    if manifest is None and request.precisions:
        raise UsageError(
            "nothing says which network this file holds, so it has no other precision",
            path=artifact.path,
            hint="leave --precision out",
        )
    formats = {artifact.format.name} | ({TYPED_FORMAT} if request.precisions else set())
    able = {backend.name for backend in _able(formats, select_backends(request))}
    for name in request.runtimes:
        if name not in able:
            raise UsageError(f"runtime {name} does not open {artifact.format.name} files", path=artifact.path)
    if request.data is None:
        return
    if manifest is None or manifest.preprocessing is None:
        raise ModelMismatchError(
            "nothing says how images are prepared for this file", path=artifact.path, hint="leave --data out"
        )
    try:
        map_classes(open_dataset(request.data, 1).classes, manifest.labels, classes_of(artifact))
    except ModelMismatchError as error:
        raise ModelMismatchError(error.what, path=artifact.path, hint=error.hint) from error


def _able(formats: set[str], among: Sequence[Backend]) -> tuple[Backend, ...]:
    """Those that open one of the formats, or the twin where there can be one; the reference, the first, in any case."""
    reference, *others = among
    if formats & REMADE_FORMATS:
        formats = formats | set(reference.formats)
    return (reference, *(backend for backend in others if formats & set(backend.formats)))


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

        return network.ExportListener(self.step, self.listener.notice)


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
    from exporter.origin import network_of

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
    from exporter import onnx

    target = _target(precision, TYPED_FORMAT, place)
    try:
        listener = place.exporter()
        place.step(f"exporting in {precision}")
        return PrecisionVariant(
            precision,
            onnx.export_network(
                network, onnx.ExportTarget(target, batch), place.request.precision_spec(precision), listener
            ),
        )
    except RexportError as error:
        return PrecisionVariant(precision, _refusal(error))


def _program(
    network: Network, precision: str, batch: int | None, parent: str | None, place: _ExportContext
) -> PrecisionVariant:
    """The network as a program of PyTorch's in that precision."""
    from exporter import torch

    target = _target(precision, PROGRAM_FORMAT, place)
    try:
        place.step(f"making its PyTorch program in {precision}")
        precision_spec = place.request.precision_spec(precision)
        return PrecisionVariant(
            precision, torch.write_program(network, target, batch, parent, place.exporter(), precision_spec)
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
    from exporter import torch

    place.step("making its PyTorch twin")
    target = place.folder / f"{network.variant.name}.pt2"
    try:
        return PrecisionVariant(FP32, torch.write_program(network, target, batch, parent, place.exporter()))
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
    from exporter.origin import reference

    try:
        return PrecisionVariant(FP32, reference(artifact, place.folder))
    except RexportError as error:
        return _no_reference(error)


def _no_reference(reason: object) -> PrecisionVariant:
    return PrecisionVariant(FP32, Refusal("skipped", one_line(f"it has no PyTorch twin: {reason}")))


def pairs(subject: Subject, request: BenchmarkRequest) -> tuple[Pair, ...]:
    """The reference first, then every other backend that opens an artifact of the subject, or its twin, with each
    that it opens; missing backends too."""
    formats = {typed.format for typed in subject.typed}
    found = []
    for number, backend in enumerate(_able(formats, select_backends(request))):
        opened = [typed for typed in subject.typed if typed.format in backend.formats]
        if number == 0:  # the reference opens the twin before all else
            opened = [subject.reference, *(typed for typed in opened if typed != subject.reference)]
        opened = opened or [subject.reference]
        opened += [typed for typed in subject.programs if typed.format in backend.formats]
        found += [Pair(backend, typed, _select_artifact(backend, typed, request.device)) for typed in opened]
    return tuple(found)


def _select_artifact(backend: Backend, typed: PrecisionVariant, device: str) -> Artifact | Refusal:
    missing = backend.missing()
    if missing is not None:
        return Refusal("skipped", missing)
    if device not in backend.devices:
        return Refusal("skipped", f"it runs on {', '.join(backend.devices)}, and {device} was asked for")
    return typed.made
