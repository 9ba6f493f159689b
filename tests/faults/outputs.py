"""What writers write, as digests: ``python -m tests.faults.outputs FOLDER NAME...`` prints JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.faults.walk import contents
from tests.faults.writers import WRITERS, Inputs


def write(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """Return the digests of what the writers write into the folder, by writer."""
    found = {}
    (folder / "inputs").mkdir(parents=True)
    for name in names:
        (folder / name).mkdir()
        outcome = WRITERS[name].write(Inputs(folder / "inputs"), folder / name)
        if outcome.code:
            raise RuntimeError(f"{name}: {outcome.message}")
        found[name] = contents(folder / name)
    return found


def main() -> None:
    with os.fdopen(os.dup(1), "w") as lines:  # some commands close standard output
        lines.write(json.dumps(write(Path(sys.argv[1]), *sys.argv[2:])) + "\n")


if __name__ == "__main__":
    main()
