"""Several networks and sizes in one search, with scripted figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy import packing
from benchmarks.harness.harness import Trial
from benchmarks.records.request import BenchmarkRequest, Configuration, Subject
from benchmarks.records.result import Result
from benchmarks.records.samples import LoadResult, Series
from benchmarks.report.tuning import FrontPlot, tuning_document
from benchmarks.report_html.page import html
from benchmarks.tuning import checks
from benchmarks.tuning import findings as found_so_far
from benchmarks.tuning.artifact import target_of, tuning_of
from benchmarks.tuning.findings import TuningGoal, TuningResult
from benchmarks.tuning.search import TuningSearch
from exporter.document.blocks import Table
from exporter.document.terminal import as_text
from runtimes.errors import UsageError
from tests.benchmarks.comparisons import predicting
from tests.benchmarks.results import change_facts, processes
from tests.benchmarks.searches import TRIED, ScriptedHarness, subject, typed
from tests.documents import numbers, remarks
from tests.refusals import refuses

REQUEST = BenchmarkRequest(("resnet20",), backends=TRIED, baseline="pytorch")


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_so_far, "usable_processors", lambda: 2)


class Networks(ScriptedHarness):
    """Each network takes so many milliseconds, half of it in int8, and each precision of it has so many right
    predictions of a hundred. Several calls at the same time have a rate."""

    def __init__(self, milliseconds: Mapping[str, float], right: Mapping[tuple[str, str], int]) -> None:
        super().__init__({}, {})
        self._by_network, self._right, self.rate_per_s = milliseconds, right, 0.0

    def measure(self, trials: Iterable[Trial]) -> Iterator[Result]:
        for trial in trials:
            for result in super().measure([trial]):
                if trial.load is None:
                    yield result
                    continue
                configuration = trial.configurations[0]
                open_s = 0.125 if configuration.model_cache is None else 0.0625
                load = LoadResult(
                    trial.load.shape,
                    services_s=(),
                    responses_s=(0.001,),
                    achieved_per_s=self.rate_per_s,
                    clients=trial.load.clients,
                    steps_s=(("open", open_s),),
                )
                yield change_facts(result, load=load, samples=())

    def row(self, configuration: Configuration) -> Result:
        name, precision = configuration.pair.subject.name, configuration.pair.typed.precision or ""
        seconds = self._by_network[name] / (2000 if precision == "int8" else 1000)
        latency = Series((), settled=True, rounds_s=((seconds, seconds),) * 4)
        samples = tuple(replace(process, latency=latency) for process in processes(1.0, 1.1, 1.2, 1.0))
        return change_facts(
            super().row(configuration),
            recorded=None,
            samples=samples,
            predictions=packing.pack_predictions(predicting(self._right[name, precision], 100), None),
        )


@pytest.fixture
def sizes(tmp_path: Path) -> tuple[Subject, ...]:
    def sized(name: str, size: int) -> Subject:
        of = subject(tmp_path / name, typed(tmp_path / name, "fp32"), typed(tmp_path / name, "int8"))
        return replace(of, name=name, size=(size, size))

    return sized("net@24", 24), sized("net@32", 32)


def tuned(bench: ScriptedHarness, of: tuple[Subject, ...], goal: TuningGoal) -> TuningResult:
    findings = TuningResult(goal)
    for result in bench.measure(TuningSearch(of, REQUEST, findings).trials()):
        findings.results.append(result)
    return findings


RIGHT = {("net@24", "fp32"): 80, ("net@24", "int8"): 79, ("net@32", "fp32"): 90, ("net@32", "int8"): 89}


def test_the_limit_counts_from_the_best_or_from_each_own(sizes: tuple[Subject, ...]) -> None:
    for relative_to, expected in (("best", "net@32"), ("own", "net@24")):
        goal = TuningGoal(max_drop=0.015, relative_to=relative_to)  # type: ignore[arg-type]
        findings = tuned(Networks({"net@24": 1.0, "net@32": 2.0}, RIGHT), sizes, goal)
        best = findings.choice().best
        assert best is not None
        identity = best.figures.result.identity
        assert (identity.subject, identity.precision) == (expected, "int8")
        assert findings.baseline is not None
        assert findings.baseline.identity.subject == "net@32"
        drops = {
            (point.figures.result.identity.subject, round(point.accuracy_drop.value, 3)) for point in findings.points
        }
        assert drops == {("net@24", 0.1), ("net@24", 0.11), ("net@32", 0.0), ("net@32", 0.01)}
        assert tuning_of(best, "latency").streams == 1


def test_networks_take_turns_and_are_one_front(sizes: tuple[Subject, ...]) -> None:
    bench = Networks({"net@24": 1.0, "net@32": 2.0}, RIGHT)
    findings = tuned(bench, sizes, TuningGoal(max_drop=0.015, threads=(2,)))
    assert bench.asked[:2] == [("pytorch", "fp32", 2, 1)] * 2
    assert bench.together == [(6, 3)]
    assert {point.figures.result.identity.subject for point in findings.finalists} == {"net@24", "net@32"}
    document = tuning_document(findings)
    (table,) = document.sections[0].all_of(Table)
    assert table.headings[:3] == ("network", "backend", "precision")
    marked = [row for row in table.rows if row.state == "best"]
    assert [row.attributes["words"].split()[0] for row in marked] == ["net@32"]
    assert len(document.sections[0].all_of(FrontPlot)) == 1
    assert max(map(len, as_text(document).splitlines())) <= 100
    page = html(document)
    assert page.count('<figure class="plot" data-kind="front">') == 1
    (spoken,) = re.findall(r'aria-label="(Accuracy[^"]*)"', page)
    assert numbers(spoken)[0] == str(len(findings.points)) == "8"
    assert {"net@24", "net@32"} <= set(spoken.replace(",", "").split())
    assert all(word in page for word in ("chosen", "accuracy limit"))


def test_a_spent_budget_begins_nothing_more(sizes: tuple[Subject, ...]) -> None:
    bench, findings = Networks({"net@24": 1.0, "net@32": 2.0}, RIGHT), TuningResult(TuningGoal(budget_s=5.0))
    search = TuningSearch(sizes, REQUEST, findings, clock=lambda: float(len(bench.asked)))
    for result in bench.measure(search.one_by_one()):
        findings.results.append(result)
    assert len(bench.asked) == 5
    assert list(findings.left_out.values())[-1][0] == "net@24 openvino int8"


def test_what_is_hopeless_is_not_tried_further(sizes: tuple[Subject, ...]) -> None:
    bench = Networks({"net@24": 1.0, "net@32": 90.0}, {**RIGHT, ("net@24", "int8"): 91})
    findings = tuned(bench, sizes, TuningGoal(max_drop=0.2))
    left = [name for names in findings.left_out.values() for name in names]
    assert [name for name in left if name.startswith("net@32")] == [
        f"net@32 {backend} {precision}" for precision in ("int8", "fp32") for backend in TRIED
    ]


def test_calls_at_the_same_time_win_only_by_more_than_noise(sizes: tuple[Subject, ...]) -> None:
    slow, fast = (Networks({"net@24": 1.0, "net@32": 2.0}, RIGHT) for _ in range(2))
    for bench, rate, expected in ((slow, 1020.0, None), (fast, 1900.0, 2)):
        bench.rate_per_s = rate
        findings = tuned(bench, sizes, TuningGoal("throughput", max_drop=0.015, streams=(1, 2), threads=(2,)))
        best = findings.choice().best
        assert best is not None
        load = best.figures.result.load
        assert (load and load.clients) == expected
        assert len(findings.concurrent) == 2
        assert tuning_of(best, "throughput").streams == (expected or 1)


def test_the_best_is_opened_without_a_cache_and_with_it(sizes: tuple[Subject, ...], tmp_path: Path) -> None:
    for backend, count, times in (("openvino", 2, ["62.5", "125", "1"]), ("onnxruntime", 0, [])):
        request = BenchmarkRequest(("resnet20",), backends=(backend,), baseline="pytorch")
        findings = TuningResult(TuningGoal(max_drop=0.015, threads=(2,), model_cache=tmp_path))
        bench = Networks({"net@24": 1.0, "net@32": 2.0}, RIGHT)
        for result in bench.measure(TuningSearch(sizes, request, findings).trials()):
            findings.results.append(result)
        assert len(findings.openings) == count
        assert len(findings.left_out) == 1 - count / 2
        (section, *_) = tuning_document(findings).sections
        assert [numbers(line) for line in remarks(section, "note") if line.startswith("model cache")] == [times] * (
            count // 2
        )


def test_networks_that_cannot_be_compared_are_refused(sizes: tuple[Subject, ...]) -> None:
    small, large = sizes
    request, goal = BenchmarkRequest(("a", "b")), TuningGoal()
    with refuses(UsageError, "tuning-needs-labels", "net@32", "--data"):
        checks.check_subjects((small, replace(large, data=None)), request, goal)
    with refuses(UsageError, "tuning-data-differ", "fashion-mnist", "photos"):
        checks.check_subjects((small, replace(large, data="photos")), request, goal)
    with refuses(UsageError, "tuning-batches-differ", "1, 4"):
        checks.check_subjects((small, replace(large, fixed_batch=4)), request, goal)
    checks.check_subjects((replace(small, data=None),), request, goal)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"streams": (2,)}, "streams-need-throughput"),
        ({"streams": (3,), "objective": "throughput"}, "tuning-threads-out-of-range"),
    ],
)
def test_impossible_streams_are_refused(wrong: dict[str, object], code: str) -> None:
    with refuses(UsageError, code):
        TuningGoal(**wrong)  # type: ignore[arg-type]


def test_the_file_of_several_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for others, name in (("resnet20", "resnet20.tuned.onnx"), ("a.onnx", "tuned.onnx")):
        with target_of(["resnet20", others], None, False) as target:
            assert target.name == name
    with refuses(UsageError, "tuning-formats-differ", ".engine", ".onnx"):
        target_of(["resnet20", "a.engine"], None, False)
