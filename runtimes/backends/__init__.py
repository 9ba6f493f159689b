"""The backends, one file each: a file that ends in ``BACKEND = Backend(...)`` is found by being here."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator

from runtimes.artifact import Artifact
from runtimes.errors import BackendUnavailableError, UsageError, quoted
from runtimes.protocol import Backend


@functools.cache
def backends() -> tuple[Backend, ...]:
    """Every backend, installed or not, in the order of preference. No backend's library is imported."""
    modules = (importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__))
    return tuple(sorted((module.BACKEND for module in modules), key=lambda backend: backend.priority))


def backend_named(name: str, artifact: Artifact) -> Backend:
    """That backend, which is there and opens the artifact's format.

    Raises:
        UsageError: no such backend, or it does not open this format.
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
    return chosen


def default_backend(artifact: Artifact) -> Backend:
    """The most preferred backend that opens the artifact's format and is there.

    Raises:
        BackendUnavailableError: none is; the message says what is missing from each.
    """
    able = [backend for backend in backends() if artifact.format.name in backend.formats]
    reasons = []
    for backend in able:
        missing = backend.missing()
        if missing is None:
            return backend
        reasons.append(f"{backend.name}: {missing}")
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
