"""The recorded surface of one release of a library: its public names, and how each is called.

What is kept are facts of an interface: names of modules, classes, functions, parameters, constants and fields. No word
of the documentation is. ``record`` writes the files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

FOLDER = Path(__file__).parent / "surfaces"

RECORDED = {
    "cuda": ("12.8.0", "13.0.3", "13.5.0"),
    "pynvml": ("12.535.77", "13.615.71"),
    "onnxruntime": ("1.24.1", "1.31.1"),
    "torch": ("2.11.0", "2.13.0"),
}
"""The releases whose surfaces lie in ``FOLDER``: the oldest that ``pyproject.toml`` allows, and newer ones."""


@dataclass(frozen=True)
class Surface:
    """One release.

    ``names`` are qualified names, as ``torch.cuda.Event.record``, with their signatures, as
    ``(self, stream=...) -> Event``. What is no function has none, and a field of a struct neither. ``options`` are
    texts that the library compares with: names of options and of entries of a configuration.
    """

    library: str
    version: str
    names: dict[str, list[str]]
    options: tuple[str, ...] = ()

    @cached_property
    def members(self) -> frozenset[str]:
        """The last parts of all names."""
        return frozenset(name.rpartition(".")[2] for name in self.names)

    @cached_property
    def owners(self) -> frozenset[str]:
        """The names that have members: classes and modules."""
        parts = (name.split(".") for name in self.names)
        return frozenset(".".join(each[:length]) for each in parts for length in range(1, len(each)))

    def text(self) -> str:
        """The JSON text, a name a line."""
        rows = [f"{json.dumps(name)}: {json.dumps(calls)}" for name, calls in sorted(self.names.items())]
        head = f'{{"library": "{self.library}", "version": "{self.version}", "options": {json.dumps(self.options)},'
        return head + '\n"names": {\n' + ",\n".join(rows) + "}}\n"


def place(library: str, version: str) -> Path:
    """The file of a release."""
    return FOLDER / f"{library}-{version}.json"


def recorded(library: str, version: str) -> Surface:
    """The surface that was written for the release."""
    found = json.loads(place(library, version).read_text(encoding="utf-8"))
    return Surface(**{**found, "options": tuple(found["options"])})
