"""Load tests of servers: whether a rate holds the limit of p99, and whether the client was the limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.format import milliseconds
from benchmarks.records.plan import RATED_SHAPES
from benchmarks.records.result import Estimate
from benchmarks.records.samples import LoadResult, ServedLoad
from benchmarks.stats import intervals
from benchmarks.stats.exceedance import estimate_share_above
from runtimes.errors import Reason

QUANTILE = 0.99
"""The quantile that a search limits."""

BUSY_CLIENT = 0.9
"""The share of one processor from which on the client, which has one thread, is too busy to send in time."""

LATE_SHARE, LATE_S = 0.1, 1e-3
"""How late a client may send, at p99: a share of the p99 of the responses, or of its limit in a search if that is more;
and a time that any client may need."""

NULL_SHARE = 0.5
"""The share of the median response time that the client may need at a server that answers at once."""


@dataclass(frozen=True)
class RateVerdict:
    """The verdict on one rate of a search.

    Attributes:
        outcome: ``holds`` if at most 1 % of the requests took longer than the limit, or failed, by the upper end of
            the interval; ``fails`` if more did, by its lower end; otherwise ``undecided``. ``client``: it does not
            hold, and the client was the limit.
        share: The share of the requests above the limit, with its interval.
    """

    outcome: Literal["holds", "fails", "undecided", "client"]
    share: Estimate


def judge_rate(load: LoadResult) -> RateVerdict | None:
    """Return the verdict on a load of a search whose requests arrive at a rate; ``None`` for other loads."""
    served = load.served
    if served is None or served.limit_s is None or load.shape not in RATED_SHAPES:
        return None
    share, interval = estimate_share_above(load.responses_s, served.limit_s, served.failed)
    allowed, estimate = 1 - QUANTILE, Estimate(share, *interval)
    if interval[1] <= allowed:
        return RateVerdict("holds", estimate)
    if find_client_limit(load, served) is not None:
        return RateVerdict("client", estimate)
    return RateVerdict("fails" if interval[0] > allowed else "undecided", estimate)


def is_hopeless(load: LoadResult) -> bool:
    """Return whether even a single stream breaks the limit of a search, by the lower end of the interval."""
    served = load.served
    if served is None or served.limit_s is None:
        return False
    return estimate_share_above(load.responses_s, served.limit_s, served.failed)[1][0] > 1 - QUANTILE


@dataclass(frozen=True)
class SearchFindings:
    """The rates of a search that decide it.

    Attributes:
        limit_s: The limit of p99.
        holds: The load at the highest rate that holds the limit; ``None`` if none does.
        fails: The load at the lowest rate above it that does not; ``None`` if the search ended before.
        hopeless: Whether even a single stream breaks the limit, so that no rate was tried.
    """

    limit_s: float
    holds: LoadResult | None
    fails: LoadResult | None
    hopeless: bool = False


def summarise_search(loads: Iterable[LoadResult]) -> SearchFindings | None:
    """Return the outcome of a search from its loads in their order; ``None`` without a search.

    Of several measurements at one rate the last one counts.
    """
    searched = [load for load in loads if load.served is not None and load.served.limit_s is not None]
    limits = [load.served.limit_s for load in searched if load.served is not None]
    if not limits or limits[0] is None:
        return None
    judged = {load.rate_per_s or 0.0: (load, verdict.outcome) for load in searched if (verdict := judge_rate(load))}
    held = max((rate for rate, (_, outcome) in judged.items() if outcome == "holds"), default=0.0)
    missed = min((rate for rate, (_, outcome) in judged.items() if outcome != "holds" and rate > held), default=None)
    holds, fails = (None if rate is None else judged[rate][0] for rate in (held or None, missed))
    return SearchFindings(limits[0], holds, fails, not judged and any(map(is_hopeless, searched)))


def describe_search(found: SearchFindings) -> str:
    """Return the outcome of a search in a sentence."""
    limit = f"p99 of at most {milliseconds(found.limit_s)} ms"
    if found.hopeless:
        return f"{limit}: no rate holds it, because requests of a single stream already take longer"
    if found.holds is None:
        return f"{limit}: no rate " + (f"holds it; {_describe_failure(found.fails)}" if found.fails else "was measured")
    verdict = judge_rate(found.holds)
    assert verdict is not None
    assert verdict.share.high is not None
    held = f"{limit}: up to {found.holds.rate_per_s:,.4g} requests/s"
    held += f" ({_percent(verdict.share.value)} took longer or failed, at most {_percent(verdict.share.high)})"
    return held if found.fails is None else f"{held}; {_describe_failure(found.fails)}"


def _describe_failure(load: LoadResult) -> str:
    verdict = judge_rate(load)
    assert verdict is not None
    words = {"fails": "fails at", "undecided": "undecided at", "client": "the client was the limit at"}
    share = verdict.share
    return f"{words[verdict.outcome]} {load.rate_per_s:,.4g}/s ({_percent(share.value)}, {_interval(share)})"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _interval(share: Estimate) -> str:
    return f"95 % interval {100 * (share.low or 0.0):.2g} to {100 * (share.high or 0.0):.2g} %"


def check_served(load: LoadResult, served: ServedLoad) -> Iterator[Reason]:
    """Yield what is doubtful about the figures of a load on a server."""
    limit = find_client_limit(load, served)
    if limit is not None:
        yield limit
    if served.failed:
        total = served.failed + len(load.responses_s)
        kinds = ", ".join(f"{number:,} {code}" for code, number in served.failures.items())
        yield Reason(
            "requests-failed",
            "requests failed; the times are those of the others "
            f"({100 * served.failed / total:.3g} % of {total:,}: {kinds})",
        )


def find_client_limit(load: LoadResult, served: ServedLoad) -> Reason | None:
    """Return why the client, not the server, may have limited the load; ``None`` if nothing speaks for it."""
    causes = list(_list_client_limits(load, served))
    if not causes:
        return None
    return Reason("client-limited", f"the client was the limit: the server may be faster ({'; '.join(causes)})")


def _list_client_limits(load: LoadResult, served: ServedLoad) -> Iterator[str]:
    seen = load.conditions
    if seen is not None and seen.wall_s > 0 and (used := seen.cpu_s / seen.wall_s) > BUSY_CLIENT:
        yield f"it used {100 * used:.0f} % of one CPU"
    if load.shape in RATED_SHAPES:
        late_s = intervals.quantile(np.subtract(load.responses_s, load.services_s), QUANTILE)
        whole_s = max(served.limit_s or 0.0, intervals.quantile(load.responses_s, QUANTILE))
        if late_s > max(LATE_S, LATE_SHARE * whole_s):
            yield f"it sent requests {milliseconds(late_s)} ms late at p99"
    if served.connections_limit is not None and served.connections >= served.connections_limit:
        yield f"all {served.connections_limit} connections were in use"
    if served.null_s:
        null_s, usual_s = (intervals.quantile(samples, 0.5) for samples in (served.null_s, load.responses_s))
        if null_s > NULL_SHARE * usual_s:
            own, all_ = milliseconds(null_s), milliseconds(usual_s)
            yield f"it takes {own} of the {all_} ms at a server that answers at once"
