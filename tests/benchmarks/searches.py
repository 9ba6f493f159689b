"""A search to test with: what it tries is written down, and what it measures is scripted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.records.request import BenchmarkRequest
from benchmarks.records.result import Row
from benchmarks.records.subject import Configuration, PrecisionVariant, Refusal, Subject
from benchmarks.tuning import search
from benchmarks.tuning.search import TuningGoal, TuningResult
from runtimes import Artifact
from runtimes.artifacts.formats import FORMATS
from runtimes.artifacts.manifest import Gate
from tests.benchmarks.rows import EMPTY
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


class ScriptedBench:
    """Stands in for the processes that measure: gives rows with the milliseconds and drops of a script, and writes
    down what it was asked for."""

    def __init__(self, milliseconds: Mapping[Key, float], drops: Mapping[str, float], labelled: bool = True) -> None:
        self.milliseconds, self.drops, self.labelled = milliseconds, drops, labelled
        self.asked: list[Key] = []
        self.graphs: list[bool] = []
        self.together: list[tuple[int, int | None]] = []

    def rows(self, configurations: Sequence[Configuration], processes: int | None = None) -> Iterator[Row]:
        self.together.append((len(configurations), processes))
        yield from map(self.row, configurations)

    def row(self, configuration: Configuration) -> Row:
        pair = configuration.pair
        precision = pair.typed.precision or ""
        key = (pair.backend.name, precision, configuration.threads, configuration.batch)
        self.asked.append(key)
        self.graphs.append(configuration.cuda_graphs)
        named = replace(
            EMPTY,
            runtime=key[0],
            precision=precision,
            threads=key[2],
            requested_threads=key[2],
            batch=key[3],
            runtime_version="1",
            provider="p",
            processes=1,
            field=len(self.asked),
        )
        if isinstance(pair.opens, Refusal):
            return replace(named, status=pair.opens.status, reason=pair.opens.reason)
        ms = self.milliseconds.get(key, 9.0)
        if ms < 0:
            return replace(named, status="error", reason="it broke")
        row = replace(named, p50_s=ms / 1e3, p50_interval_s=(ms / 1e3, ms / 1e3), images_per_s=1e3 * key[3] / ms)
        if not self.labelled:
            return replace(row, images=64)
        return replace(row, top1=0.9, images=200, drop=self.drops.get(precision, 0.0), drop_interval=(-0.01, 0.01))


def searched(
    bench: ScriptedBench,
    of: Subject,
    goal: TuningGoal,
    request: BenchmarkRequest | None = None,
    left: Callable[[float | None], None] = lambda _: None,
) -> TuningResult:
    findings = TuningResult(goal)
    asked = request or BenchmarkRequest(subjects=("resnet20",), backends=TRIED)
    for _ in search._TuningSearch(bench, of, asked, findings, left).rows():  # type: ignore[arg-type]
        pass
    return findings
