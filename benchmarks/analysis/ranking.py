"""Which configuration is the fastest, by how much, and whether that is more than noise: in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.analysis.figures import Figures, compare_latencies, has_samples
from benchmarks.analysis.verdict import ADVICE, IDLE_MACHINE, combine_reasons
from benchmarks.format import ABSENT, change, count, milliseconds, percent, rounded_times, times
from benchmarks.records.request import FP32
from benchmarks.records.result import Estimate, Result
from benchmarks.stats import intervals
from benchmarks.stats.comparison import LatencyComparison
from exporter.models.variants import VARIANTS
from runtimes.backends.registry import backend_title
from runtimes.errors import Reason

NAMED = 3
"""The most configurations that a headline names as not significantly different from the fastest."""

SAME_ACCURACY = 0.005
"""Changes of top-1 that count as none: those whose whole interval is this near to 0."""


@dataclass(frozen=True)
class Headline:
    """The answer for configurations of one network and batch size.

    Attributes:
        fastest: the one of the smallest p50, unless another is significantly faster: the rounds decide that, and all
            samples together may differ.
        tied: those without a significant difference from it, the fastest first.
        against: the one that the ratio is over: the baseline; where that is the fastest or was not measured, the
            fastest of the others. ``None`` where there is no other.
        lead: of the fastest over ``against``.
        unranked: why there is no ranking; ``None`` if there is one.
        threads, batches: whether the configurations, and those of the other headlines, differ in them.
    """

    fastest: Figures
    tied: tuple[Figures, ...]
    against: Figures | None
    lead: LatencyComparison | None
    unranked: Reason | None
    threads: bool
    batches: bool

    @property
    def best(self) -> tuple[Figures, ...]:
        """The configurations that a table marks: the fastest and those that tie with it; none without a ranking."""
        return (self.fastest, *self.tied) if self.lead is not None and self.unranked is None else ()


def headlines(results: Sequence[Figures]) -> tuple[Headline, ...]:
    """One for each batch of these results of one subject on one machine; only those that were measured count."""
    batches: dict[int, list[tuple[float, Figures]]] = {}
    for each in results:
        if each.result.status == "ok" and has_samples(each.result) and each.p50 is not None and each.p50.value:
            batches.setdefault(each.result.identity.batch, []).append((each.p50.value, each))
    ordered = (sorted(batch, key=lambda pair: pair[0]) for batch in batches.values())
    return tuple(_headline([figures for _, figures in batch], len(batches) > 1) for batch in ordered)


def _headline(ordered: Sequence[Figures], batches: bool) -> Headline:
    """Of results by their p50."""
    fastest = ordered[0]
    for other in ordered[1:]:
        if compare_latencies(fastest.result, other.result).verdict == "faster":
            fastest = other
    threads = len({each.result.ran.threads for each in ordered}) > 1
    others = [other for other in ordered if other is not fastest]
    if not others:
        return Headline(fastest, (), None, None, None, threads, batches)
    leads = [compare_latencies(other.result, fastest.result) for other in others]
    slower = [other for other, lead in zip(others, leads, strict=True) if lead.verdict == "faster"]
    baseline = [other for other in others if other.is_reference]
    against = (baseline or slower or others)[0]
    end = others.index(slower[0]) if slower else len(others)
    lead = leads[others.index(against)]
    unranked = _why_unranked(ordered, fastest, against, lead)
    return Headline(fastest, tuple(others[:end]), against, lead, unranked, threads, batches)


def _why_unranked(
    ordered: Sequence[Figures], fastest: Figures, against: Figures, lead: LatencyComparison
) -> Reason | None:
    for status in ("INVALID", "PRELIMINARY"):
        doubtful = [each for each in ordered if each.validity == status]
        if doubtful:
            return combine_reasons(doubtful)
    if lead.is_clear or lead.is_alike:
        return None
    medians = {each: _process_medians(each.result) for each in (fastest, against)}
    widest = max(medians, key=lambda each: max(medians[each]) / min(medians[each]))
    least, most = (milliseconds(end) for end in (min(medians[widest]), max(medians[widest])))
    return Reason(
        "latency-varies",
        f"latency varies between processes ({name(widest.result)}: medians {least} to {most} ms)",
    )


def _process_medians(result: Result) -> list[float]:
    series = (process.latency.samples_s for process in result.samples)
    return [intervals.quantile(samples, 0.5) for samples in series if samples]


def name(result: Result, threads: bool = False) -> str:
    """The configuration in the words that users type, without the batch."""
    of = result.identity
    return _join_name(" ".join(filter(None, (of.backend, of.precision, of.file))), result, threads)


def title(result: Result, threads: bool = False) -> str:
    """The configuration as a sentence names it, without the batch; fp32 is not mentioned."""
    of = result.identity
    precision = None if of.precision == FP32 else of.precision
    return _join_name(" ".join(filter(None, (backend_title(of.backend), precision, of.file))), result, threads)


def _join_name(name: str, result: Result, threads: bool) -> str:
    parts = [name]
    if result.asked.cuda_graphs is False:
        parts.append("no CUDA graphs")
    if threads:
        parts.append(count(result.ran.threads, "thread"))
    return ", ".join(parts)


def network_title(result: Result) -> str:
    """The network as a sentence names it: ``ResNet-20``, ``ResNet-20@24`` at a chosen size, or what the user named."""
    of = result.identity
    if of.variant not in VARIANTS:
        return of.subject or of.artifact
    name, at, size = (of.subject or "").partition("@")
    return VARIANTS[of.variant].title + (at + size if name == of.variant else "")


def format_headline(headline: Headline) -> str:
    """The headline as a sentence with one ratio, and one interval at most."""
    result, against, lead = headline.fastest.result, headline.against, headline.lead
    batch = result.identity.batch
    network = network_title(result) + (f", batch {batch}" if headline.batches or batch != 1 else "")
    fastest = title(result, headline.threads)
    if against is None or lead is None:
        return f"{network}: {fastest} takes {_p50(headline.fastest)} ms; no other configuration was measured"
    other, reason = title(against.result, headline.threads), headline.unranked
    if reason is not None and headline.fastest.validity == "PRELIMINARY":
        took = f"{fastest} {_p50(headline.fastest)} ms, {other} {_p50(against)} ms"
        return f"{network}, preliminary: {took} ({reason})"
    if reason is not None:
        return f"Too noisy to rank {network}: {reason}; {ADVICE.get(reason.code, IDLE_MACHINE)}"
    if lead.is_alike:
        ratio = times(lead.ratio, lead.interval)
        return f"{network}: no significant difference between {fastest} and {other} ({ratio})"
    ranked = f"{network}: {fastest} is {rounded_times(lead.ratio)} faster than {other}"
    return f"{ranked}{_describe_accuracy(headline.fastest)}{_describe_tied(headline)}"


def _p50(figures: Figures) -> str:
    return ABSENT if figures.p50 is None else milliseconds(figures.p50.value)


def _describe_accuracy(fastest: Figures) -> str:
    """The accuracy of the fastest against the baseline's, if both are known."""
    changed, top1 = fastest.top1_change, fastest.top1
    if fastest.is_reference or changed is None or top1 is None:
        return ""
    words = _compare_accuracy(changed)
    return f" {words} ({percent(top1.value)} %, change {change(changed.value, changed.interval)} pp)"


def _compare_accuracy(changed: Estimate) -> str:
    low, high = changed.interval or (changed.value, changed.value)
    if high < 0 or low > 0:
        return "at lower accuracy" if high < 0 else "at higher accuracy"
    same = max(-low, high) <= SAME_ACCURACY
    return "at the same accuracy" if same else "with no significant change in accuracy"


def _describe_tied(headline: Headline) -> str:
    names = [title(each.result, headline.threads) for each in headline.tied if each is not headline.against]
    if len(names) > NAMED:
        names[NAMED - 1 :] = [f"{len(names) - NAMED + 1} others"]
    return f"; no significant difference from {' and '.join(names)}" if names else ""
