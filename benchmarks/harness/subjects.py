"""What there is to measure: subjects, each one network in one or several precisions, and for each the pairs of backend
and artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.exports import (
    ExportContext,
    announce_scaling,
    export_request,
    make_from_files,
    make_from_network,
    subject_of,
)
from benchmarks.records.request import (
    FP32,
    PROGRAM_FORMAT,
    REMADE_FORMATS,
    TYPED_FORMAT,
    BenchmarkRequest,
    Pair,
    PrecisionVariant,
    Refusal,
    RunListener,
    Subject,
    classes_of,
    is_classifier,
    select_backends,
)
from benchmarks.records.result import Baseline
from exporter.data.class_matching import are_foreign, map_classes, position_example
from exporter.data.dataset import Dataset
from exporter.data.opening import open_dataset
from exporter.models.factory import is_factory
from exporter.models.variants import VARIANTS, variant
from exporter.weights.checkpoint import is_weights_file
from exporter.weights.sources import ORIGINS
from runtimes import Artifact, Backend
from runtimes.artifacts.artifact import manifest_path
from runtimes.backends.registry import available_backends
from runtimes.errors import ModelMismatchError, Reason, ResourceError, UsageError, quote
from runtimes.escaping import shell_word
from runtimes.processors import usable_processors
from runtimes.selection import select_candidates


def subjects(request: BenchmarkRequest, folder: Path, listener: RunListener) -> tuple[Subject, ...]:
    """What was named: artifacts as they are; variants, checkpoints and other precisions exported into ``folder``.

    A network is prepared once for each size and exported in each precision; one that cannot be made is a ``Refusal``.
    Several files of one network, with the same weights and inputs, are one subject.

    Raises:
        UsageError: an unknown variant; a backend that does not open one of the files; a precision for a foreign file; a
            size for a model file; the digest of a checkpoint where there is none.
        ModelMismatchError: the data do not fit.
        RexportError: an artifact, the weights or the data cannot be read.
    """
    names = tuple(dict.fromkeys(map(variant_or_path, request.subjects)))
    _check_expected_digest(names, request)
    artifacts = {name: _read_artifact(name) for name in names if not _is_exported(name)}
    dataset = None if request.data is None or not artifacts else open_dataset(request.data, 1)
    for artifact in artifacts.values():
        _check_file(artifact, request, dataset, listener)
    if dataset is not None and len(artifacts) == len(names):  # an export prints these notices itself
        for notice in dataset.notices:
            listener.notice(notice)
    networks: dict[object, list[str]] = {}
    for name in names:
        networks.setdefault(_network_key(artifacts[name]) if name in artifacts else name, []).append(name)
    titles = [_title(named, artifacts) for named in networks.values()]
    made = []
    for title, named in zip(titles, networks.values(), strict=True):
        # Where two networks have the same name, each is called by the path of its first file.
        name = title if titles.count(title) == 1 else named[0]
        for size in dict.fromkeys(request.sizes) or (None,):
            place = _place(name, size, request, folder, listener)
            if named[0] in artifacts:
                subject = make_from_files([artifacts[each] for each in named], place)
            else:
                subject = make_from_network(named[0], place)
            made.append(replace(subject, baseline=_select_baseline(pairs(subject, request), request)))
    return tuple(made)


def _place(
    name: str, size: tuple[int, int] | None, request: BenchmarkRequest, folder: Path, listener: RunListener
) -> ExportContext:
    """The context of a network, whose name ends in its size where the user chose that, as ``resnet20@24``."""
    if size is not None:
        name = f"{name}@{size[0]}" if size[0] == size[1] else f"{name}@{size[0]}x{size[1]}"
    return ExportContext(name, Path(tempfile.mkdtemp(prefix="subject-", dir=folder)), request, listener, size)


def variant_or_path(name: str) -> str:
    """The variant's name, a reference to the user's code, or a path.

    Raises:
        UsageError: it is neither, by its looks; the message lists the variants.
    """
    if Path(name).exists() or is_factory(name):
        return name
    if name.lower() in VARIANTS or (not Path(name).suffix and Path(name).name == name):
        return variant(name).name
    return name


def _is_exported(name: str) -> bool:
    """Whether it is exported first, and no artifact."""
    return name in VARIANTS or is_factory(name) or is_weights_file(name)


def _read_artifact(name: str) -> Artifact:
    """As ``Artifact.read``; where there is no such file, the error says how one is made.

    Raises:
        IntegrityError: the file is damaged. Nothing is measured then, as for any file that cannot be read.
        RexportError: as for ``Artifact.read``.
    """
    if not Path(name).exists():
        raise ResourceError(
            "no such file", code="model-missing", path=name, hint=f"rexport onnx VARIANT -o {shell_word(name)}"
        )
    artifact = Artifact.read(name)
    artifact.check_digest()
    return artifact


def _network_key(artifact: Artifact) -> object:
    """What files of one network have in common; of a file without a manifest, its path."""
    manifest = artifact.manifest
    if manifest is None:
        return artifact.path
    return manifest.name, manifest.weights.sha256, manifest.inputs, manifest.preprocessing


def _title(named: Sequence[str], artifacts: Mapping[str, Artifact]) -> str:
    """The name of a variant or of a file, or of the network of several files."""
    if named[0] not in artifacts:
        return named[0] if named[0] in VARIANTS else Path(named[0]).name
    first = artifacts[named[0]]
    return first.path.name if len(named) == 1 or first.manifest is None else first.manifest.name


def _select_baseline(found: Sequence[Pair], request: BenchmarkRequest) -> Baseline:
    """What the others are compared with: of the backend that was named for it, else of PyTorch, else of the first one,
    the pair in fp32 that there is something to open for, or else its first."""

    def preference(pair: Pair) -> tuple[bool, bool]:
        return isinstance(pair.opens, Refusal), pair.typed.precision != FP32

    wanted = [pair for pair in found if pair.backend.name == request.baseline]
    best = min(wanted, key=preference, default=None)
    if best is None:
        able = [pair for pair in found if not isinstance(pair.opens, Refusal)] or found
        first = next((pair for pair in able if pair.backend.reference), able[0]).backend.name
        best = min((pair for pair in able if pair.backend.name == first), key=preference)
    return Baseline(best.backend.name, best.typed.precision, best.typed.file)


def subject_alone(request: BenchmarkRequest, folder: Path, listener: RunListener) -> Subject:
    """What a load is run on: a file as it is, or the variant or checkpoint exported into ``folder`` in fp32. It has no
    twin, as a load is compared with nothing.

    Raises:
        UsageError: several, or an unknown variant; a backend that does not open it; the digest of a checkpoint where
            there is none.
        RexportError: the artifact cannot be read, or the variant cannot be exported.
    """
    number = len(request.subjects) * max(1, len(request.sizes))
    if number != 1:
        raise UsageError(f"a load is run on one artifact or variant, not on {number}", code="load-needs-one-subject")
    name = variant_or_path(request.subjects[0])
    _check_expected_digest((name,), request)
    file = None if _is_exported(name) else _read_artifact(name)
    title = name if name in VARIANTS else Path(name).name
    place = _place(title, next(iter(request.sizes), None), request, folder, listener)
    reason = Reason("load-compared-with-nothing", "a load is compared with nothing")
    reference = PrecisionVariant(FP32, Refusal("skipped", reason))
    if file is not None:
        _check_size(file, request)
        return subject_of(file, file, place, reference)
    from exporter.targets import onnx_file

    wanted = export_request(name, place)
    place.step("exporting")
    made = onnx_file.export(wanted, place.exporter())
    if made.manifest is not None:
        announce_scaling(place, made.manifest.preprocessing, made.manifest.guesses)
    return subject_of(made, None, place, reference)


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
    return tuple(
        (Pair(subject, row, typed, _select_artifact(row, typed, request.device_kind)), threads)
        for row, threads in chosen
    )


def _check_size(artifact: Artifact, request: BenchmarkRequest) -> None:
    if request.sizes:
        raise UsageError(
            "a model file has one input size, and --size is given",
            code="size-of-file-fixed",
            path=artifact.path,
            hint="pass the variant or the checkpoint, or a file of each size",
        )


def _check_expected_digest(names: Sequence[str], request: BenchmarkRequest) -> None:
    """Raise ``UsageError`` if a digest is expected, but no file with weights is read."""
    of_variants = request.weights not in (None, *ORIGINS) and any(map(_is_exported, names))
    if request.expect_sha256 is None or of_variants or any(map(is_weights_file, names)):
        return
    raise UsageError(
        f"--expect-sha256 is for a file with weights, not for {quote(', '.join(names))}",
        code="expected-digest-without-file",
        hint="name the file, or omit --expect-sha256",
    )


def _check_file(artifact: Artifact, request: BenchmarkRequest, dataset: Dataset | None, listener: RunListener) -> None:
    _check_size(artifact, request)
    manifest = artifact.manifest
    if manifest is None and request.precisions:
        raise UsageError(
            "nothing says which network this file holds, so it has no other precision",
            code="precision-needs-manifest",
            path=artifact.path,
            hint=f"copy {quote(manifest_path(artifact.path).name)} beside it, or leave --precision out",
        )
    formats = {artifact.format.name} | ({TYPED_FORMAT} if request.precisions else set())
    able = {backend.name for backend in _able(formats, select_backends(request))}
    _check_opens(artifact, (*request.backends, *filter(None, [request.baseline])), able)
    if dataset is None or not is_classifier(artifact):
        return
    if manifest is None or manifest.preprocessing is None:
        raise ModelMismatchError(
            "the artifact does not record its preprocessing, so images cannot be prepared",
            code="preprocessing-unknown",
            path=artifact.path,
            hint=f"copy {quote(manifest_path(artifact.path).name)} beside it, or leave --data out",
        )
    try:
        map_classes(dataset.classes, manifest.labels, classes_of(artifact))
    except ModelMismatchError as error:
        raise ModelMismatchError(error.what, code=error.code, path=artifact.path, hint=error.hint) from error
    if are_foreign(dataset.classes, manifest.labels or ()):
        reason = Reason(
            "artifact-classes-by-position",
            f"{quote(artifact.path.name)}: not every class of {dataset.name} has the name of a label, so classes are "
            f"matched by position: {position_example(dataset.classes, manifest.labels or ())}",
        )
        listener.notice(reason)


def _check_opens(artifact: Artifact, names: Sequence[str], able: Collection[str]) -> None:
    """Raises UsageError for the first of the names that is not among the ``able`` backends."""
    opening = [row.name for row in available_backends() if artifact.format.name in row.formats]
    for name in names:
        if name not in able:
            raise UsageError(
                f"backend {name} does not open {artifact.format.name} files",
                code="format-not-opened",
                path=artifact.path,
                hint=f"{', '.join(opening) or 'no backend'} can",
            )


def _able(formats: set[str], among: Sequence[Backend]) -> tuple[Backend, ...]:
    """Those that open one of the formats, or the twin where there can be one; the reference in any case."""
    if formats & REMADE_FORMATS:
        formats = formats | {PROGRAM_FORMAT}
    return tuple(backend for backend in among if backend.reference or formats & set(backend.formats))


def pairs(subject: Subject, request: BenchmarkRequest) -> tuple[Pair, ...]:
    """Every backend that opens an artifact of the subject, or its twin, with each that it opens, the reference first;
    missing backends too."""
    formats = {typed.format for typed in subject.typed}
    found = []
    for backend in _able(formats, select_backends(request)):
        opened = [typed for typed in subject.typed if typed.format in backend.formats]
        if backend.reference:  # it opens the twin before all else
            opened = [subject.reference, *(typed for typed in opened if typed.made != subject.reference.made)]
        opened = opened or [subject.reference]
        opened += [typed for typed in subject.programs if typed.format in backend.formats]
        found += [
            Pair(subject, backend, typed, _select_artifact(backend, typed, request.device_kind)) for typed in opened
        ]
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
