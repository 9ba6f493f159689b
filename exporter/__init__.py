"""A name in, an artifact out: variants, weights, and one module a target format."""

from __future__ import annotations


def version() -> str:
    """Of the installed distribution."""
    from importlib.metadata import version as of

    return of("rexport")
