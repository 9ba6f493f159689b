"""Checks and errors for optional libraries: not installed, or installed and broken."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

from runtimes.errors import (
    BackendUnavailableError,
    Reason,
    quote,
)


def missing_library(module: str, extra: str) -> Reason | None:
    """Return why a backend cannot run without a library, or ``None`` if the library is installed.

    Args:
        module: The module of the library.
        extra: The extra of the package ``rexport`` that installs the library.
    """
    if importlib.util.find_spec(module) is not None:
        return None
    return Reason("library-missing", f"{module} is not installed (pip install 'rexport[{extra}]')")


@contextlib.contextmanager
def importing(module: str, extra: str) -> Iterator[None]:
    """Translate errors of an import in the ``with`` block, for a library that is installed but may be broken.

    Args:
        module: The module of the library.
        extra: The extra of the package ``rexport`` that installs the library.

    Raises:
        BackendUnavailableError: The library cannot be imported. The hint is the command that reinstalls it.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        raise BackendUnavailableError(
            f"{module} is installed but cannot be imported: {quote(error)}",
            code="library-not-importable",
            hint=f"pip install --force-reinstall 'rexport[{extra}]'",
        ) from error
