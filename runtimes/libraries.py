"""Libraries that may be missing: whether one is installed, and the error where it is there and broken."""

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
