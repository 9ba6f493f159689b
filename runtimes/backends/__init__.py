"""The backends, one file each: a file that ends in ``BACKEND = Backend(...)`` is found by being here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator

from runtimes.artifact import Artifact
from runtimes.errors import BackendUnavailableError, CompatibilityError, UsageError, quoted
from runtimes.manifest import Tuning
from runtimes.processors import usable_processors
from runtimes.protocol import Backend, Options, Session


@functools.cache
def backends() -> tuple[Backend, ...]:
    """Every backend, installed or not, in the order of preference. No backend's library is imported."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return tuple(sorted((module.BACKEND for module in modules), key=lambda backend: backend.priority))


def backend_named(name: str, artifact: Artifact, device: str) -> Backend:
    """That backend, which is there, opens the artifact's format and has the device.

    Raises:
        UsageError: no such backend, or it does not open this format or has no such device.
        BackendUnavailableError: its library is missing.
    """
    known = {backend.name: backend for backend in backends()}
    if name not in known:
        raise UsageError(f"no backend {name!r}", hint=f"one of {', '.join(known)}")
    chosen = known[name]
    if artifact.format.name not in chosen.formats:
        raise UsageError(
            f"backend {name} opens {', '.join(chosen.formats)}, not {artifact.format.name}", path=artifact.path
        )
    missing = chosen.missing()
    if missing is not None:
        raise BackendUnavailableError(f"backend {name} cannot run here: {missing}")
    if device not in chosen.devices:
        raise UsageError(f"backend {name} has no device {device!r}", hint=f"one of {', '.join(chosen.devices)}")
    return chosen


def selected(
    artifact: Artifact, backend: str | None, device: str | None, threads: int | None
) -> tuple[tuple[Backend, ...], Options]:
    """The backends to try on the artifact, the most preferred first, and the options to open it with.

    The backend that is named; else the one that the artifact was tuned for, with its options, unless another device is
    asked for; else all that open its format on the device, missing ones too, which ``first_session`` tells of.

    Raises:
        UsageError: no such backend or device, or ``threads`` out of range.
        BackendUnavailableError: the library of the backend that is named, or tuned for, is missing.
        CompatibilityError: the artifact was tuned for what this rexport does not have.
    """
    usable = usable_processors()
    if threads is not None and not 1 <= threads <= usable:
        raise UsageError(f"threads must lie between 1 and the {usable} that this process may use, not be {threads}")
    tuning = artifact.manifest.tuning if artifact.manifest is not None and backend is None else None
    if tuning is not None and device in (None, tuning.device):
        return (_tuned(artifact, tuning),), Options(tuning.device, threads or max(1, min(tuning.threads, usable)))
    options = Options(device or "cpu", threads or usable)
    if backend is not None:
        return (backend_named(backend, artifact, options.device),), options
    rows = tuple(row for row in _able(artifact) if options.device in row.devices)
    if not rows:
        devices = dict.fromkeys(known for row in _able(artifact) for known in row.devices)
        raise UsageError(
            f"no backend runs {artifact.format.name} files on {options.device!r}", hint=f"one of {', '.join(devices)}"
        )
    return rows, options


def _able(artifact: Artifact) -> tuple[Backend, ...]:
    return tuple(row for row in backends() if artifact.format.name in row.formats)


def _tuned(artifact: Artifact, tuning: Tuning) -> Backend:
    others = [row.name for row in _able(artifact) if row.name != tuning.runtime and row.missing() is None]
    another = f"name another: backend={others[0]!r}" if others else "name another backend"
    for row in _able(artifact):
        if row.name == tuning.runtime and tuning.device in row.devices:
            missing = row.missing()
            if missing is None:
                return row
            raise BackendUnavailableError(
                f"it is tuned for {row.name}, which cannot run here",
                path=artifact.path,
                hint=f"{missing}; or {another}",
            )
    raise CompatibilityError(
        f"it is tuned for {quoted(tuning.runtime)!r} on {quoted(tuning.device)!r}, which this rexport does not have",
        path=artifact.path,
        hint=f"pip install --upgrade rexport; or {another}",
    )


def first_session(artifact: Artifact, rows: tuple[Backend, ...], options: Options) -> Session:
    """The first of the backends that is there and takes the artifact: its session.

    Raises:
        CompatibilityError: those that are there cannot run it; the message says why for each.
        BackendUnavailableError: none is there; the message says what is missing from each.
        RexportError: the first that is there fails in another way.
    """
    reasons: list[str] = []
    refusals: list[CompatibilityError] = []
    for row in rows:
        missing = row.missing()
        if missing is None:
            try:
                return row.open(artifact, options)
            except CompatibilityError as error:
                refusals.append(error)
                missing = error.what
        reasons.append(f"{row.name}: {missing}")
    if refusals and len(reasons) == 1:
        raise refusals[0]
    if refusals:
        hint = next((error.hint for error in refusals if error.hint), None)
        raise CompatibilityError(f"no backend runs it: {'; '.join(reasons)}", path=artifact.path, hint=hint)
    raise BackendUnavailableError(f"nothing here opens {artifact.format.name} files: {'; '.join(reasons)}")


def missing_library(module: str, extra: str) -> str | None:
    """Why a backend can't run when ``module`` is not installed, with the line that mends it; ``None`` if it is."""
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed (pip install 'rexport[{extra}]')"


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
            f"{module} is installed and cannot be imported: {quoted(error)}",
            hint=f"pip install --force-reinstall 'rexport[{extra}]'",
        ) from error
