"""The list of backends, found by their files.

Each module of this folder is a backend, and so is each module called ``backend`` or ``*_backend`` in a folder below.
Such a module ends in ``BACKEND = Backend(...)``. It imports no large library, because all of these modules are imported
to find one backend.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

from runtimes.errors import UsageError, quote, suggest
from runtimes.protocol import Backend


@functools.cache
def all_backends() -> tuple[Backend, ...]:
    """Return all backends, including those for tests, in order of preference. No backend's library is imported."""
    rows: list[Backend] = [importlib.import_module(name).BACKEND for name in _backend_modules(Path(__file__))]
    return tuple(sorted(rows, key=lambda backend: backend.priority))


def available_backends() -> tuple[Backend, ...]:
    """Return all backends for users, installed or not, in order of preference. No backend's library is imported."""
    return tuple(backend for backend in all_backends() if not backend.for_tests)


def reference_backend() -> Backend:
    """Return the reference backend, which executes the PyTorch network operator by operator."""
    return next(backend for backend in all_backends() if backend.reference)


def find_backend(name: str) -> Backend:
    """Return the backend with this name or alias, in upper or lower case.

    Raises:
        UsageError: The name is unknown.
    """
    lower = name.lower()
    for backend in all_backends():
        if lower in (backend.name, *backend.aliases):
            return backend
    known = (backend.name for backend in available_backends())
    raise UsageError(f"unknown backend {quote(name)!r}", code="backend-unknown", hint=suggest(name, known))


def backend_title(name: str) -> str:
    """Return the title of the backend called ``name``, or the name itself if no backend has it."""
    return next((backend.title for backend in all_backends() if backend.name == name), name)


def _backend_modules(registry: Path) -> Iterator[str]:
    package = __name__.rpartition(".")[0]
    for entry in os.scandir(registry.parent):
        if entry.is_dir():
            inner = (file.removesuffix(".py") for file in os.listdir(entry.path) if file.endswith("backend.py"))
            yield from (f"{package}.{entry.name}.{name}" for name in inner)
        elif entry.name.endswith(".py") and entry.name not in ("__init__.py", registry.name):
            yield f"{package}.{entry.name.removesuffix('.py')}"
