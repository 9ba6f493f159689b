"""From what was asked for, and what the workers brought back, to a result."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.accuracy.packing import pack_predictions
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis import warnings
from benchmarks.analysis.figures import Figures
from benchmarks.machine.environment import Environment
from benchmarks.process.job import JobOutcome, ProcessOutcomes
from benchmarks.records.request import NOISE, BenchmarkRequest, Configuration
from benchmarks.records.result import Asked, Evaluation, GpuUse, Identity, Ran, Result
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import Cost
from benchmarks.roofline.roof import roof_inputs, wider
from runtimes import Artifact, files
from runtimes.devices import CPU
from runtimes.errors import Reason, ResourceError
from runtimes.onnx import graph

NAMED, KEPT_NAMES = 3, 1000
"""How many of the unreadable images a note names, and a result."""


def start_result(run: str, taken_on: Environment, request: BenchmarkRequest, configuration: Configuration) -> Result:
    """A result that knows what is to be measured, and nothing more."""
    pair, subject = configuration.pair, configuration.pair.subject
    weights = subject.weights
    file = pair.opens if isinstance(pair.opens, Artifact) else subject.own
    sha256 = ""
    if file is not None:
        with contextlib.suppress(ResourceError):  # the file is gone, which the row reports
            sha256 = _digest(file.path, files.identity(file.path))
    return Result(
        status="ok",
        reason=None,
        run=run,
        time=_now(),
        identity=Identity(
            subject=subject.name,
            artifact=subject.name if file is None else file.path.name,
            sha256=sha256,
            variant=subject.network,
            weights=None if weights is None else weights.origin,
            trained=None if weights is None else weights.trained,
            precision=pair.typed.precision,
            backend=pair.backend.name,
            batch=configuration.batch,
            data=subject.data or NOISE,
            file=pair.typed.file,
            size_bytes=size_bytes(pair.opens) if isinstance(pair.opens, Artifact) else None,
            size=subject.size,
        ),
        asked=Asked(
            threads=configuration.threads,
            device=request.device_of(configuration),
            cuda_graphs=None if request.device_kind == CPU else configuration.cuda_graphs,
            duration_s=request.duration_s,
            processes=request.processes,
            rounds=request.rounds,
            seed=request.seed,
            group=None,
            command=request.command,
            baseline=subject.baseline,
            quick=request.quick,
            at_once=configuration.at_once,
        ),
        ran=Ran(request.device_of(configuration), configuration.threads),
        environment=taken_on,
    )


@functools.lru_cache(maxsize=64)
def _digest(path: Path, identity: tuple[int, ...]) -> str:  # noqa: ARG001 - a replaced file is read again
    """The digest of what is on disk, not of what a manifest says about it."""
    return files.sha256_of(path)


def size_bytes(artifact: Artifact) -> int | None:
    """Of the model file and of the files beside it that hold its weights; ``None`` where one is gone."""
    names = {location for location, _ in graph.read(artifact.path).external} if artifact.format.name == "onnx" else ()
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in (artifact.path, *map(artifact.path.parent.joinpath, names)))
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class ResultContext:
    """What workers do not know: the classes' names, the cost of one call of the graph, and the machine's ceilings."""

    labels: tuple[str, ...] | None = None
    cost: Cost | None = None
    ceilings: Ceilings | None = None


def finish_result(
    result: Result, gathered: ProcessOutcomes, predictions: Predictions | None, context: ResultContext
) -> Result:
    """The result with what came of it; of a configuration that is not ok, its status and reason alone."""
    first, last, number = gathered.outcomes[0], gathered.outcomes[-1], len(gathered.outcomes)
    reason = last.reason
    if reason is not None and number > 1:
        reason = Reason(reason.code, f"in process {number}: {reason}")
    result = replace(result, status=last.status, reason=reason, notes=tuple(_notes(first)), time=_now())
    about = first.description
    samples = tuple(outcome.sitting for outcome in gathered.outcomes if outcome.sitting is not None)
    if last.status != "ok" or about is None or not samples:
        return result
    arithmetic = first.arithmetic or about.precision
    measured = replace(
        result,
        ran=Ran(about.device, about.threads, about.version, about.provider, arithmetic),
        notes=tuple(_notes(first, wider(result.identity.precision, arithmetic))),
        warnings=tuple(dict.fromkeys(each for outcome in gathered.outcomes for each in outcome.warnings)),
        samples=samples,
        gpu=_gpu_use(first, last, result.identity.batch),
        kernels=first.kernels,
        trtexec=first.trtexec,
        roof=roof_inputs(context.cost, context.ceilings, arithmetic),
    )
    figures = Figures(measured)
    unfinished = warnings.find_unfinished_work(measured, figures.p50, figures.compute_p50, figures.device_p50)
    if unfinished is not None:
        return replace(result, status="failed", reason=unfinished)
    if predictions is None:
        return measured
    evaluation = Evaluation(len(first.unreadable), first.unreadable[:KEPT_NAMES], first.evaluated_per_s)
    return replace(measured, evaluation=evaluation, predictions=pack_predictions(predictions, context.labels))


def _gpu_use(first: JobOutcome, last: JobOutcome, batch: int) -> GpuUse:
    """What the GPU's driver told of the first and of the last process."""
    energy, use = first.energy, GpuUse(first.gpu_before, last.gpu_after, first.device_peak_bytes)
    if energy is None:
        return use
    image_j = energy.energy_j / (energy.runs * batch)
    return replace(
        use, energy_per_image_j=image_j, energy_error_share=round(energy.error_share, 4), power_w=energy.power_w
    )


def without_figures(result: Result, reason: Reason) -> Result:
    """The result as an error with that reason, without all that was measured."""
    return replace(result, status="error", reason=reason, samples=(), predictions=None, evaluation=None, roof=None)


def _notes(outcome: JobOutcome, wide: Reason | None = None) -> list[Reason]:
    """What a reader must know of the first process."""
    notes = [*outcome.notes, *filter(None, [wide])]
    if outcome.unreadable:
        count, names = len(outcome.unreadable), ", ".join(outcome.unreadable[:NAMED])
        more = f", and {count - NAMED:,} more, by name in the results' unreadable_names" if count > NAMED else ""
        images = "image" if count == 1 else "images"
        notes.append(Reason("images-left-out", f"{count:,} {images} could not be read: {names}{more}"))
    return notes
