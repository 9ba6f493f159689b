"""``rbench compare``: whether what is measured now is slower or answers worse than before.

Every figure is derived anew from the rows' raw samples and answers. Two rows are compared only if they are of one
configuration and were measured under the same conditions (``keys``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.accuracy.flips import Flips
from benchmarks.compare import integrity, matching
from benchmarks.compare.changes import AccuracyChange, LatencyChange, change, drop, why_no_drop
from benchmarks.compare.matching import FieldDifference
from benchmarks.format import count, points
from benchmarks.records import identity, store
from benchmarks.records.naming import weights_of
from benchmarks.records.result import Row, Status
from runtimes.errors import CompatibilityError, UsageError, quote

__all__ = [
    "AccuracyChange",
    "ComparisonReport",
    "FieldDifference",
    "LatencyChange",
    "Limits",
    "RowComparison",
    "compare",
]


@dataclass(frozen=True)
class Limits:
    """What may have become worse.

    Attributes:
        slowdown: of the p50, as a fraction of what it was: 0.05 lets it take 5 % longer.
        drop: of top-1, in percentage points.
        across: the fields of ``keys.FIELDS`` in which two rows that are compared may differ.
        missing: whether the new file may lack, or have skipped, what the old one measured.

    Raises:
        UsageError: a bound below 0, or no such field.
    """

    slowdown: float = 0.05
    drop: float = 0.5
    across: tuple[str, ...] = ()
    missing: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--max-slowdown", self.slowdown), ("--max-drop", self.drop)):
            if not value >= 0:
                raise UsageError(f"{option} must be 0 or more, not {value}")
        known = [field.name for field in identity.FIELDS]
        for field in self.across:
            if field not in known:
                raise UsageError(f"rows have no {quote(field)!r} to be compared across", hint=f"one of {known}")


@dataclass(frozen=True)
class RowComparison:
    """One configuration, as it was and as it is.

    Attributes:
        subject, network, runtime, precision, batch, threads, device, cuda_graphs, load: which, as the new row has it.
            ``network`` and ``load`` are words: of the variant and its weights, and of the load's shape.
        old_status, new_status: as in a row. If one is not ``ok``, there is nothing to compare.
        p50, p99: of the latency, or of a load shape's responses; ``None`` where a side has too few samples.
        drop: of top-1.
        apart: what differs between the two and was let pass.
        regressions: what became worse than it may, a line each.
        remarks: what a reader must know beside, a line each.
    """

    subject: str
    network: str
    runtime: str
    precision: str | None
    batch: int
    threads: int
    device: str
    cuda_graphs: bool | None
    load: str | None
    old_status: Status
    new_status: Status
    p50: LatencyChange | None
    p99: LatencyChange | None
    drop: AccuracyChange | None
    apart: tuple[FieldDifference, ...]
    regressions: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonReport:
    """What came of a comparison.

    Attributes:
        old, new: the files.
        limits: what was let pass.
        passed: whether nothing became worse than it may.
        rows: in the order of the new file.
        only_old, only_new: configurations that one of the files alone has.
        gone: those of the old one that were measured there, unless they may be missing: each is a regression.
        notices: what a reader must know of the files.
    """

    old: str
    new: str
    limits: Limits
    passed: bool
    rows: tuple[RowComparison, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    gone: tuple[str, ...]
    notices: tuple[str, ...]


def compare(old: str | os.PathLike[str], new: str | os.PathLike[str], limits: Limits) -> ComparisonReport:
    """Compares two files of rows, or the ``results.jsonl`` of two folders. Of a file with several runs the last rows
    of each configuration count. Takes a second a row or so.

    Raises:
        ResourceError, ArtifactError, CompatibilityError: as ``results.read``.
        ArtifactError: a figure in a row is not that of the row's samples.
        CompatibilityError: as ``keys.match_rows``; or not one row was measured on both sides.
    """
    paths = store.find_rows_file(old), store.find_rows_file(new)
    every = [store.read(path) for path in paths]
    sides = identity.latest(every[0]), identity.latest(every[1])
    found = matching.match_rows(*sides, across=limits.across)
    if not any(one.status == "ok" for one, _, _ in found.pairs):
        raise CompatibilityError(
            "no row of OLD that NEW has too was measured: there is nothing to compare", path=paths[0]
        )
    for one, other, _ in found.pairs:
        integrity.check(one, paths[0], every[0])
        integrity.check(other, paths[1], every[1])
    rows = tuple(_compare_rows(one, other, apart, limits) for one, other, apart in found.pairs)
    there = {identity.configuration(row, limits.across) for row in sides[1]}
    gone = tuple(
        row
        for row in found.only_old
        if row.status == "ok" and not limits.missing and identity.configuration(row, limits.across) not in there
    )
    return ComparisonReport(
        old=str(paths[0]),
        new=str(paths[1]),
        limits=limits,
        passed=not gone and not any(row.regressions for row in rows),
        rows=rows,
        only_old=_names(found.only_old, sides),
        only_new=_names(found.only_new, sides),
        gone=_names(gone, sides),
        notices=tuple(
            f"{side}: {_earlier(len(all_rows) - len(last))} left out"
            for side, all_rows, last in zip(("OLD", "NEW"), every, sides, strict=True)
            if len(all_rows) > len(last)
        ),
    )


def _names(rows: Sequence[Row], sides: Sequence[Sequence[Row]]) -> tuple[str, ...]:
    """The rows' names, with their threads where these tell them apart from others."""
    threads: dict[str, set[int]] = {}
    for row in itertools.chain(*sides):
        threads.setdefault(matching.name(row), set()).add(row.threads)
    return tuple(
        f"{name}, {count(row.threads, 'thread')}" if len(threads[name]) > 1 else name
        for row in rows
        for name in [matching.name(row)]
    )


def _earlier(count: int) -> str:
    if count == 1:
        return "1 row of an earlier run of the same configuration was"
    return f"{count} rows of earlier runs of the same configurations were"


def _compare_rows(old: Row, new: Row, apart: tuple[FieldDifference, ...], limits: Limits) -> RowComparison:
    both = old.status == new.status == "ok"
    p50 = change(old, new, 0.5) if both else None
    p99 = change(old, new, 0.99) if both else None
    lost = drop(old, new) if both else None
    return RowComparison(
        subject=new.artifact if new.subject is None else new.subject,
        network=weights_of(new),
        runtime=new.runtime,
        precision=new.precision,
        batch=new.batch,
        threads=new.threads,
        device=new.device,
        cuda_graphs=new.cuda_graphs,
        load=None if new.load is None else matching.format_load(new),
        old_status=old.status,
        new_status=new.status,
        p50=p50,
        p99=p99,
        drop=lost,
        apart=apart,
        regressions=tuple(_regressions(old, new, p50, lost, limits)),
        remarks=tuple(_remarks(old, new, p50, lost, limits)),
    )


def _regressions(
    old: Row, new: Row, p50: LatencyChange | None, lost: AccuracyChange | None, limits: Limits
) -> Iterator[str]:
    if _stopped_running(old, new, limits):
        yield f"was measured before; now {new.status}: {new.reason}"
    if p50 is not None and p50.verdict == "slower" and p50.slowdown > limits.slowdown:
        yield f"a call takes {p50.percent_text} % longer; {100 * limits.slowdown:g} % may be"
    if lost is not None and lost.interval[0] > 0 and 100 * lost.value > limits.drop:
        yield f"top-1 lost {points(lost.value, lost.interval)} points; {limits.drop:g} may be"


def _stopped_running(old: Row, new: Row, limits: Limits) -> bool:
    """Whether it was measured and no longer runs."""
    return old.status == "ok" and new.status != "ok" and not (new.status == "skipped" and limits.missing)


def _remarks(
    old: Row, new: Row, p50: LatencyChange | None, lost: AccuracyChange | None, limits: Limits
) -> Iterator[str]:
    if old.status != "ok" or new.status != "ok":
        if not _stopped_running(old, new, limits):
            yield f"{_describe_status(old)} before, {_describe_status(new)} now"
        return
    if p50 is None:
        yield "too few samples to compare the latency"
    if lost is not None and lost.flips is not None and lost.flips.better + lost.flips.worse:
        yield _describe_flips(lost.flips)
    if lost is None and (reason := why_no_drop(old, new)):
        yield f"top-1 not compared: {reason}"
    yield from _circumstances(old, new)
    if p50 is not None:
        yield from _list_warnings(p50, limits)


def _circumstances(old: Row, new: Row) -> Iterator[str]:
    """What else was not the same, and whether the machine was quiet."""
    for field in ("runtime_version", "provider", "arithmetic"):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield f"{field.replace('_', ' ')}: {before} before, {after} now"
    rates = [row.load.rate_per_s for row in (old, new) if row.load and row.load.rate_share and row.load.rate_per_s]
    if len(rates) == 2 and rates[0] != rates[1]:
        yield f"requests a second, after what the closed loop reached: {rates[0]:,.0f} before, {rates[1]:,.0f} now"
    for side, row in (("OLD", old), ("NEW", new)):
        if row.disturbances:
            more = f", and {len(row.disturbances) - 1} more" if len(row.disturbances) > 1 else ""
            yield f"{side} was disturbed: {row.disturbances[0]}{more}"


def _list_warnings(p50: LatencyChange, limits: Limits) -> Iterator[str]:
    """What the verdict cannot be trusted with."""
    if p50.units != "processes":
        yield "one process on each side: another start of either may land elsewhere"
    most = p50.slowdown_interval[1]
    if p50.verdict == "tie" and most > limits.slowdown:
        yield (
            f"too noisy to tell {100 * limits.slowdown:g} %: it may be up to {100 * most:.1f} % slower; more processes "
            "or a longer run tell more"
        )


def _describe_flips(flips: Flips) -> str:
    return (
        f"answers: {flips.better} right now that were wrong, {flips.worse} wrong that were right"
        f"{f' (McNemar p = {flips.p_value:.2g})' if flips.p_value is not None else ''}; {flips.near_ties} of "
        f"{flips.near_ties + flips.real} that changed are near ties"
    )


def _describe_status(row: Row) -> str:
    return "measured" if row.status == "ok" else f"{row.status} ({row.reason})"
