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
from benchmarks.stats.comparison import NO_DIFFERENCE, LatencyComparison, Verdict
from runtimes.errors import Reason
from tests.benchmarks.results import EMPTY, FASTER, REFERENCE, SKIPPED, change, estimate, processes


def timed(backend: str, p50_s: float, seed: int, batch: int = 1) -> Figures:
    """Of the reference's group."""
    samples = processes(p50_s, 1.08 * p50_s, 1.3 * p50_s, p50_s, seed=seed)
    p50 = estimate(p50_s, (0.99 * p50_s, 1.01 * p50_s))
    return change(Figures(EMPTY), backend=backend, batch=batch, samples=samples, p50=p50, disturbances=())


QUICK, TWIN, SLOW = timed("openvino", 0.001, 1), timed("onnxruntime", 0.001001, 4), timed("inductor", 0.002, 7)


def names(headline: Headline) -> tuple[str, list[str], str | None]:
    """The backends of the fastest, of those that tie with it and of the one that it is compared with."""
    against = None if headline.against is None else headline.against.result.identity.backend
    tied = [figures.result.identity.backend for figures in headline.tied]
    return headline.fastest.result.identity.backend, tied, against


def said(*results: Figures) -> str:
    (found,) = headlines(results)
    return format_headline(found)


def test_the_headline_has_one_ratio_and_the_change_in_accuracy() -> None:
    (found,) = headlines([REFERENCE, FASTER, SKIPPED])
    assert names(found) == ("onnxruntime", [], "pytorch")
    assert found.lead is not None
    assert found.lead.ratio == pytest.approx(6.1, rel=0.05)
    assert found.best == (FASTER,)
    assert format_headline(found) == (
        "ResNet-20: ONNX Runtime int8 is 6.1x faster than PyTorch at the same accuracy "
        "(93.49 %, change -0.12 ± 0.17 pp)"
    )


@pytest.mark.parametrize(
    ("value", "interval", "words"),
    [
        (-0.012, (-0.014, -0.010), "at lower accuracy"),
        (0.012, (0.010, 0.014), "at higher accuracy"),
        (0.0, (-0.006, 0.006), "with no significant change in accuracy"),
        (0.0, (-0.005, 0.005), "at the same accuracy"),
    ],
)
def test_accuracy_is_the_same_only_if_the_whole_interval_says_so(
    value: float, interval: tuple[float, float], words: str
) -> None:
    assert f" than PyTorch {words} (" in said(REFERENCE, change(FASTER, top1_change=estimate(value, interval)))


def test_the_ratio_is_over_the_baseline_not_over_the_next() -> None:
    slower = change(timed("openvino", 0.0008, 5), disturbances=())
    (found,) = headlines([REFERENCE, FASTER, slower])
    assert names(found) == ("onnxruntime", [], "pytorch")


def test_the_fastest_baseline_is_compared_with_the_next() -> None:
    slow = change(SLOW, p50=estimate(0.02), samples=processes(0.02, 0.021, 0.022, 0.02, seed=7))
    assert names(headlines([REFERENCE, slow])[0]) == ("pytorch", [], "inductor")
    assert said(REFERENCE, slow).startswith("ResNet-20: PyTorch is 8.")


def test_rows_without_a_difference_are_marked_and_named() -> None:
    (found,) = headlines([SLOW, TWIN, QUICK])
    assert names(found) == ("openvino", ["onnxruntime"], "inductor")
    assert found.best == (QUICK, TWIN)
    assert format_headline(found) == (
        "ResNet-20: OpenVINO is 2.0x faster than PyTorch Inductor; no significant difference from ONNX Runtime"
    )


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
    fastest, _, against = names(found)
    assert against is not None
    assert beaten[against] == fastest
    assert (found.lead and found.lead.ratio) == 1.1, "not what it was beaten by"


def test_two_alike_are_said_to_have_no_significant_difference() -> None:
    (found,) = headlines([TWIN, QUICK])
    assert names(found) == ("openvino", ["onnxruntime"], "onnxruntime")
    assert format_headline(found).startswith(
        "ResNet-20: no significant difference between OpenVINO and ONNX Runtime (1.01x ± "
    )


def test_many_without_a_difference_are_counted() -> None:
    twins = [change(TWIN, backend=f"backend{number}") for number in range(5)]
    text = said(QUICK, *twins, SLOW)
    assert text.endswith("no significant difference from backend0 and backend1 and 3 others")


def test_one_alone_is_compared_with_nothing() -> None:
    (found,) = headlines([QUICK, SKIPPED])
    assert (found.lead, found.best) == (None, ())
    assert "OpenVINO takes 1.00 ms" in format_headline(found)


def test_each_batch_has_its_own() -> None:
    found = headlines([QUICK, SLOW, timed("openvino", 0.004, 1, batch=8)])
    assert [(one.fastest.result.identity.batch, one.lead is None) for one in found] == [(1, False), (8, True)]
    assert [format_headline(one).split(":")[0] for one in found] == ["ResNet-20, batch 1", "ResNet-20, batch 8"]


def test_an_invalid_run_ranks_nothing_and_says_why() -> None:
    busy = change(QUICK, validity_reason=Reason("machine-busy", "other processes used 68 % of the CPUs"))
    (found,) = headlines([busy, SLOW])
    assert found.best == ()
    assert format_headline(found) == (
        "Too noisy to rank ResNet-20: other processes used 68 % of the CPUs; run again on an idle machine"
    )
    hot = change(SLOW, validity_reason=Reason("cpu-throttled", "a CPU was throttled"))
    assert said(QUICK, hot).endswith("a CPU was throttled; run again when the CPU is cool")


def test_fewer_than_three_processes_rank_nothing() -> None:
    few = [change(each, samples=each.result.samples[:2]) for each in (QUICK, SLOW)]
    (found,) = headlines(few)
    assert found.best == ()
    assert format_headline(found) == (
        "ResNet-20, preliminary: OpenVINO 1.00 ms, PyTorch Inductor 2.00 ms "
        "(2 processes per configuration; an interval needs at least 3)"
    )


def test_varying_processes_rank_nothing_on_an_idle_machine() -> None:
    wild = uneven("wild", (0.0005, 0.002, 0.006), (50, 50, 50))
    (found,) = headlines([wild, SLOW])
    assert found.best == ()
    text = format_headline(found)
    assert text.startswith("Too noisy to rank ResNet-20: latency varies between processes (wild fp32: medians ")
    assert text.endswith("run again with more processes")


@pytest.mark.parametrize(
    ("ratio", "interval", "clear", "alike"),
    [
        (6.1, (4.7, 7.6), True, False),
        (6.1, (4.5, 7.7), False, False),  # half the interval is more than a quarter of the ratio
        (1.1, (1.05, 1.15), True, False),
        (1.1, (1.02, 1.18), False, False),  # and more than half of the difference
        (1.05, (1.0, 1.1), False, True),
        (1.05, (0.9, 1.2), False, False),
    ],
)
def test_a_ratio_is_told_only_where_the_interval_is_narrow(
    ratio: float, interval: tuple[float, float], clear: bool, alike: bool
) -> None:
    verdict: Verdict = "faster" if interval[0] > 1.01 else NO_DIFFERENCE
    found = LatencyComparison(ratio, interval, verdict, "processes")
    assert (found.is_clear, found.is_alike) == (clear, alike)


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
    text = said(QUICK, change(SLOW, threads=1))
    assert all(part in text for part in ("OpenVINO, 2 threads", "PyTorch Inductor, 1 thread"))


def test_a_configuration_without_graphs() -> None:
    without = change(QUICK, cuda_graphs=False, precision="fp16").result
    assert ranking.name(without) == "openvino fp16, no CUDA graphs"
    assert ranking.title(without) == "OpenVINO fp16, no CUDA graphs"


def test_a_foreign_network_is_called_as_the_user_called_it() -> None:
    assert ranking.network_title(change(QUICK, variant="net.onnx", subject="net.onnx").result) == "net.onnx"
    assert ranking.network_title(change(QUICK, variant="plain20").result) == "Plain-20"
    assert ranking.network_title(change(QUICK, subject="resnet20@24x32").result) == "ResNet-20@24x32"
