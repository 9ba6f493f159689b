"""Cold starts: from the start of a process to its first answer, step by step, each in a process of its own.

The process does what an application does: it starts Python, imports ``runtimes``, opens the artifact and asks once. The
files are read from the system's page cache, for whoever ran them before has read them; the first start after the
machine's own takes as much longer as its disk is slow.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import benchmarks
from benchmarks.process import isolated
from benchmarks.process.isolated import Failure
from benchmarks.process.job import Job
from benchmarks.records.samples import STEPS, ColdStart, LoadResult
from runtimes.artifacts.artifact import Artifact, manifest_path
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    Reason,
    ResourceError,
    RexportError,
    quote,
)

REPEATS = 5
"""As many as a median is given from."""

PROGRAM = (sys.executable, "-P", str(Path(benchmarks.__path__[0]) / "worker" / "cold_start.py"))

PAGE_CACHE = Reason("files-in-page-cache", "its files were in the page cache")

_RAISED: dict[int | None, type[RexportError]] = {
    error.exit_code: error for error in (ArtifactError, CompatibilityError, BackendUnavailableError, ResourceError)
}
"""The errors that a process may end with. Whatever else ends it is a check that failed."""


def cold_start(
    job: Job, silence_s: float, step: Callable[[str], None], repeats: int = REPEATS, program: tuple[str, ...] = PROGRAM
) -> LoadResult:
    """``repeats`` fresh processes that open the job's artifact, one after another; ``step`` is told of each. A process
    that takes longer than ``silence_s`` is taken for hung and ended.

    Raises:
        RexportError: a process did not come to its end, with the reason that it gave.
    """
    # Python may keep its bytecode, as pip does for all that it installs: ours is then compiled once and not each time.
    variables = {name: value for name, value in isolated.environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    starts = []
    for number in range(repeats):
        step(f"cold start {number + 1} of {repeats}")
        asked = (job.artifact, job.runtime, job.device, str(job.threads), job.model_cache or "", repr(time.monotonic()))
        reply = isolated.run((*program, *asked), ColdStart, silence_s, variables)
        if isinstance(reply, Failure):
            kind = _RAISED.get(reply.exit_code, CheckFailedError)
            reason = reply.last_line if reply.last_line and (reply.exit_code or 0) > 0 else reply.reason.sentence
            raise kind(f"no cold start: {quote(reason)}", code="cold-start-failed")
        starts.append(reply)
    return load_of(starts, disk_bytes(Artifact.read(job.artifact)))


def load_of(starts: Sequence[ColdStart], size_bytes: int) -> LoadResult:
    """The load that the processes were: a request each, answered when the first call has ended."""
    steps = [(start.python_s, start.import_s, start.open_s, start.first_s, start.steady_s) for start in starts]
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    responses = tuple(round(start.first_output_s, 9) for start in starts)
    medians = [round(statistics.median(values), 9) for values in zip(*steps, strict=True)]
    return LoadResult(
        shape="cold",
        services_s=tuple(round(start.first_s, 9) for start in starts),
        responses_s=responses,
        achieved_per_s=len(starts) / sum(responses),
        steps_s=tuple(zip(STEPS, medians, strict=True)),
        disk_bytes=size_bytes,
        peak_bytes=max(peaks, default=None),
    )


def disk_bytes(artifact: Artifact) -> int:
    """Of the model file and of all that its manifest names, the manifest with it; of a foreign file, its own.

    Raises:
        ResourceError: one cannot be looked at.
    """
    places, manifest = [artifact.path], artifact.manifest
    if manifest is not None:
        records = [*manifest.external, *filter(None, [manifest.vectors])]
        places += [manifest_path(artifact.path), *(artifact.sibling(record.name, record.sha256) for record in records)]
    try:
        return sum(place.stat().st_size for place in places)
    except OSError as error:
        raise ResourceError.from_os(error, artifact.path, "look at") from error
