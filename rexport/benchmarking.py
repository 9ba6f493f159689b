"""Benchmarks from Python: artifacts and variants in, a report out."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TypeAlias

from benchmarks.analysis.figures import Figures
from benchmarks.harness.collection import Collection
from benchmarks.harness.run import run
from benchmarks.records.plan import BUDGET_S, ROUNDS, SILENCE_S
from benchmarks.records.request import BenchmarkRequest, RunListener
from exporter.precision.table import CALIBRATION_IMAGES, Target
from rexport.progress import Progress, ignore_progress, log_notice
from rexport.report import Report
from rexport.wording import python_wording
from runtimes.arguments import require_not_empty
from runtimes.artifacts.artifact import Artifact

DEFAULTS = BenchmarkRequest()
"""What is not asked for."""

Model: TypeAlias = str | os.PathLike[str] | Artifact

MODEL = (str, os.PathLike, Artifact)
"""The same, for a check at run time."""


class BenchmarkInterrupt(KeyboardInterrupt):
    """The benchmark was interrupted. ``report`` has what was measured before; its workers have ended."""

    def __init__(self, report: Report) -> None:
        measured = sum(row.result.status == "ok" for row in report.rows)
        super().__init__(f"{measured} of {len(report.rows)} rows were measured before the interrupt")
        self.report = report


def benchmark(
    models: Model | Sequence[Model] = (),
    *,
    backends: str | Sequence[str] = (),
    baseline: str | None = None,
    device: str = DEFAULTS.device,
    cuda_graphs: bool = DEFAULTS.cuda_graphs,
    precision: str | Sequence[str] = (),
    batch: int | Sequence[int] = (),
    threads: int | None = None,
    data: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    weights: str | os.PathLike[str] | None = None,
    key: str | None = None,
    strip_prefix: str | None = None,
    expect_sha256: str | None = None,
    input_size: int | tuple[int, int] | None = None,
    raw_input: bool | None = None,
    calibration: str | os.PathLike[str] | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    target: Target = "cpu",
    seed: int = DEFAULTS.seed,
    duration: float = DEFAULTS.duration_s,
    processes: int | None = None,
    rounds: int = ROUNDS,
    budget: float = BUDGET_S,
    timeout: float = SILENCE_S,
    roofline: bool = DEFAULTS.roofline,
    progress: Progress | bool | None = None,
) -> Report:
    """Measures latency, memory and accuracy of each model on each backend that opens it, as ``rbench run`` does; blocks
    for seconds to minutes.

    Every configuration runs in processes of its own, which take turns. They are fresh interpreters and import nothing
    of the caller's: a script needs no ``if __name__ == "__main__"``, and a notebook or a thread may call this function.
    Nothing is written to stdout; notices go to the logger ``rexport``.

    An interrupt (Ctrl-C, or the stop button of a notebook) ends the workers and raises ``BenchmarkInterrupt``, a
    ``KeyboardInterrupt`` whose ``report`` has the rows that were measured. After it in a notebook,
    ``sys.last_value.report`` is the report.

    Args:
        models: Paths of artifacts, artifacts as ``export`` gives them, or names of variants and paths of checkpoints,
            which are exported on the way; one or several. By default the bundled trained ResNet-20.
        backends: Names or aliases, as in ``available_backends()``; no others are measured. By default all that open
            the model, but for those that compile it for minutes, as Inductor.
        baseline: The backend that the others are compared with; it is measured in any case. By default PyTorch where it
            is measured, otherwise the first that runs.
        device: ``cpu``, ``cuda`` for the first GPU, or ``cuda:N``. Several GPUs, as ``cuda:0,cuda:1``, are measured one
            by one, and then all at once.
        cuda_graphs: Lets a GPU replay recorded runs.
        precision: Precisions of the graph to compare. By default an artifact's own, and fp32 for a variant.
        batch: Images in one call. By default 1, or what the artifact is fixed at.
        threads: Threads of one call. By default all processors that this process may use.
        data: Labelled images, as for ``export``. By default the bundled ones where they fit; otherwise noise, and no
            accuracy.
        limit: The most images on which accuracy is measured.
        weights: Weights of variants, as for ``export``.
        key: The entry of a checkpoint, as for ``export``.
        strip_prefix: The prefix of the names in a checkpoint, as for ``export``.
        expect_sha256: The SHA-256 of a checkpoint, as for ``export``.
        input_size: Height and width of the inputs of variants and checkpoints in pixels, or one number for both. The
            preprocessing scales with it.
        raw_input: Lets variants take uint8 pixels.
        calibration: Training images for int8, as for ``export``.
        calibration_images: Maximum number of calibration images.
        target: Deployment target of int8: ``cpu`` or ``tensorrt``.
        seed: Of noise, random weights, the order of turns and resampling.
        duration: Seconds of sampling in each process, by each clock.
        processes: Fresh processes of each configuration. By default 3 to 10, as many as fit into ``budget``.
        rounds: Interleaved rounds in each process, in random order. Drift detection needs at least 4.
        budget: Seconds for each network and batch size; repeat processes start while they fit.
        timeout: Seconds without a sign of life after which a worker is ended.
        roofline: Measures the machine's peak FLOPS and bandwidth first.
        progress: A function of ``(done, total, description)`` in seconds; ``total`` is an estimate, or ``None`` while
            there is none. ``True`` prints the command's status line to stderr. By default nothing is printed.

    Returns:
        The report. What cannot run here is a row with its reason, and no error.

    Raises:
        UsageError: An unknown variant, backend or precision; a number out of range; arguments that contradict each
            other.
        ModelMismatchError: The data do not fit the model.
        RexportError: A model, the weights or the data cannot be read. All this before any measurement.
        BenchmarkInterrupt: See above.

    Examples:
        >>> report = rexport.benchmark(["fp32.onnx", "int8.onnx"], backends=["onnxruntime"], batch=[1, 8])
        >>> print(report.verdict)
        >>> pandas.DataFrame(report.to_records())
    """
    command = _command(locals())
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    with python_wording():
        require_not_empty(models=models, data=data, weights=weights, calibration=calibration)
        request = BenchmarkRequest(
            subjects=tuple(map(_subject, [models] if isinstance(models, MODEL) else models)),
            backends=_texts(backends),
            baseline=baseline,
            device=device,
            cuda_graphs=cuda_graphs,
            batches=(batch,) if isinstance(batch, int) else tuple(batch),
            precisions=_texts(precision),
            threads=threads,
            data=None if data is None else os.fspath(data),
            limit=limit,
            weights=None if weights is None else os.fspath(weights),
            key=key,
            strip_prefix=strip_prefix,
            expect_sha256=expect_sha256,
            sizes=() if size is None else (size,),
            raw=raw_input,
            calibration=None if calibration is None else os.fspath(calibration),
            calibration_images=calibration_images,
            target=target,
            seed=seed,
            duration_s=duration,
            processes=processes,
            rounds=rounds,
            budget_s=budget,
            silence_s=timeout,
            roofline=roofline,
            command=command,
        )
        collection = Collection()
        with _listen(progress) as listener, collection, closing(run(request, listener)) as measured:
            for result in measured:
                collection.add(result)
    ending = collection.ending
    report = Report(Figures.of_all(collection.results), complete=ending is None)
    if isinstance(ending, KeyboardInterrupt):
        raise BenchmarkInterrupt(report) from ending
    if ending is not None:
        raise ending
    return report


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    """One or several as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def _subject(model: Model) -> str:
    return os.fspath(model.path if isinstance(model, Artifact) else model)


def _command(given: Mapping[str, object]) -> tuple[str, ...]:
    """A command line that asks for the same, for the report's section on how to reproduce it."""
    parameters = inspect.signature(benchmark).parameters
    words = [
        f"{name}={_literal(value)!r}"
        for name, value in given.items()
        if name != "progress" and value != parameters[name].default
    ]
    return "python", "-c", f"import rexport; print(rexport.benchmark({', '.join(words)}))"


def _literal(value: object) -> object:
    """The value as plain text and lists of it, where it is a path or an artifact; any other as it is."""
    if isinstance(value, os.PathLike | Artifact):
        return _subject(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_literal(each) for each in value]
    return value


@contextmanager
def _listen(progress: Progress | bool | None) -> Iterator[RunListener]:
    """A listener as ``listen_to_export`` gives one for an export. At the end ``done`` has reached ``total``."""
    if progress is True:
        from benchmarks.commands.progress import listening

        with listening() as listener:
            yield listener
        return
    clock = _Seconds(progress or ignore_progress)
    yield RunListener(clock.step, log_notice, clock.set_time_left)
    clock.end()


class _Seconds:
    """Counts the seconds since the beginning, and those that are left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began_s = time.monotonic()
        self._total_s: float | None = None

    def set_time_left(self, left_s: float | None) -> None:
        self._total_s = None if left_s is None else self._elapsed_s() + left_s

    def step(self, subject: str, step: str) -> None:
        done_s = self._elapsed_s()
        total_s = None if self._total_s is None else max(self._total_s, done_s)
        self._progress(done_s, total_s, f"{subject}: {step}")

    def end(self) -> None:
        done_s = self._elapsed_s()
        self._progress(done_s, done_s, "done")

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s
