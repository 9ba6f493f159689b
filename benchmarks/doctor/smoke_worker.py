"""One backend tried in a process of its own: ``python -m benchmarks.doctor.smoke_worker``, called as
``benchmarks.worker`` is.

It is what ``benchmarks.worker`` does with any artifact, on a sample that is made first, in the same process: a library
that cannot make one, or dies at it, is as broken as one that cannot run it.
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

CACHES = ("REXPORT_CACHE", "TORCHINDUCTOR_CACHE_DIR")
"""Folders in which an engine or code of an earlier day would hide that no new one can be made."""


def main(arguments: Sequence[str]) -> int:
    """As ``benchmarks.worker.main``; the job's artifact is a path that is still to be made, and ends in its format."""
    path = Path(arguments[0])
    job = codec.loads(Job, path.read_bytes())
    for name in CACHES:
        folder = path.with_name(name.lower())
        folder.mkdir(mode=0o700)
        os.environ[name] = str(folder)
    sys.stdout.write(f"{MAKING}\n")
    sys.stdout.flush()
    target = Path(job.artifact)
    sample_model.write(target.suffix.removeprefix("."), target.parent, tf32=job.device != "cpu")
    return worker.main(arguments)


MAKING = "make a model"
"""The first step, in the parent's ears."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
