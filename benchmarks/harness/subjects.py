"""What there is to measure: subjects, each one network in one or several precisions, and for each the pairs of backend
and artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.harness.exports import ExportContext, make_from_file, make_from_variant, subject_of
from benchmarks.records.request import (
    FP32,
    REMADE_FORMATS,
    TYPED_FORMAT,
    BenchmarkRequest,
    Pair,
    PrecisionVariant,
    Refusal,
    RunListener,
    Subject,
    classes_of,
    select_backends,
)
from exporter.data.dataset import map_classes, open_dataset
from exporter.models.variants import VARIANTS, variant
from runtimes import Artifact, Backend
from runtimes.errors import ModelMismatchError, Reason, UsageError
from runtimes.processors import usable_processors
from runtimes.selection import select_candidates


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
    titles = {name: files[name].path.name if name in files else name for name in names}
    taken, made = list(titles.values()), []
    for name in names:
        # Where two files have the same name, each is called by its path.
        title = titles[name] if taken.count(titles[name]) == 1 else name
        place = ExportContext(title, Path(tempfile.mkdtemp(prefix="subject-", dir=folder)), request, listener)
        made.append(make_from_file(files[name], place) if name in files else make_from_variant(name, place))
    return tuple(made)


def subject_alone(request: BenchmarkRequest, folder: Path, listener: RunListener) -> Subject:
    """What a load is run on: a file as it is, or the variant exported into ``folder`` in fp32. It has no twin, as a
    load is compared with nothing.

    Raises:
        UsageError: several, or an unknown variant; weights for a file; a backend that does not open it.
        RexportError: the artifact cannot be read, or the variant cannot be exported.
    """
    if len(request.subjects) != 1:
        raise UsageError(
            f"a load is run on one artifact or variant, not on {len(request.subjects)}", code="load-needs-one-subject"
        )
    (name,) = request.subjects
    file = None if name in VARIANTS else _file(name)
    if file is not None:
        _check_options(request)
    title = name if file is None else file.path.name
    place = ExportContext(title, Path(tempfile.mkdtemp(prefix="subject-", dir=folder)), request, listener)
    reason = Reason("load-compared-with-nothing", "a load is compared with nothing")
    reference = PrecisionVariant(FP32, Refusal("skipped", reason))
    if file is not None:
        return subject_of(file, file, place, reference)
    from exporter import network
    from exporter.targets import onnx_file

    place.step("exporting")
    wanted = network.ExportRequest(variant(name), f"{place.folder}/", request.weights or "random", request.seed)
    return subject_of(onnx_file.export(wanted, place.exporter()), None, place, reference)


def pairs_alone(subject: Subject, request: BenchmarkRequest) -> tuple[tuple[Pair, int], ...]:
    """The backends that were asked for, or the one that ``runtimes.open`` takes, each with its threads.

    Raises:
        UsageError: one does not open the file; none opens it on the device.
        BackendUnavailableError: the artifact was tuned for what is not here.
    """
    (typed,) = subject.typed
    assert isinstance(typed.made, Artifact)
    if not request.backends:
        candidates = select_candidates(typed.made, None, request.device, request.threads, request.cuda_graphs)
        there = [candidate for candidate in candidates if candidate.row.missing() is None]
        chosen = [((there or candidates)[0].row, (there or candidates)[0].options.threads)]
    else:
        known = {row.name: row for row in select_backends(request)}
        _check_opens(typed.made, request.backends, {row.name for row in known.values() if typed.format in row.formats})
        chosen = [(known[name], request.threads or usable_processors()) for name in dict.fromkeys(request.backends)]
    return tuple((Pair(row, typed, _select_artifact(row, typed, request.device)), threads) for row, threads in chosen)


def _file(name: str) -> Artifact:
    if not Path(name).exists() and not Path(name).suffix and Path(name).name == name:
        variant(name)  # raises, and lists the variants
    return Artifact.read(name)


def _check_options(request: BenchmarkRequest) -> None:
    for option, value in (("--weights", request.weights), ("--input", request.raw)):
        if value is not None:
            raise UsageError(
                f"{option} is for variants; all that is to be measured are files",
                code="option-needs-variant",
                hint="leave it out",
            )


def _check_file(artifact: Artifact, request: BenchmarkRequest) -> None:
    manifest = artifact.manifest
    if manifest is None and request.precisions:
        raise UsageError(
            "nothing says which network this file holds, so it has no other precision",
            code="precision-needs-manifest",
            path=artifact.path,
            hint="leave --precision out",
        )
    formats = {artifact.format.name} | ({TYPED_FORMAT} if request.precisions else set())
    able = {backend.name for backend in _able(formats, select_backends(request))}
    _check_opens(artifact, request.backends, able)
    if request.data is None:
        return
    if manifest is None or manifest.preprocessing is None:
        raise ModelMismatchError(
            "nothing says how images are prepared for this file",
            code="preprocessing-unknown",
            path=artifact.path,
            hint="leave --data out",
        )
    try:
        map_classes(open_dataset(request.data, 1).classes, manifest.labels, classes_of(artifact))
    except ModelMismatchError as error:
        raise ModelMismatchError(error.what, code=error.code, path=artifact.path, hint=error.hint) from error


def _check_opens(artifact: Artifact, names: Sequence[str], able: Collection[str]) -> None:
    """Raises UsageError for the first of the names that is not among the ``able`` backends."""
    for name in names:
        if name not in able:
            raise UsageError(
                f"backend {name} does not open {artifact.format.name} files",
                code="format-not-opened",
                path=artifact.path,
            )


def _able(formats: set[str], among: Sequence[Backend]) -> tuple[Backend, ...]:
    """Those that open one of the formats, or the twin where there can be one; the reference, the first, in any case."""
    reference, *others = among
    if formats & REMADE_FORMATS:
        formats = formats | set(reference.formats)
    return (reference, *(backend for backend in others if formats & set(backend.formats)))


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
        devices = ", ".join(backend.devices)
        reason = Reason("device-not-offered", f"it runs on {devices}, and {device} was asked for")
        return Refusal("skipped", reason)
    return typed.made
