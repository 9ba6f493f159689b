"""Times of an engine by ``trtexec``, NVIDIA's own program, for a comparison with the times of rbench.

``trtexec`` is asked for the same work: one query at a time in a CUDA graph, without copies, while the host polls the
device. Its file of times is a JSON list with one object for each query after the warm-up, as written by
``exportJSONTrace`` in ``samples/common/sampleReporting.cpp`` of NVIDIA/TensorRT.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.format import one_line
from benchmarks.records.result import TrtexecTimes
from runtimes.errors import BackendUnavailableError

WARM_UP_MS, DURATION_S = 1000, 10
"""How long ``trtexec`` warms up and measures."""

TIME_LIMIT_S = 300.0
"""The time after which ``trtexec`` is ended."""

COMPUTE = "computeMs"
"""The key of the "GPU Compute Time" in the file of times, in milliseconds."""

_VERSION = re.compile(r"\[TensorRT v(\d+)\]|TensorRT version: ([\d.]+)")


@dataclass(frozen=True)
class EngineRun:
    """The engine and the shapes that ``trtexec`` runs.

    Attributes:
        engine: The path of the engine.
        shapes: The shapes of the inputs, by name; empty for an engine with fixed shapes.
        cuda_graph: Whether the run is replayed from a CUDA graph.
        ordinal: The number of the GPU.
    """

    engine: str
    shapes: Mapping[str, tuple[int, ...]]
    cuda_graph: bool
    ordinal: int = 0


def command_line(program: str, run: EngineRun, times: Path) -> tuple[str, ...]:
    """Return the command that runs an engine and writes the times.

    Args:
        program: The path of ``trtexec``.
        run: The engine and its shapes.
        times: The file for the times.
    """
    shapes = ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in run.shapes.items())
    return (
        program,
        f"--loadEngine={run.engine}",
        *([f"--shapes={shapes}"] if shapes else []),
        *(["--useCudaGraph"] if run.cuda_graph else []),
        *([f"--device={run.ordinal}"] if run.ordinal else []),
        "--useSpinWait",
        "--noDataTransfers",
        f"--warmUp={WARM_UP_MS}",
        f"--duration={DURATION_S}",
        f"--exportTimes={times}",
    )


def measure_engine(program: str, run: EngineRun, limit_s: float = TIME_LIMIT_S) -> TrtexecTimes:
    """Run ``trtexec`` and return its times. Blocks for ``DURATION_S`` and the time to load the engine.

    Args:
        program: The path of ``trtexec``.
        run: The engine and its shapes.
        limit_s: The time after which it is ended.

    Raises:
        BackendUnavailableError: The program cannot be started, fails, takes too long, or writes no times.
    """
    with tempfile.TemporaryDirectory(prefix="rbench-trtexec-") as folder:
        times = Path(folder) / "times.json"
        command = command_line(program, run, times)
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=limit_s,
            )
        except OSError as error:
            raise _failure(f"cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise _failure(f"was ended after {limit_s:.0f} s") from error
        if done.returncode:
            raise _failure(f"ended with exit code {done.returncode}: {_last_error(done.stdout)}")
        if not times.exists():
            raise _failure(f"wrote no times: {_last_error(done.stdout)}")
        return TrtexecTimes(_version(done.stdout), command, read_times(times.read_text(errors="replace")))


def read_times(text: str) -> tuple[float, ...]:
    """Return the seconds of "GPU Compute Time" of each query from the text of a file of times.

    Raises:
        BackendUnavailableError: The text is not such a file, or has no query.
    """
    try:
        seconds = tuple(round(float(query[COMPUTE]) / 1e3, 9) for query in json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        raise _failure(f"wrote times that cannot be read: {error!r}") from error
    if not seconds or not all(0 < each < float("inf") for each in seconds):
        raise _failure(f"wrote times that cannot be: {seconds[:3]}")
    return seconds


def _version(output: str) -> str:
    found = _VERSION.search(output)
    return "" if found is None else found[1] or found[2]


def _last_error(output: str) -> str:
    """Return the last line that is marked as an error, or the last line."""
    lines = [line for line in output.splitlines() if line.strip()]
    return one_line(next((line for line in reversed(lines) if "[E]" in line), lines[-1] if lines else "no output"))


def _failure(what: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"trtexec {what}", code="trtexec-failed")
