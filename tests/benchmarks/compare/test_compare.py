from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compare import changes, integrity
from benchmarks.compare.compare import Limits, compare
from benchmarks.records.load import LoadResult
from benchmarks.records.result import Row
from benchmarks.records.roof import Roof
from exporter.proportions import newcombe
from runtimes.errors import ArtifactError, CompatibilityError
from tests.benchmarks.comparisons import LATER, OLD, SAME, SLOWER, compared, figured, file, taken, with_answers
from tests.benchmarks.rows import FASTER, REFERENCE, SKIPPED

TOLERANT = Limits(slowdown=0.25)
"""Lets pass more than three processes may be apart by chance."""


def test_two_runs_of_the_same_thing_are_a_tie(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SAME], TOLERANT)
    (row,) = found.rows
    assert (found.passed, row.regressions, row.remarks) == (True, (), ())
    assert row.p50 is not None
    assert (row.p50.verdict, row.p50.paired, row.p50.units) == ("tie", False, "processes")
    assert (row.p50.old_s, row.p50.new_s) == (OLD.p50_s, SAME.p50_s)
    assert row.p50.interval[0] < 1 < row.p50.interval[1]
    assert row.p99 is not None


def test_what_became_slower_by_more_than_it_may_is_a_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SLOWER])
    (row,) = found.rows
    assert not found.passed
    assert row.p50 is not None
    assert row.p50.verdict == "slower"
    assert row.p50.slowdown == pytest.approx(0.10, abs=0.02)
    assert row.p50.slowdown_interval[0] < row.p50.slowdown < row.p50.slowdown_interval[1]
    (line,) = row.regressions
    assert line.startswith(f"a call takes {row.p50.percent_text} % longer; 5 % may be")


def test_slower_within_the_limit_passes_and_faster_is_no_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [SLOWER], Limits(slowdown=0.25))
    assert found.passed
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.verdict == "slower"
    faster = compared(tmp_path, [SLOWER], [OLD])
    assert faster.passed
    assert faster.rows[0].p50 is not None
    assert faster.rows[0].p50.verdict == "faster"


def test_a_gap_that_is_not_beyond_chance_is_no_regression_whatever_the_limit(tmp_path: Path) -> None:
    found = compared(tmp_path, [OLD], [taken(0.000402, 4)], Limits(slowdown=0.0))
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.slowdown > 0
    assert found.passed


def test_a_tie_that_is_too_wide_for_the_limit_says_so(tmp_path: Path) -> None:
    (row,) = compared(tmp_path, [OLD], [SAME], Limits(slowdown=0.0001)).rows
    assert row.p50 is not None
    assert row.p50.verdict == "tie"
    most = 100 * row.p50.slowdown_interval[1]
    (line,) = row.remarks
    assert line.startswith(f"too noisy to tell 0.01 %: it may be up to {most:.1f} % slower; more processes")
    assert compared(tmp_path, [OLD], [SAME], Limits(slowdown=0.5)).rows[0].remarks == ()


def test_of_many_runs_none_of_the_same_and_all_of_the_slower_are_regressions() -> None:
    for seed in range(100, 130, 2):
        before, now, slow = taken(0.0004, seed), taken(0.0004, seed + 1), taken(0.00046, seed + 1)
        same, worse = changes.change(before, now, 0.5), changes.change(before, slow, 0.5)
        assert same is not None
        assert worse is not None
        assert same.verdict == "tie"
        assert worse.verdict == "slower"
        assert worse.slowdown > 0.05


def test_rows_that_took_turns_are_compared_pair_by_pair(tmp_path: Path) -> None:
    def drifting(row: Row, times: float = 1.0) -> Row:
        """So many times as long, and each process twice as slow as the one before, which meets both rows alike."""
        moved = [
            replace(
                sitting,
                latency=replace(
                    sitting.latency,
                    rounds_s=tuple(
                        tuple(times * 2**number * s for s in samples) for samples in sitting.latency.rounds_s
                    ),
                ),
            )
            for number, sitting in enumerate(row.sittings)
        ]
        return figured(replace(row, run="one", sittings=tuple(moved)))

    old, new = drifting(OLD), drifting(SLOWER, times=1.1)
    found = compared(tmp_path, [old], [new])
    assert found.rows[0].p50 is not None
    assert found.rows[0].p50.paired
    assert found.rows[0].p50.slowdown == pytest.approx(0.21, abs=0.03)
    assert not found.passed
    elsewhere = compared(tmp_path, [old], [replace(new, run="another")])
    assert elsewhere.rows[0].p50 is not None
    assert (elsewhere.rows[0].p50.paired, elsewhere.rows[0].p50.verdict) == (False, "tie")


def test_the_same_file_twice_is_a_tie_in_every_row(tmp_path: Path) -> None:
    path = file(tmp_path / "r.jsonl", REFERENCE, FASTER, SKIPPED)
    found = compare(path, path, Limits())
    assert found.passed
    assert [row.p50 and row.p50.ratio for row in found.rows] == [1.0, 1.0, None]
    assert [row.remarks for row in found.rows[:2]] == [(), ()]
    assert found.rows[2].remarks == (
        "skipped (openvino is not installed) before, skipped (openvino is not installed) now",
    )


def test_figures_are_derived_from_the_samples_alone(tmp_path: Path) -> None:
    nothing = dict.fromkeys((*integrity.LATENCIES, "images_per_s", "load_s", "first_s", "peak_bytes", "baseline_bytes"))
    found = compared(tmp_path, [replace(OLD, **nothing)], [replace(SLOWER, **nothing)])  # type: ignore[arg-type]
    assert not found.passed


ROOF = Roof(1_000_000, 2_000_000, 4e9, 4e9, least_s=0.0002, share=0.75, bound="bandwidth")

EDITED = {
    "a median": (replace(OLD, p50_s=0.0003), r"p50_s is 0\.300 ms and its samples give 0\.400"),
    "a tail": (replace(OLD, p99_s=0.0005), "p99_s is 0.500 ms and its samples give 0.520"),
    "compute": (replace(OLD, compute_p50_s=0.0003), "compute_p50_s is 0.300 ms and its samples give 0.400"),
    "a median without samples": (replace(OLD, sittings=()), "p50_s is 0.400 ms and its samples give –"),
    "a device's median": (replace(OLD, device_p50_s=0.0003), "device_p50_s is 0.300 ms and its samples give –"),
    "an accuracy": (replace(with_answers(OLD, 930), top1=0.95), "top1 is 0.95 and its answers give 0.93"),
    "an accuracy of half an image": (replace(OLD, top1=0.93615), "top1 is 0.93615 and its answers give 0.9362"),
    "a throughput": (replace(OLD, images_per_s=2600.0), "images_per_s is 2600 and its samples give 2"),
    "a time to load": (replace(OLD, load_s=1.0), "load_s is 1,000 ms and its processes give 2,250"),
    "a first call": (replace(OLD, first_s=0.01), r"first_s is 10\.0 ms and its processes give 31\.0"),
    "a memory": (replace(OLD, peak_bytes=1), r"peak_bytes is 1 and its processes give 3\.124e\+08"),
    "a baseline": (replace(OLD, baseline_bytes=1), r"baseline_bytes is 1 and its processes give 1\.2e\+08"),
    "a share of the roof": (replace(OLD, roof=ROOF), r"roof\.share is 0\.75 and its samples give 0\.5"),
    "an interval": (
        replace(OLD, top1_interval=(0.93, 0.94)),
        "top1_interval's low end is 0.93 and its answers give 0.92",
    ),
    "five": (replace(with_answers(OLD, 930), top5=0.99), "top5 is 0.99 and its answers give 0.93"),
    "five of few": (replace(with_answers(OLD, 930), images=999), "images is 999 and its answers give 1000"),
}


@pytest.mark.parametrize("case", EDITED)
def test_an_edited_row_is_refused(tmp_path: Path, case: str) -> None:
    row, message = EDITED[case]
    for old, new in ((row, SAME), (SAME, row)):
        with pytest.raises(ArtifactError, match=rf"resnet20\.onnx: onnxruntime int8, batch 1: {message}.* was edited"):
            compared(tmp_path, [old], [new])


def test_what_stands_against_the_reference_is_derived_from_its_row_in_the_file(tmp_path: Path) -> None:
    reference = replace(with_answers(taken(0.0025, 5, REFERENCE), 935), run=OLD.run)
    right = replace(with_answers(OLD, 930), agreement=0.995, agreement_interval=None, drop=0.005)
    new = with_answers(SAME, 930)
    assert compared(tmp_path, [reference, right], [new], TOLERANT).rows
    for edited, message in (
        (replace(right, drop=0.001), r"drop is 0\.001 and its answers give 0\.005"),
        (replace(right, agreement=1.0), r"agreement is 1 and its answers give 0\.995"),
    ):
        with pytest.raises(ArtifactError, match=f"int8, batch 1: {message}: the row was edited"):
            compared(tmp_path, [reference, edited], [new])
        assert compared(tmp_path, [replace(reference, run="another"), edited], [new], TOLERANT).rows
    assert compared(tmp_path, [reference, replace(right, ratio=99.0, verdict="slower")], [new], TOLERANT).rows


def test_samples_that_were_edited_are_refused(tmp_path: Path) -> None:
    first = OLD.sittings[0]
    faster = replace(first.latency, rounds_s=tuple(tuple(s / 2 for s in each) for each in first.latency.rounds_s))
    with pytest.raises(ArtifactError, match=r"p50_s is 0\.400 ms and its samples give .* was edited"):
        compared(tmp_path, [OLD], [replace(SAME, sittings=(replace(first, latency=faster), *SAME.sittings[1:]))])
    stopped = replace(first.latency, rounds_s=((0.0, 0.001),))
    with pytest.raises(ArtifactError, match=r"a sample of p50_s is 0\.0 s, expected above 0"):
        compared(tmp_path, [OLD], [replace(SAME, sittings=(replace(first, latency=stopped),))])


def test_answers_that_are_damaged_are_refused(tmp_path: Path) -> None:
    row = with_answers(OLD, 930)
    assert row.answers is not None
    broken = replace(row, answers=replace(row.answers, packed="AAAA"))
    with pytest.raises(ArtifactError, match="damaged"):
        compared(tmp_path, [broken], [row])


def test_a_drop_is_found_image_by_image(tmp_path: Path) -> None:
    found = compared(tmp_path, [with_answers(OLD, 930)], [with_answers(SAME, 920)])
    (row,) = found.rows
    assert row.drop is not None
    assert (row.drop.old, row.drop.new, row.drop.value, row.drop.images) == (0.93, 0.92, 0.01, 1000)
    assert row.drop.paired
    assert row.drop.flips is not None
    assert (row.drop.flips.better, row.drop.flips.worse) == (0, 10)
    assert row.regressions == ("top-1 lost 1.00 [0.35, 1.64] points; 0.5 may be",)
    assert row.remarks[0].startswith(
        "answers: 0 right now that were wrong, 10 wrong that were right (McNemar p = 0.002)"
    )
    assert compared(tmp_path, [with_answers(OLD, 930)], [with_answers(SAME, 920)], Limits(drop=1.0)).passed


def test_the_same_drop_of_totals_is_not_beyond_chance(tmp_path: Path) -> None:
    totals = {"answers": None, "images": 1000, "top1_interval": None, "top5": None}
    before, now = replace(OLD, **totals, top1=0.93), replace(SAME, **totals, top1=0.92)  # type: ignore[arg-type]
    found = compared(tmp_path, [before], [now])
    assert found.rows[0].drop is not None
    assert (found.rows[0].drop.paired, found.rows[0].drop.flips) == (False, None)
    assert found.rows[0].drop.interval[0] < 0
    assert found.passed
    far = compared(tmp_path, [before], [replace(now, top1=0.8)])
    assert not far.passed


def test_a_drop_that_is_not_beyond_chance_is_no_regression(tmp_path: Path) -> None:
    found = compared(tmp_path, [with_answers(OLD, 930)], [with_answers(SAME, 929)], Limits(drop=0.0))
    assert found.rows[0].drop is not None
    assert found.rows[0].drop.value > 0
    assert found.passed


def test_answers_to_other_images_are_not_compared(tmp_path: Path) -> None:
    nothing = replace(SAME, top1=None, top1_interval=None, top5=None, images=None)
    cases = {
        "the two were asked about different images": (with_answers(OLD, 930), with_answers(SAME, 460, images=500)),
        "fashion-mnist, 10000 images before, other, 10000 images now": (OLD, replace(SAME, data="other")),
        "NEW has none": (OLD, nothing),
        "OLD has none": (replace(nothing, run="older"), OLD),
    }
    for reason, (old, new) in cases.items():
        found = compared(tmp_path, [old], [new], TOLERANT)
        assert found.rows[0].drop is None
        assert found.rows[0].remarks == (f"top-1 not compared: {reason}",)
    assert compared(tmp_path, [nothing], [replace(nothing, run="next")], TOLERANT).rows[0].remarks == ()


def test_newcombes_interval_is_that_of_his_paper() -> None:
    # Newcombe 1998, Table II, (a), method 10
    assert newcombe(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def loaded(rate: float, slower: float = 1.0, seed: int = 0, share: float | None = None) -> Row:
    random = np.random.default_rng(seed)
    responses = tuple(float(s) for s in slower * 0.001 * np.exp(random.normal(scale=0.05, size=1200)))
    load = LoadResult("open", responses, responses, rate, arrivals="poisson", rate_per_s=rate, rate_share=share)
    none = dict.fromkeys(("p90_s", "p99_s", "compute_p50_s", "top1", "top1_interval", "top5"))
    row = replace(FASTER, sittings=(), load=load, p50_s=float(np.median(responses)), run=f"load {seed}")
    return replace(row, images_per_s=rate, **none)  # type: ignore[arg-type]


def test_responses_under_a_load_are_compared_at_one_rate_alone(tmp_path: Path) -> None:
    found = compared(tmp_path, [loaded(100.0)], [loaded(100.0, 1.2, seed=1)])
    (row,) = found.rows
    assert (row.load, found.passed) == ("open, poisson", False)
    assert row.remarks == ("one process on each side: another start of either may land elsewhere",)
    assert row.p99 is not None
    with pytest.raises(CompatibilityError, match=r"load open, poisson: rate 100\.0 against 140\.0.*--across rate"):
        compared(tmp_path, [loaded(100.0)], [loaded(140.0, seed=1)])
    with pytest.raises(CompatibilityError, match="load none against open, poisson"):
        compared(tmp_path, [OLD], [loaded(100.0)])


def test_a_rate_that_the_machine_decided_on_refuses_nothing(tmp_path: Path) -> None:
    """Each run takes its own from its closed loop, and no two of these reach the same."""
    found = compared(tmp_path, [loaded(100.0, share=0.7)], [loaded(91.0, 1.1, seed=1, share=0.7)])
    (row,) = found.rows
    assert row.p50 is not None
    assert row.p50.slowdown == pytest.approx(0.1, abs=0.02)
    assert row.remarks[0] == "requests a second, after what the closed loop reached: 100 before, 91 now"
    with pytest.raises(CompatibilityError, match=r"rate 100\.0 against 70% of the closed loop's.*--across rate"):
        compared(tmp_path, [loaded(100.0)], [loaded(100.0, seed=1, share=0.7)])


def test_loads_of_other_rates_are_no_earlier_runs_of_each_other(tmp_path: Path) -> None:
    later = replace(loaded(200.0, seed=2), time=LATER)
    found = compared(tmp_path, [loaded(100.0), loaded(200.0, seed=1)], [loaded(100.0, seed=3), later])
    assert [row.p50 is not None for row in found.rows] == [True, True]
    assert (found.notices, found.only_old, found.only_new) == ((), (), ())
    again = replace(loaded(91.0, seed=5, share=0.7), time=LATER)
    derived = compared(tmp_path, [loaded(100.0, share=0.7)], [loaded(95.0, seed=4, share=0.7), again])
    assert derived.notices == ("NEW: 1 row of an earlier run of the same configuration was left out",)


def test_cold_starts_are_processes_each() -> None:
    cold = replace(FASTER, load=LoadResult("cold", (0.1,), (0.3, 0.31, 0.32, 0.3, 0.33), 3.0))
    assert integrity.latencies(cold) == (((0.3,),), ((0.31,),), ((0.32,),), ((0.3,),), ((0.33,),))
    found = changes.change(cold, cold, 0.5)
    assert found is not None
    assert found.units == "processes"
    assert changes.change(cold, cold, 0.99) is None


def test_too_few_samples_are_told(tmp_path: Path) -> None:
    sitting = OLD.sittings[0]
    few = replace(sitting, latency=replace(sitting.latency, rounds_s=((0.0004,) * 4,)), compute=sitting.latency)
    row = replace(OLD, sittings=(few,), p50_s=None, p90_s=None, p99_s=None, compute_p50_s=None, images_per_s=None)
    found = compared(tmp_path, [row], [SAME])
    assert found.rows[0].p50 is None
    assert found.rows[0].remarks == ("too few samples to compare the latency",)


def test_what_else_changed_and_disturbances_are_told(tmp_path: Path) -> None:
    new = replace(SAME, runtime_version="1.33.0", arithmetic="float32", disturbances=("others used 0.9 of 2", "steal"))
    found = compared(tmp_path, [OLD], [new], TOLERANT)
    assert found.rows[0].remarks == (
        "runtime version: 1.32.0 before, 1.33.0 now",
        "arithmetic: int8 (53 of 54), float32 (1 of 54) before, float32 now",
        "NEW was disturbed: others used 0.9 of 2, and 1 more",
    )
