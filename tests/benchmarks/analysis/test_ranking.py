from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.analysis import ranking
from benchmarks.analysis.ranking import format_headline, headlines
from benchmarks.records.result import Row
from benchmarks.records.samples import Series
from benchmarks.stats import comparison as statistics
from benchmarks.stats import intervals
from tests.benchmarks.rows import EMPTY, FASTER, REFERENCE, SKIPPED, sittings


def row(runtime: str, p50_s: float, seed: int, batch: int = 1) -> Row:
    """Of the reference's field."""
    taken = sittings(p50_s, 1.08 * p50_s, 1.3 * p50_s, p50_s, seed=seed)
    interval = (0.99 * p50_s, 1.01 * p50_s)
    return replace(
        EMPTY, runtime=runtime, batch=batch, p50_s=p50_s, p50_interval_s=interval, sittings=taken, disturbances=()
    )


QUICK, TWIN, SLOW = row("openvino", 0.001, 1), row("onnxruntime", 0.001001, 4), row("inductor", 0.002, 7)


def test_the_fastest_leads_by_its_ratio_over_the_next() -> None:
    (found,) = headlines([REFERENCE, FASTER, SKIPPED])
    assert (found.fastest, found.tied, found.next) == (FASTER, (), REFERENCE)
    assert found.lead is not None
    assert found.lead.verdict == "faster"
    assert found.lead.ratio == pytest.approx(6.1, rel=0.05)
    low, high = found.lead.interval
    assert format_headline(found) == (
        f"Batch 1: onnxruntime int8 is the fastest, at 0.410 [0.405–0.416] ms: {found.lead.ratio:.2f} "
        f"[{low:.2f}–{high:.2f}] times as fast as the next, pytorch fp32; its drop of top-1 is 0.12 [-0.05, 0.29] "
        "points."
    )


def test_what_cannot_be_told_apart_ties() -> None:
    (found,) = headlines([SLOW, TWIN, QUICK])
    assert (found.fastest, found.tied, found.next) == (QUICK, (TWIN,), SLOW)
    said = format_headline(found)
    assert said.startswith("Batch 1: openvino fp32 and onnxruntime fp32 tie for the fastest, at 1.00 [0.990–1.01] ms: ")
    assert "times as fast as the next, inductor fp32" in said


def uneven(runtime: str, medians_s: tuple[float, ...], counts: tuple[int, ...]) -> Row:
    """A process for each median, of four rounds of so many samples around it."""
    random = np.random.default_rng(len(runtime))
    taken = tuple(
        replace(
            QUICK.sittings[0],
            latency=Series(
                (), True, tuple(tuple(median_s * random.normal(1, 0.002, count).clip(0.9)) for _ in range(4))
            ),
        )
        for median_s, count in zip(medians_s, counts, strict=True)
    )
    together = [sample for sitting in taken for sample in sitting.latency.samples_s]
    return replace(QUICK, runtime=runtime, sittings=taken, p50_s=intervals.quantile(together, 0.5))


def test_where_they_took_turns_the_rounds_decide_who_is_the_fastest() -> None:
    """Each round has the one 3 % ahead, and of all samples together the other has its most while all were quick."""
    ahead = uneven("ahead", (0.00097, 0.00194, 0.00194), (10, 100, 100))
    behind = uneven("behind", (0.001, 0.002, 0.002), (100, 10, 10))
    assert (behind.p50_s or 0) < (ahead.p50_s or 0)
    for rows in ([ahead, behind], [behind, ahead]):
        (found,) = headlines(rows)
        assert (found.fastest.runtime, found.tied, found.next and found.next.runtime) == ("ahead", (), "behind")
        assert found.lead is not None
        assert found.lead.interval[0] > 1
        assert format_headline(found).startswith("Batch 1: ahead fp32 is the fastest, at ")


def test_of_those_that_beat_each_other_in_a_circle_one_leads_over_one_that_it_beats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beaten = {"openvino": "inductor", "onnxruntime": "openvino", "inductor": "onnxruntime"}

    def compared(reference: Row, other: Row) -> statistics.LatencyComparison:
        wins = beaten[reference.runtime] == other.runtime
        return statistics.LatencyComparison(
            1.1 if wins else 0.9, (0.8, 1.2), "faster" if wins else "slower", "processes"
        )

    monkeypatch.setattr(ranking, "compare_latencies", compared)
    (found,) = headlines([QUICK, TWIN, SLOW])
    assert found.next is not None
    assert beaten[found.next.runtime] == found.fastest.runtime
    assert (found.lead and found.lead.ratio) == 1.1, "not what it was beaten by"


def test_all_tie() -> None:
    said = format_headline(headlines([TWIN, QUICK])[0])
    assert said.endswith("times as fast as onnxruntime fp32, which is not told apart.")


def test_many_that_tie_are_counted() -> None:
    twins = [replace(TWIN, runtime=f"runtime{number}") for number in range(5)]
    assert "openvino fp32, runtime0 fp32, runtime1 fp32 and 3 others tie" in format_headline(
        headlines([QUICK, *twins])[0]
    )


def test_one_alone_is_compared_with_nothing() -> None:
    (found,) = headlines([QUICK, SKIPPED])
    assert found.lead is None
    assert (
        format_headline(found)
        == "Batch 1: openvino fp32 takes 1.00 [0.990–1.01] ms; there is nothing to compare it with."
    )


def test_each_batch_has_its_own() -> None:
    found = headlines([QUICK, SLOW, row("openvino", 0.004, 1, batch=8)])
    assert [(one.fastest.batch, one.lead is None) for one in found] == [(1, False), (8, True)]


def test_a_disturbed_winner_says_so() -> None:
    (found,) = headlines([replace(QUICK, disturbances=("others were at work",)), SLOW])
    assert format_headline(found).endswith("; the machine was not quiet meanwhile.")


def test_the_reference_is_told_of_where_it_is_not_the_next() -> None:
    ratio = {"ratio": 2.5, "ratio_interval": (2.4, 2.6)}
    (found,) = headlines([replace(QUICK, **ratio), SLOW, REFERENCE])  # type: ignore[arg-type]
    assert "; 2.50 [2.40–2.60] times as fast as pytorch in fp32." in format_headline(found)


def test_rows_that_took_turns_are_paired_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("compare_paired", "compare_unpaired"):

        def noted(*_: object, name: str = name) -> statistics.LatencyComparison:
            asked.append(name)
            return statistics.LatencyComparison(1.0, (0.9, 1.1), "tie", "processes")

        monkeypatch.setattr(statistics, name, noted)
    ranking._compare_samples.cache_clear()
    others = [QUICK, replace(QUICK, run="another"), replace(QUICK, field=3), replace(QUICK, field=None)]
    for other in others:
        ranking.compare_latencies(SLOW, other)
    ranking.compare_latencies(replace(SLOW, field=None), others[-1])
    ranking._compare_samples.cache_clear()
    assert asked == ["compare_paired", "compare_unpaired"]  # what was compared once is remembered


def test_threads_are_named_where_they_differ() -> None:
    (found,) = headlines([QUICK, replace(SLOW, threads=1)])
    assert "openvino fp32, 2 threads is the fastest" in format_headline(found)
    assert "the next, inductor fp32, 1 thread" in format_headline(found)


def test_without_graphs() -> None:
    assert ranking.name(replace(QUICK, cuda_graphs=False)) == "openvino fp32, no CUDA graphs"
