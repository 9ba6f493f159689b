from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.analysis.served import (
    check_served,
    describe_search,
    find_client_limit,
    is_hopeless,
    judge_rate,
    summarise_search,
)
from benchmarks.analysis.warnings import conditions_of
from benchmarks.records.samples import LoadResult, ServedLoad
from tests.benchmarks.results import EMPTY, QUIET

SERVED = ServedLoad(
    protocol="http",
    host="loopback",
    server="scripted 1.2",
    model="net",
    model_version="3",
    timeout_s=10.0,
    limit_s=0.02,
    failures={},
    connections=8,
    connections_limit=512,
    null_s=(0.0005,) * 20,
)


def load(late: int = 0, total: int = 2000, rate_per_s: float = 100.0, **changes: Any) -> LoadResult:
    """Responses of 10 ms, of which some ``late`` ones, spread evenly, take 50 ms."""
    every = total // late if late else total + 1
    responses = tuple(0.05 if number % every == every - 1 else 0.01 for number in range(total))
    served = replace(SERVED, **{name: changes.pop(name) for name in list(changes) if hasattr(SERVED, name)})
    services = changes.pop("services_s", responses)
    return LoadResult("server", services, responses, rate_per_s, rate_per_s, served=served, **changes)


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        (load(late=5), "holds"),
        (load(late=40), "fails"),
        (load(late=20), "undecided"),
        (load(late=5, failures={"http-503": 40}), "fails"),
        (load(late=40, connections=512), "client"),
        (load(late=5, connections=512), "holds"),
    ],
)
def test_a_rate_is_judged_by_its_interval(measured: LoadResult, outcome: str) -> None:
    verdict = judge_rate(measured)
    assert verdict is not None
    assert verdict.outcome == outcome


def test_other_loads_are_not_judged() -> None:
    assert judge_rate(load(limit_s=None)) is None
    assert judge_rate(replace(load(), served=None)) is None
    stream = replace(load(late=40), shape="single-stream", rate_per_s=None)
    assert judge_rate(stream) is None
    assert is_hopeless(stream)
    assert not is_hopeless(replace(stream, served=replace(SERVED, limit_s=None)))


@pytest.mark.parametrize(
    ("measured", "cause"),
    [
        (load(), None),
        (load(services_s=(0.005,) * 2000), "5.00 ms late"),
        (load(connections=512), "512 connections"),
        (load(connections=512, connections_limit=None), None),
        (load(conditions=replace(QUIET, wall_s=1.0, cpu_s=0.97)), "97 %"),
        (load(conditions=replace(QUIET, wall_s=1.0, cpu_s=0.5)), None),
        (load(null_s=(0.006,) * 20), "6.00 of the"),
    ],
)
def test_a_limiting_client_is_named_with_its_cause(measured: LoadResult, cause: str | None) -> None:
    assert measured.served is not None
    found = find_client_limit(measured, measured.served)
    assert (found is None) == (cause is None)
    if found is not None and cause is not None:
        assert (found.code, cause in found.sentence) == ("client-limited", True)


def test_failures_are_a_warning_with_their_share() -> None:
    (found,) = check_served(load(total=990), replace(SERVED, failures={"http-503": 8, "timeout": 2}))
    assert found.code == "requests-failed"
    for value in ("1 %", "8 http-503", "2 timeout"):
        assert value in found.sentence


def test_the_search_is_summed_up_by_the_last_of_each_rate() -> None:
    loads = [
        replace(load(), shape="single-stream", rate_per_s=None),
        load(late=5, rate_per_s=100.0),
        load(late=40, rate_per_s=200.0),
        load(late=20, rate_per_s=150.0),
        load(late=5, total=4000, rate_per_s=150.0),
        load(late=40, rate_per_s=170.0),
    ]
    found = summarise_search(loads)
    assert found is not None
    assert (found.holds, found.fails) == (loads[4], loads[5])
    assert "150 requests/s" in describe_search(found)
    assert "170/s" in describe_search(found)
    nothing = summarise_search([loads[0], loads[2]])
    assert nothing is not None
    assert (nothing.holds, nothing.fails) == (None, loads[2])
    assert summarise_search([load(limit_s=None)]) is None


def test_a_search_without_a_rate_says_why() -> None:
    stream = replace(load(), shape="single-stream", rate_per_s=None)
    slow = replace(load(late=40), shape="single-stream", rate_per_s=None)
    for first, is_slow in ((stream, False), (slow, True)):
        found = summarise_search([first])
        assert found is not None
        assert (found.holds, found.fails, found.hopeless) == (None, None, is_slow)
        assert describe_search(found)


def test_a_server_on_the_same_machine_is_no_disturbance() -> None:
    busy = replace(QUIET, foreign_cores=1.5, waited_s=0.4, pressure_share=0.5, involuntary_switches=500)
    measured = load(conditions=busy)
    seen = conditions_of(EMPTY, measured)
    assert seen is not None
    assert (seen.foreign_cores, seen.waited_s, seen.involuntary_switches) == (None, None, 0)
    assert conditions_of(EMPTY, replace(measured, served=replace(SERVED, host="public"))) == busy
