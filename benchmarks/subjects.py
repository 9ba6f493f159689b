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
from benchmarks.request import Listener, Request, selected
from exporter import typing
from exporter.data import BUNDLED_NAME, map_classes, open_dataset
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
"""Of the files that can be typed in a precision, and whose network can be made again in PyTorch."""


@dataclass(frozen=True)
class Refusal:
    """Why there is nothing to measure, and the status of the rows that say so."""

    status: Literal["failed", "skipped", "error"]
    reason: str


@dataclass(frozen=True)
class Typed:
    """A network in one precision, ``None`` for a foreign file: the artifact, or why there is none."""

    precision: str | None
    made: Artifact | Refusal

    @property
    def format(self) -> str:
        """Of the artifact, or that it would have had."""
        return self.made.format.name if isinstance(self.made, Artifact) else TYPED_FORMAT


@dataclass(frozen=True)
class Subject:
    """One network to measure.

    Attributes:
        name: as the user knows it: the variant's or the file's name.
        own: the file that was named, or ``None`` for a variant.
        network: the variant's name, or a foreign file's own name.
        weights: ``None`` for a foreign file.
        typed: in the precisions asked for, in that order.
        twin: the reference, which computes in fp32.
        fixed_batch: that the artifacts take alone, or ``None``.
        data: the name of the images for it, or ``None`` for noise.
    """

    name: str
    own: Artifact | None
    network: str
    weights: Weights | None
    typed: tuple[Typed, ...]
    twin: Typed
    fixed_batch: int | None
    data: str | None


@dataclass(frozen=True)
class Pair:
    """A backend, and what it opens: the network in one precision, or its twin; or why it cannot."""

    backend: Backend
    typed: Typed
    opens: Artifact | Refusal


def subjects(request: Request, folder: Path, listener: Listener) -> tuple[Subject, ...]:
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
        place = _Place(titles[name], Path(tempfile.mkdtemp(prefix="subject-", dir=folder)), request, listener)
        made.append(_of_file(files[name], place) if name in files else _of_variant(name, place))
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


def _check_options(request: Request) -> None:
    for option, value in (("--weights", request.weights), ("--input", request.raw)):
        if value is not None:
            raise UsageError(f"{option} is for variants; all that is to be measured are files", hint="leave it out")


def _check_file(artifact: Artifact, request: Request) -> None:
    manifest = artifact.manifest
    if manifest is None and request.precisions:
        raise UsageError(
            "nothing says which network this file holds, so it has no other precision",
            path=artifact.path,
            hint="leave --precision out",
        )
    formats = {artifact.format.name} | ({TYPED_FORMAT} if request.precisions else set())
    able = {backend.name for backend in _able(formats, selected(request))}
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
    if TYPED_FORMAT in formats:
        formats = formats | set(reference.formats)
    return (reference, *(backend for backend in others if formats & set(backend.formats)))


@dataclass(frozen=True)
class _Place:
    """What a subject is called, where its artifacts are made, and for what."""

    title: str
    folder: Path
    request: Request
    listener: Listener

    def step(self, words: str) -> None:
        self.listener.step(self.title, words)

    def exporter(self) -> network.Listener:
        from exporter import network

        return network.Listener(self.step, self.listener.notice)


def _of_variant(name: str, place: _Place) -> Subject:
    from exporter import network

    request = place.request
    wanted = network.Request(
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
        typed=tuple(_exported(prepared, precision, None, place) for precision in request.precisions or (FP32,)),
        twin=_twin_of_network(prepared, None, None, place),
        fixed_batch=None,
        data=request.data or (BUNDLED_NAME if known else None),
    )


def _of_file(artifact: Artifact, place: _Place) -> Subject:
    manifest, precisions = artifact.manifest, place.request.precisions
    typed: tuple[Typed, ...]
    if manifest is None or not set(precisions) - {manifest.precision}:
        typed = (Typed(None if manifest is None else manifest.precision, artifact),)
        twin = _twin_of_file(artifact, place)
    else:
        typed, twin = _retyped(artifact, manifest, precisions, place)
    known = manifest is not None and manifest.dataset == BUNDLED_NAME and manifest.preprocessing is not None
    return Subject(
        name=place.title,
        own=artifact,
        network=artifact.path.name if manifest is None else manifest.name,
        weights=None if manifest is None else manifest.weights,
        typed=typed,
        twin=twin,
        fixed_batch=_fixed_batch(manifest),
        data=place.request.data or (BUNDLED_NAME if known else None),
    )


def _fixed_batch(manifest: Manifest | None) -> int | None:
    first = None if manifest is None else manifest.inputs[0].shape[0]
    return first if isinstance(first, int) else None


def _retyped(
    artifact: Artifact, manifest: Manifest, precisions: Sequence[str], place: _Place
) -> tuple[tuple[Typed, ...], Typed]:
    """The artifact in the precisions, in its own as the file itself; and its twin."""
    own = Typed(manifest.precision, artifact)
    from exporter.origin import network_of

    try:
        place.step("making its network again")
        network = network_of(artifact, place.exporter())
    except RexportError as error:
        refusal = _refusal(error)
        typed = (own if name == manifest.precision else Typed(name, refusal) for name in precisions)
        return tuple(typed), _twin_of_file(artifact, place)
    if place.request.data is not None:
        network = replace(network, data=place.request.data)
    batch = _fixed_batch(manifest)
    typed = (own if name == manifest.precision else _exported(network, name, batch, place) for name in precisions)
    return tuple(typed), _twin_of_network(network, batch, manifest.sha256, place)


def _exported(network: Network, precision: str, batch: int | None, place: _Place) -> Typed:
    """The network as an ONNX file in that precision."""
    from exporter import onnx

    stem = Path(place.title).name.removesuffix(f".{TYPED_FORMAT}")
    target = place.folder / f"{stem}{'' if precision == FP32 else f'.{precision}'}.{TYPED_FORMAT}"
    try:
        listener = place.exporter()
        place.step(f"exporting in {precision}")
        return Typed(
            precision,
            onnx.exported(network, onnx.Place(target, batch), place.request.typing(precision), listener),
        )
    except RexportError as error:
        return Typed(precision, _refusal(error))


def _refusal(error: RexportError) -> Refusal:
    """What cannot be made here was not tried, in the words of a table; what broke is an error."""
    if isinstance(error, CheckFailedError):
        return Refusal("failed", one_line(error))
    if isinstance(error, (CompatibilityError, UsageError, ArtifactError, BackendUnavailableError)):
        return Refusal("skipped", one_line(error))
    return Refusal("error", one_line(error))


def _twin_of_network(network: Network, batch: int | None, parent: str | None, place: _Place) -> Typed:
    from exporter import torch

    place.step("making its PyTorch twin")
    target = place.folder / f"{network.variant.name}.pt2"
    try:
        return Typed(FP32, torch.written(network, target, batch, parent, place.exporter()))
    except RexportError as error:
        return _no_twin(error)


def _twin_of_file(artifact: Artifact, place: _Place) -> Typed:
    reference = selected(place.request)[0]
    if artifact.format.name in reference.formats:
        return Typed(FP32, artifact)
    if artifact.format.name != TYPED_FORMAT:
        return _no_twin(f"only a file of format {TYPED_FORMAT} can have one")
    missing = reference.missing()
    if missing is not None:
        return _no_twin(missing)
    place.step("making its PyTorch twin")
    from exporter.origin import reference as remade

    try:
        return Typed(FP32, remade(artifact, place.folder))
    except RexportError as error:
        return _no_twin(error)


def _no_twin(reason: object) -> Typed:
    return Typed(FP32, Refusal("skipped", one_line(f"it has no PyTorch twin: {reason}")))


def pairs(subject: Subject, request: Request) -> tuple[Pair, ...]:
    """The reference first, then every other backend that opens an artifact of the subject, or its twin, with each
    that it opens; missing backends too."""
    formats = {typed.format for typed in subject.typed}
    found = []
    for backend in _able(formats, selected(request)):
        opened = [typed for typed in subject.typed if typed.format in backend.formats] or [subject.twin]
        found += [Pair(backend, typed, _opened(backend, typed, request.device)) for typed in opened]
    return tuple(found)


def _opened(backend: Backend, typed: Typed, device: str) -> Artifact | Refusal:
    missing = backend.missing()
    if missing is not None:
        return Refusal("skipped", missing)
    if device not in backend.devices:
        return Refusal("skipped", f"it runs on {', '.join(backend.devices)}, and {device} was asked for")
    return typed.made
