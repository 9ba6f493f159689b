"""The choice of a backend: candidates in order of preference, and the session of the first that runs the artifact."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from runtimes import devices, notices
from runtimes.arguments import is_count
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Tuning
from runtimes.backends import registry
from runtimes.devices import DeviceName, parse_device
from runtimes.errors import (
    BackendUnavailableError,
    CompatibilityError,
    Reason,
    RexportError,
    UsageError,
    quote,
)
from runtimes.frozen_dataclass import dataclass
from runtimes.processors import usable_processors
from runtimes.protocol import Backend, Options, Session
from runtimes.tensors.presence import find_missing

AUTO = "auto"
"""The name of a backend that stands for the most preferred one, even for a tuned artifact; and ``devices.AUTO``."""

PROCESSOR = devices.CPU
"""The device that always exists: the default, and the fallback where ``auto`` is requested."""


class BackendCandidate(NamedTuple):
    """A backend and the options to open an artifact with."""

    row: Backend
    options: Options


def _require_backend(name: str, artifact: Artifact, device: DeviceName | None) -> Backend:
    """Return the named backend, checked against the artifact's format and the requested device.

    Raises:
        UsageError: The backend is unknown, does not open this format, or does not support the device.
        BackendUnavailableError: The library of the backend is missing.
    """
    backend = registry.find_backend(name)
    if artifact.format.name not in backend.formats:
        able = ", ".join(row.name for row in _able(artifact))
        raise UsageError(
            f"backend {backend.name} opens files of the format {' or '.join(backend.formats)}, but this file is of the "
            f"format {artifact.format.name}",
            code="backend-format-mismatch",
            path=artifact.path,
            hint=f"choose one of {able}",
        )
    missing = backend.missing()
    if missing is not None:
        raise BackendUnavailableError(f"backend {backend.name} cannot run here: {missing}", code="backend-unavailable")
    if device is not None and device.kind not in backend.devices:
        raise UsageError(
            f"backend {backend.name} does not support device {str(device)!r}",
            code="backend-lacks-device",
            hint=f"choose one of {', '.join(backend.devices)}",
        )
    return backend


def select_candidates(
    artifact: Artifact, backend: str | None, device: str | None, threads: int | None, cuda_graphs: bool = True
) -> tuple[BackendCandidate, ...]:
    """Return the backends to try on an artifact, most preferred first.

    - A named backend is the only candidate.
    - Otherwise the backend that the artifact was tuned for is the only candidate, with its tuned options, unless
      another device or ``AUTO`` is requested.
    - Otherwise the candidates are all backends that open the format on the device. For the device ``auto``, these are
      the backends on the first GPU, and then those on the CPU. Backends that are not installed are included:
      ``first_session`` reports them.

    Args:
        artifact: The artifact to open.
        backend: The name of a backend, ``AUTO``, or ``None``.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``. The default is the CPU, or the device that the artifact
            needs.
        threads: The number of processors that one call may use. The default is all that this process may use.
        cuda_graphs: As in ``Options``.

    Raises:
        UsageError: The backend or device is unknown, or ``threads`` is no integer or out of range.
        BackendUnavailableError: The library of the named or tuned backend is missing, or there is no GPU of this
            number.
        CompatibilityError: The artifact was tuned for a backend or device that this version of rexport does not have.
    """
    usable = usable_processors()
    if threads is not None and (not is_count(threads) or threads > usable):
        raise UsageError(
            f"threads must be an integer between 1 and {usable}, the number of processors that this process may use, "
            f"not {quote(repr(threads))}",
            code="threads-out-of-range",
        )
    auto = device is not None and device.lower() == AUTO
    named = None if device is None or auto else parse_device(device)
    if named is not None and named.index:
        missing = find_missing(named)
        if missing is not None:
            raise BackendUnavailableError(missing.sentence, code=missing.code)
    tuning = artifact.manifest.tuning if artifact.manifest is not None and backend is None else None
    if tuning is not None and not auto and (named is None or named.kind == tuning.device):
        allowed = threads or max(1, min(tuning.threads, usable))
        index = 0 if named is None else named.index
        options = Options(tuning.device, allowed, cuda_graphs, min(tuning.streams, allowed), device_index=index)
        return (BackendCandidate(_find_tuned_backend(artifact, tuning), options),)
    if backend is None or backend.lower() == AUTO:
        rows = _able(artifact)
    else:
        rows = (_require_backend(backend, artifact, named),)
    chosen = named or DeviceName(devices.CUDA if auto else _default_device(rows))
    options = Options(chosen.kind, threads or usable, cuda_graphs, device_index=chosen.index)
    return _rank_candidates(artifact, rows, options, auto)


def _default_device(rows: tuple[Backend, ...]) -> str:
    """Return the device to use where none is named."""
    return PROCESSOR if any(PROCESSOR in row.devices for row in rows) else rows[0].devices[0]


def _rank_candidates(
    artifact: Artifact, able: tuple[Backend, ...], options: Options, or_processor: bool
) -> tuple[BackendCandidate, ...]:
    """Return the backends that support the device, and with ``or_processor`` then those that support the CPU."""
    candidates = [BackendCandidate(row, options) for row in able if options.device in row.devices]
    if or_processor:
        on_processor = replace(options, device=PROCESSOR, device_index=0)
        candidates += [BackendCandidate(row, on_processor) for row in able if PROCESSOR in row.devices]
    if not candidates:
        kinds = sorted({known for row in able for known in row.devices})
        raise UsageError(
            f"no backend runs {artifact.format.name} files on device {str(options.device_name)!r}",
            code="device-unsupported",
            hint=f"choose one of {', '.join(kinds)}",
        )
    return tuple(candidates)


def _able(artifact: Artifact) -> tuple[Backend, ...]:
    return tuple(row for row in registry.all_backends() if artifact.format.name in row.formats)


def _find_tuned_backend(artifact: Artifact, tuning: Tuning) -> Backend:
    others = [row.name for row in _able(artifact) if row.name != tuning.runtime and row.missing() is None]
    another = f"choose backend={others[0]!r}" if others else "choose another backend"
    for row in _able(artifact):
        if row.name == tuning.runtime and tuning.device in row.devices:
            missing = row.missing()
            if missing is None:
                return row
            raise BackendUnavailableError(
                f"the artifact is tuned for backend {row.name}, which cannot run here: {missing}",
                code="tuned-backend-missing",
                path=artifact.path,
                hint=f"or {another}",
            )
    raise CompatibilityError(
        f"the artifact is tuned for backend {quote(tuning.runtime)!r} on device {quote(tuning.device)!r}, which this "
        "version of rexport does not have",
        code="tuning-unknown-here",
        path=artifact.path,
        hint=f"pip install --upgrade rexport; or {another}",
    )


@dataclass(frozen=True)
class _Skipped:
    """A candidate that does not run.

    Attributes:
        name: The name of the backend, with its device if that matters.
        reason: Why the candidate does not run.
        error: The error of a candidate whose library is installed.
    """

    name: str
    reason: str
    error: RexportError | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def first_session(artifact: Artifact, candidates: tuple[BackendCandidate, ...]) -> tuple[Session, tuple[str, ...]]:
    """Open the artifact with the first candidate that can run it.

    A candidate is skipped if its library is missing, if the artifact does not suit it, or if its device is missing.
    Each skipped candidate is a warning on the logger ``rexport``. There is no warning for a missing library where the
    CPU was requested, because another backend on the CPU runs the artifact as well.

    Args:
        artifact: The artifact to open.
        candidates: The backends to try, at least one.

    Returns:
        The session, which the caller closes, and one line for each skipped candidate: its name and the reason.

    Raises:
        CompatibilityError: No candidate can run the artifact, and the library of at least one is installed. The
            message gives all reasons.
        BackendUnavailableError: The libraries or devices of all candidates are missing. The message names them.
        RexportError: The only candidate fails, or a candidate fails for a reason that allows no fallback.
    """
    skipped: list[_Skipped] = []
    requested = candidates[0].options.device
    for row, options in candidates:
        missing = row.missing()
        if missing is not None:
            candidate = _Skipped(row.name, missing.sentence)
            if candidate not in skipped:  # a backend may be a candidate on two devices
                skipped.append(candidate)
            continue
        try:
            session = row.open(artifact, options)
        except RexportError as error:
            if len(candidates) == 1 or not _may_fall_back(error, options):
                raise
            name = row.name if requested == PROCESSOR else f"{row.name} on {options.device_name}"
            skipped.append(_Skipped(name, _reason(error), error))
            continue
        _warn(artifact, [candidate for candidate in skipped if candidate.error or requested != PROCESSOR], session)
        return session, tuple(map(str, skipped))
    raise _none_runs(artifact, skipped)


def _may_fall_back(error: RexportError, options: Options) -> bool:
    missing_device = isinstance(error, BackendUnavailableError) and options.device != PROCESSOR
    return missing_device or isinstance(error, CompatibilityError)


def _reason(error: RexportError) -> str:
    """Return the text of an error, with the install command if a library or device is missing."""
    return f"{error.what} ({error.hint})" if isinstance(error, BackendUnavailableError) and error.hint else error.what


def _warn(artifact: Artifact, skipped: list[_Skipped], session: Session) -> None:
    if not skipped:
        return
    chosen, manifest = session.description, artifact.manifest
    name = quote(artifact.path) if manifest is None else f"{quote(manifest.name)} in {quote(manifest.precision)}"
    for candidate in skipped:
        notices.warn(
            Reason(
                "backend-fallback",
                f"{name}: fallback to backend {chosen.backend} on {chosen.device}; skipped {candidate}",
            )
        )


def _none_runs(artifact: Artifact, skipped: list[_Skipped]) -> RexportError:
    reasons = "; ".join(map(str, skipped))
    errors = [candidate.error for candidate in skipped if isinstance(candidate.error, CompatibilityError)]
    if errors:
        hint = next((error.hint for error in errors if error.hint), None)
        return CompatibilityError(
            f"no backend can run the artifact: {reasons}", code="backends-all-refuse", path=artifact.path, hint=hint
        )
    return BackendUnavailableError(
        f"no installed backend opens {artifact.format.name} files: {reasons}", code="backends-all-missing"
    )
