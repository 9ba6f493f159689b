"""The versions of all libraries that some extras of rexport need, as they are installed here."""

from __future__ import annotations

import re

from runtimes.errors import BackendUnavailableError, quote
from runtimes.libraries import importing, missing_library

PACKAGE = "rexport"


def requirement_pins(extras: tuple[str, ...]) -> tuple[str, ...]:
    """Return lines such as ``numpy==2.4.6`` for rexport's requirements and theirs, in alphabetical order.

    Args:
        extras: The extras of rexport, for example ``serve``.

    Raises:
        BackendUnavailableError: A library is not installed here. The hint is the command that installs it.
    """
    pins: dict[str, str] = {}
    waiting, seen = [(PACKAGE, frozenset(extras))], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) not in seen:
            seen.add((name, wanted))
            pins[name] = _version(name)
            waiting += _requirements(name, wanted)
    return tuple(f"{name}=={version}" for name, version in sorted(pins.items()) if name != PACKAGE)


def direct_requirements(extras: tuple[str, ...], without: frozenset[str]) -> tuple[str, ...]:
    """Return such lines for rexport's own requirements only, for an image that has many libraries already.

    Args:
        extras: The extras of rexport.
        without: The names of the libraries that the image has.

    Raises:
        BackendUnavailableError: As for ``requirement_pins``.
    """
    names = {name for name, _ in _requirements(PACKAGE, frozenset(extras))} - without
    return tuple(f"{name}=={_version(name)}" for name in sorted(names))


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError as error:
        raise BackendUnavailableError(
            f"{quote(name)} is not installed here, so that its version for the image is unknown",
            code="version-unknown",
            hint="pip install 'rexport[cpu,images,serve,label,manifests]'",
        ) from error


def _requirements(name: str, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Return the name and the extras of each requirement of a package that applies to this interpreter."""
    from importlib.metadata import distribution

    missing = missing_library("packaging", "manifests")
    if missing is not None:
        raise BackendUnavailableError(missing.sentence, code=missing.code)
    with importing("packaging", "manifests"):
        from packaging.requirements import Requirement

    lines = [Requirement(line) for line in distribution(name).requires or []]
    return [
        (_normal(line.name), frozenset(line.extras))
        for line in lines
        if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
