"""The console scripts ``rexport`` and ``rbench``. They see to it first that rexport's own packages are found."""

from __future__ import annotations

import sys
from importlib import import_module

from rexport.shadowing import ShadowedPackageError, require_own

EXIT_CODE = 5
"""The exit code for a library that is missing, which a hidden package is."""


def rexport() -> None:
    """Runs ``exporter.cli``, which ends the process."""
    _run("exporter.cli")


def rbench() -> None:
    """Runs ``benchmarks.cli``, which ends the process."""
    _run("benchmarks.cli")


def _run(module: str) -> None:
    try:
        require_own()
    except ShadowedPackageError as error:
        if sys.stderr is not None:  # it was closed at the start
            sys.stderr.write(f"error[{error.code}]: {error}\n")
        sys.exit(EXIT_CODE)
    import_module(module).main()
