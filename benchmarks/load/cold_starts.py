"""Cold starts: from the start of a process to its first answer, step by step, each in a process of its own.

The process does what an application does: it starts Python, imports ``runtimes``, opens the artifact and asks once. The
files are read from the system's page cache, for whoever ran them before has read them; the first start after the
machine's own takes as much longer as its disk is slow.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import benchmarks
from benchmarks.process import worker_process
from benchmarks.records.load import STEPS, ColdStart, LoadResult
from runtimes import codec
from runtimes.artifacts.artifact import Artifact, manifest_path
from runtimes.errors import (
    ArtifactError,
    BackendUnavailableError,
    CheckFailedError,
    CompatibilityError,
    ResourceError,
    RexportError,
    quote,
)

REPEATS = 5
"""As many as a median is given from."""


PROGRAM = (sys.executable, "-P", str(Path(benchmarks.__path__[0]) / "worker" / "cold_start.py"))


PAGE_CACHE = "its files were in the page cache"


_RAISED: dict[int, type[RexportError]] = {
    error.exit_code: error
    for error in (CheckFailedError, ArtifactError, CompatibilityError, BackendUnavailableError, ResourceError)
}


def cold_start(
    artifact: Artifact,
    runtime: str,
    device: str,
    threads: int,
    silence_s: float,
    step: Callable[[str], None],
    repeats: int = REPEATS,
    program: tuple[str, ...] = PROGRAM,
) -> LoadResult:
    """``repeats`` fresh processes, one after another; ``step`` is told of each.

    Args:
        runtime, device, threads: as ``runtimes.open`` takes them.
        silence_s: a process that takes longer is taken for hung and ended.

    Raises:
        RexportError: a process did not come to its end, with the reason that it gave.
    """
    starts = []
    for number in range(repeats):
        step(f"cold start {number + 1} of {repeats}")
        told = _read_reply([*program, str(artifact.path), runtime, device, str(threads)], artifact, silence_s)
        starts.append(codec.loads(ColdStart, told))
    return load_of(starts, disk_bytes(artifact))


def _read_reply(command: Sequence[str], artifact: Artifact, silence_s: float) -> bytes:
    """What a process said; it is told when it was started."""
    try:
        done = subprocess.run(
            [*command, repr(time.monotonic())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            timeout=silence_s,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailedError(f"its process took longer than {silence_s:g} s", path=artifact.path) from None
    if done.returncode == 0:
        return done.stdout
    words = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    reason = quote(words[-1]) if words else f"its process ended with exit code {done.returncode}"
    raise _RAISED.get(done.returncode, CheckFailedError)(f"no cold start: {reason}")


def _environment() -> dict[str, str]:
    """As a worker's. But Python may keep its bytecode, as pip does for all
    that it installs: ours is then compiled once and not each time."""
    return {name: value for name, value in worker_process.environment().items() if name != "PYTHONDONTWRITEBYTECODE"}


def load_of(starts: Sequence[ColdStart], size_bytes: int) -> LoadResult:
    """The load that the processes were: a request each, answered when the first call has ended."""
    steps = [(start.python_s, start.import_s, start.open_s, start.first_s, start.steady_s) for start in starts]
    peaks = [start.peak_bytes for start in starts if start.peak_bytes is not None]
    responses = tuple(round(start.first_output_s, 9) for start in starts)
    return LoadResult(
        shape="cold",
        services_s=tuple(round(start.first_s, 9) for start in starts),
        responses_s=responses,
        achieved_per_s=len(starts) / sum(responses),
        steps_s=tuple(
            (name, round(statistics.median(values), 9))
            for name, values in zip(STEPS, zip(*steps, strict=True), strict=True)
        ),
        disk_bytes=size_bytes,
        peak_bytes=max(peaks, default=None),
    )


def disk_bytes(artifact: Artifact) -> int:
    """Of the model file and of all that its manifest names, the manifest with it; of a foreign file, its own.

    Raises:
        ResourceError: one cannot be looked at.
    """
    places = [artifact.path]
    if artifact.manifest is not None:
        places.append(manifest_path(artifact.path))
        records = [*artifact.manifest.external, *filter(None, [artifact.manifest.vectors])]
        places += [artifact.path.with_name(record.name) for record in records]
    try:
        return sum(place.stat().st_size for place in places)
    except OSError as error:
        raise ResourceError.from_os(error, artifact.path, "look at") from error
