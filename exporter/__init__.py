"""Export of residual networks to artifacts: variants, weights, precisions and target formats."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed distribution, or of the checkout if rexport is not installed."""
    from importlib import metadata

    try:
        return metadata.version("rexport")
    except metadata.PackageNotFoundError:
        return _read_checkout_version()


def _read_checkout_version() -> str:
    import tomllib
    from pathlib import Path

    project: str = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]
    return project
