"""``rbench compare``: whether new results are slower or less accurate than old ones.

Every figure is derived from the raw samples and predictions. Two results are compared only if they have the same
configuration and were measured under the same conditions (``matching``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.analysis.figures import Figures
from benchmarks.compare import matching
from benchmarks.compare.changes import AccuracyChange, LatencyChange, change, drop, why_no_drop
from benchmarks.compare.matching import FieldDifference
from benchmarks.format import count, points
from benchmarks.records import identity, store
from benchmarks.records.identity import weights_of
from benchmarks.records.result import Result, Status
from benchmarks.records.samples import Series
from benchmarks.stats.comparison import NO_DIFFERENCE
from runtimes.errors import ArtifactError, CompatibilityError, Reason, UsageError, quote

UNRELIABLE = ("side-invalid", "side-unwatched")
"""The codes of remarks on results whose times are not reliable."""


@dataclass(frozen=True)
class Limits:
    """The limits of the comparison.

    Attributes:
        slowdown: The largest increase of the p50 latency as a fraction: 0.05 allows 5 %.
        drop: The largest decrease of top-1 accuracy, in percentage points.
        across: The fields of ``identity.FIELDS`` in which two compared results may differ.
        missing: Whether results that the old file measured may be missing or skipped in the new file.
        strict: Whether the comparison fails if a compared result is invalid, or its machine was not recorded.

    Raises:
        UsageError: A limit is negative, or a field is unknown.
    """

    slowdown: float = 0.05
    drop: float = 0.5
    across: tuple[str, ...] = ()
    missing: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        for option, value in (("--max-slowdown", self.slowdown), ("--max-drop", self.drop)):
            if not value >= 0:
                raise UsageError(f"{option} is {value}, expected 0 or more", code="limit-negative")
        known = [field.name for field in identity.FIELDS]
        for field in self.across:
            if field not in known:
                raise UsageError(
                    f"unknown field {quote(field)!r} for --across",
                    code="across-unknown",
                    hint=f"choose one of {', '.join(known)}",
                )


@dataclass(frozen=True)
class RowComparison:
    """One configuration in the old and the new file.

    Attributes:
        subject: The variant or file, from the new result, as the fields up to ``load``.
        network: The variant and its weights, in words.
        backend: The backend.
        precision: The precision.
        batch: The batch size.
        threads: The number of threads.
        device: The device.
        cuda_graphs: Whether CUDA graphs were allowed.
        load: The load shape in words, or ``None`` without a load.
        old_status: The status of the old result. Figures are compared only if both are ``ok``.
        new_status: The status of the new result.
        p50: The change of the median of the latency, or of the responses of a load; ``None`` with too few samples.
        p99: The change of the 99th percentile; ``None`` with too few samples.
        drop: The change of top-1 accuracy.
        apart: The differences that ``Limits.across`` allows.
        regressions: The changes that exceed the limits.
        remarks: Other facts that a reader must know.
    """

    subject: str
    network: str
    backend: str
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
    regressions: tuple[Reason, ...]
    remarks: tuple[Reason, ...]

    @property
    def is_unreliable(self) -> bool:
        """Whether one of the two results is invalid, or its machine was not recorded."""
        return any(remark.code in UNRELIABLE for remark in self.remarks)


@dataclass(frozen=True)
class ComparisonReport:
    """The result of a comparison.

    Attributes:
        old: The path of the old file.
        new: The path of the new file.
        limits: The limits.
        passed: Whether there is no regression and, with ``Limits.strict``, nothing unreliable.
        rows: The compared configurations, in the order of the new file.
        only_old: The configurations that only the old file has.
        only_new: The configurations that only the new file has.
        gone: The configurations that only the old file has, were measured there, and must not be missing. Each is a
            regression.
        notices: Facts about the files that a reader must know.
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
    """Compare two files of results. If a file has several runs, the last results of each configuration count.

    The comparison takes about one second for each result.

    Args:
        old: The old file of results, or a folder with ``results.jsonl``.
        new: The new file of results, or a folder with ``results.jsonl``.
        limits: The limits.

    Raises:
        ResourceError: A file cannot be read.
        ArtifactError: A line of a file is not a result, or facts of a result contradict each other.
        CompatibilityError: A file has a newer schema, the results cannot be matched, or no result of the old file that
            the new file also has was measured.
    """
    paths = store.find_results_file(old), store.find_results_file(new)
    every = [store.read(path) for path in paths]
    sides = identity.latest(every[0]), identity.latest(every[1])
    matches = matching.match_results(*sides, across=limits.across)
    if not any(before.status == "ok" for before, _, _ in matches.pairs):
        raise CompatibilityError(
            "OLD measured no row that NEW also has, so there is nothing to compare",
            code="nothing-measured-in-old",
            path=paths[0],
        )
    rows = []
    references = identity.References(every[0]), identity.References(every[1])
    for before, now, differences in matches.pairs:
        for result, path in ((before, paths[0]), (now, paths[1])):
            check_facts(result, path)
        figures = Figures.of(before, references[0]), Figures.of(now, references[1])
        rows.append(_compare_rows(*figures, differences, limits))
    configurations = {identity.configuration(result, limits.across) for result in sides[1]}
    gone = tuple(
        result
        for result in matches.only_old
        if result.status == "ok"
        and not limits.missing
        and identity.configuration(result, limits.across) not in configurations
    )
    return ComparisonReport(
        old=str(paths[0]),
        new=str(paths[1]),
        limits=limits,
        passed=not gone and not any(row.regressions or (limits.strict and row.is_unreliable) for row in rows),
        rows=tuple(rows),
        only_old=_names(matches.only_old, sides),
        only_new=_names(matches.only_new, sides),
        gone=_names(gone, sides),
        notices=tuple(
            f"{side}: {_describe_earlier(len(results) - len(last))} left out"
            for side, results, last in zip(("OLD", "NEW"), every, sides, strict=True)
            if len(results) > len(last)
        ),
    )


def _names(results: Sequence[Result], sides: Sequence[Sequence[Result]]) -> tuple[str, ...]:
    """Return the names of results, with their threads if results of the same name differ in them."""
    threads: dict[str, set[int]] = {}
    for result in itertools.chain(*sides):
        threads.setdefault(matching.name(result), set()).add(result.ran.threads)
    named = ((matching.name(result), count(result.ran.threads, "thread")) for result in results)
    return tuple(f"{name}, {with_threads}" if len(threads[name]) > 1 else name for name, with_threads in named)


def check_facts(result: Result, path: str | os.PathLike[str]) -> None:
    """Check that no fact of a result contradicts another.

    Figures are not checked, because they are derived from the facts. Packed predictions are checked when unpacked.

    Args:
        result: The result.
        path: The file of the result, for the message.

    Raises:
        ArtifactError: A sample is not above 0, a process has more rounds than turns, the numbers of services and
            responses of a load differ, or a result that was not measured has samples.
    """
    for sentence in _find_contradictions(result):
        raise ArtifactError(
            f"{matching.name(result)}: {sentence}",
            code="facts-contradict",
            path=path,
            hint="measure again with rbench run",
        )


def _find_contradictions(result: Result) -> Iterator[str]:
    if result.status != "ok" and (result.samples or result.load is not None):
        yield f"the status is {result.status}, but there are samples"
    for number, process in enumerate(result.samples, start=1):
        for clock in ("latency", "compute", "device", "image"):
            series: Series | None = getattr(process, clock)
            least = min(series.samples_s, default=None) if series is not None else None
            if least is not None and least <= 0:
                yield f"a sample of {clock} in process {number} is {least} s, expected above 0"
        if len(process.latency.rounds_s) > len(process.starts_s):
            yield f"process {number} has {len(process.latency.rounds_s)} rounds, but {len(process.starts_s)} starts"
    load = result.load
    if load is not None and load.responses_s and min(load.responses_s) <= 0:
        yield f"a response took {min(load.responses_s)} s, expected above 0"
    if load is not None and len(load.services_s) != len(load.responses_s):
        yield f"the load has {len(load.services_s)} services, but {len(load.responses_s)} responses"


def _describe_earlier(count: int) -> str:
    if count == 1:
        return "1 row of an earlier run of the same configuration was"
    return f"{count} rows of earlier runs of the same configurations were"


def _compare_rows(
    old: Figures, new: Figures, differences: tuple[FieldDifference, ...], limits: Limits
) -> RowComparison:
    both, result = old.result.status == new.result.status == "ok", new.result
    p50 = change(old, new, 0.5) if both else None
    p99 = change(old, new, 0.99) if both else None
    lost = drop(old, new) if both else None
    return RowComparison(
        subject=result.identity.subject or result.identity.artifact,
        network=weights_of(result),
        backend=result.identity.backend,
        precision=result.identity.precision,
        batch=result.identity.batch,
        threads=result.ran.threads,
        device=result.ran.device,
        cuda_graphs=result.asked.cuda_graphs,
        load=None if result.load is None else matching.format_load(result),
        old_status=old.result.status,
        new_status=result.status,
        p50=p50,
        p99=p99,
        drop=lost,
        apart=differences,
        regressions=tuple(_regressions(old.result, result, p50, lost, limits)),
        remarks=tuple(_remarks(old, new, p50, lost, limits)),
    )


def _regressions(
    old: Result, new: Result, p50: LatencyChange | None, lost: AccuracyChange | None, limits: Limits
) -> Iterator[Reason]:
    if _stopped_running(old, new, limits):
        yield Reason("stopped-running", f"measured before, {new.status} now: {new.reason}")
    if p50 is not None and p50.verdict == "slower" and p50.slowdown > limits.slowdown:
        yield Reason("latency-worse", f"latency changed by {p50.percent_text} % (limit {100 * limits.slowdown:g} %)")
    if lost is not None and lost.interval[0] > 0 and 100 * lost.value > limits.drop:
        yield Reason("accuracy-worse", f"top-1 lost {points(lost.value, lost.interval)} pp (limit {limits.drop:g} pp)")


def _stopped_running(old: Result, new: Result, limits: Limits) -> bool:
    """Return whether the configuration was measured before and is not measured any more."""
    return old.status == "ok" and new.status != "ok" and not (new.status == "skipped" and limits.missing)


def _remarks(
    old: Figures, new: Figures, p50: LatencyChange | None, lost: AccuracyChange | None, limits: Limits
) -> Iterator[Reason]:
    results = old.result, new.result
    if any(result.status != "ok" for result in results):
        if not _stopped_running(*results, limits):
            measured = ["measured" if each.status == "ok" else f"{each.status} ({each.reason})" for each in results]
            yield Reason("not-measured-twice", f"{measured[0]} before, {measured[1]} now")
        return
    if p50 is None:
        yield Reason("samples-too-few", "there are too few samples to compare the latency")
    flips = None if lost is None else lost.flips
    if flips is not None and flips.better + flips.worse:
        p_value = "" if flips.p_value is None else f" (McNemar p = {flips.p_value:.2g})"
        yield Reason(
            "predictions-changed",
            f"predictions: {flips.better} corrected, {flips.worse} made wrong{p_value}; {flips.near_ties} of "
            f"{flips.near_ties + flips.real} changed predictions are borderline",
        )
    if lost is None and (reason := why_no_drop(old, new)):
        yield Reason(reason.code, f"top-1 accuracy not compared: {reason}")
    yield from _circumstances(old, new, limits.strict)
    if p50 is None:
        return
    if p50.units != "processes":
        yield Reason("one-process-each", "one process on each side: differences between processes are unknown")
    most = p50.slowdown_interval[1]
    if p50.verdict == NO_DIFFERENCE and most > limits.slowdown:
        yield Reason(
            "too-noisy",
            f"too noisy to detect {100 * limits.slowdown:g} %: up to {100 * most:.1f} % slower is possible; run again "
            "with more processes",
        )


def _circumstances(old: Figures, new: Figures, strict: bool) -> Iterator[Reason]:
    """Yield other differences of the measurements, and whether the machine was busy."""
    fields = {"backend version": "backend_version", "provider": "provider", "arithmetic": "arithmetic"}
    for words, field in fields.items():
        before, now = getattr(old.result.ran, field), getattr(new.result.ran, field)
        if before != now:
            yield Reason("circumstances-differ", f"{words}: {before} before, {now} now")
    loads = (old.result.load, new.result.load)
    rates = [load.rate_per_s for load in loads if load is not None and load.rate_share and load.rate_per_s]
    if len(rates) == 2 and rates[0] != rates[1]:
        yield Reason(
            "rates-differ",
            f"request rate, from the throughput of a single stream: {rates[0]:,.0f}/s before, {rates[1]:,.0f}/s now",
        )
    for side, figures in (("OLD", old), ("NEW", new)):
        if figures.validity == "INVALID":
            yield Reason("side-invalid", f"{side} is INVALID: {figures.validity_reason}; its times are unreliable")
        elif strict and figures.validity is not None and figures.disturbances is None:
            yield Reason("side-unwatched", f"{side}: the machine was not recorded, so nobody knows whether it was busy")
        elif figures.disturbances:
            others = len(figures.disturbances) - 1
            more = f", and {others} more" if others else ""
            yield Reason("side-disturbed", f"{side}: {figures.disturbances[0]}{more}")
