"""A name in, an artifact out: variants, weights, and one module a target format."""

from __future__ import annotations


def version() -> str:
    """Of the installed distribution; of a checkout that is run without being installed, its own."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("rexport")
    except PackageNotFoundError:
        return _read_checkout_version()


def _read_checkout_version() -> str:
    import tomllib
    from pathlib import Path

    told: str = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]
    return told
