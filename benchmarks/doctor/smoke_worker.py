"""The smoke test of one backend in a process of its own: ``python -m benchmarks.doctor.smoke_worker``.

The process takes the arguments of ``benchmarks.worker`` and does the same with a sample model, which it writes first. A
library that cannot write the model is as broken as a library that cannot run it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.doctor import sample_model
from benchmarks.process.job import Job
from benchmarks.worker import __main__ as worker
from runtimes import codec

FOLDERS = ("REXPORT_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR")
"""The variables of folders that are new in each test and are removed with it. An engine or code in the usual caches
would hide that none can be made now, and a compiler that is killed leaves temporary files."""


def main(arguments: Sequence[str]) -> int:
    """Write the model and run the worker with the ``arguments`` of ``benchmarks.worker.main``.

    The artifact of the job is the path of the model to write. Its suffix is the format.
    """
    path = Path(arguments[0])
    job = codec.loads(Job, path.read_bytes())
    for name in FOLDERS:
        folder = path.with_name(name.lower())
        folder.mkdir(mode=0o700)
        os.environ[name] = str(folder)
    sys.stdout.write(f"{MAKING}\n")
    sys.stdout.flush()
    target = Path(job.artifact)
    sample_model.write(target.suffix.removeprefix("."), target.parent, tf32=job.device != "cpu")
    return worker.main(arguments)


MAKING = "make a model"
"""The first step that the process reports."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
