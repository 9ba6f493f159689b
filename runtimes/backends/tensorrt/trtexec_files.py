"""The two JSON files of trtexec about the layers of an engine, which TensorRT's other tools read."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence

from runtimes.artifacts.artifact import Artifact
from runtimes.artifacts.manifest import Engine
from runtimes.backends.tensorrt import compatibility, inspector
from runtimes.backends.tensorrt.engine import LoadedEngine, deserialise, specs
from runtimes.backends.tensorrt.flavors import FLAVORS
from runtimes.backends.tensorrt.profiler import context_for, time_layers
from runtimes.errors import UsageError
from runtimes.runtime import noise
from runtimes.tensors import cuda

PROFILED_RUNS = 50
"""The number of runs that the times of a profile are taken from."""


def describe_layers(artifact: Artifact, device_index: int = 0) -> str:
    """Return the JSON of ``trtexec --exportLayerInfo``: the layers, at the batch that the first profile is tuned for.

    Args:
        artifact: The engine.
        device_index: The number of the GPU.

    Raises:
        UsageError: The file is not an engine.
        RexportError: As for ``compatibility.check`` and ``engine.deserialise``.
    """
    built = _require_engine(artifact)
    with cuda.current(device_index):
        loaded, record = _load(artifact, built, device_index)
        profile = record.profiles[0]
        return inspector.information(loaded, context_for(loaded, specs(loaded)[0], record.profiles, profile.best))


def profile_layers(artifact: Artifact, device_index: int = 0) -> str:
    """Return the JSON of ``trtexec --exportProfile``: the times of the layers in ``PROFILED_RUNS`` runs.

    The batch is the one that the first profile is tuned for, and its images are noise. The times include the cost of
    the profiler, as trtexec's do, so that their sum is more than the time of a run.

    Args:
        artifact: The engine.
        device_index: The number of the GPU.

    Raises:
        UsageError: The file is not an engine.
        RexportError: As for ``compatibility.check``, ``engine.deserialise`` and ``profiler.time_layers``.
    """
    built = _require_engine(artifact)
    with cuda.current(device_index):
        loaded, record = _load(artifact, built, device_index)
        inputs, outputs = specs(loaded)
        batch = record.profiles[0].best
        context = context_for(loaded, inputs, record.profiles, batch)
        arrays = {spec.name: noise(spec, batch=batch) for spec in inputs}
        times = time_layers(loaded, context, arrays, outputs, PROFILED_RUNS)
    return json.dumps(_rows(times), indent=1)


def _require_engine(artifact: Artifact) -> Engine:
    if artifact.manifest is None or artifact.manifest.engine is None:
        raise UsageError(
            f"only an engine has layers to export, but this file has the format {artifact.format.name}",
            code="layers-need-engine",
            path=artifact.path,
            hint="rexport tensorrt builds an engine",
        )
    return artifact.manifest.engine


def _load(artifact: Artifact, built: Engine, device_index: int) -> tuple[LoadedEngine, Engine]:
    flavor = FLAVORS[built.flavor]
    record = compatibility.check(artifact, flavor, cuda.device(device_index))
    return deserialise(artifact, record, flavor), record


def _rows(times: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    total_s = sum(map(sum, times.values()))
    count = max(map(len, times.values()), default=0)
    rows: list[dict[str, object]] = [{"count": count}]
    for title, runs in times.items():
        rows.append(
            {
                "name": title,
                "timeMs": sum(runs) * 1e3,
                "averageMs": statistics.fmean(runs) * 1e3,
                "medianMs": statistics.median(runs) * 1e3,
                "percentage": 100 * sum(runs) / total_s if total_s else 0.0,
            }
        )
    return rows
