"""Whether the results of a run are reliable, in MLPerf's words: one verdict a run, with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from benchmarks.analysis.figures import Figures, Validity
from benchmarks.format import is_too_noisy
from benchmarks.machine.disturbances import find_invalidity
from runtimes.errors import Reason

IDLE_MACHINE = "run again on an idle machine"

ADVICE = {
    "cpu-throttled": "run again when the CPU is cool",
    "gpu-throttled": "run again when the GPU is cool",
    "gpu-hot": "run again when the GPU is cool",
    "gpu-shared-too-much": "run again on an idle GPU",
    "latency-varies": "run again with more processes",
}
"""The remedy by the code of a reason. All other reasons are those of a busy machine."""


@dataclass(frozen=True)
class RunVerdict:
    """The verdict on a run.

    Attributes:
        status: the worst of all rows.
        reason: why it is not ``VALID``.
        rows, measured: how many rows the status concerns, and how many there are.
        idle: whether nothing disturbed any row.
        noisy: how many rows have a latency whose interval is wider than its value.
    """

    status: Validity
    reason: Reason | None
    rows: int
    measured: int
    idle: bool
    noisy: int

    @property
    def text(self) -> str:
        """The verdict in one line."""
        if self.reason is None:
            advice = ADVICE["latency-varies"]
            noisy = f", but {self.noisy} of {self.measured} latencies are too noisy; {advice}" if self.noisy else ""
            return f"VALID: the machine was {'idle' if self.idle else 'nearly idle'}{noisy}"
        where = "" if self.rows == self.measured else f" ({self.rows} of {self.measured} rows)"
        if self.status == "PRELIMINARY":
            return f"PRELIMINARY: {self.reason}{where}"
        advice = ADVICE.get(self.reason.code, IDLE_MACHINE)
        return f"INVALID: {self.reason}{where}; results unreliable, {advice}"


def judge(results: Sequence[Figures]) -> RunVerdict | None:
    """The verdict on all measured results together; ``None`` where there is none to judge."""
    judged = [figures for figures in results if figures.validity is not None]
    statuses: tuple[Validity, ...] = ("INVALID", "PRELIMINARY", "VALID")
    for status in statuses:
        rows = [figures for figures in judged if figures.validity == status]
        if rows:
            reason = None if status == "VALID" else combine_reasons(rows)
            idle = not any(one.disturbances for one in judged)
            return RunVerdict(status, reason, len(rows), len(judged), idle, sum(map(_is_noisy, judged)))
    return None


def _is_noisy(figures: Figures) -> bool:
    p50 = figures.p50
    return p50 is not None and p50.interval is not None and is_too_noisy(p50.value, p50.interval)


def combine_reasons(rows: Sequence[Figures]) -> Reason | None:
    """One reason for rows of one status: their own if all agree, else the reason over all their processes together."""
    reasons = dict.fromkeys(figures.validity_reason for figures in rows)
    if len(reasons) > 1:
        conditions = tuple(chain.from_iterable(figures.conditions for figures in rows))
        together = find_invalidity(conditions, max(figures.result.ran.threads for figures in rows))
        if together is not None:
            return together
    return next(iter(reasons))
