"""The one driver of all measurements: trials go in, results come out."""

from __future__ import annotations

import itertools
import math
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy import predictions
from benchmarks.accuracy.predictions import Predictions
from benchmarks.analysis.assembly import ResultContext, finish_result, start_result, without_figures
from benchmarks.format import count, one_line
from benchmarks.harness import scheduler
from benchmarks.harness.cold_starts import PAGE_CACHE, cold_start
from benchmarks.harness.eta import Eta, RunPlan
from benchmarks.harness.scheduler import ScheduledJob
from benchmarks.harness.subjects import subjects
from benchmarks.machine.environment import environment
from benchmarks.process import worker_process
from benchmarks.process.job import OVERTIME, Job, JobOutcome, ProcessOutcomes, status_of
from benchmarks.records.identity import NOT_REACHED
from benchmarks.records.plan import ArrivalPlan, Plan
from benchmarks.records.request import BenchmarkRequest, Configuration, Refusal, RunListener, Subject, select_backends
from benchmarks.records.result import Ran, Result
from benchmarks.roofline import ceilings
from benchmarks.roofline.ceilings import Ceilings
from benchmarks.roofline.graph_cost import cost_of
from runtimes import Artifact
from runtimes.devices import parse_device
from runtimes.errors import Reason, RexportError
from runtimes.processors import usable_processors


@dataclass(frozen=True)
class Trial:
    """What is measured at one time: configurations side by side, or one of them under a load.

    Attributes:
        configurations: that take turns; each gives a result, in this order. Under a load there is one.
        processes: of each configuration, where it is not what the request says.
        load: how requests come in, in place of turns, in a single process.
        title: of a load, for progress; ``remark``: stands behind each of its steps.
        later_s: for each trial that is still to come, the seconds that it is known to last.
    """

    configurations: tuple[Configuration, ...]
    processes: int | None = None
    load: ArrivalPlan | None = None
    title: str = ""
    remark: str = ""
    later_s: tuple[float, ...] = ()


class Harness:
    """Measures trials, and remembers which pairs of each network have answered.

    A context manager with a folder of its own, which is gone afterwards.

    Attributes:
        request: what the user asked for.
        folder: for what is exported on the way.
    """

    def __init__(self, request: BenchmarkRequest, listener: RunListener) -> None:
        """
        Raises:
            UsageError: an unknown backend.
        """
        select_backends(request)
        self.request = request
        self.listener = listener
        self._folder = tempfile.TemporaryDirectory(prefix="rbench-")
        self.folder = Path(self._folder.name)
        self._run = uuid.uuid4().hex[:12]
        self._environment = environment()
        self._began_s = time.monotonic()
        self._ceilings: Ceilings | None = None
        self._eta = Eta(listener.left)
        self._plan: RunPlan | None = None
        self._answered: set[tuple[str, str, str | None, str | None]] = set()
        self._groups = 0

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def make_subjects(self) -> tuple[Subject, ...]:
        """What the request names, exported where it must be. Raises as ``benchmarks.harness.subjects.subjects``."""
        return subjects(self.request, self.folder, self.listener)

    def measure_ceilings(self, known: Ceilings | None = None) -> Ceilings | None:
        """The machine's ceilings, where they are wanted, for all results from now on. Those that are known already are
        taken, else they are measured, which blocks for seconds."""
        if not self.request.roofline:
            return None
        if known is not None:
            self._ceilings = known
            return known
        self.listener.step("the machine's ceilings", "matrix products and copies")
        self._ceilings = ceilings.measure_ceilings(self.request.threads or usable_processors(), self.request.devices[0])
        if self._ceilings.missing is not None:
            self.listener.notice(f"no roofline: {self._ceilings.missing}")
        return self._ceilings

    def announce(self, plan: RunPlan) -> None:
        """Says what is going to be measured, and how long that takes by estimate."""
        load = self._environment.load_average
        # The load average lags by a minute and counts what gives way to others: its root is the better guess.
        slowness = 1.0 if load is None else math.sqrt(max(1.0, load[0] / (os.cpu_count() or 1)))
        self._plan = plan = replace(plan, slowness=slowness)
        self.listener.notice(plan.sentence())
        self._eta.plan(plan.estimates())

    def measure(self, trials: Iterable[Trial]) -> Iterator[Result]:
        """A result for each configuration of each trial; blocks for seconds. The next trial is asked for when the
        results of the one before have been taken, so that a generator of trials can go by them.

        A pair's answers are taken once, in its first result that is ok. An interrupt, or the end of the process that
        was asked for, gives the results of the processes that were through, and a result for each configuration that
        was not reached; then it comes through itself. Trials that follow are asked for once more by then.
        """
        remaining = iter(trials)
        for trial in remaining:
            known_s = 0.0 if trial.load is None else trial.load.duration_s
            self._eta.begin(known_s, trial.later_s)
            measured = False
            try:
                for result in self._race(trial) if trial.load is None else self._measure_load(trial, trial.load):
                    measured = measured or result.status == "ok"
                    yield result
            except (KeyboardInterrupt, SystemExit):
                unreached = remaining if trial.load is None else itertools.chain([trial], remaining)
                for later in unreached:
                    yield from (self._finish(later, configuration, None) for configuration in later.configurations)
                raise
            self._eta.end(measured)
        self.listener.position(0, 0, 0)

    def _race(self, trial: Trial) -> Iterator[Result]:
        """Configurations side by side, in processes of their own."""
        networks = {configuration.pair.subject.name for configuration in trial.configurations}
        several = len(networks) > 1
        entries = {
            place: ScheduledJob(_describe_configuration(configuration, several), self._job(configuration))
            for place, configuration in enumerate(trial.configurations)
            if not isinstance(configuration.pair.opens, Refusal)
        }
        found = [ProcessOutcomes() for _ in entries]
        ending: KeyboardInterrupt | SystemExit | None = None
        self._groups += 1

        prefix = "" if several else self._prefix(trial)
        names = [entry.name for entry in entries.values()]
        together = names[0] if len(names) == 1 else f"batch {trial.configurations[0].batch}"

        def report(name: str, step: str, left_s: float | None, process_s: float | None) -> None:
            self._eta.progress(left_s, process_s)
            self._report_position(trial, names.index(name) if name else None)
            self.listener.step(f"{prefix}{name or together}", step.replace(f"{name}: ", "", 1) if name else step)

        request = replace(self.request, processes=trial.processes or self.request.processes)
        at_once = bool(trial.configurations[0].at_once)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            try:
                for so_far in scheduler.gather(list(entries.values()), request, Path(folder), report, at_once):
                    found = so_far
            except (KeyboardInterrupt, SystemExit) as error:
                ending = error
            gathered = dict(zip(entries, found, strict=True))
            for place, outcomes in gathered.items():
                if outcomes.sound and outcomes.outcomes and _load_predictions(outcomes) is not None:
                    self._answered.add(_key(trial.configurations[place]))
            apart = _find_apart(gathered) if at_once else None
            for place, configuration in enumerate(trial.configurations):
                result = self._finish(trial, configuration, gathered.get(place))
                yield result if apart is None or result.status != "ok" else without_figures(result, apart)
        if ending is not None:
            raise ending

    def _prefix(self, trial: Trial) -> str:
        """What stands before a configuration in progress: its network, if there are several."""
        several = len(self.request.subjects) > 1 or len(self.request.sizes) > 1
        return f"{trial.configurations[0].pair.subject.name} · " if several else ""

    def _report_position(self, trial: Trial, place: int | None = None) -> None:
        """Tells which of the planned configurations are at work: the one at this place of the trial, or all of it."""
        if self._plan is not None and len(trial.later_s) < len(self._plan.workloads):
            first, last, total = self._plan.position(len(trial.later_s))
            self.listener.position(*((first, last) if place is None else (first + place,) * 2), total)

    def _job(self, configuration: Configuration) -> Job:
        request, pair, subject = self.request, configuration.pair, configuration.pair.subject
        assert isinstance(pair.opens, Artifact)
        return Job(
            artifact=str(pair.opens.path.absolute()),
            runtime=pair.backend.name,
            device=request.device_of(configuration),
            threads=configuration.threads,
            batch=configuration.batch,
            data=subject.data,
            limit=request.limit,
            evaluate=_key(configuration) not in self._answered and subject.weights is not None,
            seed=request.seed,
            plan=Plan(max_samples=request.max_samples, warmup_limit_s=request.warmup_limit_s),
            cuda_graphs=configuration.cuda_graphs,
            streams=configuration.streams,
            model_cache=None if configuration.model_cache is None else str(configuration.model_cache.absolute()),
            began_s=self._began_s,
        )

    def _start(self, configuration: Configuration) -> Result:
        return start_result(self._run, self._environment, self.request, configuration)

    def _finish(self, trial: Trial, configuration: Configuration, gathered: ProcessOutcomes | None) -> Result:
        opens, result = configuration.pair.opens, self._start(configuration)
        group = None if gathered is not None and gathered.alone is not None else self._groups
        processes = trial.processes or self.request.processes
        result = replace(result, asked=replace(result.asked, group=group, processes=processes))
        if isinstance(opens, Refusal):
            return replace(result, status=opens.status, reason=self._without_folder(opens.reason))
        if gathered is None or not gathered.outcomes:
            return replace(result, status="skipped", reason=NOT_REACHED)
        context = ResultContext(
            labels=None if opens.manifest is None else opens.manifest.labels,
            cost=cost_of(opens, configuration.batch),
            ceilings=self._ceilings if self.request.device_of(configuration) == self.request.devices[0] else None,
        )
        result = finish_result(result, gathered, _load_predictions(gathered), context)
        if gathered.alone is not None:
            result = replace(result, notes=(*result.notes, gathered.alone))
        return replace(result, reason=result.reason and self._without_folder(result.reason))

    def _measure_load(self, trial: Trial, plan: ArrivalPlan) -> Iterator[Result]:
        """One configuration under a load, in a process of its own."""
        (configuration,) = trial.configurations
        request, result, opens = self.request, self._start(configuration), configuration.pair.opens
        if isinstance(opens, Refusal):
            yield replace(result, status=opens.status, reason=self._without_folder(opens.reason))
            return

        def report(step: str) -> None:
            self._report_position(trial)
            self.listener.step(f"{self._prefix(trial)}{trial.title}", f"{step}{trial.remark}")

        report("start")
        # A process with a number above 0 is asked for nothing besides.
        job = self._job(configuration)
        job = replace(job, plan=Plan(), load=plan, evaluate=False, number=1, began_s=0.0)
        silence_s = request.silence_s + plan.duration_s * (1 + OVERTIME)
        try:
            if plan.shape == "cold":
                outcome = JobOutcome("ok", notes=(PAGE_CACHE,), load=cold_start(job, request.silence_s, report))
            else:
                with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                    outcome, _ = worker_process.run(job, Path(folder), report, silence_s, request.show_errors)
        except RexportError as error:
            outcome = JobOutcome(status_of(error), Reason(error.code, str(error)))
        if outcome.status != "ok" or outcome.load is None:
            reason = outcome.reason and self._without_folder(outcome.reason)
            yield replace(result, status=outcome.status, reason=reason)
        else:
            ran, about = result.ran, outcome.description
            if about is not None:
                ran = Ran(about.device, about.threads, about.version, about.provider, about.precision)
            notes = (*outcome.notes, *_list_openings(configuration))
            yield replace(result, ran=ran, notes=notes, warnings=outcome.warnings, load=outcome.load)

    def _without_folder(self, reason: Reason) -> Reason:
        """The reason, with what was exported on the way named by its file alone: its folder will be gone."""
        sentence = re.sub(rf"{re.escape(str(self.folder))}/[^/\s]+/", "", reason.sentence)
        return Reason(reason.code, one_line(sentence))


def _key(configuration: Configuration) -> tuple[str, str, str | None, str | None]:
    pair = configuration.pair
    return pair.subject.name, pair.backend.name, pair.typed.precision, pair.typed.file


def _list_openings(configuration: Configuration) -> Iterator[Reason]:
    """The options that the model was opened with and that no field of the result tells."""
    if configuration.streams > 1:
        yield Reason("opened-with-streams", f"opened with {configuration.streams} streams")
    if configuration.model_cache is not None:
        yield Reason("opened-with-model-cache", "opened with a cache of compiled models")


def _find_apart(gathered: Mapping[int, ProcessOutcomes]) -> Reason | None:
    """Why the processes did not work at the same time from the first to the last turn, or ``None`` if they did."""
    if all(outcomes.sound and outcomes.alone is None for outcomes in gathered.values()):
        return None
    return Reason("devices-not-at-once", "the process of another device failed, so the devices did not work at once")


def _load_predictions(gathered: ProcessOutcomes) -> Predictions | None:
    place = gathered.predictions
    return predictions.load(place) if place is not None and place.exists() else None


def _describe_configuration(configuration: Configuration, named: bool) -> str:
    """A configuration in one line of progress, with its network if that is ``named``."""
    pair = configuration.pair
    network = f"{pair.subject.name} · " if named else ""
    backend = " ".join(filter(None, (pair.backend.name, pair.typed.precision, pair.typed.file)))
    threads = count(configuration.threads, "thread")
    device = "" if configuration.device is None else f" · {parse_device(configuration.device).numbered}"
    device += f" of {len(configuration.at_once)} at once" if configuration.at_once else ""
    graphs = device + ("" if configuration.cuda_graphs else " · no CUDA graphs")
    graphs += "" if configuration.model_cache is None else " · model cache"
    return f"{network}{backend} · batch {configuration.batch} · {threads}{graphs}"
