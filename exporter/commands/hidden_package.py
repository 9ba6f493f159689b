"""A folder of the user that hides the package ``runtimes``, where the commands are started with ``python -m``.

``rexport.shadowing`` does the same for the Python face and the console scripts, which import this package after it.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

HIDDEN = 5
"""The exit code for a library that is missing, which a hidden package is."""


def find_hiding_folder() -> Path | None:
    """Return the folder or file that Python finds as ``runtimes`` in place of rexport's own, or ``None``."""
    spec = find_spec("runtimes")
    place = None if spec is None else next(iter(spec.submodule_search_locations or ()), spec.origin)
    own = Path(__file__).resolve().parents[2] / "runtimes"
    return None if place is None or Path(place).resolve() == own else Path(place).absolute()
