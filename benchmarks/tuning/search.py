"""``rbench tune``: the fastest network, backend, precision and threads within an accuracy limit, as an artifact.

The search uses the processes and results of ``rbench run``. To end within minutes it does not try everything:

- The fp32 reference of each network is measured first. A network is one set of weights at one input size.
- Each network, backend and precision is evaluated once and timed with all processors.
- If its accuracy is below the limit, or if it is hopelessly slow, its other batch sizes and threads are not tried.
- Fewer threads are tried only at its fastest batch size, those of the fastest first.
- Configurations are measured one after another. Those that are nearly as fast as the best, and those on the Pareto
  front, take turns at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.analysis.figures import Figures, negate
from benchmarks.harness.eta import RunPlan, Workload, workload
from benchmarks.harness.harness import Harness, Trial
from benchmarks.harness.run import exit_code as run_exit_code
from benchmarks.harness.subjects import pairs, variant_or_path
from benchmarks.records.plan import ArrivalPlan
from benchmarks.records.request import (
    REFERENCE,
    BenchmarkRequest,
    Configuration,
    Pair,
    RunListener,
    Subject,
)
from benchmarks.records.result import Estimate, Result
from benchmarks.tuning import pareto
from benchmarks.tuning.artifact import check_apart, copy_with_tuning, target_of, tuning_of
from benchmarks.tuning.checks import check_request, check_subjects, make_portable, opens_reference_only
from benchmarks.tuning.findings import BATCHES, TuningResult
from benchmarks.tuning.pareto import ParetoPoint
from exporter.precision.table import PRECISIONS
from runtimes import Artifact
from runtimes.errors import CheckFailedError

FINALISTS, FRONT_FINALISTS, FINAL_PROCESSES = 4, 4, 3
"""The number of the fastest configurations that are measured again in turns, that of others on the Pareto front, and
their number of processes."""

NEAR = 1.1
"""The largest cost of a finalist, relative to the fastest. Single processes, and minutes, can differ by this factor."""

HOPELESS = 3.0
"""The cost, relative to that of a candidate that is as accurate, from which fewer threads and other batches are not
tried."""

CONCURRENT = 3
"""The number of the fastest networks and backends that are tried with several calls at the same time."""


def tune(request: BenchmarkRequest, findings: TuningResult, listener: RunListener) -> Generator[Result, None, None]:
    """Yield each result as soon as it is measured. At the end, write the best configuration as an artifact.

    If no configuration is within the limit, no artifact is written. The PyTorch reference is never the best, because
    an ONNX file cannot hold it.

    Args:
        request: The request.
        findings: The results of the search, which this function fills.
        listener: The callbacks that report the progress.

    Raises:
        UsageError: There is no subject, a subject cannot be tuned, the networks cannot be compared, the target exists
            or is another output, or options contradict each other.
        RexportError: As for ``benchmarks.harness.run.run``, or the artifact cannot be written.
    """
    goal = findings.goal
    request = replace(request, precisions=request.precisions or tuple(PRECISIONS), baseline=REFERENCE)
    request = replace(request, subjects=tuple(dict.fromkeys(map(variant_or_path, request.subjects))))
    check_request(request, goal)
    with Harness(request, listener) as harness, target_of(request.subjects, goal.out, goal.force) as target:
        check_apart(target, goal.others)
        subjects = tuple(map(make_portable, harness.make_subjects()))
        check_subjects(subjects, request, goal)
        search = TuningSearch(subjects, request, findings)
        harness.announce(search.plan(request))
        for result in harness.measure(search.trials()):
            findings.results.append(result)
            yield result
        best = findings.choice().best
        if best is not None:
            listener.step(best.figures.result.identity.subject or "", "writing the artifact")
            findings.artifact = copy_with_tuning(search.artifact_of(best), target, tuning_of(best, goal.objective))


def exit_code(findings: TuningResult, request: BenchmarkRequest) -> int:
    """Return the exit code, as for ``rbench run``.

    If there are candidates, configurations that failed or broke off do not make the search fail.

    Args:
        findings: The results of the search.
        request: The request.

    Raises:
        CheckFailedError: The accuracy of every candidate is below the limit.
    """
    if not findings.candidates:
        return run_exit_code(Figures.of_all(findings.results), request)
    if findings.choice().best is None:
        least = 100 * min(candidate.limited_drop.value for candidate in findings.candidates)
        raise CheckFailedError(
            f"no configuration is within the limit of {100 * findings.bound:.2f} pp of top-1 accuracy: the smallest "
            f"decrease is {least:.2f} pp",
            code="nothing-within-bound",
            hint="raise --max-drop",
        )
    return run_exit_code([each for each in Figures.of_all(findings.results) if each.result.status == "ok"], request)


@dataclass
class _Open:
    """A pair that is tried further, and its configurations so far."""

    pair: Pair
    timed: list[ParetoPoint]


class TuningSearch:
    """The order in which configurations are measured, and the candidates among them.

    Args:
        subjects: The networks.
        request: The request.
        findings: The results of the search, which the search reads and extends.
        clock: The seconds for the time budget.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        request: BenchmarkRequest,
        findings: TuningResult,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._findings, self._request, self._clock = findings, request, clock
        self._references: list[Pair] = []
        self._pairs: list[Pair] = []
        for subject in subjects:
            reference, *others = pairs(subject, request)
            exported = (pair for pair in others if pair.typed is not subject.reference)
            self._references.append(reference)
            self._pairs += [pair for pair in exported if not opens_reference_only(pair.backend, reference.backend)]
        self._threads = findings.goal.thread_counts(request.device)
        self._processes = max(request.processes or 1, FINAL_PROCESSES)
        self._several = len(subjects) > 1
        self._streams = [number for number in dict.fromkeys(findings.goal.streams) if number > 1]
        self._configurations: dict[tuple[object, ...], Configuration] = {}
        self._began_s = clock()
        self._left = 0  # trials that may still come; all finalists side by side are one

    def trials(self) -> Iterator[Trial]:
        """Yield all trials in their order. The results of a trial must be in the findings before the next is taken."""
        yield from self.one_by_one()
        yield from self.finals()
        yield from self.concurrent()
        yield from self.openings()

    def _batches(self, pair: Pair) -> tuple[int, ...]:
        fixed = pair.subject.fixed_batch
        default = (fixed,) if fixed else BATCHES[self._findings.goal.objective]
        return tuple(dict.fromkeys(self._request.batches or default))

    def _later(self, pair: Pair) -> int:
        """Return how many configurations of a pair come after its first at most."""
        return len(self._batches(pair)) + len(self._threads) - 2

    def _after_all(self) -> int:
        """Return how many trials come when all configurations were measured, at most."""
        openings = 0 if self._findings.goal.model_cache is None else 2
        return 1 + len(self._streams) * min(CONCURRENT, len(self._pairs)) + openings

    def plan(self, request: BenchmarkRequest) -> RunPlan:
        """Return the plan of all trials that may come. A pair beyond the bound has fewer.

        Args:
            request: The request, whose plan gives the time of a trial.
        """

        def work(pair: Pair, batch: int, evaluated: bool) -> Workload:
            return workload([self._configuration(pair, batch, self._threads[0])], evaluated)

        first = self._threads[0]
        workloads = [
            work(pair, batch, pair.subject.weights is not None and batch == self._batches(pair)[0])
            for pair in self._references
            for batch in self._batches(pair)
        ]
        looks = [work(pair, self._batches(pair)[0], pair.subject.weights is not None) for pair in self._pairs]
        workloads += looks
        for pair, look in zip(self._pairs, looks, strict=True):
            workloads += [work(pair, batch, evaluated=False) for batch in self._batches(pair)[1:]]
            workloads += [replace(look, evaluated=0, threads=number) for number in self._threads if number != first]
        candidates = sum(1 + self._later(pair) for pair in self._pairs)
        again = min(FINALISTS + FRONT_FINALISTS, candidates) if candidates > 1 else 0
        usual = replace(workloads[-1], evaluated=0)
        workloads.append(replace(usual, configurations=again, processes=self._processes))
        loads = self._after_all() - 1
        load = replace(usual, configurations=min(1, usual.configurations), load_s=request.duration_s)
        return RunPlan(request, (*workloads, *[load] * loads), at_most=True)

    def one_by_one(self) -> Iterator[Trial]:
        """Yield one configuration after another: the references, a first look at each pair, and then all else."""
        findings = self._findings
        self._left = sum(len(self._batches(pair)) for pair in self._references) + self._after_all()
        self._left += sum(1 + self._later(pair) for pair in self._pairs)
        for pair in self._references:
            for batch in self._batches(pair):
                yield self._trial(self._configuration(pair, batch, self._threads[0]))
        evaluated = [(top1.value, each) for each in findings.results if (top1 := Figures(each).top1) is not None]
        findings.baseline = max(evaluated, key=lambda pair: pair[0])[1] if evaluated else None
        if self._several and findings.baseline is None:
            findings.left_out["no fp32 reference was evaluated, so accuracy is unknown"] = ["all networks"]
            return
        opened = yield from self._look_at_all()
        yield from self._try_further(opened)

    def _look_at_all(self) -> Generator[Trial, None, list[_Open]]:
        """Yield each pair with its first batch size and all processors; return those that are tried further."""
        findings, opened = self._findings, list[_Open]()
        for number, pair in enumerate(self._pairs):
            if self._is_over(self._pairs[number:]):
                return opened
            yield self._trial(self._configuration(pair, self._batches(pair)[0], self._threads[0]))
            point = self._add_candidate(pair)
            if findings.results[-1].status != "ok":
                continue
            if point is not None and not point.is_within(findings.bound):
                self._leave_out(pair, "accuracy below the limit")
            else:
                opened.append(_Open(pair, [] if point is None else [point]))
        return opened

    def _try_further(self, opened: Sequence[_Open]) -> Iterator[Trial]:
        """Yield the other batch sizes with all processors, then fewer threads at the fastest, by speed."""
        findings = self._findings
        ordered = sorted(opened, key=lambda one: one.timed[0].cost_s.value if one.timed else 0.0)
        for number, one in enumerate(ordered):
            self._left = sum(self._later(later.pair) for later in ordered[number:]) + self._after_all()
            if one.timed and pareto.is_hopeless(one.timed[0], findings.candidates, HOPELESS):
                self._leave_out(one.pair, f"{HOPELESS:g} times as slow as a candidate that is as accurate")
                continue
            for batch in self._batches(one.pair)[1:]:
                if self._is_over([later.pair for later in ordered[number:]]):
                    return
                yield self._trial(self._configuration(one.pair, batch, self._threads[0]))
                one.timed += filter(None, [self._add_candidate(one.pair)])
            if not one.timed:
                continue
            fastest = min(one.timed, key=lambda candidate: candidate.cost_s.value)
            for threads in self._threads[1:]:
                if self._is_over([later.pair for later in ordered[number:]]):
                    return
                batch = fastest.figures.result.identity.batch
                yield self._trial(self._configuration(one.pair, batch, threads))
                self._add_candidate(one.pair)
        if len(self._threads) > 1 and any(len(self._batches(pair)) > 1 for pair in self._pairs):
            reason = "fewer threads were tried only at the fastest batch size"
            findings.left_out[reason] = ["all configurations"]

    def _is_over(self, rest: Sequence[Pair]) -> bool:
        """Return whether the time budget is spent. If so, the ``rest`` is left out."""
        budget_s = self._findings.goal.budget_s
        if budget_s is None or self._clock() - self._began_s < budget_s:
            return False
        reason = f"the time budget of {budget_s:g} s was spent before all was tried"
        self._findings.left_out[reason] = list(map(self._name, rest))
        return True

    def _name(self, pair: Pair) -> str:
        network = f"{pair.subject.name} " if self._several else ""
        return f"{network}{pair.backend.name} {pair.typed.precision}"

    def _leave_out(self, pair: Pair, reason: str) -> None:
        if self._later(pair):
            words = f"{reason}, so other batch sizes and thread counts were not tried"
            self._findings.left_out.setdefault(words, []).append(self._name(pair))

    def _configuration(self, pair: Pair, batch: int, threads: int) -> Configuration:
        return Configuration(pair, batch, threads, self._request.cuda_graphs)

    def _trial(self, configuration: Configuration) -> Trial:
        self._left -= 1
        pair = configuration.pair
        of = (pair.subject.name, pair.backend.name, pair.typed.precision, pair.typed.file)
        self._configurations[*of, configuration.batch, configuration.threads] = configuration
        return Trial((configuration,), later_s=(0.0,) * self._left)

    def _configuration_of(self, point: ParetoPoint) -> Configuration:
        """Return the configuration that a candidate was measured as."""
        result = point.figures.result
        of, threads = result.identity, result.asked.threads
        return self._configurations[of.subject, of.backend, of.precision, of.file, of.batch, threads]

    def finals(self) -> Iterator[Trial]:
        """Yield a trial in which those near the best and those on the Pareto front take turns.

        Before, each configuration was measured at another time, under other conditions of the machine.
        """
        findings = self._findings
        ordered = pareto.close_to_best(findings.candidates, NEAR, findings.bound)[:FINALISTS]
        front = [point for point in pareto.front(findings.candidates) if not any(point is one for one in ordered)]
        front.sort(key=lambda point: (not point.is_within(findings.bound), point.cost_s.value))
        ordered += front[:FRONT_FINALISTS]
        self._left = self._after_all() - 1
        if len(ordered) < 2:
            return
        configurations = tuple(map(self._configuration_of, ordered))
        yield Trial(configurations, self._processes, later_s=(0.0,) * self._left)
        remeasured = {}
        for point, result in zip(ordered, findings.results[-len(ordered) :], strict=True):
            figures = findings.figures_of(result)
            again = pareto.candidate(figures, findings.goal.objective, point.accuracy_drop, point.own_drop)
            if result.status == "ok" and again is not None:
                remeasured[id(point)] = again
        findings.candidates[:] = [remeasured.get(id(point), point) for point in findings.candidates]
        findings.finalists[:] = remeasured.values()

    def concurrent(self) -> Iterator[Trial]:
        """Yield a trial for each number of calls at the same time, of the fastest networks and backends."""
        findings, fastest = self._findings, dict[tuple[object, ...], ParetoPoint]()
        for point in pareto.close_to_best(findings.candidates, HOPELESS, findings.bound):
            of = point.figures.result.identity
            fastest.setdefault((of.subject, of.backend, of.precision, of.file), point)
        for point in list(fastest.values())[:CONCURRENT]:
            for streams in self._streams:
                configuration = self._configuration_of(point)
                configuration = replace(configuration, threads=max(self._threads[0], streams), streams=streams)
                plan = ArrivalPlan("clients", self._request.duration_s, clients=streams, seed=self._request.seed)
                yield self._load(configuration, plan, f"{streams} calls at the same time")
                figures = findings.figures_of(findings.results[-1])
                found = pareto.candidate(figures, "throughput", point.accuracy_drop, point.own_drop)
                if figures.result.status == "ok" and found is not None:
                    findings.concurrent.append(found)

    def openings(self) -> Iterator[Trial]:
        """Yield cold starts of the best configuration, without a cache of compiled models and with it."""
        findings, best = self._findings, self._findings.choice().best
        folder = findings.goal.model_cache
        if folder is None or best is None:
            return
        configuration = self._configuration_of(best)
        if not configuration.pair.backend.caches_models:
            findings.left_out["no cache of compiled models"] = [configuration.pair.backend.name]
            return
        for cache in (None, folder):
            words = "no cache of compiled models" if cache is None else "a cache of compiled models"
            yield self._load(replace(configuration, model_cache=cache), ArrivalPlan("cold"), words)
            findings.openings.append(findings.results[-1])

    def _load(self, configuration: Configuration, plan: ArrivalPlan, words: str) -> Trial:
        self._left = max(0, self._left - 1)
        title = f"{self._name(configuration.pair)} · {words}"
        return Trial((configuration,), load=plan, title=title, later_s=(0.0,) * self._left)

    def _add_candidate(self, pair: Pair) -> ParetoPoint | None:
        """Add the last result to the candidates and return it, or return ``None`` if it has no figures."""
        findings, result = self._findings, self._findings.results[-1]
        if result.status != "ok":
            return None
        drops = self._accuracy_drops(pair)
        if drops is None:
            findings.left_out.setdefault("accuracy was not measured against fp32", []).append(self._name(pair))
            return None
        candidate = pareto.candidate(findings.figures_of(result), findings.goal.objective, *drops)
        findings.candidates += filter(None, [candidate])
        return candidate

    def _accuracy_drops(self, pair: Pair) -> tuple[Estimate, Estimate | None] | None:
        """Return the decrease of a pair against the baseline, and against its own fp32 if the limit applies to that.

        ``None`` means that one of them is unknown.
        """
        findings = self._findings
        if not findings.labelled:
            gate = pair.opens.manifest.gate if isinstance(pair.opens, Artifact) and pair.opens.manifest else None
            return Estimate(0.0 if gate is None else gate.error), None
        evaluated = next((each for each in findings.results if self._is_evaluated(each, pair)), None)
        if evaluated is None:
            return None
        change = findings.figures_of(evaluated).top1_change
        if findings.goal.relative_to == "best":
            return None if change is None else (negate(change), None)
        own = Figures.of(evaluated, findings.results).top1_change
        return None if change is None or own is None else (negate(change), negate(own))

    def _is_evaluated(self, result: Result, pair: Pair) -> bool:
        of, typed = result.identity, pair.typed
        same = (of.subject, of.backend, of.precision, of.file)
        wanted = (pair.subject.name, pair.backend.name, typed.precision, typed.file)
        return same == wanted and Figures(result).top1 is not None

    def artifact_of(self, candidate: ParetoPoint) -> Artifact:
        """Return the artifact that the ``candidate`` opened."""
        opened = self._configuration_of(candidate).pair.opens
        assert isinstance(opened, Artifact)
        return opened
