"""The backends, one file each: a file that ends in ``BACKEND = Backend(...)`` is found by being here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from runtimes import backends as backends_folder
from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Tuning
from runtimes.errors import BackendUnavailableError, CompatibilityError, Reason, RexportError, UsageError, quote
from runtimes.processors import usable_processors
from runtimes.protocol import Backend, Options, Session

AUTO = "auto"
"""In place of a backend's name: the most preferred that runs it, whatever the artifact was tuned for."""

PROCESSOR = "cpu"
"""The device that is always there: the default, and the last resort where another is asked for."""

_LOGGER = logging.getLogger("rexport")


class BackendCandidate(NamedTuple):
    """A backend, and the options to open an artifact with."""

    row: Backend
    options: Options


@functools.cache
def available_backends() -> tuple[Backend, ...]:
    """Every backend, installed or not, in the order of preference. No backend's library is imported."""
    rows = (importlib.import_module(name).BACKEND for name in _backend_modules(backends_folder.__name__))
    return tuple(sorted(rows, key=lambda backend: backend.priority))


def _backend_modules(package: str) -> Iterator[str]:
    """Names of the modules that define a backend: files in the package itself, ``backend`` and ``*_backend`` below."""
    folder = importlib.import_module(package)
    for module in pkgutil.iter_modules(folder.__path__):
        name = f"{package}.{module.name}"
        if module.ispkg:
            inner = pkgutil.iter_modules(importlib.import_module(name).__path__)
            yield from (f"{name}.{file.name}" for file in inner if file.name.endswith("backend"))
        elif name != __name__:
            yield name


def find_backend(name: str, artifact: Artifact, device: str | None) -> Backend:
    """That backend, which is there, opens the artifact's format and has the device, if one is asked for.

    Raises:
        UsageError: no such backend, or it does not open this format or has no such device.
        BackendUnavailableError: its library is missing.
    """
    known = {backend.name: backend for backend in available_backends()}
    if name not in known:
        raise UsageError(f"no backend {name!r}", code="backend-unknown", hint=f"one of {', '.join(known)}")
    chosen = known[name]
    if artifact.format.name not in chosen.formats:
        raise UsageError(
            f"backend {name} opens {', '.join(chosen.formats)}, not {artifact.format.name}",
            code="backend-format-mismatch",
            path=artifact.path,
        )
    missing = chosen.missing()
    if missing is not None:
        raise BackendUnavailableError(f"backend {name} cannot run here: {missing}", code="backend-unavailable")
    if device is not None and device not in chosen.devices:
        raise UsageError(
            f"backend {name} has no device {device!r}",
            code="backend-lacks-device",
            hint=f"one of {', '.join(chosen.devices)}",
        )
    return chosen


def select_candidates(
    artifact: Artifact, backend: str | None, device: str | None, threads: int | None, cuda_graphs: bool = True
) -> tuple[BackendCandidate, ...]:
    """What to try on the artifact, the most preferred first.

    The backend that is named; else the one that the artifact was tuned for, with its options, unless another device or
    ``AUTO`` is asked for; else all that open its format on the device, missing ones too, which ``first_session`` tells
    of, and after them, in place of another device, all that do on the processor. Where no device is asked for, it is
    the processor, or for what does not run there, what it runs on.

    Raises:
        UsageError: no such backend or device, or ``threads`` out of range.
        BackendUnavailableError: the library of the backend that is named, or tuned for, is missing.
        CompatibilityError: the artifact was tuned for what this rexport does not have.
    """
    usable = usable_processors()
    if threads is not None and not 1 <= threads <= usable:
        raise UsageError(
            f"threads must lie between 1 and the {usable} that this process may use, not be {threads}",
            code="threads-out-of-range",
        )
    tuning = artifact.manifest.tuning if artifact.manifest is not None and backend is None else None
    if tuning is not None and device in (None, tuning.device):
        allowed = threads or max(1, min(tuning.threads, usable))
        return (BackendCandidate(_find_tuned_backend(artifact, tuning), Options(tuning.device, allowed, cuda_graphs)),)
    if backend is None or backend == AUTO:
        rows = _able(artifact)
        return _rank_candidates(
            artifact, rows, Options(device or _default_device(rows), threads or usable, cuda_graphs)
        )
    row = find_backend(backend, artifact, device)
    return (BackendCandidate(row, Options(device or _default_device((row,)), threads or usable, cuda_graphs)),)


def _default_device(rows: tuple[Backend, ...]) -> str:
    """The device that is meant where none is named."""
    return PROCESSOR if any(PROCESSOR in row.devices for row in rows) else rows[0].devices[0]


def _rank_candidates(artifact: Artifact, able: tuple[Backend, ...], options: Options) -> tuple[BackendCandidate, ...]:
    found = [BackendCandidate(row, options) for row in able if options.device in row.devices]
    if not found:
        devices = sorted({known for row in able for known in row.devices})
        raise UsageError(
            f"no backend runs {artifact.format.name} files on {options.device!r}",
            code="device-unsupported",
            hint=f"one of {', '.join(devices)}",
        )
    if options.device != PROCESSOR:
        last = replace(options, device=PROCESSOR)
        found += [BackendCandidate(row, last) for row in able if PROCESSOR in row.devices]
    return tuple(found)


def _able(artifact: Artifact) -> tuple[Backend, ...]:
    return tuple(row for row in available_backends() if artifact.format.name in row.formats)


def _find_tuned_backend(artifact: Artifact, tuning: Tuning) -> Backend:
    others = [row.name for row in _able(artifact) if row.name != tuning.runtime and row.missing() is None]
    another = f"name another: backend={others[0]!r}" if others else "name another backend"
    for row in _able(artifact):
        if row.name == tuning.runtime and tuning.device in row.devices:
            missing = row.missing()
            if missing is None:
                return row
            raise BackendUnavailableError(
                f"it is tuned for {row.name}, which cannot run here",
                code="tuned-backend-missing",
                path=artifact.path,
                hint=f"{missing}; or {another}",
            )
    raise CompatibilityError(
        f"it is tuned for {quote(tuning.runtime)!r} on {quote(tuning.device)!r}, which this rexport does not have",
        code="tuning-unknown-here",
        path=artifact.path,
        hint=f"pip install --upgrade rexport; or {another}",
    )


@dataclass(frozen=True)
class _Step:
    """One step down: the candidate and why it does not run. ``refusal`` is the error of one that is there."""

    name: str
    reason: str
    refusal: RexportError | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def first_session(artifact: Artifact, candidates: tuple[BackendCandidate, ...]) -> tuple[Session, tuple[str, ...]]:
    """The session of the first candidate that is there and takes the artifact, and the reasons against those before.

    A candidate that is there is passed over where the artifact does not suit it, or where the device that it is asked
    for is missing. Each step down is announced with its reason, a warning on the logger ``rexport``; but not that a
    library for the processor is not installed, since another for the processor is no less.

    Raises:
        CompatibilityError: those that are there cannot run it; the message says why for each.
        BackendUnavailableError: none is there; the message says what is missing from each.
        RexportError: a lone candidate fails, or the first that is there fails in another way.
    """
    steps: list[_Step] = []
    asked = candidates[0].options.device
    for row, options in candidates:
        missing = row.missing()
        if missing is not None:
            step = _Step(row.name, missing.sentence)
            if step not in steps:  # on one device or the other
                steps.append(step)
            continue
        try:
            session = row.open(artifact, options)
        except RexportError as error:
            if len(candidates) == 1 or not _may_fall_back(error, options):
                raise
            name = row.name if asked == PROCESSOR else f"{row.name} on {options.device}"
            steps.append(_Step(name, _reason(error), error))
            continue
        _announce(artifact, [step for step in steps if step.refusal or asked != PROCESSOR], session)
        return session, tuple(map(str, steps))
    raise _none_runs(artifact, steps)


def _may_fall_back(error: RexportError, options: Options) -> bool:
    missing_device = isinstance(error, BackendUnavailableError) and options.device != PROCESSOR
    return missing_device or isinstance(error, CompatibilityError)


def _reason(error: RexportError) -> str:
    """A refusal's own words; with what is missing, the command that brings it."""
    return f"{error.what} ({error.hint})" if isinstance(error, BackendUnavailableError) and error.hint else error.what


def _announce(artifact: Artifact, steps: list[_Step], session: Session) -> None:
    about, manifest = session.description, artifact.manifest
    name = quote(artifact.path) if manifest is None else f"{quote(manifest.name)} in {quote(manifest.precision)}"
    for step in steps:
        reason = Reason("backend-fallback", f"{name}: {about.backend} on {about.device} in place of {step}")
        _LOGGER.warning("%s", reason, extra={"code": reason.code})


def _none_runs(artifact: Artifact, steps: list[_Step]) -> RexportError:
    reasons = "; ".join(map(str, steps))
    refusals = [step.refusal for step in steps if isinstance(step.refusal, CompatibilityError)]
    if refusals:
        hint = next((error.hint for error in refusals if error.hint), None)
        return CompatibilityError(
            f"no backend runs it: {reasons}", code="backends-all-refuse", path=artifact.path, hint=hint
        )
    return BackendUnavailableError(
        f"nothing here opens {artifact.format.name} files: {reasons}", code="backends-all-missing"
    )


def missing_library(module: str, extra: str) -> Reason | None:
    """Why a backend can't run when ``module`` is not installed, with the line that mends it; ``None`` if it is."""
    if importlib.util.find_spec(module) is not None:
        return None
    return Reason("library-missing", f"{module} is not installed (pip install 'rexport[{extra}]')")


@contextlib.contextmanager
def importing(module: str, extra: str) -> Iterator[None]:
    """Surrounds the import of a backend's library, which may be there and broken.

    Raises:
        BackendUnavailableError: it cannot be imported; the hint is the line that mends it.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{module} is installed and cannot be imported: {quote(error)}",
            code="library-not-importable",
            hint=f"pip install --force-reinstall 'rexport[{extra}]'",
        ) from error
