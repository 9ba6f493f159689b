"""Folders and files of a user's project that hide rexport's packages, because they have the same names."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

PACKAGES = ("runtimes", "exporter", "benchmarks")
"""Rexport's packages beside this one. All lie in one folder, wherever that is."""

_FOLDER = Path(__file__).absolute().parents[1]


class ShadowedPackageError(ImportError):
    """Python finds another module under the name of one of rexport's packages. ``path`` is its folder or file."""

    code = "package-shadowed"


def require_own(names: Iterable[str] = PACKAGES) -> None:
    """Returns if Python finds rexport's own packages under these names. Imports nothing.

    Raises:
        ShadowedPackageError: it finds another one; the message names its place and says what to do.
    """
    for name in names:
        place = _find(name)
        if place is not None and place.resolve() != (_FOLDER / name).resolve():
            raise ShadowedPackageError(
                f"{place} hides rexport's own package {name!r}, because its folder comes first on sys.path: rename "
                f"{place.name}, or keep {place.parent} off sys.path (start Python with -P, or change PYTHONPATH)",
                name=name,
                path=str(place),
            )


def _find(name: str) -> Path | None:
    """The folder of the package, or the file of the module, that has this name; ``None`` if nothing has."""
    loaded = sys.modules.get(name)
    place = _place_of(loaded) if loaded is not None else _place_to_import(name)
    return None if place is None else Path(place).absolute()


def _place_of(module: ModuleType) -> str | None:
    return next(iter(getattr(module, "__path__", ())), getattr(module, "__file__", None))


def _place_to_import(name: str) -> str | None:
    spec = find_spec(name)
    return None if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin)
