"""What a folder of results holds already, so that measuring can go on where it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.analysis.figures import Figures
from benchmarks.machine.environment import Environment
from benchmarks.records.request import Configuration, Subject
from benchmarks.records.result import Result
from benchmarks.records.store import FILE_NAME, ResultsFile, read
from benchmarks.roofline.ceilings import Ceilings
from runtimes import codec, files
from runtimes.errors import UsageError

STATE = "complete.json"


@dataclass(frozen=True)
class LedgerPart:
    """One network, and what is measured of it: the unit that is complete or not.

    ``runtimes`` are those that were asked for, none means all. ``digest_packages`` tells one set of installed packages
    from another: what could not be measured is tried again when something else is there.
    """

    variant: str
    weights: str
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    runtimes: tuple[str, ...]
    installed: str


@dataclass(frozen=True)
class _State:
    """``ceilings``: by what is installed, as ``digest_packages`` tells it."""

    complete: tuple[LedgerPart, ...] = ()
    ceilings: Mapping[str, Ceilings] = field(default_factory=dict)


class Ledger:
    """What a folder holds already: its results, of which the last of each configuration counts, and what is complete.

    Attributes:
        folder: that exists.
        results: in the order that they were first measured in.
    """

    def __init__(self, folder: Path, machine: tuple[str, ...]) -> None:
        """Reads what is there.

        Raises:
            UsageError: it was measured on another machine.
            RexportError: what is there cannot be read, or the folder cannot be written into.
        """
        self._file = ResultsFile(folder / FILE_NAME)
        self.folder = folder
        self.results: dict[tuple[object, ...], Result] = {}
        self._every = list(read(self._file.path)) if self._file.path.exists() else []
        for result in self._every:
            if (there := machine_of(result.environment)) != machine:
                raise UsageError(
                    f"its rows are of {', '.join(there)}, and this is {', '.join(machine)}",
                    code="machine-differs",
                    path=self._file.path,
                    hint="name another folder",
                )
            self.results[_key(result)] = result
        place = folder / STATE
        self._state = codec.loads(_State, place.read_bytes()) if place.exists() else _State()

    def keep(self, result: Result) -> None:
        """Adds a result to the file."""
        self._every.append(result)
        self._file.append(result, Figures.of(result, self._every).as_json())
        self.results[_key(result)] = result

    def complete(self, part: LedgerPart) -> bool:
        """Whether there is nothing left to measure of it."""
        return part in self._state.complete

    def mark(self, part: LedgerPart) -> None:
        """Notes that there is nothing left of it."""
        self._write(replace(self._state, complete=(*self._state.complete, part)))

    def ceilings(self, installed: str) -> Ceilings | None:
        """The machine's ceilings as they were measured with these packages; ``None`` if they were not."""
        return self._state.ceilings.get(installed)

    def keep_ceilings(self, installed: str, ceilings: Ceilings | None) -> None:
        """Keeps them for the networks that follow. Those that could not be measured are tried again."""
        if ceilings is not None and ceilings.missing is None and self._state.ceilings.get(installed) != ceilings:
            self._write(replace(self._state, ceilings={**self._state.ceilings, installed: ceilings}))

    def _write(self, state: _State) -> None:
        self._state = state
        with files.write_atomically(self.folder / STATE) as temporary:
            temporary.write_text(codec.dumps(self._state, indent=2) + "\n", encoding="utf-8")

    def list_remaining(self, wanted: Sequence[Configuration], subject: Subject, device: str) -> list[Configuration]:
        """Those that are not there yet, and the reference of their batches. What was skipped is tried again."""
        found = {key for key, result in self.results.items() if result.status != "skipped"}
        lacking = [one for one in wanted if _key_of(one, subject, device) not in found]
        batches = {one.batch for one in lacking}
        return [one for one in wanted if one in lacking or (one.reference and one.batch in batches)]

    def by_network(self) -> list[Figures]:
        """The results with their figures, those of one network together."""
        order = list(dict.fromkeys(result.identity.subject for result in self.results.values()))
        ordered = sorted(self.results.values(), key=lambda result: order.index(result.identity.subject))
        return [Figures.of(result, self._every) for result in ordered]


def digest_packages(about: Environment) -> str:
    """A few letters that change with what is installed."""
    return hashlib.sha256(repr(sorted(about.packages.items())).encode()).hexdigest()[:12]


def machine_of(about: Environment) -> tuple[str, ...]:
    """What rows of one table must have in common: the processor and the GPUs, by their names."""
    return (about.cpu, *(gpu.name for gpu in about.gpus))


def _key(result: Result) -> tuple[object, ...]:
    of = result.identity
    return (of.subject, of.backend, of.precision, of.batch, result.asked.cuda_graphs)


def _key_of(configuration: Configuration, subject: Subject, device: str) -> tuple[object, ...]:
    graphs = None if device == "cpu" else configuration.cuda_graphs
    pair = configuration.pair
    return (subject.name, pair.backend.name, pair.typed.precision, configuration.batch, graphs)
