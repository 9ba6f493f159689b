"""The comparison on a GPU, whole: every network x precision x backend x batch, and CUDA graphs against none.

``python -m scripts.gpu_matrix FOLDER`` measures what ``rbench run`` measures, in the same processes and rows. It takes
an hour or so and may be cut into slices: it stops where its time is over, and the same command goes on from there. Of
a network that was begun, the reference is measured again, so that each row is compared with one of the same sitting.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from benchmarks.analysis.figures import Figures
from benchmarks.harness.eta import RunPlan, workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.subjects import pairs
from benchmarks.machine import gpu
from benchmarks.records.request import (
    BUNDLED_VARIANT,
    BUNDLED_WEIGHTS,
    FP32,
    REFERENCE,
    BenchmarkRequest,
    Configuration,
    RunListener,
    Subject,
)
from benchmarks.records.result import Result
from exporter.commands import terminal
from exporter.commands.backend_option import backend_option
from exporter.precision.table import PRECISIONS
from runtimes.errors import BackendUnavailableError, CheckFailedError, Reason, UsageError
from runtimes.processors import usable_processors
from runtimes.tensors import cuda
from scripts.gpu_ledger import Ledger, LedgerPart, digest_packages, machine_of

TIME_OVER = 10
"""Exit code: nothing failed so far, and there is more to measure."""

MAX_SAMPLES = 3000
"""Of each measurement: the rows are kept, and more tell nothing more."""

SILENCE_S = 240.0
"""For one step of a worker: an engine may be built in it."""

CALIBRATION_IMAGES = 64
"""Of untrained networks, whose int8 is measured for its speed alone."""


@dataclass(frozen=True)
class Stage:
    """One network, and what is measured of it.

    Attributes:
        variant: The name of the network.
        weights: Its weights, as for ``rexport onnx``.
        batches: The numbers of images in one call.
        precisions: None means all that there are.
        in_turns: Whether all configurations of a batch are measured in turns, as ``rbench run`` does, so that their
            ratios are of the same moments. Otherwise each is measured alone, which can be interrupted sooner.
    """

    variant: str
    weights: str
    batches: tuple[int, ...]
    precisions: tuple[str, ...] = ()
    in_turns: bool = False


@dataclass(frozen=True)
class Scope:
    """What is measured, in the order of its weight: what comes first is there even if the time is over early.

    Attributes:
        stages: The networks. One may come again with more.
        duration_s: The seconds of sampling.
        limit: The largest number of images that are labelled.
    """

    stages: tuple[Stage, ...]
    duration_s: float
    limit: int = 2000


BUNDLED = (BUNDLED_VARIANT, BUNDLED_WEIGHTS)
FIRST = (
    Stage(*BUNDLED, (1, 64), (FP32, "fp16"), in_turns=True),
    Stage("resnet50", "random", (1, 64), (FP32, "fp16"), in_turns=True),
)
"""The answers to the first questions, which a few minutes give."""

REST = (("resnet50", "random"), BUNDLED, ("resnet18", "random"), ("resnet152", "random"))
FULL = Scope((*FIRST, *(Stage(variant, weights, (1, 64, 8, 256)) for variant, weights in REST)), 1.0)
QUICK = Scope(FIRST, 1.0)
DRY = Scope((Stage(*BUNDLED, (1,), (FP32,), in_turns=True),), 0.05, limit=100)
"""Without a GPU: to see that all of it works."""


def part_of(stage: Stage, named: Sequence[str], there: str) -> LedgerPart:
    """Return the part of the ledger that a stage is.

    Args:
        stage: The stage.
        named: The backends that were asked for.
        there: What is installed, as from ``digest_packages``.
    """
    precisions = stage.precisions or tuple(PRECISIONS)
    return LedgerPart(stage.variant, stage.weights, precisions, stage.batches, tuple(named), there)


def request_for(part: LedgerPart, device: str, scope: Scope, named: Sequence[str]) -> BenchmarkRequest:
    """What ``rbench run`` would be asked for it."""
    trained = part.weights == BUNDLED_WEIGHTS
    quantised = any(PRECISIONS[name].calibrated for name in part.precisions)
    asked = BenchmarkRequest(
        subjects=(part.variant,),
        backends=tuple(named),
        baseline=REFERENCE,
        device=device,
        precisions=part.precisions,
        limit=scope.limit,
        weights=part.weights,
        target="tensorrt" if quantised and device != "cpu" else "cpu",
        duration_s=scope.duration_s,
        processes=1,
        max_samples=MAX_SAMPLES,
        silence_s=SILENCE_S,
    )
    return asked if trained else replace(asked, calibration_images=CALIBRATION_IMAGES)


def list_wanted(subject: Subject, request: BenchmarkRequest, batches: Sequence[int]) -> list[Configuration]:
    """All that is to be measured of a subject: batch by batch, the reference first. On a GPU one image is measured
    without CUDA graphs as well, but for the reference's runtime, which knows none."""
    reference, *others = pairs(subject, request)
    threads = usable_processors()
    found = []
    for batch in batches:
        found += [Configuration(pair, batch, threads) for pair in (reference, *others)]
        if batch == 1 and request.device != "cpu":
            able = [pair for pair in others if pair.backend.without_graphs is None]
            graphed = [pair for pair in able if pair.backend.name != reference.backend.name]
            found += [Configuration(pair, batch, threads, cuda_graphs=False) for pair in graphed]
    return found


def group_trials(remaining: Sequence[Configuration], in_turns: bool) -> list[tuple[Configuration, ...]]:
    """Return the configurations that are measured at one time: those of a batch in turns, or each alone."""
    if not in_turns:
        return [(configuration,) for configuration in remaining]
    batches = dict.fromkeys(configuration.batch for configuration in remaining)
    return [tuple(one for one in remaining if one.batch == batch) for batch in batches]


def measure_part(
    part: LedgerPart, harness: Harness, ledger: Ledger, late: Callable[[], bool], in_turns: bool = False
) -> Iterator[Result]:
    """The rows that are left of one network; ends early when it is late, else marks the part complete. Blocks for
    minutes: the network is exported first, in all its precisions.

    Raises:
        RexportError: as ``benchmarks.harness.run.run``.
    """
    (subject,) = harness.make_subjects()
    ledger.keep_ceilings(part.installed, harness.measure_ceilings(ledger.ceilings(part.installed)))
    wanted = list_wanted(subject, harness.request, part.batches)
    remaining = ledger.list_remaining(wanted, subject, harness.request.device)
    groups = group_trials(remaining, in_turns)
    harness.announce(RunPlan(harness.request, tuple(workload(group) for group in groups)))
    measured = 0

    def trials() -> Iterator[Trial]:
        for number, group in enumerate(groups, start=1):
            if late():
                return
            yield Trial(group, later_s=(0.0,) * (len(groups) - number))

    for result in harness.measure(trials()):
        measured += 1
        ledger.keep(result)
        yield result
    if measured == len(remaining):
        ledger.mark(part)


def exit_code(results: Sequence[Figures], complete: bool) -> int:
    """1 if a check failed or something broke, 10 if there is more to measure, 5 if nothing at all was measured."""
    evaluations = [each.result.evaluation for each in results]
    unreadable = any(evaluation is not None and evaluation.unreadable for evaluation in evaluations)
    if unreadable or any(each.result.status in ("failed", "error") for each in results):
        return CheckFailedError.exit_code
    if not complete:
        return TIME_OVER
    return 0 if any(each.result.status == "ok" for each in results) else 5


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cuda", show_default=True)
@click.option("--quick", is_flag=True, help="The first questions alone: two networks, two precisions, two batches.")
@click.option("--limit-s", type=click.FloatRange(min=0), metavar="S", help="Begin nothing new after S seconds.")
@click.option("--network", "networks", multiple=True, metavar="NAME", help="Of those, this one; repeatable.")
@backend_option("backends", multiple=True, help="Beside the reference; repeatable.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(list(PRECISIONS)))
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    folder: Path,
    device: str,
    quick: bool,
    limit_s: float | None,
    networks: tuple[str, ...],
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    debug: bool,
) -> None:
    """Measure the whole comparison into FOLDER, or go on with it.

    Prints the table of all that is there. Exit code 10: nothing failed, and the time was over before all was measured.
    On the processor it is a trial of the bundled network alone.
    """
    del debug  # is looked for on the command line, where an error is reported
    scope = DRY if device == "cpu" else QUICK if quick else FULL
    known = list(dict.fromkeys(stage.variant for stage in scope.stages))
    for name in networks:
        if name not in known:
            raise UsageError(
                f"{name!r} is not among what is measured",
                code="network-not-measured",
                hint=f"one of {', '.join(known)}",
            )
    kept = [stage for stage in scope.stages if not networks or stage.variant in networks]
    stages = tuple(replace(stage, precisions=precisions or stage.precisions) for stage in kept)
    sys.exit(_run(replace(scope, stages=stages), device, backends, folder, limit_s))


def _run(
    scope: Scope,
    device: str,
    named: tuple[str, ...],
    folder: Path,
    limit_s: float | None,
    harness_for: Callable[[BenchmarkRequest, RunListener], AbstractContextManager[Harness]] = Harness,
) -> int:
    from benchmarks.commands import outputs
    from benchmarks.commands.progress import listening
    from benchmarks.machine.environment import environment
    from benchmarks.report.document import run_document
    from exporter.document.terminal import print_document

    if device != "cpu" and (reason := no_gpu()) is not None:
        raise BackendUnavailableError(reason.sentence, code=reason.code, hint="--device cpu tries the script itself")
    start = time.monotonic()

    def late() -> bool:
        return limit_s is not None and time.monotonic() - start >= limit_s

    about = environment()
    ledger = Ledger(folder, machine_of(about))
    todo = [(part_of(stage, named, digest_packages(about)), stage.in_turns) for stage in scope.stages]
    try:
        with terminal.reserve_stdout(), listening() as listener:
            for part, in_turns in todo:
                if ledger.complete(part) or late():
                    continue
                request = request_for(part, device, scope, named)
                with harness_for(request, listener) as harness:
                    for result in measure_part(part, harness, ledger, late, in_turns):
                        listener.notice(_format_result(result))
    finally:
        rows = ledger.by_network()
        complete = all(ledger.complete(part) for part, _ in todo)
        heading = "rexport on a GPU" if device != "cpu" else outputs.HEADING
        for name in ("results.md", "results.html"):
            outputs.write_file(folder / name, rows, complete, heading)
    print_document(run_document(rows, complete), sys.stdout)
    return exit_code(rows, complete)


def no_gpu() -> Reason | None:
    """Why nothing can be measured on a GPU here; ``None`` if its driver tells of one in any way."""
    return None if gpu.missing() is None else cuda.missing()


def _format_result(result: Result) -> str:
    """A result in a few words, for the log."""
    from benchmarks.format import milliseconds

    if result.status != "ok":
        return f"  {result.status}: {result.reason}"
    figures = Figures(result)
    medians = (figures.p50, figures.compute_p50, figures.device_p50)
    times = [None if median is None else median.value for median in medians]
    return f"  {result.ran.arithmetic}: {' / '.join(map(milliseconds, times))} ms"


if __name__ == "__main__":
    terminal.run(main)
