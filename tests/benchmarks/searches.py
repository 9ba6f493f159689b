"""A search to test with: what it tries is written down, and what it measures is scripted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness.harness import Trial
from benchmarks.records.request import BenchmarkRequest, Configuration, PrecisionVariant, Refusal, Subject
from benchmarks.records.result import Estimate, RecordedFigures, Result
from benchmarks.tuning.findings import TuningGoal, TuningResult
from benchmarks.tuning.search import TuningSearch
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Gate
from runtimes.errors import Reason
from tests.benchmarks.results import EMPTY, change_facts
from tests.benchmarks.scripts import artifact, read

TRIED = ("onnxruntime", "openvino")

Key = tuple[str, str, int, int]
"""Runtime, precision, threads, batch."""


def gate(error: float) -> Gate:
    return Gate("onnxruntime 1", "noise", 16, error, 1.0, 0, 0, None, None, None, None, {})


def typed(folder: Path, precision: str, error: float | None = None) -> PrecisionVariant:
    """An ONNX artifact that is never opened."""
    folder.mkdir(exist_ok=True)
    manifest = read(artifact(folder)).manifest
    assert manifest is not None
    known = replace(manifest, precision=precision, gate=None if error is None else gate(error))
    return PrecisionVariant(precision, Artifact(folder / f"{precision}.onnx", FORMATS["onnx"], known))


def subject(folder: Path, *found: PrecisionVariant, data: str | None = "fashion-mnist") -> Subject:
    twin = PrecisionVariant("fp32", Artifact(folder / "net.pt2", FORMATS["pt2"], None))
    return Subject("resnet20", None, "resnet20", None, found, twin, None, data)


class ScriptedHarness:
    """Stands in for the processes that measure: gives results with the milliseconds and drops of a script, and writes
    down what it was asked for."""

    def __init__(self, milliseconds: Mapping[Key, float], drops: Mapping[str, float], labelled: bool = True) -> None:
        self.milliseconds, self.drops, self.labelled = milliseconds, drops, labelled
        self.asked: list[Key] = []
        self.graphs: list[bool] = []
        self.together: list[tuple[int, int | None]] = []
        self.later: list[int] = []

    def measure(self, trials: Iterable[Trial]) -> Iterator[Result]:
        for trial in trials:
            self.later.append(len(trial.later_s))
            if len(trial.configurations) > 1:
                self.together.append((len(trial.configurations), trial.processes))
            yield from map(self.row, trial.configurations)

    def row(self, configuration: Configuration) -> Result:
        pair = configuration.pair
        precision = pair.typed.precision or ""
        key = (pair.backend.name, precision, configuration.threads, configuration.batch)
        self.asked.append(key)
        self.graphs.append(configuration.cuda_graphs)
        named = change_facts(
            EMPTY,
            subject=pair.subject.name,
            backend=key[0],
            precision=precision,
            threads=key[2],
            asked_threads=key[2],
            batch=key[3],
            backend_version="1",
            provider="p",
            processes=1,
            group=len(self.asked),
        )
        if isinstance(pair.opens, Refusal):
            return replace(named, status=pair.opens.status, reason=pair.opens.reason)
        ms = self.milliseconds.get(key, 9.0)
        if ms < 0:
            return replace(named, status="error", reason=Reason("broke", "it broke"))
        estimates = {"p50": Estimate(ms / 1e3, ms / 1e3, ms / 1e3)}
        if self.labelled:
            estimates["top1"] = Estimate(0.9, 0.9, 0.9)
            estimates["drop"] = Estimate(self.drops.get(precision, 0.0), -0.01, 0.01)
        recorded = RecordedFigures(True, estimates, 200 if self.labelled else 64, 1e3 * key[3] / ms)
        return replace(named, recorded=recorded)


def searched(
    harness: ScriptedHarness, of: Subject | Sequence[Subject], goal: TuningGoal, request: BenchmarkRequest | None = None
) -> TuningResult:
    """What a search finds in what the script says, before the finals."""
    findings = TuningResult(goal)
    asked = request or BenchmarkRequest(subjects=("resnet20",), backends=TRIED, baseline="pytorch")
    for result in harness.measure(TuningSearch([of] if isinstance(of, Subject) else of, asked, findings).one_by_one()):
        findings.results.append(result)
    return findings
