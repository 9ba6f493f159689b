from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.analysis import figures, ranking
from benchmarks.analysis.figures import Figures
from benchmarks.analysis.ranking import Headline, format_headline, headlines
from benchmarks.records.result import Result
from benchmarks.records.samples import Series
from benchmarks.stats import comparison
from benchmarks.stats.comparison import NO_DIFFERENCE, LatencyComparison
from runtimes.errors import Reason
from tests.benchmarks.results import EMPTY, FASTER, REFERENCE, SKIPPED, change, estimate, processes


def timed(backend: str, p50_s: float, seed: int, batch: int = 1) -> Figures:
    """Of the reference's group."""
    samples = processes(p50_s, 1.08 * p50_s, 1.3 * p50_s, p50_s, seed=seed)
    p50 = estimate(p50_s, (0.99 * p50_s, 1.01 * p50_s))
    return change(Figures(EMPTY), backend=backend, batch=batch, samples=samples, p50=p50, disturbances=())


QUICK, TWIN, SLOW = timed("openvino", 0.001, 1), timed("onnxruntime", 0.001001, 4), timed("inductor", 0.002, 7)


def names(headline: Headline) -> tuple[str, list[str], str | None]:
    """The backends of the fastest, of those that tie with it and of the next."""
    following = None if headline.next is None else headline.next.result.identity.backend
    tied = [figures.result.identity.backend for figures in headline.tied]
    return headline.fastest.result.identity.backend, tied, following


def test_the_fastest_leads_by_its_ratio_over_the_next() -> None:
    (found,) = headlines([REFERENCE, FASTER, SKIPPED])
    assert names(found) == ("onnxruntime", [], "pytorch")
    assert found.lead is not None
    assert found.lead.verdict == "faster"
    assert found.lead.ratio == pytest.approx(6.1, rel=0.05)
    said = format_headline(found)
    low, high = found.lead.interval
    assert f"{found.lead.ratio:.2f} [{low:.2f}–{high:.2f}]" in said
    assert all(part in said for part in ("Batch 1", "onnxruntime int8", "0.410 [0.405–0.416]", "0.12 [-0.05, 0.29]"))


def test_what_cannot_be_told_apart_ties() -> None:
    (found,) = headlines([SLOW, TWIN, QUICK])
    assert names(found) == ("openvino", ["onnxruntime"], "inductor")
    said = format_headline(found)
    assert all(part in said for part in ("openvino fp32 and onnxruntime fp32", "1.00 [0.990–1.01]", "inductor fp32"))


def uneven(backend: str, medians_s: tuple[float, ...], counts: tuple[int, ...]) -> Figures:
    """A process for each median, of four rounds of so many samples around it."""
    random = np.random.default_rng(len(backend))
    first = QUICK.result.samples[0]
    samples = tuple(
        replace(
            first,
            latency=Series(
                (), True, tuple(tuple(median_s * random.normal(1, 0.002, count).clip(0.9)) for _ in range(4))
            ),
        )
        for median_s, count in zip(medians_s, counts, strict=True)
    )
    return Figures(change(Figures(EMPTY), backend=backend, samples=samples).result)


def test_where_they_took_turns_the_rounds_decide() -> None:
    """Each round has the one 3 % ahead, and of all samples together the other has its most while all were quick."""
    ahead = uneven("ahead", (0.00097, 0.00194, 0.00194), (10, 100, 100))
    behind = uneven("behind", (0.001, 0.002, 0.002), (100, 10, 10))
    assert ahead.p50 is not None
    assert behind.p50 is not None
    assert behind.p50.value < ahead.p50.value
    for results in ([ahead, behind], [behind, ahead]):
        (found,) = headlines(results)
        assert names(found) == ("ahead", [], "behind")
        assert found.lead is not None
        assert found.lead.interval[0] > 1


def test_cyclic_wins_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    beaten = {"openvino": "inductor", "onnxruntime": "openvino", "inductor": "onnxruntime"}

    def compared(reference: Result, other: Result) -> LatencyComparison:
        wins = beaten[reference.identity.backend] == other.identity.backend
        ratio, interval = 1.1 if wins else 0.9, (0.8, 1.2)
        return LatencyComparison(ratio, interval, "faster" if wins else "slower", "processes")

    monkeypatch.setattr(ranking, "compare_latencies", compared)
    (found,) = headlines([QUICK, TWIN, SLOW])
    fastest, _, following = names(found)
    assert following is not None
    assert beaten[following] == fastest
    assert (found.lead and found.lead.ratio) == 1.1, "not what it was beaten by"


def test_all_tie() -> None:
    (found,) = headlines([TWIN, QUICK])
    assert names(found) == ("openvino", ["onnxruntime"], None)
    assert "onnxruntime fp32" in format_headline(found)


def test_many_that_tie_are_counted() -> None:
    twins = [change(TWIN, backend=f"backend{number}") for number in range(5)]
    said = format_headline(headlines([QUICK, *twins])[0])
    assert all(part in said for part in ("backend1 fp32", "3 others"))
    assert "backend2" not in said


def test_one_alone_is_compared_with_nothing() -> None:
    (found,) = headlines([QUICK, SKIPPED])
    assert found.lead is None
    assert "1.00 [0.990–1.01]" in format_headline(found)


def test_each_batch_has_its_own() -> None:
    found = headlines([QUICK, SLOW, timed("openvino", 0.004, 1, batch=8)])
    assert [(one.fastest.result.identity.batch, one.lead is None) for one in found] == [(1, False), (8, True)]


def test_a_disturbed_winner_says_so() -> None:
    calm, busy = (
        format_headline(headlines([change(QUICK, disturbances=reasons), SLOW])[0])
        for reasons in ((), (Reason("others-busy", "others were at work"),))
    )
    assert busy.startswith(calm.removesuffix("."))
    assert len(busy) > len(calm)


def test_the_reference_is_named_where_it_is_not_the_next() -> None:
    (found,) = headlines([change(QUICK, ratio=estimate(2.5, (2.4, 2.6))), SLOW, REFERENCE])
    assert "2.50 [2.40–2.60]" in format_headline(found)


def test_results_that_took_turns_are_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("compare_paired", "compare_unpaired"):

        def noted(*_: object, name: str = name, **__: object) -> LatencyComparison:
            asked.append(name)
            return LatencyComparison(1.0, (0.9, 1.1), NO_DIFFERENCE, "processes")

        monkeypatch.setattr(comparison, name, noted)
    figures._compare.cache_clear()
    others = [QUICK, change(QUICK, run="another"), change(QUICK, group=3), change(QUICK, group=None)]
    for other in others:
        figures.compare_latencies(SLOW.result, other.result)
    figures.compare_latencies(change(SLOW, group=None).result, others[-1].result)
    figures._compare.cache_clear()
    assert asked == ["compare_paired", "compare_unpaired"]  # what was compared once is remembered


def test_threads_are_named_where_they_differ() -> None:
    said = format_headline(headlines([QUICK, change(SLOW, threads=1)])[0])
    assert all(part in said for part in ("openvino fp32, 2 threads", "inductor fp32, 1 thread"))


def test_without_graphs() -> None:
    assert ranking.name(change(QUICK, cuda_graphs=False).result) == "openvino fp32, no CUDA graphs"
