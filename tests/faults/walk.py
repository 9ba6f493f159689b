"""Every call of a writer fails once, and then all from that call on: ``python -m tests.faults.walk FOLDER NAME...``.

The process runs under the interposer, whose folder is FOLDER, and prints a line of JSON for each writer.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.interposer import ArmedProcess, Fault
from tests.faults.writers import CARELESS, WRITERS, Inputs, Outcome

MOST_CALLS = 400
"""More than any writer makes."""

FAULTS = ((errno.EIO, False), (errno.ENOSPC, True))
"""One call fails; the disk is full from a call on."""


@dataclass
class Walk:
    """What came of a writer.

    Attributes:
        name: The writer.
        calls: The calls of a run without faults.
        failures: How many runs had a fault.
        problems: What was wrong after them.
    """

    name: str
    calls: int = 0
    failures: int = 0
    problems: list[str] = field(default_factory=list)


def contents(folder: Path) -> dict[str, str]:
    """Return the digest of each file in a folder by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


class Walker:
    """The walk of one writer.

    Args:
        faults: The interposer of this process.
        inputs: The folder of the inputs.
        name: The writer.
    """

    def __init__(self, faults: ArmedProcess, inputs: Path, name: str) -> None:
        self._faults, self._writer, self._inputs = faults, WRITERS.get(name, CARELESS), inputs
        self._out = faults.folder / "out"
        self.walk = Walk(name)
        self._old, self._new = inputs / f"{name} before", inputs / f"{name} after"
        self._states = {"old": self._record("old", self._old), "new": self._record("new", self._new)}
        self._states["first"] = self._record("new", None)

    def _write(self, version: str) -> Outcome:
        return self._writer.write(Inputs(self._inputs, version), self._out)

    def _begin(self, before: Path | None) -> None:
        shutil.rmtree(self._faults.folder)
        if before is None:
            self._out.mkdir(parents=True)
        else:
            shutil.copytree(before, self._out, symlinks=True)

    def _record(self, version: str, keep: Path | None) -> dict[str, str]:
        """Write without faults, over the old output if there is one, and return what is there."""
        self._begin(self._old if keep == self._new else None)
        self._faults.arm(None)
        outcome = self._write(version)
        self.walk.calls = self._faults.calls()
        if outcome.code:
            raise RuntimeError(f"{self.walk.name}: {outcome.message}")
        self._writer.check(self._out)
        if keep is not None:
            shutil.copytree(self._out, keep, symlinks=True)
        return contents(self._out)

    def run(self) -> Walk:
        """Walk through all calls, over an old output and without one."""
        for before in (self._old, None):
            for error, onward in FAULTS:
                for at in range(1, MOST_CALLS):
                    self._begin(before)
                    self._faults.arm(Fault(at, error, onward))
                    outcome = self._write("new")
                    happened = self._faults.faults()
                    self._faults.arm(None)
                    where = f"{'over an old output' if before else 'without one'}, {errno.errorcode[error]} at {at}"
                    self.walk.problems += [
                        f"{where}: {each}" for each in self._judge(outcome, before is None, happened, onward)
                    ]
                    if not happened:
                        break
                    self.walk.failures += 1
                else:
                    self.walk.problems.append(f"no end after {MOST_CALLS} calls")
        return self.walk

    def _judge(self, outcome: Outcome, is_first: bool, faults: int, onward: bool) -> Iterator[str]:
        found = {os.path.relpath(name, "out"): digest for name, digest in contents(self._faults.folder).items()}
        old: dict[str, str] = {} if is_first else self._states["old"]
        new = self._states["first" if is_first else "new"]
        if outcome.code not in (0, 6) or (outcome.code and not faults):
            yield f"exit code {outcome.code}: {outcome.message.strip()[-300:]}"
        if outcome.code == 6 and (".tmp" in outcome.message or str(self._faults.folder) not in outcome.message):
            yield f"unnamed file: {outcome.message.strip()[-300:]}"
        for name, digest in found.items():
            if name not in old and name not in new:
                if not (onward and name.endswith(".json.next")):  # readers know it, where no rename succeeds any more
                    yield f"left over: {name}"
            elif digest not in (old.get(name), new.get(name)) and name not in self._writer.varies:
                yield f"mixed: {name}"
        if missing := old.keys() & new.keys() - found.keys():
            yield f"lost: {sorted(missing)}"
        if outcome.code == 0 and found.keys() != new.keys():
            yield f"exit code 0, but not there: {sorted(new.keys() ^ found.keys())}"
        try:
            self._writer.check(self._out)
        except Exception as error:
            yield f"damaged: {error!r}"


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(exist_ok=True)
    faults = ArmedProcess()
    with open(os.dup(1), "w", encoding="utf-8", buffering=1) as lines:  # some commands close standard output
        for name in names:
            lines.write(json.dumps(asdict(Walker(faults, folder, name).run())) + "\n")


if __name__ == "__main__":
    main()
